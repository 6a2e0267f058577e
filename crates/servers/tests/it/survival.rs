//! What is left when the owner, a supervisor or a server dies: nothing, or something the next start deals with.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use servers::{Nats, NatsOptions, Postgres, PostgresOptions, RunFolder};
use sqlx::{Connection, Executor};

use crate::{BOUND, JOB_FOLDER, binaries, child, connect, is_child, nats, postgres, said, until};

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

/// Whether process `number` has ended. One whose new parent has not looked after it yet is still listed, as a zombie.
fn is_gone(number: i32) -> bool {
    let state = ps("stat=", number);
    state.is_empty() || state.starts_with('Z')
}

/// One column of the process list for process `number`; empty when there is no such process.
fn ps(column: &str, number: i32) -> String {
    let output = Command::new("ps").args(["-o", column, "-p", &number.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Starts both servers in the folder that the parent named, or in a run folder, says so, and waits to be killed.
#[tokio::test]
async fn child_that_is_killed() {
    if !is_child() {
        return;
    }
    let run = RunFolder::create(None).unwrap();
    let stays = std::env::var_os(JOB_FOLDER).map(PathBuf::from);
    let place = |name| stays.as_ref().map_or_else(|| run.data_dir(name), |stays| stays.join(name).into());
    let options = PostgresOptions { data_dir: place("postgres"), port: 0, durable: false };
    let postgres = Postgres::start(&binaries().await, options).await.unwrap();
    connect(&postgres).await.execute("create table kept ()").await.unwrap();
    let options = NatsOptions { data_dir: place("nats"), port: 0, durable: false };
    let nats = Nats::start(&binaries().await, options).await.unwrap();
    let (postgres_pid, nats_pid) = (postgres.pid().unwrap(), nats.pid().unwrap());
    println!("READY {postgres_pid} {nats_pid} {}", run.path().display());
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

/// Runs that child until both servers run, kills it with signal 9, and tells the servers' pids and the run folder.
fn start_and_kill_the_owner(stays: Option<&Path>) -> (i32, i32, PathBuf) {
    let mut command = child("survival::child_that_is_killed");
    if let Some(stays) = stays {
        command.env(JOB_FOLDER, stays);
    }
    let mut owner = command.spawn().unwrap();
    let words = said(&mut owner, "READY");
    let mut words = words.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let told = (word().parse().unwrap(), word().parse().unwrap(), word().into());
    owner.kill().unwrap();
    owner.wait().unwrap();
    told
}

#[tokio::test]
async fn kill_9_of_the_owner_leaves_no_server_and_no_run_folder() {
    let (postgres, nats, run) = start_and_kill_the_owner(None);
    until("PostgreSQL is gone", || is_gone(postgres)).await;
    until("NATS is gone", || is_gone(nats)).await;
    until("the run folder is gone", || !run.exists()).await;
}

#[tokio::test]
async fn a_data_folder_starts_again_right_after_kill_9_of_its_owner() {
    let run = RunFolder::create(None).unwrap();
    start_and_kill_the_owner(Some(run.path()));
    let postgres = postgres(&run).await;
    connect(&postgres).await.execute("select from kept").await.unwrap();
    nats(&run).await;
}

/// The process that started process `number`.
fn parent(number: i32) -> Pid {
    pid(ps("ppid=", number).parse().unwrap())
}

#[tokio::test]
async fn servers_that_lost_their_supervisor_are_ended_by_the_next_start() {
    let run = RunFolder::create(None).unwrap();
    let (mut postgres, mut nats) = (postgres(&run).await, nats(&run).await);
    let (old_postgres, old_nats) = (postgres.pid().unwrap(), nats.pid().unwrap());
    kill_process(parent(old_postgres), Signal::KILL).unwrap();
    kill_process(parent(old_nats), Signal::KILL).unwrap();
    postgres.exited().await;
    nats.exited().await;
    assert!(!is_gone(old_postgres) && !is_gone(old_nats));

    postgres.start_again().await.unwrap();
    nats.restart().await.unwrap();
    connect(&postgres).await.ping().await.unwrap();
    until("the old ones are gone", || is_gone(old_postgres) && is_gone(old_nats)).await;
}

#[tokio::test]
async fn a_server_that_dies_by_itself_is_noticed() {
    let run = RunFolder::create(None).unwrap();
    let (mut postgres, nats) = (postgres(&run).await, nats(&run).await);
    kill_process(pid(postgres.pid().unwrap()), Signal::QUIT).unwrap();
    kill_process(pid(nats.pid().unwrap()), Signal::KILL).unwrap();
    tokio::time::timeout(BOUND, async { tokio::join!(postgres.exited(), nats.exited()) }).await.unwrap();
    assert_eq!((postgres.pid(), nats.pid()), (None, None));
    postgres.start_again().await.unwrap();
}

#[tokio::test]
async fn a_signal_to_the_supervisor_ends_its_server() {
    let run = RunFolder::create(None).unwrap();
    let nats = nats(&run).await;
    let server = nats.pid().unwrap();
    kill_process(parent(server), Signal::TERM).unwrap();
    tokio::time::timeout(BOUND, nats.exited()).await.unwrap();
    assert!(is_gone(server));
}

#[test]
fn servers_outlive_the_runtime_that_started_them() {
    let start = || tokio::runtime::Runtime::new().unwrap();
    let run = RunFolder::create(None).unwrap();
    let mut nats = start().block_on(nats(&run));
    start().block_on(async {
        async_nats::connect(nats.url()).await.unwrap();
        nats.restart().await.unwrap();
    });
    drop(nats);
}
