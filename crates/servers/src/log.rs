//! A server's log file, whose lock is also the sign that some process of that server lives: the open file is inherited
//! by the supervisor, the server and every process it forks, and the kernel drops the lock with the last of them. It
//! cannot go stale and needs no process id.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Error, Result};
use crate::process::command_line;

/// A log beyond this starts afresh at the next start.
const CEILING_BYTES: u64 = 16 << 20;
/// How much of the log's end an error shows.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8 << 10;
/// How long an earlier server may take for each signal that asks it to end.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Where a server of this folder wrote its process id, and how to end it.
pub(crate) struct Earlier<'a> {
    pub(crate) server: &'static str,
    pub(crate) pid_file: &'a Path,
    /// An argument on its command line that no other server has: the path of this very folder or file.
    pub(crate) argument: &'a Path,
    /// Signals to try, in order, before SIGKILL.
    pub(crate) signals: [Signal; 2],
}

/// The log of one run of a server.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
    /// Where this run begins.
    from: u64,
}

impl Log {
    /// Opens the log for a new run, after any server an earlier run left in this folder has ended. Such a server may be
    /// stopping still, or nobody is left to stop it: it is asked, then made, to end.
    pub(crate) async fn claim(path: PathBuf, earlier: Earlier<'_>) -> Result<(Self, File)> {
        let doing = || format!("open {}", path.display());
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).doing(doing)?;
        let [first, second] = earlier.signals;
        let mut claimed = take(&file, &path)?;
        for signal in [first, second, Signal::KILL] {
            if claimed {
                break;
            }
            if let Some(pid) = earlier.pid() {
                // They fail when it has just ended.
                let _ = kill_process(pid, signal);
                let _ = kill_process(pid, Signal::CONT);
            }
            let asked = Instant::now();
            while !claimed && asked.elapsed() < PATIENCE {
                tokio::time::sleep(LOOK_AGAIN).await;
                claimed = take(&file, &path)?;
            }
        }
        if !claimed {
            return Err(Error::Leftover { server: earlier.server, path: earlier.argument.to_owned() });
        }
        let mut from = file.metadata().doing(doing)?.len();
        if from > CEILING_BYTES {
            file.set_len(0).doing(doing)?;
            from = 0;
        }
        Ok((Self { path, from }, file))
    }

    /// Everything this run has written, or its end when it is long. Best effort: it decorates an error.
    fn read(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(&self.path).and_then(|mut file| {
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.from.max(end.saturating_sub(TAIL_BYTES))))?;
            file.read_to_end(&mut text)
        });
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Why this run did not come up: a taken port, when the log says so in `port_words`, else `reason` and the last lines.
    pub(crate) fn failure(&self, server: &'static str, port: u16, port_words: &str, reason: String) -> Error {
        let text = self.read();
        if text.contains(port_words) {
            return Error::PortTaken { server, port };
        }
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::Start { server, reason, log: self.path.clone(), tail }
    }
}

impl Earlier<'_> {
    /// The process in the pid file, if it is really a server of this folder and not whoever got its number since.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_file).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        command_line(pid)?.contains(&*self.argument.to_string_lossy()).then_some(pid)
    }
}

/// Takes the lock if no process of an earlier run holds it.
fn take(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).doing(|| format!("lock {}", path.display())),
    }
}
