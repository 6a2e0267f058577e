//! One service's footing: database, broker, identity and clock, connected; and the tasks that run beside its port.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::auth::{Issuer, ServiceToken, Verifier};
use crate::client::Outbound;
use crate::clock::Clock;
use crate::config::{Process, Service};
use crate::db::Db;
use crate::messaging::inbox::{self, Handler, Subscription};
use crate::messaging::outbox;
use crate::serve::{self, Ready};

/// How long the first migration waits between tries when the database is not there yet.
const DATABASE_RETRY: Duration = Duration::from_millis(500);

/// What a service stands on.
#[derive(Clone, Debug)]
pub struct Platform {
    /// Its name: schema, role, context of its events.
    pub name: &'static str,
    /// Its own schema.
    pub db: Db,
    /// The broker.
    pub nats: async_nats::Client,
    /// Time.
    pub clock: Clock,
    /// Asks everything to stop.
    pub stop: CancellationToken,
    verifier: Verifier,
    token: ServiceToken,
    tasks: TaskTracker,
}

impl Platform {
    /// Connects, waiting for a database that is not up yet, and brings the schema to this build's state.
    pub async fn start(
        name: &'static str,
        config: &Service,
        migrator: &Migrator,
        clock: Clock,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let verifier = Verifier::new(&config.identity)?;
        let token = ServiceToken::new(Issuer::from_config(&config.identity)?, name);
        let db = Db::new(&config.database_url, name, config.database_connections)?;
        let nats = crate::messaging::connect(&config.nats_url, name).await?;
        let platform = Self { name, db, nats, clock, stop, verifier, token, tasks: TaskTracker::new() };
        platform.migrate(migrator).await?;
        Ok(platform)
    }

    async fn migrate(&self, migrator: &Migrator) -> anyhow::Result<()> {
        let mut told = false;
        loop {
            let Err(error) = self.db.migrate(migrator).await else { return Ok(()) };
            let outage =
                error.chain().any(|cause| match cause.downcast_ref::<sqlx::migrate::MigrateError>() {
                    Some(sqlx::migrate::MigrateError::Execute(e)) => crate::db::is_outage(e),
                    _ => cause.downcast_ref::<sqlx::Error>().is_some_and(crate::db::is_outage),
                });
            if !outage {
                return Err(error.context(format!("the schema of {} could not be prepared", self.name)));
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(service = self.name, error = format!("{error:#}"), "waiting for the database");
            }
            let waited = self.stop.run_until_cancelled(tokio::time::sleep(DATABASE_RETRY)).await;
            anyhow::ensure!(waited.is_some(), "stopped while waiting for the database");
        }
    }

    /// Runs `task` beside the port; it must end soon after [`Platform::stop`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Follows another service's events.
    pub fn follow<H: Handler>(&self, subscription: Subscription, handler: Arc<H>) {
        self.spawn(inbox::consume(
            self.db.clone(),
            self.nats.clone(),
            subscription,
            handler,
            self.stop.clone(),
        ));
    }

    /// Calls to another service, as this one.
    pub fn outbound(&self, url: &str) -> anyhow::Result<Outbound> {
        Outbound::new(url, self.token.clone())
    }

    /// Ready when the database answers. The broker is not asked: without it calls are still answered and events wait.
    pub fn ready(&self) -> Ready {
        let db = self.db.clone();
        Arc::new(move || {
            let db = db.clone();
            Box::pin(async move { db.ping().await.map_err(|_| "the database does not answer".to_owned()) })
        })
    }

    /// Serves the port and relays events until [`Platform::stop`], then waits for the tasks.
    pub async fn serve(self, listener: TcpListener, routes: Routes, http: Router) -> anyhow::Result<()> {
        self.spawn(outbox::relay(self.db.clone(), self.nats.clone(), self.name, self.stop.clone()));
        let app = serve::app(routes, http, self.verifier.clone(), self.ready(), self.stop.clone()).await;
        tracing::info!(service = self.name, address = %listener.local_addr()?, "serving");
        serve::serve(listener, app, self.stop.clone()).await?;
        self.tasks.close();
        if tokio::time::timeout(crate::rpc::DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(service = self.name, "tasks still ran when the time to stop was over");
        }
        Ok(())
    }
}

/// Exit code after a second signal, as shells give it for SIGINT.
const STOPPED_AT_ONCE: i32 = 130;

/// Cancelled by SIGTERM or Ctrl-C; a second one ends the process at once.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("told to stop a second time: stopping at once");
        std::process::exit(STOPPED_AT_ONCE);
    });
    Ok(stop)
}

/// The `main` of a service's own binary: options, telemetry, port, then `run` until a signal.
pub async fn main<C, F>(
    name: &'static str,
    default_port: u16,
    process: impl FnOnce(&C) -> Process,
    run: impl FnOnce(TcpListener, C, CancellationToken) -> F,
) -> anyhow::Result<()>
where
    C: Parser,
    F: Future<Output = anyhow::Result<()>>,
{
    let config = C::parse();
    let process = process(&config);
    let _telemetry = crate::telemetry::init(&process.telemetry, name)?;
    let address = process.listen.unwrap_or_else(|| (std::net::Ipv4Addr::UNSPECIFIED, default_port).into());
    let listener = listen(address).await?;
    run(listener, config, stop_on_signal()?).await
}

/// Binds `address`, or says in one sentence what to do about it.
pub async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "it is taken: stop what listens there, or choose another port (0 = any free one)"
            }
            std::io::ErrorKind::PermissionDenied => "this user may not open it: choose a port above 1023",
            _ => "choose an address of this machine",
        };
        anyhow::anyhow!("cannot listen on {address}: {hint} ({error})")
    })
}
