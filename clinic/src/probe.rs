//! `clinic probe`: a container's health check that needs no other tool in the image.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What to ask.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clinic probe 127.0.0.1:50051")]
pub struct Probe {
    /// Host and port of a service, or of the gateway.
    address: String,
    /// What to get.
    #[arg(long, default_value = "/readyz")]
    path: String,
}

/// Fails unless the answer is 200.
pub async fn run(probe: &Probe) -> anyhow::Result<()> {
    let ask = async {
        let mut stream = TcpStream::connect(&probe.address).await?;
        let request =
            format!("GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", probe.path, probe.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(TIMEOUT, ask).await.context("no answer in time")??;
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim();
    anyhow::ensure!(status.contains(" 200"), "not ready: {body}");
    Ok(())
}
