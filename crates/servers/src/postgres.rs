//! A private PostgreSQL: loopback only, password only, ended with us.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{ClusterHome, SUPERUSER};
use crate::error::{Doing, Error, Result};
use crate::folder::{DataDir, DataDirLock};
use crate::log::{Earlier, Log};
use crate::supervised::{Spec, Supervised};
use crate::user::ServerUser;
use crate::wheels::Binaries;

const SERVER: &str = "PostgreSQL";
const LOG_FILE: &str = "postgres.log";
const PID_FILE: &str = "postmaster.pid";
/// Fast shutdown (rolls back, writes a checkpoint), then immediate shutdown (recovers at the next start).
const SIGNALS: [Signal; 2] = [Signal::INT, Signal::QUIT];
const SIGNAL_NAMES: [&str; 2] = ["INT", "QUIT"];
/// What the log says when the port is taken.
const PORT_WORDS: &str = "could not bind IPv4 address";
/// Line of the pid file with the server's state, and the state that takes connections (PostgreSQL's own `pg_ctl` reads
/// the same).
const STATE_LINE: usize = 7;
const READY: &str = "ready";
/// Longest start: recovery after a crash of a busy server.
const START_BOUND: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often to choose another free port when somebody takes the chosen one first.
const FREE_PORT_TRIES: usize = 8;
/// How long to wait for a port we had to become free again.
const SAME_PORT_BOUND: Duration = Duration::from_secs(5);
/// Five services and their tests with a pool each.
const MAX_CONNECTIONS: u32 = 200;
/// The shortest `sun_path` of the systems we run on, less its final zero: macOS 103, Linux 107.
const SOCKET_PATH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// What to start.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where the cluster, its password and its log are; reused when there.
    pub data_dir: DataDir,
    /// The port on 127.0.0.1; 0 for a free one.
    pub port: u16,
    /// Whether a commit survives a power cut. Without, it still survives the death of the server, and a new cluster is a
    /// copy of a cached one, with that one's password.
    pub durable: bool,
}

/// A running PostgreSQL. Dropping it stops the server and waits for that, some 10 ms; `stop` does so without blocking.
pub struct Postgres {
    process: Option<Supervised>,
    binaries: Binaries,
    user: ServerUser,
    home: ClusterHome,
    options: PostgresOptions,
    port: u16,
    password: String,
    lock: DataDirLock,
}

impl Postgres {
    /// Starts a server, making its cluster first where there is none, and returns when it takes connections. A server an
    /// earlier process left in the folder is ended first.
    ///
    /// # Errors
    /// `Locked` when a living process has this folder, `PortTaken`, `Unreachable`, and `Start` with the log's end.
    pub async fn start(binaries: &Binaries, options: PostgresOptions) -> Result<Self> {
        let lock = DataDir::lock(options.data_dir.path())?;
        let user = ServerUser::find()?;
        let home = ClusterHome::new(lock.path());
        let making = {
            let (home, binaries, user) = (home.clone(), binaries.clone(), user.clone());
            tokio::task::spawn_blocking(move || home.prepare(&binaries, &user, options.durable))
        };
        making.await.map_err(std::io::Error::other).doing(|| "make the cluster".to_owned())??;
        let password = home.password()?;
        let port = options.port;
        let binaries = binaries.clone();
        let mut postgres = Self { process: None, binaries, user, home, options, port, password, lock };
        let mut tries = 0;
        loop {
            if postgres.options.port == 0 {
                postgres.port = free_port()?;
            }
            tries += 1;
            match postgres.launch().await {
                Err(Error::PortTaken { .. }) if postgres.options.port == 0 && tries < FREE_PORT_TRIES => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(postgres),
            }
        }
    }

    /// The port on 127.0.0.1; the same for the life of this value.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of the superuser, also meant for the roles made on this private server: 64 random hex digits.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A connection URL for `user`, whose password is taken to be [`Self::password`]. Both names are plain identifiers.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The superuser's URL, to the database `postgres`.
    pub fn admin_url(&self) -> String {
        self.url(SUPERUSER, "postgres")
    }

    /// The folder of the unix socket, for clients that run as root or as the server's user. `None` when its path would
    /// be too long for a socket.
    pub fn socket_dir(&self) -> Option<PathBuf> {
        let folder = self.home.cluster();
        let socket = folder.join(format!(".s.PGSQL.{}", self.port));
        (socket.as_os_str().len() <= SOCKET_PATH_MAX).then_some(folder)
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

    /// Stops the server in order: open transactions are rolled back, connections closed. The data stays.
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

    /// Starts the server again after `stop`, `kill` or its own end, on the same data and port.
    pub async fn start_again(&mut self) -> Result<()> {
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
        let cluster = self.home.cluster();
        let pid_file = cluster.join(PID_FILE);
        let earlier = Earlier { server: SERVER, pid_file: &pid_file, argument: &cluster, signals: SIGNALS };
        let (log, file) = Log::claim(self.lock.path().join(LOG_FILE), earlier).await?;
        remove_leftovers(&cluster)?;

        let mut command = vec![self.binaries.postgres_bin().join("postgres").display().to_string()];
        command.extend(["-D".to_owned(), cluster.display().to_string()]);
        for (name, value) in self.settings() {
            command.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let process = Supervised::spawn(Spec {
            server: SERVER,
            user: &self.user,
            folder: &cluster,
            command,
            signals: SIGNAL_NAMES,
            log: file,
            keeps: self.options.data_dir.keeps(),
        })?;
        let began = Instant::now();
        while !is_ready(&pid_file) {
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
        }
        self.process = Some(process);
        Ok(())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let sockets = self.socket_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", sockets),
            ("max_connections", MAX_CONNECTIONS.to_string()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("log_checkpoints", "off".to_owned()),
            // Values and statements may hold patient data: the log gets neither.
            ("log_error_verbosity", "terse".to_owned()),
            ("log_min_error_statement", "panic".to_owned()),
        ];
        let rest: &[(&str, &str)] = if self.options.durable {
            &[("shared_buffers", "128MB")]
        } else {
            &[
                ("shared_buffers", "32MB"),
                ("fsync", "off"),
                ("full_page_writes", "off"),
                ("wal_level", "minimal"),
                ("max_wal_senders", "0"),
            ]
        };
        settings.extend(rest.iter().map(|&(name, value)| (name, value.to_owned())));
        settings
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        f.debug_struct("Postgres").field("port", &self.port).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// Removes what a crash leaves and a new server would trip over when the old process ids are somebody else's by now.
/// Only with the log claimed, when no process of an earlier server lives.
fn remove_leftovers(cluster: &Path) -> Result<()> {
    let doing = || format!("clear {}", cluster.display());
    for entry in fs::read_dir(cluster).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name();
        if name == PID_FILE || name.to_string_lossy().starts_with(".s.PGSQL.") {
            fs::remove_file(entry.path()).doing(doing)?;
        }
    }
    Ok(())
}

fn is_ready(pid_file: &Path) -> bool {
    fs::read_to_string(pid_file)
        .is_ok_and(|text| text.lines().nth(STATE_LINE).is_some_and(|state| state.trim() == READY))
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .doing(|| "find a free port".to_owned())
}
