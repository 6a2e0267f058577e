//! Searching patients: runs the program of `bench/`, and reports what it measured.

use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;

use super::engine::time;
use super::notify::MIB;
use crate::workspace::{self, Workspace};

const LIMIT: &str = "p99 20 ms";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    let mut cargo = workspace.command("cargo");
    cargo.args(["build", "--release"]);
    for package in ["bench", "patients", "gateway", "clinic"] {
        cargo.args(["--package", package]);
    }
    workspace::run(&mut cargo)?;
    let mut bench = workspace.command(workspace.path("target/release/bench"));
    let output = bench.arg("patients").stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the bench of patients ended with {}", output.status);
    report(&serde_json::from_slice(&output.stdout).context("the figures of the bench of patients")?)
}

fn report(figures: &Value) -> anyhow::Result<String> {
    let number =
        |at: &str| figures.pointer(at).and_then(Value::as_f64).with_context(|| format!("no figure {at}"));
    let mut text = format!(
        "SearchPatients among {} invented patients: 3,000 given and 40,000 family names, the first family name borne by one patient \
         in two hundred. One page of 50, {} searches of each kind one after another, each for another of 500 patients and read \
         whole; a search that should find the patient and does not ends the bench. PostgreSQL durable, patients and the caller are \
         processes of their own on this one machine; release build, logging as by default, each look written into the access log. \
         The load average was {:.1} at the end.\n\n\
         | search by | p50 | p99 | longest | limit |\n|---|---|---|---|---|\n",
        number("/patients")?,
        number("/calls")?,
        number("/load_average")?,
    );
    for search in figures["searches"].as_array().context("no searches")? {
        let micros =
            |name: &str| search[name].as_f64().map(time).with_context(|| format!("no figure {name}"));
        let by = search["by"].as_str().context("a search without a name")?;
        let (p50, p99, longest) = (micros("p50_us")?, micros("p99_us")?, micros("max_us")?);
        text += &format!("| {by} | {p50} | {p99} | {longest} | {LIMIT} |\n");
    }
    text += &format!(
        "\n| figure | measured | limit |\n|---|---|---|\n\
         | first start on data of a release that did not seal: sealing everyone | {} | – |\n\
         | the database, access log included | {:.2} GB | – |\n",
        time(number("/start_s")? * 1e6),
        number("/database_bytes")? / 1e9,
    );
    text += &format!(
        "\n`clinic import patients` then brings a file of {} rows in through the gateway, 16 rows at once: each is checked, compared with \
         everybody, registered and logged.\n\n\
         | import while | in all | rows a second | its memory after a tenth | half | at the end | at most | limit |\n\
         |---|---|---|---|---|---|---|---|\n",
        number("/import/rows")?,
    );
    for run in figures.pointer("/import/runs").and_then(Value::as_array).context("no imports")? {
        let of =
            |at: &str| run.pointer(at).and_then(Value::as_f64).with_context(|| format!("no figure {at}"));
        let memory = |at: &str| of(&format!("/memory/{at}")).map(|bytes| format!("{:.1} MiB", bytes / MIB));
        text += &format!(
            "| {} | {} | {:.0}/s | {} | {} | {} | {} | flat |\n",
            run["what"].as_str().context("an import without a name")?,
            time(of("/seconds")? * 1e6),
            of("/per_second")?,
            memory("tenth")?,
            memory("half")?,
            memory("end")?,
            memory("peak")?,
        );
    }
    Ok(text)
}
