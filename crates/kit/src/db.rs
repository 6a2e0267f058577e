//! PostgreSQL for one service: a pool on its own schema, its migrations, and transactions whose commit wakes the outbox relay.

use std::ops::{Deref, DerefMut};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::Notify;

/// Tables that [`crate::messaging`] and [`crate::idempotency`] keep in every service's schema.
static KIT_MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a request waits for a free connection before it answers UNAVAILABLE.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was in use so recently is taken to be alive; asking it would cost each short use a round trip more.
const ALIVE_FOR: Duration = Duration::from_millis(100);
/// A readiness check that takes longer counts as failed.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// A statement longer than this is a bug; it is ended rather than left to pile up.
const STATEMENT_TIMEOUT: &str = "15s";
/// A transaction left open by a lost client gives up its locks after this.
const IDLE_TRANSACTION_TIMEOUT: &str = "30s";

/// A service's own schema.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    begin: &'static str,
    committed: Arc<Notify>,
}

impl Db {
    /// A pool of at most `connections` on `schema`. Connects on first use, so that a service can start before its database.
    pub fn new(url: &str, schema: &str, connections: u32) -> anyhow::Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .context("DATABASE_URL must look like postgres://user:password@host:5432/database")?
            .application_name(schema)
            .options([
                ("search_path", format!("{schema},extensions").as_str()),
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("idle_in_transaction_session_timeout", IDLE_TRANSACTION_TIMEOUT),
                ("timezone", "UTC"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, known| {
                Box::pin(async move {
                    if known.idle_for > ALIVE_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, begin: "begin", committed: Arc::new(Notify::new()) })
    }

    /// The same for a service whose transactions find rows by key alone: a statement in them is planned once for each connection.
    ///
    /// Left to choose, PostgreSQL plans it for each call's values when its guess of the cost without them is higher; it guesses ten
    /// elements in any array, and such a guess made planning a look at a slot cost seven times what running it did.
    pub fn by_key(self) -> Self {
        Self { begin: "begin; set local plan_cache_mode = force_generic_plan", ..self }
    }

    /// Brings the schema to this build's state: the kit's own tables first, then the service's.
    pub async fn migrate(&self, service: &Migrator) -> anyhow::Result<()> {
        // On a connection of its own: building an index on a large table, or waiting for a sibling that does, takes its time.
        let options = self.pool.connect_options().as_ref().clone().options([("statement_timeout", "0")]);
        let patient = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        let mut kit = Migrator::with_migrations(KIT_MIGRATIONS.iter().cloned().collect());
        kit.dangerous_set_table_name("_kit_migrations");
        kit.run(&patient).await.context("the kit's migrations")?;
        service.run(&patient).await.context("the service's migrations")?;
        patient.close().await;
        Ok(())
    }

    /// The pool, for reads that need no transaction.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Opens a transaction.
    ///
    /// In a task of its own, for sqlx forgets a BEGIN whose caller leaves before the server has answered: the connection would go
    /// back to the pool with an open transaction, and the next one's statements would be part of it.
    ///
    /// Once more where the connection was dead: nothing has been done yet, and after [`Db::sweep`] the next one lives.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        let db = self.clone();
        let begun = tokio::spawn(async move {
            match db.pool.begin_with(db.begin).await {
                Err(error) if is_lost_connection(&error) => {
                    db.sweep();
                    db.pool.begin_with(db.begin).await
                }
                begun => begun,
            }
        });
        let inner = begun.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        Ok(Tx { inner, committed: self.committed.clone() })
    }

    /// Has every idle connection asked whether it lives, and closed if it does not; until it has answered nobody gets it.
    fn sweep(&self) {
        let idle: Vec<_> = std::iter::from_fn(|| self.pool.try_acquire()).collect();
        // The pool asks each one that comes back.
        drop(idle);
    }

    /// Wakes the outbox relay after a statement that was a transaction of its own.
    pub fn wake_relay(&self) {
        self.committed.notify_one();
    }

    /// Rings after each commit in this process.
    pub(crate) fn committed(&self) -> &Notify {
        &self.committed
    }

    /// One round trip, for readiness. An outage that it meets leaves no dead connection behind: when the database is back, who
    /// comes first does not have to replace one after the other.
    pub async fn ping(&self) -> sqlx::Result<()> {
        let asked = tokio::time::timeout(PING_TIMEOUT, sqlx::query("select 1").execute(&self.pool)).await;
        let answer = asked.map_err(|_| sqlx::Error::PoolTimedOut).flatten().map(drop);
        if answer.is_err() {
            self.sweep();
        }
        answer
    }
}

/// A transaction; rolled back when dropped.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Postgres>,
    committed: Arc<Notify>,
}

impl Tx {
    /// Commits and wakes the outbox relay.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.inner.commit().await?;
        self.committed.notify_one();
        Ok(())
    }

    /// Rolls back and waits until the server has done so.
    pub async fn rollback(self) -> sqlx::Result<()> {
        self.inner.rollback().await
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

/// Whether `error` means that trying again may help: the database cannot be reached, shuts down, or ended the statement for
/// another's sake. Not that a statement was wrong.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL, appendix A: connection, resources, shutdown or crash; deadlock or serialization; statement and idle
        // timeouts.
        sqlx::Error::Database(e) => e.code().is_some_and(|c| {
            ["08", "53", "57P", "40"].iter().any(|class| c.starts_with(class))
                || ["57014", "25P03"].contains(&&*c)
        }),
        _ => false,
    }
}

/// Whether `error` ends the connection it came by.
fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        // PostgreSQL, appendix A: connection, and shutdown or crash.
        sqlx::Error::Database(e) => {
            e.code().is_some_and(|code| ["08", "57P"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}
