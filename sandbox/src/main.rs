//! The sandbox providers as a program of their own, on the real clock.

use std::{io::IsTerminal, net::SocketAddr, sync::Arc};

use anyhow::Context;
use clap::Parser;
use sandbox::{Config, Settings};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Sandbox payment and SMS providers: no money moves, no text leaves the machine.
#[derive(Parser)]
#[command(name = "sandbox", version)]
struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "SANDBOX_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    #[command(flatten)]
    settings: Settings,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's own clock starts here; the library is handed it"
    )]
    let config = Config { settings: args.settings, clock: Arc::new(chrono::Utc::now), advance: None };
    sandbox::serve(listener, config, shutdown).await
}
