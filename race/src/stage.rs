//! The suite as it is deployed: private PostgreSQL and NATS, each service and the gateway a process of its own, and the sandbox
//! payment provider. Everything listens on 127.0.0.1 and ends with this process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::{AUDIENCE, DEV_ISSUER, Issuer};
use kit::client::Outbound;
use kit::clock::Clock;
use proto::clinic::auth::v1::Role;
use rustix::process::{Pid, Signal, kill_process};
use servers::{Nats, NatsOptions, Postgres, PostgresOptions, RunFolder, Wheels};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Ends a service when its owner is gone.
const LIFELINE: &str = include_str!("lifeline.sh");
/// How long the whole stage may take to answer.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a service that is starting is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long one call to the sandbox may take before its outcome counts as unknown; the services' default is for real providers.
const PAYMENTS_TIMEOUT_MS: &str = "2000";
/// How long the clients' tokens live: longer than any run.
const TOKEN_LIFE: TimeDelta = TimeDelta::days(7);

/// The services, in the order they start.
pub const SERVICES: [&str; 6] = ["scheduling", "patients", "billing", "notify", "appointments", "gateway"];

/// Everything that runs.
pub struct Stage {
    /// PostgreSQL's superuser.
    pub admin_url: String,
    /// The broker.
    pub nats_url: String,
    /// The one public port.
    pub gateway_url: String,
    /// The sandbox payment provider.
    pub sandbox_url: String,
    /// Logs of the services.
    pub folder: PathBuf,
    issuer: Issuer,
    services: Vec<Service>,
    stop: CancellationToken,
    // Last: the folder goes after the servers have ended.
    servers: (Postgres, Nats, RunFolder),
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    /// Starts everything, with the services' programs from `bin`, and waits until the gateway says that all is well.
    pub async fn start(bin: &Path, folder: &Path) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let binaries = Wheels::ensure(&servers::default_cache_dir()?, |line| eprintln!("{line}")).await?;
        let run = RunFolder::create(None)?;
        let options = PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable: false };
        let mut postgres = Postgres::start(&binaries, options).await?;
        // The checker wants to know when each change became visible.
        let mut admin = PgConnection::connect(&postgres.admin_url()).await?;
        sqlx::query("alter system set track_commit_timestamp = on").execute(&mut admin).await?;
        // A deadlock shall say who waited for whom; the patients are invented.
        sqlx::query("alter database postgres set log_error_verbosity = 'verbose'")
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        postgres.stop().await;
        postgres.start_again().await?;
        let options = NatsOptions { data_dir: run.data_dir("nats"), port: 0, durable: false };
        let nats = Nats::start(&binaries, options).await?;
        let password = postgres.password().to_owned();
        let mut admin = PgConnection::connect(&postgres.admin_url()).await?;
        kit::bootstrap::run(&mut admin, |_| password.clone()).await?;
        admin.close().await?;

        let pem = Issuer::generate_pem()?;
        let issuer = Issuer::from_pem(&pem, DEV_ISSUER, AUDIENCE)?;
        let (jwks, key) = (run.path().join("jwks.json"), run.path().join("service.pem"));
        fs::write(&jwks, issuer.jwks().to_string())?;
        fs::write(&key, pem)?;

        let ports: Vec<u16> = free_ports(SERVICES.len())?;
        let url = |name: &str| {
            let at = SERVICES.iter().position(|service| *service == name).unwrap_or_default();
            format!("http://127.0.0.1:{}", ports[at])
        };
        let stop = CancellationToken::new();
        let sandbox_url = sandbox(&url("gateway"), stop.clone()).await?;
        let settings = sandbox::Settings::default();
        let mut services = vec![];
        for (name, port) in SERVICES.iter().zip(&ports) {
            let mut environment: Vec<(String, String)> = vec![
                ("LISTEN".into(), format!("127.0.0.1:{port}")),
                ("CLINIC_LOG".into(), "warn".into()),
                ("NO_COLOR".into(), "1".into()),
                ("NATS_URL".into(), nats.url()),
                ("DATABASE_URL".into(), postgres.url(name, "postgres")),
                ("CLINIC_JWKS_FILE".into(), jwks.display().to_string()),
                ("CLINIC_SERVICE_KEY_FILE".into(), key.display().to_string()),
                ("PAYMENTS_API_BASE".into(), sandbox_url.clone()),
                ("PAYMENTS_API_KEY".into(), settings.payments_key.clone()),
                ("PAYMENTS_WEBHOOK_SECRET".into(), settings.webhook_secret.clone()),
                ("PAYMENTS_TIMEOUT_MS".into(), PAYMENTS_TIMEOUT_MS.into()),
                ("SMS_API_BASE".into(), sandbox_url.clone()),
                ("SMS_ACCOUNT_SID".into(), settings.sms_account.clone()),
                ("SMS_AUTH_TOKEN".into(), settings.sms_token.clone()),
                // A number reserved for fiction.
                ("SMS_FROM".into(), "+12025550199".into()),
            ];
            let others =
                SERVICES.iter().map(|other| (format!("{}_URL", other.to_ascii_uppercase()), url(other)));
            environment.extend(others);
            let log = folder.join(format!("{name}.log"));
            services.push(Service::start(bin.join(name), environment, log)?);
        }
        let stage = Self {
            admin_url: postgres.admin_url(),
            nats_url: nats.url(),
            gateway_url: url("gateway"),
            sandbox_url,
            folder: folder.to_owned(),
            issuer,
            services,
            stop,
            servers: (postgres, nats, run),
        };
        stage.ready().await?;
        Ok(stage)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let mut health = HealthClient::new(kit::client::channel(&self.gateway_url)?);
        let end = Instant::now() + READY_WITHIN;
        loop {
            let answer = health.check(HealthCheckRequest::default()).await;
            if answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving) {
                return Ok(());
            }
            let logs = self.folder.display();
            anyhow::ensure!(
                Instant::now() < end,
                "the suite was not ready within {READY_WITHIN:?}: see the logs in {logs}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills a service without a warning and starts it again at once. Answers when it was killed.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<DateTime<Utc>> {
        let at = SERVICES.iter().position(|service| *service == name).context("a service's name")?;
        self.services[at].kill()
    }

    /// Starts again what has ended by itself: another program may have taken its port for a moment.
    pub fn mend(&mut self) -> anyhow::Result<()> {
        self.services.iter_mut().try_for_each(Service::mend)
    }

    /// Calls through the gateway, on a connection of its own, in one role.
    pub fn client(&self, role: Role, subject: &str) -> anyhow::Result<Outbound> {
        let token = self.issuer.sign(subject, &[role], Clock::System.now(), TOKEN_LIFE)?;
        Outbound::bearing(&self.gateway_url, token)
    }

    /// The database as its superuser.
    pub async fn admin(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.admin_url).await?)
    }

    /// Keeps PostgreSQL's own log beside the services', which would go with the server.
    pub fn keep_log(&self) -> anyhow::Result<()> {
        let (_, _, run) = &self.servers;
        fs::copy(run.path().join("postgres/postgres.log"), self.folder.join("postgres.log"))?;
        Ok(())
    }

    /// Lines of the services' logs that hold `words`.
    pub fn log_lines(&self, words: &str) -> anyhow::Result<Vec<String>> {
        let mut lines = vec![];
        for name in SERVICES {
            let file = BufReader::new(File::open(self.folder.join(format!("{name}.log")))?);
            let found = file.lines().map_while(Result::ok).filter(|line| line.contains(words));
            lines.extend(found.map(|line| format!("{name}: {line}")));
        }
        Ok(lines)
    }
}

/// Ports that are free now, all different.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<_, _>>()?)
}

/// The payment provider, in this process: nobody kills providers.
async fn sandbox(gateway: &str, stop: CancellationToken) -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let settings =
        sandbox::Settings { webhook_url: Some(format!("{gateway}/webhooks/payments")), ..Default::default() };
    let config = sandbox::Config { settings, clock: Arc::new(|| Clock::System.now()), advance: None };
    tokio::spawn(sandbox::serve(listener, config, stop));
    Ok(url)
}

/// One service as a process.
struct Service {
    program: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    shell: Child,
    pid: Pid,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It ends within moments now; a failure means that it has ended already.
        let _ = self.shell.wait();
    }
}

impl Service {
    fn start(program: PathBuf, environment: Vec<(String, String)>, log: PathBuf) -> anyhow::Result<Self> {
        let (shell, pid) = spawn(&program, &environment, &log)?;
        Ok(Self { program, environment, log, shell, pid })
    }

    fn kill(&mut self) -> anyhow::Result<DateTime<Utc>> {
        // The shell has not been waited for, so the id is still the service's.
        kill_process(self.pid, Signal::KILL).ok();
        let at = Clock::System.now();
        self.shell.wait()?;
        (self.shell, self.pid) = spawn(&self.program, &self.environment, &self.log)?;
        Ok(at)
    }

    fn mend(&mut self) -> anyhow::Result<()> {
        if self.shell.try_wait()?.is_some() {
            (self.shell, self.pid) = spawn(&self.program, &self.environment, &self.log)?;
        }
        Ok(())
    }
}

fn spawn(program: &Path, environment: &[(String, String)], log: &Path) -> anyhow::Result<(Child, Pid)> {
    anyhow::ensure!(program.exists(), "{} is missing: build the services first", program.display());
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut shell = Command::new("/bin/sh")
        .args(["-c", LIFELINE, "lifeline"])
        .arg(program)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C reaches this process, and the services by its end.
        .process_group(0)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(shell.stdout.take().context("a piped stdout")?).read_line(&mut line)?;
    let pid = line.trim().parse().ok().and_then(Pid::from_raw).context("the service's process id")?;
    Ok((shell, pid))
}
