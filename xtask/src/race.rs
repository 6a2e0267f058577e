//! Builds the services and races clients for them; what is raced and checked stands in `race/`.

use crate::workspace::{self, Workspace};

/// The programs that the race starts: each is a package of that name.
const PROGRAMS: [&str; 7] =
    ["race", "scheduling", "appointments", "patients", "billing", "notify", "gateway"];

/// What to run.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Handed to the race as they are; `cargo xtask race --help` explains them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// What it runs, as anyone may type it at the root.
pub(crate) const COMMAND_LINE: &str = "cargo xtask race";

/// Builds what is started, then runs the race.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    // The whole workspace, so that its crates have the features they have in the tests, and nothing is built twice.
    workspace::run(workspace.command("cargo").args(["build", "--workspace", "--bins", "--quiet"]))?;
    for program in PROGRAMS {
        let file = workspace.path(format!("target/debug/{program}"));
        anyhow::ensure!(file.exists(), "{} was not built", workspace.shown(&file));
    }
    workspace::run(workspace.command(workspace.path("target/debug/race")).args(&options.arguments))
}

/// The race as a step of the tests.
pub(crate) fn run_default(workspace: &Workspace) -> anyhow::Result<()> {
    run(workspace, &Options { arguments: vec![] })
}
