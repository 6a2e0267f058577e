//! Due reminders: runs the program of `bench/`, and reports what it measured.

use super::engine::time;
use super::program::Figures;
use crate::workspace::Workspace;

/// Limit from the design.
const LIMIT: &str = "1,000/s";
pub(super) const MIB: f64 = 1024.0 * 1024.0;

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    report(&Figures::measure(workspace, &["notify", "sandbox"], "notify", &[])?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    let memory = |at: &str| number(at).map(|bytes| format!("{:.1} MiB", bytes / MIB));
    let mut report = format!(
        "{:.0} reminders are due when {:.0} replica starts; the sandbox takes {:.0} ms for each text. What notify asks of patients and \
         scheduling is answered by the caller, without their databases; deliveries are not told. PostgreSQL durable, notify, the \
         sandbox and the caller are processes of their own on this one machine, and share its cores; release build, logging as by \
         default. The load average was {:.1} at the end.\n\n\
         | work | in all | a second | limit |\n|---|---|---|---|\n\
         | from the start of the service to the last text taken and written down | {:.1} s | {:.0}/s | {LIMIT} |\n\n\
         | figure | measured | limit |\n|---|---|---|\n\
         | texts sent twice | {:.0} | 0 |\n\
         | notify's memory when a tenth was sent | {} | – |\n\
         | when half was | {} | – |\n\
         | at the end | {} | as before |\n\
         | at most | {} | – |\n\n\
         Processor time for one text, by program:\n\n| program | time |\n|---|---|\n",
        number("/reminders")?,
        number("/replicas")?,
        number("/answer_ms")?,
        number("/load_average")?,
        number("/seconds")?,
        number("/per_second")?,
        number("/twice")?,
        memory("/memory/tenth")?,
        memory("/memory/half")?,
        memory("/memory/end")?,
        memory("/memory/peak")?,
    );
    for (program, spent) in figures.named("/processors")? {
        report += &format!("| {program} | {} |\n", time(spent));
    }
    Ok(report)
}
