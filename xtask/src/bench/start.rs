//! The suite as a person meets it: how long it takes to start, and how much memory it rests in.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use servers::RunFolder;

use crate::workspace::{self, Workspace};

/// Starts that are measured of each kind; the median counts.
const STARTS: usize = 5;
/// How long a started suite is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(10);
/// Limits from the design.
const READY_LIMIT_SECS: f64 = 5.0;
const MEMORY_LIMIT_MB: f64 = 150.0;

struct Figures {
    profile: String,
    first: Vec<f64>,
    again: Vec<f64>,
    memory_mb: f64,
}

/// Builds, measures, and answers the section.
pub(super) async fn section(workspace: &Workspace, profiles: &[String]) -> anyhow::Result<String> {
    let mut figures = vec![];
    for profile in profiles {
        eprintln!("building the {profile} profile");
        workspace::run(workspace.command("cargo").args([
            "build",
            "--package",
            "clinic",
            "--profile",
            profile,
        ]))?;
        let folder = if profile == "dev" { "debug" } else { profile };
        figures.push(measure(&workspace.path(format!("target/{folder}/clinic")), profile).await?);
    }
    Ok(report(&figures))
}

async fn measure(program: &Path, profile: &str) -> anyhow::Result<Figures> {
    let mut figures = Figures { profile: profile.to_owned(), first: vec![], again: vec![], memory_mb: 0.0 };
    for n in 1..=STARTS {
        eprintln!("{profile}: start {n} of {STARTS}, on an empty folder and on the same again");
        let run = RunFolder::create(None)?;
        let data = run.path().join("data");
        let (suite, seconds) = Suite::start(program, &data)?;
        figures.first.push(seconds);
        suite.stop()?;
        let (suite, seconds) = Suite::start(program, &data)?;
        figures.again.push(seconds);
        if n == STARTS {
            tokio::time::sleep(IDLE).await;
            figures.memory_mb = suite.resident_mb()?;
        }
        suite.stop()?;
    }
    Ok(figures)
}

/// A running suite on free ports.
struct Suite {
    child: Child,
}

impl Suite {
    /// Starts it; also answers the seconds until its screen stood.
    fn start(program: &Path, data: &Path) -> anyhow::Result<(Self, f64)> {
        let mut command = Command::new(program);
        command.arg("up").arg("--data-dir").arg(data).args(["--port", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let screen = BufReader::new(child.stdout.take().context("a piped screen")?);
        for line in screen.lines() {
            if line?.contains("is ready") {
                return Ok((Self { child }, begun.elapsed().as_secs_f64()));
            }
        }
        anyhow::bail!("the suite ended before it was ready")
    }

    fn resident_mb(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kb / 1024.0)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn report(figures: &[Figures]) -> String {
    let mut text = format!(
        "Medians of {STARTS}, with the longest in brackets; the database durable, free ports.\n\n\
         | work | build | measured | limit |\n|---|---|---|---|\n"
    );
    let longest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    for f in figures {
        for (work, values) in [
            (
                "first start: servers, migrations, demo network of 12 providers and 200 patients, ready",
                &f.first,
            ),
            ("start on its old data, ready", &f.again),
        ] {
            let (middle, most) = (median(values), longest(values));
            text +=
                &format!("| {work} | {} | {middle:.1} s ({most:.1}) | {READY_LIMIT_SECS} s |\n", f.profile);
        }
        text += &format!(
            "| resident memory after {} s of rest, demo network loaded, without PostgreSQL and NATS | {} | {:.0} MB | {MEMORY_LIMIT_MB} MB |\n",
            IDLE.as_secs(),
            f.profile,
            f.memory_mb
        );
    }
    text
}
