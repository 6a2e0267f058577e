//! The waitlist: runs the program of `bench/`, and reports what it measured.

use super::program::Figures;
use crate::workspace::Workspace;

/// Limit of the waitlist.
const LIMIT: &str = "p99 1 s";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    let packages = ["appointments", "scheduling", "notify", "sandbox"];
    report(&Figures::measure(workspace, &packages, "waitlist", &[])?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    Ok(format!(
        "{} patients wait, each for any time with anyone; {} visits are cancelled, {} a second, and the time of each is offered to the \
         one whose turn it is. What appointments and notify ask of patients is answered by the caller; deliveries are not told. \
         PostgreSQL and NATS durable, appointments, scheduling, notify, the sandbox and the caller are processes of their own on this \
         one machine, and share its cores; release build, logging as by default. The load average was {:.1} at the end.\n\n\
         | work | texts | p50 | p99 | longest | limit |\n|---|---|---|---|---|---|\n\
         | from asking for a cancellation until the SMS provider has taken the text of the offer | {} | {} | {} | {} | {LIMIT} |\n",
        number("/waiting")?,
        number("/cancellations")?,
        number("/rate")?,
        number("/load_average")?,
        number("/texts/calls")?,
        figures.time("/texts/p50_us")?,
        figures.time("/texts/p99_us")?,
        figures.time("/texts/max_us")?,
    ))
}
