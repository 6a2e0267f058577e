//! A private NATS with JetStream: loopback only, without authentication (what it carries holds no contact data, and the
//! outbox can publish it again), ended with us.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::folder::{DataDir, DataDirLock};
use crate::log::{Earlier, Log};
use crate::process::is_frozen;
use crate::supervised::{Spec, Supervised};
use crate::user::ServerUser;
use crate::wheels::{self, Binaries};

const SERVER: &str = "NATS";
const LOG_FILE: &str = "nats.log";
const CONFIG_FILE: &str = "nats.conf";
/// Folder of the server's pid and ports files, cleared before each start.
const RUN: &str = "run";
const PID_FILE: &str = "pid";
/// Graceful, both: the second is for a server that missed the first.
const SIGNALS: [Signal; 2] = [Signal::TERM, Signal::INT];
const SIGNAL_NAMES: [&str; 2] = ["TERM", "INT"];
/// What the log says when the port is taken.
const PORT_WORDS: &str = "address already in use";
/// In the ports file, what stands before the port.
const LISTENS_ON: &str = "nats://127.0.0.1:";
/// Longest start: JetStream reads its whole store.
const START_BOUND: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long to wait for a port we had to become free again.
const SAME_PORT_BOUND: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Where the streams and the log are; reused when there.
    pub data_dir: DataDir,
    /// The port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// Whether an acknowledged message survives a power cut. Without, it still survives the death of the server.
    pub durable: bool,
}

/// A running NATS. Dropping it stops the server and waits for that, some 10 ms; `stop` does so without blocking.
#[derive(Debug)]
pub struct Nats {
    process: Option<Supervised>,
    binaries: Binaries,
    user: ServerUser,
    options: NatsOptions,
    port: u16,
    lock: DataDirLock,
}

impl Nats {
    /// Starts a server and returns when it takes connections and JetStream has read its store. A server an earlier
    /// process left in the folder is ended first.
    ///
    /// # Errors
    /// `Locked` when a living process has this folder, `PortTaken`, `Unreachable`, and `Start` with the log's end.
    pub async fn start(binaries: &Binaries, options: NatsOptions) -> Result<Self> {
        let lock = DataDir::lock(options.data_dir.path())?;
        let user = ServerUser::find()?;
        user.make_private(&lock.path().join("jetstream"))?;
        let port = options.port;
        let mut nats = Self { process: None, binaries: binaries.clone(), user, options, port, lock };
        nats.launch().await?;
        Ok(nats)
    }

    /// The port on 127.0.0.1; the same for the life of this value.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("{LISTENS_ON}{}", self.port)
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process
            .as_ref()
            .filter(|process| !process.has_exited())
            .map(|process| process.pid().as_raw_pid())
    }

    /// Resolves when the server has ended, by itself or not.
    pub fn exited(&self) -> impl Future<Output = ()> + Send + use<> {
        let gone = self.process.as_ref().map(Supervised::exited);
        async {
            if let Some(gone) = gone {
                gone.await;
            }
        }
    }

    /// Stops the server in order. The streams stay.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }

    /// Kills the server as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL)?;
            process.exited().await;
        }
        Ok(())
    }

    /// Freezes the server, and returns when it is: connections stay open and nothing answers, as with a hung machine.
    pub async fn pause(&self) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        process.signal(Signal::STOP)?;
        while !process.has_exited() && !is_frozen(process.pid()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Ends a `pause`.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::CONT))
    }

    /// Stops the server if it runs, and starts it on the same data and port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await;
        let began = Instant::now();
        loop {
            match self.launch().await {
                Err(Error::PortTaken { .. }) if began.elapsed() < SAME_PORT_BOUND => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    async fn launch(&mut self) -> Result<()> {
        let folder = self.lock.path();
        let (run, config) = (folder.join(RUN), folder.join(CONFIG_FILE));
        let earlier =
            Earlier { server: SERVER, pid_file: &run.join(PID_FILE), argument: &config, signals: SIGNALS };
        let (log, file) = Log::claim(folder.join(LOG_FILE), earlier).await?;
        wheels::clear(&run)?;
        self.user.make_private(&run)?;
        self.user.write_private(&config, &self.config(&run))?;

        let process = Supervised::spawn(Spec {
            server: SERVER,
            user: &self.user,
            folder: &run,
            command: vec![
                self.binaries.nats_server().display().to_string(),
                "--config".to_owned(),
                config.display().to_string(),
            ],
            signals: SIGNAL_NAMES,
            log: file,
            keeps: self.options.data_dir.keeps(),
        })?;
        let ports = run.join(format!("nats-server_{}.ports", process.pid()));
        let began = Instant::now();
        self.port = loop {
            if let Some(port) = listening_port(&ports) {
                break port;
            }
            let reason = match () {
                () if process.has_exited() => "it ended at once".to_owned(),
                () if began.elapsed() > START_BOUND => format!("not ready after {START_BOUND:?}"),
                () => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
            };
            process.stop().await;
            return Err(log.failure(SERVER, self.port, PORT_WORDS, reason));
        };
        self.process = Some(process);
        Ok(())
    }

    fn config(&self, run: &Path) -> String {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let sync = if self.options.durable { "\n  sync_interval: always" } else { "" };
        let store = quoted(self.lock.path().join("jetstream"));
        let (pid, ports) = (quoted(run.join(PID_FILE)), quoted(run.to_owned()));
        format!(
            "listen: \"127.0.0.1:{port}\"\npid_file: {pid}\nports_file_dir: {ports}\nlogtime_utc: true\n\
             jetstream {{\n  store_dir: {store}{sync}\n}}\n"
        )
    }
}

/// The port in the server's ports file, which it writes once it listens; `None` while the file is not there or not whole.
fn listening_port(ports: &Path) -> Option<u16> {
    let text = fs::read_to_string(ports).ok()?;
    let (port, _) = text.split_once(LISTENS_ON)?.1.split_once('"')?;
    port.parse().ok()
}

/// A path as a string of the server's configuration language.
fn quoted(path: PathBuf) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}
