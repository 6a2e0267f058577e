//! How fast and how large the suite is. Each part measures by itself and writes its own section of `bench/RESULTS.md`: each figure
//! beside its limit or peer, from one run.
//!
//! | part | measures |
//! |---|---|
//! | [`start`] | `clinic up`: time to ready, memory at rest |
//! | [`engine`] | availability search in memory, and how it grows; draws [`chart`] |
//! | [`search`] | availability search over gRPC |
//! | [`booking`] | booking over gRPC: rates, races, effects, and what pgbench does with the same rows |
//! | [`patients`] | searches among a million patients |
//! | [`webhooks`] | how soon webhooks of the payment provider are acknowledged |
//! | [`waitlist`] | how soon freed time is offered by text |
//! | [`quarter`] | how much freed time is refilled in a simulated quarter; draws [`chart`] |
//! | [`notify`] | how fast due reminders leave, in how much memory |
//! | [`program`] | what these run, and the figures it prints |
//! | [`report`] | keeps the sections together |

mod booking;
mod chart;
mod engine;
mod notify;
mod patients;
mod program;
mod quarter;
mod report;
mod search;
mod start;
mod waitlist;
mod webhooks;

use clap::{Args, ValueEnum};

use crate::workspace::Workspace;

const RESULTS: &str = "bench/RESULTS.md";
/// The section that people write, kept as it is.
const REASONS: &str = "What bounds booking, and what was tried";

/// What to measure.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --only engine\n  \
                        cargo xtask bench --only start --profile dev")]
pub(crate) struct Options {
    /// Measures this part alone, and keeps the other parts' results; may be given again.
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Starts only this build: `dev`, as `cargo run` makes it, or `release`. Both when absent.
    #[arg(long)]
    profile: Option<String>,
}

/// In the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `clinic up`: time to ready, memory at rest.
    Start,
    /// Availability search in memory.
    Engine,
    /// Availability search over gRPC.
    Search,
    /// Booking over gRPC.
    Booking,
    /// Webhooks of the payment provider.
    Webhooks,
    /// SearchPatients among a million.
    Patients,
    /// Due reminders handed to the SMS provider.
    Notify,
    /// Freed time offered by text.
    Waitlist,
    /// A simulated quarter, with the waitlist and without.
    Quarter,
}

impl Part {
    fn heading(self) -> &'static str {
        match self {
            Self::Start => "The suite as one process",
            Self::Engine => "The search engine in memory",
            Self::Search => "Search over gRPC",
            Self::Booking => "Booking over gRPC",
            Self::Webhooks => "Webhooks of the payment provider",
            Self::Patients => "Search for patients over gRPC",
            Self::Notify => "Due reminders",
            Self::Waitlist => "Freed time offered",
            Self::Quarter => "A quarter of a busy clinic",
        }
    }
}

/// Builds, measures, prints and writes the results, part by part.
pub(crate) async fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let profiles = match &options.profile {
        Some(profile) => vec![profile.clone()],
        None => vec!["dev".to_owned(), "release".to_owned()],
    };
    let parts = if options.only.is_empty() { Part::value_variants() } else { &options.only };
    let measured = Part::value_variants().iter().map(|part| part.heading());
    let headings: Vec<_> = measured.chain([REASONS]).collect();
    for part in parts {
        eprintln!("==> {}", part.heading());
        let section = match part {
            Part::Start => start::section(workspace, &profiles).await?,
            Part::Engine => engine::section(workspace)?,
            Part::Search => search::section(workspace)?,
            Part::Booking => booking::section(workspace)?,
            Part::Webhooks => webhooks::section(workspace)?,
            Part::Patients => patients::section(workspace)?,
            Part::Notify => notify::section(workspace)?,
            Part::Waitlist => waitlist::section(workspace)?,
            Part::Quarter => quarter::section(workspace)?,
        };
        println!("\n{section}");
        report::keep(&workspace.path(RESULTS), &headings, part.heading(), &section)?;
    }
    Ok(())
}
