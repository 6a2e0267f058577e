//! PostgreSQL: data, ports, passwords, leftovers.

use std::fs;
use std::net::TcpListener;

use servers::{Postgres, PostgresOptions, RunFolder};
use sqlx::{Connection, Executor, PgConnection, query_scalar};

use crate::{binaries, connect, postgres};

async fn count(postgres: &Postgres) -> i64 {
    query_scalar("select count(*) from kept").fetch_one(&mut connect(postgres).await).await.unwrap()
}

#[tokio::test]
async fn rows_survive_a_stop_and_a_kill() {
    let run = RunFolder::create(None).unwrap();
    let mut postgres = postgres(&run).await;
    let url = postgres.admin_url();
    connect(&postgres).await.execute("create table kept (n int); insert into kept values (1)").await.unwrap();

    postgres.stop().await;
    assert_eq!(postgres.pid(), None);
    postgres.start_again().await.unwrap();
    assert_eq!(count(&postgres).await, 1);

    connect(&postgres).await.execute("insert into kept values (2)").await.unwrap();
    postgres.kill().await.unwrap();
    postgres.start_again().await.unwrap();
    assert_eq!(count(&postgres).await, 2);
    assert_eq!(postgres.admin_url(), url);
}

#[tokio::test]
async fn a_durable_cluster_is_found_again_with_its_password() {
    let run = RunFolder::create(None).unwrap();
    let options = || PostgresOptions { data_dir: run.path().join("stays").into(), port: 0, durable: true };
    let first = Postgres::start(&binaries().await, options()).await.unwrap();
    let fsync: String = query_scalar("show fsync").fetch_one(&mut connect(&first).await).await.unwrap();
    assert_eq!(fsync, "on");
    connect(&first).await.execute("create table kept (n int); insert into kept values (1)").await.unwrap();
    let password = first.password().to_owned();
    drop(first);

    let second = Postgres::start(&binaries().await, options()).await.unwrap();
    assert_eq!(second.password(), password);
    assert_eq!(count(&second).await, 1);
}

#[tokio::test]
async fn two_servers_run_at_once() {
    let run = RunFolder::create(None).unwrap();
    let start = |name| {
        let options = PostgresOptions { data_dir: run.data_dir(name), port: 0, durable: false };
        async move { Postgres::start(&binaries().await, options).await.unwrap() }
    };
    let (one, two) = tokio::join!(start("one"), start("two"));
    assert_ne!(one.port(), two.port());
    connect(&one).await.execute("create table only_in_one ()").await.unwrap();
    let there: bool = query_scalar("select to_regclass('only_in_one') is not null")
        .fetch_one(&mut connect(&two).await)
        .await
        .unwrap();
    assert!(!there);
}

#[tokio::test]
async fn the_suites_extensions_are_there_and_know_letters_beyond_ascii() {
    let run = RunFolder::create(None).unwrap();
    let postgres = postgres(&run).await;
    let mut connection = connect(&postgres).await;
    connection.execute("create extension btree_gist; create extension pg_trgm").await.unwrap();
    let likeness: f32 =
        query_scalar("select similarity('Müller', 'MÜLLER')").fetch_one(&mut connection).await.unwrap();
    assert_eq!(likeness, 1.0);
    let apart: f32 =
        query_scalar("select similarity('Müß', 'Mäß')").fetch_one(&mut connection).await.unwrap();
    assert!(apart < 1.0, "the umlauts were taken for no letters");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let run = RunFolder::create(None).unwrap();
    let postgres = postgres(&run).await;
    let url = postgres.admin_url().replace(postgres.password(), "guess");
    let refused = PgConnection::connect(&url).await.unwrap_err();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
}

#[tokio::test]
async fn the_log_holds_no_values_and_no_statements() {
    let run = RunFolder::create(None).unwrap();
    let postgres = postgres(&run).await;
    let mut connection = connect(&postgres).await;
    connection.execute("create table person (name text constraint person_name unique)").await.unwrap();
    connection.execute("insert into person values ('Ada')").await.unwrap();
    connection.execute("insert into person values ('Ada')").await.unwrap_err();
    let log = fs::read_to_string(run.path().join("postgres/postgres.log")).unwrap();
    assert!(log.contains("person_name") && !log.contains("Ada"), "{log}");
}

#[tokio::test]
async fn a_pid_file_with_a_living_strangers_pid_does_not_block_a_start() {
    let run = RunFolder::create(None).unwrap();
    let mut postgres = postgres(&run).await;
    let pid_file = run.path().join("postgres/cluster/postmaster.pid");
    let left = fs::read_to_string(&pid_file).unwrap();
    postgres.stop().await;
    // As after a crash and a reboot, when the number belongs to somebody else: here, to this test.
    let pid = postgres_pid_line(&left);
    fs::write(&pid_file, left.replacen(&pid, &std::process::id().to_string(), 1)).unwrap();
    postgres.start_again().await.unwrap();
    connect(&postgres).await.ping().await.unwrap();
}

fn postgres_pid_line(text: &str) -> String {
    text.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_taken_port_is_said_in_one_sentence() {
    let run = RunFolder::create(None).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = PostgresOptions { data_dir: run.data_dir("postgres"), port, durable: false };
    let refused = Postgres::start(&binaries().await, options).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "PostgreSQL cannot listen on 127.0.0.1:{port} because the port is taken: choose another, or 0 for a free one"
        )
    );
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_the_log() {
    let run = RunFolder::create(None).unwrap();
    let mut postgres = postgres(&run).await;
    postgres.stop().await;
    fs::write(run.path().join("postgres/cluster/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let refused = postgres.start_again().await.unwrap_err().to_string();
    assert!(refused.contains("no_such_setting") && refused.contains("postgres.log"), "{refused}");
}
