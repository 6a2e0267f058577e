//! Whom the servers run as: ourselves, or an unprivileged user when we are root, as PostgreSQL refuses to run as root.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// Users to run as when we are root, best first. A bare number is no choice: PostgreSQL wants a passwd entry.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
const PASSWD: &str = "/etc/passwd";
/// Where the servers find `sh` and its tools; nothing else of our environment reaches them.
const PATH: &str = "/usr/bin:/bin";

/// The user that owns the servers' processes and data.
#[derive(Debug, Clone)]
pub(crate) struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether it is somebody else than us.
    other: bool,
}

impl ServerUser {
    /// The user for this process.
    pub(crate) fn find() -> Result<Self> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { name: uid.as_raw().to_string(), uid: uid.as_raw(), gid, other: false });
        }
        let passwd = fs::read_to_string(PASSWD).doing(|| format!("read {PASSWD}"))?;
        let entry = |name: &str| {
            let mut fields = passwd
                .lines()
                .map(|line| line.split(':'))
                .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.skip(1)))?;
            // Some systems write nobody's id as -2.
            let mut id = || Some(fields.next()?.parse::<i64>().ok()? as u32);
            Some(Self { name: name.to_owned(), uid: id()?, gid: id()?, other: true })
        };
        UNPRIVILEGED.iter().find_map(|name| entry(name)).ok_or(Error::NoUser)
    }

    /// The numeric id, which keys what is cached per user.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// A command that runs as this user, with an environment that holds nothing of ours: `PGPORT` and the like would
    /// change what a server does.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/");
        if self.other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes `path` a folder that only this user and root can enter.
    pub(crate) fn make_private(&self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(path).doing(|| format!("create {}", path.display()))?;
        }
        self.own(path)
    }

    /// Writes a file that only this user and root can read.
    pub(crate) fn write_private(&self, path: &Path, text: &str) -> Result<()> {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .doing(|| format!("write {}", path.display()))?;
        self.own(path)
    }

    /// Hands `path` itself, not what is in it, to this user.
    fn own(&self, path: &Path) -> Result<()> {
        if self.other {
            chown(path, Some(self.uid), Some(self.gid))
                .doing(|| format!("give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }

    /// Makes `path` and what is missing above it: ours, with no list of its names for others, but open for this user to
    /// pass through. Refused where it cannot get there.
    pub(crate) fn make_passable(&self, path: &Path) -> Result<()> {
        self.check_reach(path)?;
        self.make(path, if self.other { 0o711 } else { 0o700 })
    }

    /// Makes `path` and what is missing above it readable by everyone, whatever the umask.
    pub(crate) fn make_public(&self, path: &Path) -> Result<()> {
        self.make(path, 0o755)
    }

    fn make(&self, path: &Path, mode: u32) -> Result<()> {
        if !path.is_dir() {
            if let Some(parent) = path.parent() {
                self.make(parent, mode)?;
            }
            match fs::create_dir(path) {
                // Another process may be making the same folder.
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                Ok(()) | Err(_) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            }
            .doing(|| format!("create {}", path.display()))?;
        }
        Ok(())
    }

    /// Refuses a folder this user cannot enter. What does not exist yet is judged by what is above it.
    pub(crate) fn check_reach(&self, path: &Path) -> Result<()> {
        if self.can_reach(path) {
            return Ok(());
        }
        Err(Error::Unreachable { user: self.name.clone(), path: path.to_owned() })
    }

    /// Whether this user may enter `path`, by the permission bits of every folder on the way.
    pub(crate) fn can_reach(&self, path: &Path) -> bool {
        if !self.other {
            return true;
        }
        let Ok(path) = std::path::absolute(path) else { return false };
        let Some(there) = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()) else {
            return false;
        };
        there.ancestors().all(|folder| {
            folder.metadata().is_ok_and(|meta| {
                let bit = match () {
                    () if meta.uid() == self.uid => 0o100,
                    () if meta.gid() == self.gid => 0o010,
                    () => 0o001,
                };
                meta.mode() & bit != 0
            })
        })
    }
}

/// `preferred`, unless we are root and the servers' user cannot enter it (a checkout under `/root`): then a folder of the
/// same name under `/var/lib/clinic-suite`.
pub fn reachable_data_dir(preferred: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(preferred).doing(|| format!("resolve {}", preferred.display()))?;
    if ServerUser::find()?.can_reach(&absolute) {
        return Ok(absolute);
    }
    let flat = absolute.to_string_lossy().trim_start_matches('/').replace('/', "-");
    Ok(Path::new("/var/lib/clinic-suite").join(flat))
}
