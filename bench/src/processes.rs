//! The suite's programs as processes of their own, built like this one and beside it.

use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use testkit::Servers;

/// Ticks a second that Linux counts processor time in, on every architecture.
const TICKS: f64 = 100.0;

/// A running program, with what operators get by default, its log thrown away. Ended on drop.
pub(crate) struct Process {
    /// Where it answers.
    pub(crate) url: String,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts the service `name` on `servers`. It may not listen yet.
    pub(crate) async fn service(name: &str, servers: &Servers) -> anyhow::Result<Self> {
        let options = servers.service(name);
        let identity = options.identity;
        Self::start(name, |command| {
            command
                .env("DATABASE_URL", options.database_url)
                .env("NATS_URL", options.nats_url)
                .env("CLINIC_JWKS_FILE", identity.jwks_file)
                .env("CLINIC_SERVICE_KEY_FILE", identity.service_key_file);
        })
        .await
    }

    /// Starts a gateway in front of one scheduling service.
    pub(crate) async fn gateway(scheduling: &Self) -> anyhow::Result<Self> {
        Self::start("gateway", |command| {
            command.env("SCHEDULING_URL", &scheduling.url);
        })
        .await
    }

    async fn start(name: &str, dress: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let (listener, url) = testkit::listener().await;
        let address = listener.local_addr()?;
        drop(listener);
        let program = env::current_exe()?.with_file_name(name);
        let mut command = Command::new(&program);
        command.env("LISTEN", address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        dress(&mut command);
        let child =
            command.spawn().with_context(|| format!("{} does not start: build it", program.display()))?;
        Ok(Self { url, child })
    }

    /// The processor time it has used so far, by all its threads.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // proc(5): fields 14 and 15, counted from 1; the second is the name in brackets, which may hold blanks.
        let (_, rest) = stat.rsplit_once(')').context("a name in brackets")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS))
    }
}
