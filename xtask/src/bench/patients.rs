//! Searching patients: runs the program of `bench/`, and reports what it measured.

use super::engine::time;
use super::notify::MIB;
use super::program::Figures;
use crate::workspace::Workspace;

const LIMIT: &str = "p99 20 ms";

/// Builds, measures, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    report(&Figures::measure(workspace, &["patients", "gateway", "clinic"], "patients", &[])?)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
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
    for search in (0..figures.count("/searches")).map(|n| format!("/searches/{n}")) {
        let by = figures.text(&format!("{search}/by"))?;
        let micros = |name: &str| figures.time(&format!("{search}/{name}"));
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
    for run in (0..figures.count("/import/runs")).map(|n| format!("/import/runs/{n}")) {
        let memory =
            |at: &str| number(&format!("{run}/memory/{at}")).map(|bytes| format!("{:.1} MiB", bytes / MIB));
        text += &format!(
            "| {} | {} | {:.0}/s | {} | {} | {} | {} | flat |\n",
            figures.text(&format!("{run}/what"))?,
            time(number(&format!("{run}/seconds"))? * 1e6),
            number(&format!("{run}/per_second"))?,
            memory("tenth")?,
            memory("half")?,
            memory("end")?,
            memory("peak")?,
        );
    }
    Ok(text)
}
