//! The folders servers work in: data folders that stay, held by one process at a time, and run folders that go with the
//! process that made them, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{PipeWriter, Write, pipe};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::error::{Doing, Error, Result};
use crate::user::ServerUser;

const LOCK_FILE: &str = "lock";
const RUN_FOLDER_PREFIX: &str = "clinic-run-";
/// Names the folder that run folders are made in, when not the system's one for temporary files.
pub const RUN_DIR_VARIABLE: &str = "CLINIC_RUN_DIR";
const JANITOR: &str = include_str!("janitor.sh");

/// Where one server keeps its data, log and lock.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    keeps: Option<Arc<PipeWriter>>,
}

impl DataDir {
    /// A folder that stays. It is made when missing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), keeps: None }
    }

    /// Takes a data folder for this process, making it when missing, so that no two suites share one. Every server also
    /// takes its own; this is for what stands above them. Released by drop or by our death, and so never stale.
    pub fn lock(path: impl AsRef<Path>) -> Result<DataDirLock> {
        let path =
            std::path::absolute(path.as_ref()).doing(|| format!("resolve {}", path.as_ref().display()))?;
        let user = ServerUser::find()?;
        user.make_passable(&path)?;
        match lock_file(&path)? {
            Ok(file) => Ok(DataDirLock { path, file }),
            Err(pid) => Err(Error::Locked { path, pid }),
        }
    }

    pub(crate) fn keeps(&self) -> Option<Arc<PipeWriter>> {
        self.keeps.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl<P: Into<PathBuf>> From<P> for DataDir {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

/// A data folder held by this process.
#[derive(Debug)]
pub struct DataDirLock {
    path: PathBuf,
    file: File,
}

impl DataDirLock {
    /// The folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that another thread is starting has a copy of the open file until it
        // runs its program. A failure leaves the lock to that.
        let _ = self.file.unlock();
    }
}

/// Locks `folder` and writes our process id into the lock file, or says who holds it.
fn lock_file(folder: &Path) -> Result<std::result::Result<File, String>> {
    let path = folder.join(LOCK_FILE);
    let doing = || format!("lock {}", path.display());
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&path).doing(doing)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).doing(doing)?;
            write!(file, "{}", std::process::id()).doing(doing)?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).doing(doing)?;
            Ok(Err(if pid.is_empty() { "unknown".to_owned() } else { pid }))
        }
        Err(TryLockError::Error(error)) => Err(error).doing(doing),
    }
}

/// A folder for a run that keeps nothing. It goes when this is dropped and the servers in it have ended, and also when
/// this process dies by `kill -9`: a janitor process of its own removes it then.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// `None` only while dropping.
    keeps: Option<Arc<PipeWriter>>,
    janitor: Option<JoinHandle<()>>,
}

impl RunFolder {
    /// Makes a run folder in `parent`, else in `CLINIC_RUN_DIR`, else in the system's folder for temporary files. Run
    /// folders there that nobody owns any more (the machine went down, the janitor was killed too) are removed first.
    pub fn create(parent: Option<&Path>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let user = ServerUser::find()?;
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None => std::env::var_os(RUN_DIR_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from),
        };
        let parent = std::path::absolute(&parent).doing(|| format!("resolve {}", parent.display()))?;
        user.make_passable(&parent)?;
        sweep(&parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{RUN_FOLDER_PREFIX}{}-{number}", std::process::id()));
        user.make_passable(&path)?;
        let lock = lock_file(&path)?.map_err(|pid| Error::Locked { path: path.clone(), pid })?;

        let doing = || format!("start the janitor of {}", path.display());
        let (reader, writer) = pipe().doing(doing)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", JANITOR, "run-folder-janitor"])
            .arg(&path)
            .current_dir("/")
            .stdin(reader)
            .stdout(lock)
            .process_group(0)
            .spawn()
            .doing(doing)?;
        let janitor = thread::Builder::new()
            .name("run folder".to_owned())
            .spawn(move || {
                // It fails only when somebody else waited for our child, and then it is gone as well.
                let _ = child.wait();
            })
            .doing(doing)?;
        Ok(Self { path, keeps: Some(Arc::new(writer)), janitor: Some(janitor) })
    }

    /// The folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place in this folder for one server. The folder stays while that server runs, even when `self` is dropped.
    pub fn data_dir(&self, name: &str) -> DataDir {
        DataDir { path: self.path.join(name), keeps: self.keeps.clone() }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // With a server of the folder still running, the janitor waits for it, not we.
        let last = self.keeps.take().and_then(Arc::into_inner).is_some();
        if let Some(janitor) = self.janitor.take().filter(|_| last) {
            // A panic there has nothing to tell.
            let _ = janitor.join();
        }
    }
}

/// Removes the run folders in `parent` that are ours by uid and whose owner and janitor are gone. Best effort: what
/// cannot be removed now is for a later run.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(RUN_FOLDER_PREFIX)) else {
            continue;
        };
        let Some(pid) = owner.split('-').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let ours = fs::symlink_metadata(entry.path())
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw());
        // The process id spares a folder made this instant; the lock spares one whose janitor is at work.
        if ours && test_kill_process(pid) == Err(Errno::SRCH) && matches!(lock_file(&entry.path()), Ok(Ok(_)))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
