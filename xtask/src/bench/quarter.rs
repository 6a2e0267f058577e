//! The simulated quarter: runs the program of `bench/`, reports what it measured, and draws how much freed time is refilled.

use std::fs;

use anyhow::Context as _;

use super::chart::{self, Line, Panel, Scale};
use super::program::Figures;
use crate::workspace::Workspace;

const CHART: &str = "bench/refill.svg";
/// The two runs: as the figures name them, and as readers do.
const RUNS: [(&str, &str); 2] = [("with", "with the waitlist"), ("without", "without")];
/// How long before its start time was given up, in the order of the figures.
const NOTICES: [&str; 5] =
    ["less than 4 hours", "4 hours to a day", "1 to 3 days", "3 to 7 days", "more than 7 days"];
const MINUTES: f64 = 60.0;

/// Builds, simulates, draws, and answers the section.
pub(super) fn section(workspace: &Workspace) -> anyhow::Result<String> {
    let figures = Figures::measure(workspace, &[], "quarter", &[])?;
    let file = workspace.path(CHART);
    fs::write(&file, chart(&figures)?).with_context(|| format!("cannot write {}", file.display()))?;
    report(&figures)
}

fn report(figures: &Figures) -> anyhow::Result<String> {
    let number = |at: &str| figures.number(at);
    let mut text = format!(
        "Simulated: a clinic of {} providers who work {} hours from Monday to Friday, from {} to {}, once with the waitlist and once \
         without: the same patients, with the same dice (seed {}). Appointments and scheduling are the services themselves, on PostgreSQL \
         and NATS; time is moved for both. Patients search with scheduling's own engine; what became of all time is read from the \
         history that appointments keeps. Time that was given up before its start, by cancelling or moving the visit, counts \
         once however often that happened, and is refilled when a visit stood there in the end. Accepting an offer that replaces a \
         later visit gives up time as well.\n\n\
         ![Share of freed time that was refilled, week by week](refill.svg)\n\n\
         | {} weeks | with the waitlist | without |\n|---|---|---|\n",
        number("/providers")?,
        number("/hours")?,
        figures.text("/first")?,
        figures.text("/last")?,
        number("/seed")?,
        number("/weeks")?,
    );
    let (with, without) = (Run::of(figures, "with")?, Run::of(figures, "without")?);
    let mut row = |what: &str, shown: &dyn Fn(&Run) -> String| {
        text += &format!("| {what} | {} | {} |\n", shown(&with), shown(&without));
    };
    row("time given up before its start", &|run| hours(run.all("freed")));
    row("refilled", &|run| share(run.all("refilled"), run.all("freed")));
    for (n, notice) in NOTICES.into_iter().enumerate() {
        row(&format!("refilled of what was given up {notice} ahead"), &|run| {
            let [freed, refilled] = ["freed", "refilled"].map(|what| run.notices[n].of(what));
            format!("{} of {}", share(refilled, freed), hours(freed))
        });
    }
    row("working time with a visit", &|run| share(run.all("filled"), run.all("open")));
    row("visits attended", &|run| run.count("/counts/attended"));
    row("missed", &|run| run.count("/counts/missed"));
    row("cancelled, and moved by their patients", &|run| {
        format!("{}, and {}", run.count("/counts/cancelled"), run.count("/counts/moved"))
    });
    row("joined the waitlist", &|run| run.count("/counts/joined"));
    row("offers nearer than their patient's notice", &|run| run.count("/counts/too_near"));
    row("offers accepted, declined, expired, withdrawn", &|run| {
        ["accepted", "declined", "expired", "withdrawn"]
            .map(|state| run.count(&format!("/offers/{state}")))
            .join(", ")
    });
    row("of those who wanted to come soon: got a time that was soon enough", &|run| run.part("soon_enough"));
    row("found no time", &|run| run.part("without_visit"));
    row("days from asking to the visit, for those who have one: mean, median", &|run| {
        let [mean, median] = ["mean", "median"].map(|what| run.figure(&format!("/waits/{what}")));
        format!("{mean:.1}, {median:.1}")
    });
    text += "\n| week | freed, with the waitlist | refilled | freed, without | refilled |\n|---|---|---|---|---|\n";
    for (n, (with, without)) in with.weeks.iter().zip(&without.weeks).enumerate() {
        let shown = |week: &Tally| {
            format!("{} | {}", hours(week.of("freed")), share(week.of("refilled"), week.of("freed")))
        };
        text += &format!("| {} | {} | {} |\n", n + 1, shown(with), shown(without));
    }
    text += "\nAssumed of patients:\n\n";
    for n in 0..figures.count("/assumptions") {
        text += &format!("- {}\n", figures.text(&format!("/assumptions/{n}"))?);
    }
    Ok(text)
}

/// One of the two runs.
struct Run<'a> {
    figures: &'a Figures,
    name: &'a str,
    weeks: Vec<Tally>,
    notices: Vec<Tally>,
}

/// Minutes by what became of them.
struct Tally(Vec<(String, f64)>);

impl Tally {
    fn of(&self, what: &str) -> f64 {
        self.0.iter().find(|(name, _)| name == what).map_or(0.0, |(_, minutes)| *minutes)
    }
}

impl<'a> Run<'a> {
    fn of(figures: &'a Figures, name: &'a str) -> anyhow::Result<Self> {
        let tallies = |kind: &str| -> anyhow::Result<Vec<Tally>> {
            let tally = |n: usize| {
                let named = figures.named(&format!("/{name}/{kind}/{n}"))?;
                Ok(Tally(named.into_iter().map(|(name, minutes)| (name.to_owned(), minutes)).collect()))
            };
            (0..figures.count(&format!("/{name}/{kind}"))).map(tally).collect()
        };
        let (weeks, notices) = (tallies("weeks")?, tallies("notices")?);
        anyhow::ensure!(notices.len() == NOTICES.len(), "{} kinds of notice", notices.len());
        Ok(Self { figures, name, weeks, notices })
    }

    fn all(&self, what: &str) -> f64 {
        self.weeks.iter().map(|week| week.of(what)).sum()
    }

    /// A number, 0 when there is none.
    fn figure(&self, at: &str) -> f64 {
        self.figures.number(&format!("/{}{at}", self.name)).unwrap_or_default()
    }

    fn count(&self, at: &str) -> String {
        self.figure(at).to_string()
    }

    /// How many of those who wanted to come soon.
    fn part(&self, what: &str) -> String {
        share(self.figure(&format!("/waits/{what}")), self.figure("/waits/asked"))
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole.max(1.0)
}

fn share(part: f64, whole: f64) -> String {
    format!("{:.1}%", percent(part, whole))
}

fn hours(minutes: f64) -> String {
    format!("{:.0} h", minutes / MINUTES)
}

fn chart(figures: &Figures) -> anyhow::Result<String> {
    let runs = RUNS.map(|(name, shown)| Run::of(figures, name).map(|run| (run, shown)));
    let runs = runs.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let panel = |title: &str, part: &str, whole: &str| Panel {
        title: title.to_owned(),
        lines: runs
            .iter()
            .map(|(run, shown)| Line {
                name: (*shown).to_owned(),
                values: run.weeks.iter().map(|week| percent(week.of(part), week.of(whole))).collect(),
            })
            .collect(),
    };
    let places: Vec<_> = (1..=runs[0].0.weeks.len()).map(|week| week.to_string()).collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    let row = vec![
        panel("Freed time refilled", "refilled", "freed"),
        panel("Working time with a visit", "filled", "open"),
    ];
    Ok(chart::draw("A quarter of a busy clinic", "week", &places, Scale::Percent, &[row]))
}
