//! Pictures from their sources: each `diagrams/*.d2` becomes an SVG beside it. The same source gives the same bytes.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::tools;
use crate::workspace::{Workspace, files_named, run as run_program};

const FOLDER: &str = "diagrams";
const SCRIPT: &str = "xtask/src/render.mjs";

/// Render or check.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask diagrams\n  cargo xtask diagrams --check")]
pub(crate) struct Options {
    /// Changes nothing; fails if a picture is not what its source gives.
    #[arg(long)]
    check: bool,
}

/// Renders or checks.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let sources = files_named(&workspace.path(FOLDER), "d2")?;
    let rendered = workspace.path("target").join(FOLDER);
    fs::create_dir_all(&rendered).with_context(|| format!("cannot make {}", rendered.display()))?;
    let mut node = workspace.command("node");
    node.arg(workspace.path(SCRIPT)).arg(tools::d2(workspace)?).arg(&rendered).args(&sources);
    run_program(&mut node)?;

    let mut stale = Vec::new();
    for source in &sources {
        let committed = source.with_extension("svg");
        let fresh = rendered.join(committed.file_name().context("a source has a name")?);
        if same(&committed, &fresh) {
            continue;
        }
        if options.check {
            stale.push(workspace.shown(&committed).to_string());
        } else {
            fs::copy(&fresh, &committed).with_context(|| format!("cannot write {}", committed.display()))?;
            println!("{}", workspace.shown(&committed));
        }
    }
    anyhow::ensure!(stale.is_empty(), "out of date, run `cargo xtask diagrams`: {}", stale.join(", "));
    println!("{} diagrams are up to date", sources.len());
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}
