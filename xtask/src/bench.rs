//! Measures the suite as a person meets it, and writes `bench/RESULTS.md`: each figure beside its limit, from one run.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use servers::RunFolder;

use crate::workspace::{self, Workspace};

/// Starts that are measured of each kind; the median counts.
const STARTS: usize = 5;
/// How long a started suite is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(10);
/// Limits from the design.
const READY_LIMIT_SECS: f64 = 5.0;
const MEMORY_LIMIT_MB: f64 = 150.0;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only this build: `dev`, as `cargo run` makes it, or `release`. Both when absent.
    #[arg(long)]
    profile: Option<String>,
}

struct Figures {
    profile: String,
    first: Vec<f64>,
    again: Vec<f64>,
    memory_mb: f64,
}

/// Builds, measures, prints and writes the results.
pub(crate) async fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let profiles = match &options.profile {
        Some(profile) => vec![profile.clone()],
        None => vec!["dev".to_owned(), "release".to_owned()],
    };
    let mut figures = vec![];
    for profile in profiles {
        eprintln!("building the {profile} profile");
        workspace::run(workspace.command("cargo").args([
            "build",
            "--package",
            "clinic",
            "--profile",
            &profile,
        ]))?;
        let folder = if profile == "dev" { "debug" } else { &profile };
        figures.push(measure(&workspace.path(format!("target/{folder}/clinic")), &profile).await?);
    }
    let text = report(&figures);
    println!("\n{text}");
    let file = workspace.path("bench/RESULTS.md");
    fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))
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
        "# Results\n\nMeasured by `cargo xtask bench` on {}. Medians of {STARTS}, with the longest in brackets; the database durable, \
         free ports.\n\n## The suite as one process\n\n| work | build | measured | limit |\n|---|---|---|---|\n",
        machine()
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

/// Processor, cores and memory, as the machine itself says.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let processor =
        field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "an unnamed processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kb =
        field(&read("/proc/meminfo"), "MemTotal").and_then(|v| v.trim_end_matches(" kB").parse::<f64>().ok());
    format!("{cores} cores of {processor}, {:.0} GiB", kb.unwrap_or_default() / 1024.0 / 1024.0)
}
