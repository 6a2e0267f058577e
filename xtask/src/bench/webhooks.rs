//! Webhooks: runs the program of `bench/`, and reports what it measured.

use super::program::Figures;
use crate::workspace::Workspace;

/// Limit from the design.
const LIMIT: &str = "p99 50 ms at 500/s";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    report(&Figures::measure(workspace, &["billing", "sandbox"], "webhooks", &[])?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    let show = |at: &str| figures.time(at);
    Ok(format!(
        "{} signed events a second are posted for {} s, each when its time has come, however long the others take. They are \
         about {} authorized co-pays; one of ten repeats the one before, and one of ten has its charge looked up at the sandbox. \
         PostgreSQL durable, billing, the sandbox and the caller are processes of their own on this one machine, and share its \
         cores; release build, logging as by default, HTTP/1 over loopback. The load average was {:.1} at the end.\n\n\
         | work | a second | p50 | p99 | longest | limit |\n|---|---|---|---|---|---|\n\
         | from sending an event to its acknowledgement | {:.0}/s | {} | {} | {} | {LIMIT} |\n\n\
         | figure | measured | limit |\n|---|---|---|\n\
         | from the last acknowledgement until all had been applied | {} | – |\n\
         | billing's processor time for one, applying it included | {} | – |\n",
        number("/rate")?,
        number("/seconds")?,
        number("/charges")?,
        number("/load_average")?,
        number("/webhooks/per_second")?,
        show("/webhooks/p50_us")?,
        show("/webhooks/p99_us")?,
        show("/webhooks/max_us")?,
        show("/webhooks/behind_us")?,
        show("/webhooks/spent_us")?,
    ))
}
