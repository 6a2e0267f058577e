//! Webhooks: runs the program of `bench/`, and reports what it measured.

use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;

use super::engine::time;
use crate::workspace::{self, Workspace};

/// Limit from the design.
const LIMIT: &str = "p99 50 ms at 500/s";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    let mut cargo = workspace.command("cargo");
    cargo.args(["build", "--release"]);
    for package in ["bench", "billing", "sandbox"] {
        cargo.args(["--package", package]);
    }
    workspace::run(&mut cargo)?;
    let mut bench = workspace.command(workspace.path("target/release/bench"));
    let output = bench.arg("webhooks").stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the webhook bench ended with {}", output.status);
    report(&serde_json::from_slice(&output.stdout).context("the figures of the webhook bench")?)
}

fn report(figures: &Value) -> anyhow::Result<String> {
    let number =
        |at: &str| figures.pointer(at).and_then(Value::as_f64).with_context(|| format!("no figure {at}"));
    let show = |at: &str| number(at).map(time);
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
