//! Billing as a process of its own on the simulated clock, so that it can be killed.
//!
//! The program `billing` runs on the machine's clock alone. So this test program is started once more, as one of its own tests
//! (the only one here), which is nothing but [`billing::run`]. Its listener is handed to it as its standard input: the port
//! stays taken while nobody serves it, and callers wait instead of meeting another program.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use billing::Config;
use chrono::TimeDelta;
use clap::Parser;
use kit::clock::{Clock, Offset};
use kit::config::{LogFormat, Telemetry};
use testkit::Servers;
use tokio_util::sync::CancellationToken;

/// Names the file that tells the process how far its clock is ahead, in microseconds.
const CLOCK_FILE: &str = "BILLING_TEST_CLOCK_FILE";
/// Names the file that the process logs to; unset = it does not log.
const LOG_FILE: &str = "BILLING_TEST_LOG_FILE";
/// What is logged there: of its own everything.
const LOG: &str = "info,billing=trace,kit=trace";
/// How often the process looks at its clock, and whether whoever started it still lives.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running billing.
pub(crate) struct Process {
    listener: TcpListener,
    environment: Vec<(&'static str, String)>,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// Starts it; what it logs, all of its own, is kept in `log`, if there is one.
    pub(crate) fn start(
        servers: &Servers,
        listener: tokio::net::TcpListener,
        config: Config,
        log: Option<&Path>,
    ) -> Self {
        tell_time(servers);
        let identity = config.service.identity;
        let mut environment = vec![
            (CLOCK_FILE, clock_file(servers).display().to_string()),
            ("DATABASE_URL", config.service.database_url),
            ("NATS_URL", config.service.nats_url),
            ("CLINIC_JWKS_FILE", identity.jwks_file.display().to_string()),
            ("CLINIC_SERVICE_KEY_FILE", identity.service_key_file.display().to_string()),
            ("APPOINTMENTS_URL", config.appointments_url),
            ("PAYMENTS_API_BASE", config.payments_api_base),
            ("PAYMENTS_API_KEY", config.payments_api_key.expose().to_owned()),
            ("PAYMENTS_WEBHOOK_SECRET", config.payments_webhook_secret.expose().to_owned()),
            ("BILLING_RECONCILE_EVERY_SECS", config.reconcile_every_secs.to_string()),
            ("PAYMENTS_TIMEOUT_MS", config.payments_timeout_ms.to_string()),
        ];
        environment.extend(log.map(|log| (LOG_FILE, log.display().to_string())));
        let listener = listener.into_std().unwrap();
        let child = spawn(&listener, &environment);
        Self { listener, environment, child }
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.child = spawn(&self.listener, &self.environment);
    }

    fn kill(&mut self) {
        // Refused when it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn spawn(listener: &TcpListener, environment: &[(&'static str, String)]) -> Child {
    let listener: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
    let log = environment.iter().find(|(name, _)| *name == LOG_FILE);
    let errors = log.map_or_else(Stdio::inherit, |(_, file)| File::create(file).unwrap().into());
    Command::new(std::env::current_exe().unwrap())
        .args(["process::a_process_started_by_another_test_is_billing", "--exact", "--nocapture"])
        .envs(environment.iter().cloned())
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap()
}

/// Lets the process know what time it is.
pub(crate) fn tell_time(servers: &Servers) {
    let ahead = servers.clock.now() - Clock::System.now();
    let (file, fresh) = (clock_file(servers), servers.folder().join("clock.new"));
    fs::write(&fresh, ahead.num_microseconds().unwrap().to_string()).unwrap();
    fs::rename(fresh, file).unwrap();
}

fn clock_file(servers: &Servers) -> PathBuf {
    servers.folder().join("clock")
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// Does nothing unless [`Process`] starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_started_by_another_test_is_billing() {
    let Ok(clock_file) = std::env::var(CLOCK_FILE) else { return };
    let telemetry = Telemetry { log: LOG.into(), log_format: LogFormat::Json, otlp_endpoint: None };
    let _logs = std::env::var(LOG_FILE).is_ok().then(|| kit::telemetry::init(&telemetry, billing::NAME));
    let config = Cli::parse_from(["billing"]).config;
    let offset = Offset::default();
    let look = {
        let offset = offset.clone();
        move || {
            let ahead = fs::read_to_string(&clock_file).ok().and_then(|micros| micros.parse().ok());
            ahead.into_iter().for_each(|micros| offset.set(TimeDelta::microseconds(micros)));
        }
    };
    look();
    let parent = parent_id();
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while parent_id() == parent {
            looks.tick().await;
            look();
        }
        std::process::exit(1);
    });
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    billing::run(listener, config, Clock::Simulated(offset), CancellationToken::new()).await.unwrap();
}
