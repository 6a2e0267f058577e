//! The workspace's own commands, run as `cargo xtask`.
//!
//! - [`mod@test`]: everything a change must pass, one timed step after another.
//! - [`metadata`]: what the SQL macros know about the schemas, renewed or checked.
//! - [`diagrams`]: pictures from their sources.
//! - [`mod@race`]: clients race while services are killed, and every promise is checked.
//! - [`mod@bench`]: how fast and how large the suite is, in bench/RESULTS.md.
//! - [`tools`]: the programs these need, installed below `target/tools`; [`workspace`]: the tree and how to run programs in it.

mod bench;
mod diagrams;
mod metadata;
mod race;
mod sources;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                everything a change must pass
  cargo xtask test --only clippy  one step of it
  cargo xtask sqlx                after a change of a migration or a query
  cargo xtask diagrams            after a change of diagrams/*.d2
  cargo xtask race --seed 7       a race as another run had it
  cargo xtask bench               before a figure is claimed
  cargo xtask bench --only engine after a change of the search engine";

/// Tests, races, query metadata and diagrams, one command each.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
enum Command {
    /// Installs what the tests need and runs everything a change must pass.
    Test(test::Options),
    /// Renews services/*/.sqlx, what the SQL macros know about the schemas, from a private PostgreSQL.
    Sqlx(metadata::Options),
    /// Renders diagrams/*.d2, each to an SVG beside it.
    Diagrams(diagrams::Options),
    /// Races clients for the same slots while services are killed, then checks every promise.
    Race(race::Options),
    /// Measures the suite and writes bench/RESULTS.md; takes a release build and a few minutes.
    Bench(bench::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = Command::parse();
    let done = async {
        let workspace = Workspace::find()?;
        match command {
            Command::Test(options) => test::run(&workspace, &options).await,
            Command::Sqlx(options) => metadata::run(&workspace, &options).await,
            Command::Diagrams(options) => diagrams::run(&workspace, &options),
            Command::Race(options) => race::run(&workspace, &options),
            Command::Bench(options) => bench::run(&workspace, &options).await,
        }
    };
    match done.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
