//! Real servers, started, broken and left behind, and what must hold then.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy excuses only the test functions"
)]

mod folders;
mod nats;
mod postgres;
mod survival;
mod wheels;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use servers::{Binaries, Nats, NatsOptions, Postgres, PostgresOptions, RunFolder, Wheels};
use sqlx::{Connection, PgConnection};

/// Longest wait for anything; far beyond what it takes.
const BOUND: Duration = Duration::from_secs(30);
/// Names the job of a test binary that runs as somebody's child.
const JOB: &str = "SERVERS_TEST_JOB";
const JOB_FOLDER: &str = "SERVERS_TEST_FOLDER";

async fn binaries() -> Binaries {
    Wheels::ensure(&servers::default_cache_dir().unwrap(), |line| eprintln!("{line}")).await.unwrap()
}

async fn postgres(run: &RunFolder) -> Postgres {
    let options = PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable: false };
    Postgres::start(&binaries().await, options).await.unwrap()
}

async fn nats(run: &RunFolder) -> Nats {
    let options = NatsOptions { data_dir: run.data_dir("nats"), port: 0, durable: false };
    Nats::start(&binaries().await, options).await.unwrap()
}

async fn connect(postgres: &Postgres) -> PgConnection {
    PgConnection::connect(&postgres.admin_url()).await.unwrap()
}

/// Waits until `holds`, within the bound.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < BOUND, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// This test binary again, in a process of its own, to do the job of the test named `job`.
fn child(job: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", job, "--nocapture"]).env(JOB, job).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Whether this process was started by [`child`].
fn is_child() -> bool {
    std::env::var_os(JOB).is_some()
}

/// The words after `mark` on the child's next line that begins with it.
fn said(child: &mut Child, mark: &str) -> String {
    use std::io::{BufRead, BufReader};
    BufReader::new(child.stdout.as_mut().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once(mark)?.1.trim().to_owned()))
        .unwrap_or_else(|| panic!("the child ended without saying {mark}"))
}
