//! A running `clinic up`, and what a test needs to know of it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use chrono::TimeDelta;
use kit::client::Outbound;
use proto::clinic::auth::v1::Role;
use servers::RunFolder;
use testkit::suite::Desk;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// How long a start may take on a busy machine.
const START_WITHIN: std::time::Duration = std::time::Duration::from_secs(90);
/// A data folder of the test's own, and the program on it.
pub(crate) struct Home {
    run: RunFolder,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { run: RunFolder::create(None).unwrap() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.run.path().join("data")
    }

    /// The program with `arguments`, on this home's data.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clinic"));
        command
            .args(arguments)
            .env("CLINIC_DATA_DIR", self.data())
            .env_remove("DATABASE_URL")
            .env_remove("NATS_URL");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    /// Starts the suite on free ports and waits for its screen.
    pub(crate) async fn up(&self, more: &[&str]) -> Up {
        let arguments: Vec<&str> = ["up", "--port", "0"].iter().chain(more).copied().collect();
        Up::started(self.command(&arguments).spawn().unwrap(), &self.data()).await
    }
}

/// A started suite.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) screen: String,
    data: PathBuf,
    // Read by nobody any more, but a closed pipe would end the process at its next word.
    _pipes: (Lines<BufReader<ChildStdout>>, Option<ChildStderr>),
}

impl Up {
    /// Waits for the screen of a program just started.
    pub(crate) async fn started(mut child: Child, data: &Path) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut screen = String::new();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                screen += &line;
                screen.push('\n');
                // The last line of the screen.
                if line.contains("SearchAvailability")
                    || line.ends_with("CatalogService/ListClinics") && screen.contains("describe")
                {
                    return true;
                }
            }
            false
        };
        let started = tokio::time::timeout(START_WITHIN, reading).await;
        let mut stderr = child.stderr.take();
        if !started.unwrap_or(false) {
            let _ = child.start_kill();
            let mut words = String::new();
            if let Some(stderr) = &mut stderr {
                let _ = stderr.read_to_string(&mut words).await;
            }
            panic!("the suite did not start:\n{screen}\n{words}");
        }
        Self { child, screen, data: data.to_owned(), _pipes: (lines, stderr) }
    }

    /// The address that the screen gives for `server`.
    pub(crate) fn url(&self, server: &str) -> String {
        let line = self.screen.lines().find(|l| l.trim_start().starts_with(&format!("{server} "))).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Calls through the gateway in one role.
    pub(crate) fn desk(&self, role: Role) -> Desk {
        self.desk_of(role, "test")
    }

    /// Calls through the gateway as `subject` in one role.
    pub(crate) fn desk_of(&self, role: Role, subject: &str) -> Desk {
        let (_, issuer) = clinic::data_dir::identity(&clinic::data_dir::identity_folder(&self.data)).unwrap();
        let now = kit::clock::Clock::System.now();
        let token = issuer.sign(subject, &[role], now, TimeDelta::hours(1)).unwrap();
        Desk::new(Outbound::bearing(&self.url("gateway"), token).unwrap())
    }

    /// The process's own id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Id of the private PostgreSQL, as its own file says; `None` while it is not running.
    pub(crate) fn postgres_pid(&self) -> Option<u32> {
        let file = self.data.join("postgres/cluster/postmaster.pid");
        std::fs::read_to_string(file).ok()?.lines().next()?.parse().ok()
    }

    /// Asks the suite to stop, and waits for its end.
    pub(crate) async fn stop(mut self) -> std::process::ExitStatus {
        signal(self.pid(), "TERM").await;
        self.child.wait().await.unwrap()
    }

    /// Kills the suite without a warning.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Sends a signal to a process that the test itself started.
pub(crate) async fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().await.unwrap();
    assert!(sent.success());
}

/// Whether a process still runs.
pub(crate) fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; only its parent has not looked yet.
    !state.is_empty() && !state.contains(") Z ")
}

/// The words that a failed program left.
pub(crate) fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A plain HTTP call; answers status and body.
pub(crate) async fn http(method: &str, url: &str, body: &str) -> (u16, String) {
    use tokio::io::AsyncWriteExt as _;
    let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
