//! The tree, and how programs are run in it.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// Variables that `cargo run` sets for us, or that would make a build here differ from a build elsewhere: each would make the
/// next cargo build again what has not changed.
const NOT_PASSED_ON: [&str; 7] = [
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "DATABASE_URL",
    "NATS_URL",
    "SQLX_OFFLINE",
    "SQLX_OFFLINE_DIR",
];
/// Likewise, all with this beginning.
const NOT_PASSED_ON_PREFIX: &str = "CARGO_PKG_";

/// The root of the repository.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// A service with a schema of its own, named as its folder, its package and its schema are.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

impl Workspace {
    /// The workspace this very program belongs to.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let own = env::var("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
        let root = Path::new(&own).parent().context("xtask lies in the root of the workspace")?;
        Ok(Self { root: root.to_owned() })
    }

    /// A path below the root.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A path below the root as a reader knows it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Where programs are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.path("target/tools")
    }

    /// The services that own a schema, by name.
    pub(crate) fn services(&self) -> anyhow::Result<Vec<Service>> {
        Ok(files(&self.path("services"))?
            .into_iter()
            .filter(|folder| folder.join("migrations").is_dir())
            .filter_map(|folder| Some(Service { name: folder.file_name()?.to_str()?.to_owned(), folder }))
            .collect())
    }

    /// A program to run at the root.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        let ours = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in ours.filter(|name| name.starts_with(NOT_PASSED_ON_PREFIX)) {
            command.env_remove(name);
        }
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        command
    }
}

/// Runs a program to its end, its output passed through, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| not_started(&program, error))?;
    anyhow::ensure!(status.success(), "`{}` ended with {status}", line(command));
    Ok(())
}

fn not_started(program: &str, error: std::io::Error) -> anyhow::Error {
    let install = match program {
        "npm" | "node" => "install Node.js 20 or later, which brings it",
        "python3" => "install Python 3 with pip",
        _ => "install it",
    };
    match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("`{program}` is not on the PATH: {install}, and try again"),
        _ => anyhow::Error::new(error).context(format!("cannot run `{program}`")),
    }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What a folder holds, sorted; nothing if it is not there.
pub(crate) fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("cannot read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(reading)?,
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(reading)?;
    paths.sort();
    Ok(paths)
}

/// The files of a folder whose names end with `.extension`, sorted.
pub(crate) fn files_named(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = files(folder)?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(paths)
}
