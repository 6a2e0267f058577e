//! One race from its start to its verdict: stage, clients, killings, rest, check.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kit::clock::Clock;
use proto::clinic::auth::v1::Role;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ask::Known;
use crate::check::{self, Violation};
use crate::client::{self, Shared};
use crate::facts::{Call, Rows};
use crate::network::Network;
use crate::read::{self, Unrest};
use crate::stage::Stage;
use crate::trouble;

/// Who is killed.
const VICTIMS: [&str; 3] = ["appointments", "billing", "gateway"];
/// How long the suite may take to come to rest after the last client has gone.
pub const REST_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks that must find it at rest, one after the other: an event may be on its way between two services.
const LOOKS: usize = 3;

/// What to run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Calls that clients make in all.
    #[arg(long, default_value_t = 20_000)]
    pub attempts: u32,
    /// Clients that race.
    #[arg(long, default_value_t = 32)]
    pub clients: u32,
    /// Patients they book for: the fewer, the more collide.
    #[arg(long, default_value_t = 40)]
    pub patients: u32,
    /// Seconds from one kill -9 to the next, on average; 0 = nobody is killed.
    #[arg(long, default_value_t = 3.0)]
    pub kill_every: f64,
    /// Decides what is asked for, who is killed and what else goes wrong. Absent = drawn, and printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder of the services' programs. Absent = the one this program is in.
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
    /// Folder for the clients' log, the services' logs and the violations.
    #[arg(long, default_value = "target/race")]
    pub out: PathBuf,
}

/// What came out.
pub struct Outcome {
    /// What decided it.
    pub seed: u64,
    /// What clients asked and were told.
    pub log: Vec<Call>,
    /// What was written down.
    pub rows: Rows,
    /// How long clients raced.
    pub raced: Duration,
    /// How long the suite took to come to rest; `None` = it did not.
    pub rested: Option<Duration>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Deadlocks that PostgreSQL resolved, surfaced or not.
    pub deadlocks: i64,
    /// Where the logs are.
    pub folder: PathBuf,
}

/// Runs one race.
pub async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let folder = options.out.join(format!("seed-{seed}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let own = std::env::current_exe()?;
    let bin = options.bin_dir.as_deref().or(own.parent()).unwrap_or(Path::new("."));
    eprintln!("race: seed {seed}, logs in {}", folder.display());
    let mut stage = Stage::start(bin, &folder).await?;
    let (admin, desk) = (stage.client(Role::Admin, "admin")?, stage.client(Role::FrontDesk, "desk")?);
    let now = Clock::System.now();
    let network = Network::build(&admin, &desk, options.patients as usize, now).await?;

    let (log, mut logged) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        network: network.clone(),
        known: Mutex::new(Known::default()),
        log,
        left: AtomicI64::new(i64::from(options.attempts)),
    });
    let mut file = BufWriter::new(File::create(folder.join("calls.jsonl"))?);
    let writing = tokio::spawn(async move {
        let mut calls: Vec<Call> = vec![];
        while let Some(call) = logged.recv().await {
            serde_json::to_writer(&mut file, &call)?;
            file.write_all(b"\n")?;
            calls.push(call);
        }
        file.flush()?;
        anyhow::Ok(calls)
    });

    let mut rng = StdRng::seed_from_u64(seed);
    let over = CancellationToken::new();
    let mut troubles = JoinSet::new();
    troubles.spawn(trouble::faults(stage.sandbox_url.clone(), rng.random(), over.clone()));
    troubles.spawn(trouble::clock(stage.admin_url.clone(), rng.random(), over.clone()));
    let manager = stage.client(Role::Manager, "manager")?;
    troubles.spawn(trouble::calendars(manager, network, rng.random(), over.clone()));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..options.clients {
        let caller = format!("client-{n}");
        let channel = stage.client(Role::FrontDesk, &caller)?;
        clients.spawn(client::run(shared.clone(), channel, caller, rng.random()));
    }
    let kills = kill_while_running(options, &mut stage, &shared, &mut clients, &mut rng).await?;
    let raced = begun.elapsed();
    drop(shared);
    over.cancel();
    while let Some(ended) = troubles.join_next().await {
        ended??;
    }
    let log = writing.await??;
    let (rested, unrest) = rest(&mut stage).await?;
    let rows = read::rows(&stage, kills).await?;
    let mut violations = check::check(&rows, &log);
    if rested.is_none() {
        let what = format!("{REST_WITHIN:?} after the last client had gone there was still {unrest:?}");
        violations.push(Violation { rule: check::Rule::Saga, what });
    }
    if !violations.is_empty() {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        fs::write(folder.join("violations.txt"), lines.join("\n"))?;
    }
    let mut admin = stage.admin().await?;
    let deadlocks = sqlx::query_scalar("select sum(deadlocks)::bigint from pg_stat_database")
        .fetch_one(&mut admin)
        .await?;
    stage.keep_log()?;
    Ok(Outcome { seed, log, rows, raced, rested, violations, deadlocks, folder })
}

/// Kills one of [`VICTIMS`] again and again until every client is through.
async fn kill_while_running(
    options: &Options,
    stage: &mut Stage,
    shared: &Shared,
    clients: &mut JoinSet<anyhow::Result<()>>,
    rng: &mut StdRng,
) -> anyhow::Result<Vec<DateTime<Utc>>> {
    let progress = ProgressBar::new(u64::from(options.attempts));
    progress.set_style(ProgressStyle::with_template("racing {bar:30} {pos}/{len} {per_sec} {msg}")?);
    let mut kills = vec![];
    let draw = |rng: &mut StdRng| {
        let secs = options.kill_every * rng.random_range(0.5..1.5);
        tokio::time::Instant::now()
            + Duration::from_secs_f64(if secs > 0.0 { secs } else { f64::from(u32::MAX) })
    };
    let mut next = draw(rng);
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(ended) => ended??,
                None => break,
            },
            () = tokio::time::sleep_until(next) => {
                let victim = VICTIMS.choose(rng).copied().unwrap_or(VICTIMS[0]);
                kills.push(stage.kill(victim)?);
                next = draw(rng);
            }
            () = tokio::time::sleep(LOOK_EVERY) => stage.mend()?,
        }
        let left = shared.left.load(Ordering::Relaxed).max(0).unsigned_abs();
        progress.set_position(u64::from(options.attempts).saturating_sub(left));
        progress.set_message(format!("{} kills", kills.len()));
    }
    progress.finish_and_clear();
    Ok(kills)
}

/// Waits until nothing is going on any more.
async fn rest(stage: &mut Stage) -> anyhow::Result<(Option<Duration>, Unrest)> {
    stage.mend()?;
    let mut admin = stage.admin().await?;
    let (begun, mut quiet) = (Instant::now(), 0);
    let mut since = None;
    loop {
        let unrest = read::unrest(&mut admin).await?;
        if unrest == Unrest::default() {
            quiet += 1;
            let rested = *since.get_or_insert(begun.elapsed());
            if quiet == LOOKS {
                return Ok((Some(rested), unrest));
            }
        } else {
            (quiet, since) = (0, None);
            if begun.elapsed() > REST_WITHIN {
                return Ok((None, unrest));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
