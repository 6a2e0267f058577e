//! One running server under its supervisor: a small shell script that ends the server when we stop it, drop it or die,
//! even by `kill -9`. A death signal from the kernel would not do, as it fires when the spawning *thread* ends.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeWriter};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::error::{Doing, Error, Result};
use crate::user::ServerUser;

const SCRIPT: &str = include_str!("supervisor.sh");
/// Tenths of a second each signal is given before the next, harder one.
const TICKS_PER_SIGNAL: &str = "100";
/// How long the shell may take to start the server and say its pid.
const PID_BOUND: Duration = Duration::from_secs(10);

/// How to run and how to end a server.
pub(crate) struct Spec<'a> {
    /// `PostgreSQL` or `NATS`, for messages.
    pub(crate) server: &'static str,
    pub(crate) user: &'a ServerUser,
    /// The server's working directory.
    pub(crate) folder: &'a Path,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// The signal that asks it to end, and the one for when it does not (names without SIG).
    pub(crate) signals: [&'static str; 2],
    /// Its log, with the lock that says that some process of the server lives.
    pub(crate) log: File,
    /// Keeps the run folder, when it lives in one.
    pub(crate) keeps: Option<Arc<PipeWriter>>,
}

/// A running server. Dropping it ends the server and waits for that.
#[derive(Debug)]
pub(crate) struct Supervised {
    pid: Pid,
    lifeline: UnixStream,
    exited: watch::Receiver<bool>,
    waiter: Option<JoinHandle<()>>,
    _keeps: Option<Arc<PipeWriter>>,
}

impl Supervised {
    /// Starts the server in a process group of its own, so that Ctrl-C reaches us and not it. It is running when this
    /// returns, not ready.
    pub(crate) fn spawn(spec: Spec<'_>) -> Result<Self> {
        let Spec { server, user, folder, command, signals, log, keeps } = spec;
        let doing = || format!("start the supervisor of {server}");
        let (lifeline, theirs) = UnixStream::pair().doing(doing)?;
        let held = match &keeps {
            Some(pipe) => Stdio::from(pipe.try_clone().doing(doing)?),
            None => Stdio::null(),
        };
        let mut child = user
            .command("/bin/sh")
            .args(["-c", SCRIPT, &format!("{}-supervisor", server.to_lowercase())])
            .args(signals)
            .arg(TICKS_PER_SIGNAL)
            .args(command)
            .current_dir(folder)
            .stdin(OwnedFd::from(theirs))
            .stdout(held)
            .stderr(log)
            .process_group(0)
            .spawn()
            .doing(doing)?;
        let (tx, exited) = watch::channel(false);
        // A thread and not a task: the server outlives the runtime of the test that started it.
        let waiter = thread::Builder::new()
            .name(format!("{server} exit"))
            .spawn(move || {
                // It fails only when somebody else waited for our child, and then it is gone as well.
                let _ = child.wait();
                tx.send_replace(true);
            })
            .doing(doing)?;
        lifeline.set_read_timeout(Some(PID_BOUND)).doing(doing)?;
        let mut line = String::new();
        BufReader::new(&lifeline).read_line(&mut line).doing(doing)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| Error::Program {
            program: format!("the supervisor of {server}"),
            reason: format!("it said {line:?} for a process id"),
        })?;
        Ok(Self { pid, lifeline, exited, waiter: Some(waiter), _keeps: keeps })
    }

    /// The server's own process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Resolves once the server is gone, for whatever reason.
    pub(crate) fn exited(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut exited = self.exited.clone();
        async move {
            // An error means that the waiting thread is gone, and so is the server.
            let _ = exited.wait_for(|gone| *gone).await;
        }
    }

    /// Sends the server a signal. A server that is gone takes none, and its pid may be somebody else's by now.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.has_exited() {
            return Ok(());
        }
        kill_process(self.pid, signal).map_err(Into::into).doing(|| format!("signal process {}", self.pid))
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.let_go();
        self.exited().await;
    }

    fn let_go(&self) {
        // It fails only when the supervisor is gone already.
        let _ = self.lifeline.shutdown(Shutdown::Both);
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.let_go();
        if let Some(waiter) = self.waiter.take() {
            // The supervisor's own bounds end this wait; a panic there has nothing to tell.
            let _ = waiter.join();
        }
    }
}
