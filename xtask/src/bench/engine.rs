//! The search engine in memory: runs the criterion benches of `bench/`, whose medians it reports, and draws how searches grow.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use super::chart::{self, Line, Panel, Scale};
use crate::workspace::{self, Workspace};

/// Where criterion keeps what it measured, each case in a folder of its name.
const MEASURED: &str = "target/criterion";
const CHART: &str = "bench/growth.svg";
/// Networks, their cases in bench/benches/engine.rs, and limits from the design.
const NETWORKS: [(&str, &str, &str); 3] = [
    (
        "100 providers × 14 days, visits of 30 minutes, 3 clinics in 2 zones, 120 rooms, half of all visits taken: 8,000 slots",
        "100 providers 14 days",
        "every slot: 100 µs",
    ),
    (
        "20 providers × 30 days, visits of 20 minutes, nothing taken: 13,800 slots",
        "20 providers 30 days",
        "every slot: 500 µs",
    ),
    (
        "1,000 providers × 31 days, visits of 30 minutes, 10 clinics, 1,200 rooms, half of all visits taken: 184,000 slots",
        "1000 providers 31 days",
        "counted by day: 5 ms",
    ),
];
/// Of `growth` in bench/benches/engine.rs: as cases name them, and as readers do.
const PROVIDERS: [(&str, &str); 3] = [("10", "10"), ("100", "100"), ("1000", "1,000")];
const DAYS: [&str; 3] = ["7", "31", "62"];
const INTERVALS: [(&str, &str); 5] =
    [("0", "0"), ("1000", "10³"), ("10000", "10⁴"), ("100000", "10⁵"), ("1000000", "10⁶")];
const VIEWS: [(&str, &str); 2] =
    [("page", "The first page of 50 slots"), ("counts", "All slots counted by day")];

/// Builds, measures, draws, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    let medians = Medians(workspace.path(MEASURED));
    // What an earlier run or another bench left is not of this run.
    if medians.0.exists() {
        fs::remove_dir_all(&medians.0)?;
    }
    let mut cargo = workspace.command("cargo");
    cargo.args(["bench", "--package", "bench", "--bench", "engine"]).env("CRITERION_HOME", &medians.0);
    // Standard output is for results.
    workspace::run(cargo.stdout(std::io::stderr()))?;
    let file = workspace.path(CHART);
    fs::write(&file, growth_chart(&medians)?).with_context(|| format!("cannot write {}", file.display()))?;
    report(&medians)
}

/// What criterion measured.
struct Medians(PathBuf);

impl Medians {
    /// The median of one case, in microseconds.
    fn of(&self, group: &str, case: &str) -> anyhow::Result<f64> {
        let file = self.0.join(group).join(case).join("new/estimates.json");
        let text = fs::read_to_string(&file).with_context(|| format!("{} is missing", file.display()))?;
        let estimates: serde_json::Value = serde_json::from_str(&text)?;
        let nanos = estimates["median"]["point_estimate"].as_f64();
        Ok(nanos.with_context(|| format!("{} has no median", file.display()))? / 1e3)
    }

    fn growth(&self, view: &str, providers: &str, days: &str) -> anyhow::Result<Vec<f64>> {
        let of = |intervals| self.of("growth", &format!("{view}/{providers} {days} {intervals}"));
        INTERVALS.iter().map(|(intervals, _)| of(intervals)).collect()
    }
}

fn report(medians: &Medians) -> anyhow::Result<String> {
    let mut text = "Medians by criterion, one thread, release build; each case proves first how many slots it finds. A search is \
                    all of it: from the query to the answer in the service's own types.\n\n\
                    | network | every slot | counted by day | the first page of 50 | limit |\n|---|---|---|---|---|\n"
        .to_owned();
    for (network, case, limit) in NETWORKS {
        let [slots, counts, page] =
            ["slots", "counts", "page"].map(|view| medians.of("search", &format!("{view}/{case}")).map(time));
        text += &format!("| {network} | {} | {} | {} | {limit} |\n", slots?, counts?, page?);
    }
    text += "\nWhat a change costs in a network of 1,000 providers with 1,000 taken intervals each, the copy included that leaves \
             running searches their state:\n\n| change | measured |\n|---|---|\n";
    for (change, case) in [
        ("the calendar of one provider", "calendar"),
        ("one visit of a provider who has 1,000", "busy"),
        ("everything again: catalog, and every calendar expanded over two years", "rebuild"),
    ] {
        text += &format!("| {change} | {} |\n", time(medians.of("change", case)?));
    }
    text += "\nHow a search grows with providers, days, and taken intervals in all, which lie spread over the two years kept in \
             memory:\n\n![Time of a search by providers, days and taken intervals](growth.svg)\n";
    for (view, title) in VIEWS {
        let heads: Vec<_> = INTERVALS.iter().map(|(_, label)| format!("{label} taken")).collect();
        text += &format!("\n| {title} | {} |\n|---{}|\n", heads.join(" | "), "|---".repeat(heads.len()));
        for (providers, shown) in PROVIDERS {
            for days in DAYS {
                let row: Vec<_> = medians.growth(view, providers, days)?.into_iter().map(time).collect();
                text += &format!("| {shown} providers × {days} days | {} |\n", row.join(" | "));
            }
        }
    }
    Ok(text)
}

fn growth_chart(medians: &Medians) -> anyhow::Result<String> {
    let panel = |view, title, days| {
        let line = |(providers, shown)| {
            let values = medians.growth(view, providers, days)?;
            Ok(Line { name: format!("{shown} providers"), values })
        };
        let lines = PROVIDERS.into_iter().map(line).collect::<anyhow::Result<_>>()?;
        Ok(Panel { title: format!("{title}, {days} days"), lines })
    };
    let row =
        |(view, title)| DAYS.iter().map(|days| panel(view, title, *days)).collect::<anyhow::Result<_>>();
    let rows: Vec<Vec<Panel>> = VIEWS.into_iter().map(row).collect::<anyhow::Result<_>>()?;
    let places = INTERVALS.map(|(_, label)| label);
    Ok(chart::draw("Time of one search", "taken intervals in all", &places, Scale::Time, &rows))
}

/// Microseconds, with three digits that count.
pub(super) fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 1.0 => (m * 1e3, "ns"),
        m if m < 1e3 => (m, "µs"),
        m if m < 1e6 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_that_count() {
        let shown = [0.0421, 7.891, 42.0, 812.4, 5_000.0, 12_345.6, 2_500_000.0].map(time);
        assert_eq!(shown, ["42.1 ns", "7.89 µs", "42 µs", "812 µs", "5 ms", "12.3 ms", "2.5 s"]);
    }
}
