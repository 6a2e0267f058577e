//! What callers can do. Each change is one transaction: the change, the counters it raises, the events that tell it, and the
//! answer that a repeated request gets.

pub mod calendar;
pub mod catalog;
pub mod edit;
pub mod link;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::clock::Clock;
use kit::db::Db;
use kit::idempotency::{self, Attempt};
use kit::ids::RequestId;
use prost::Message;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::mirror::{Mirror, View};

/// The service's use cases and what they stand on.
#[derive(Clone, Debug)]
pub struct App {
    /// Its schema.
    pub db: Db,
    /// Time.
    pub clock: Clock,
    /// The network in memory.
    pub mirror: Mirror,
    /// Signs links to calendars.
    pub signer: link::Signer,
    /// Ends streams.
    pub stop: CancellationToken,
}

/// Who asks for a change, and by which name for this attempt.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// The caller.
    pub caller: Caller,
    /// The RPC.
    pub method: &'static str,
    /// `None` = not safe to repeat.
    pub request_id: Option<RequestId>,
}

impl App {
    /// The present instant.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// For lists and reads.
    pub fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// For searches.
    pub fn view(&self) -> View {
        self.mirror.view()
    }

    /// Does `work` in a transaction once for each request id, and lets searches see it.
    pub async fn once<Q, R, F>(&self, by: &Attribution, request: &Q, work: F) -> Result<R, Error>
    where
        Q: Message,
        R: Message + Default,
        F: AsyncFnOnce(&mut PgConnection) -> Result<R, Error>,
    {
        match idempotency::begin(&self.db, &by.caller, by.method, by.request_id, request).await? {
            Attempt::Replayed(answer) => Ok(answer),
            Attempt::Fresh(mut fresh) => {
                let answer = work(&mut fresh.tx).await?;
                fresh.finish(&answer).await?;
                let _ = self.mirror.caught_up(self.now()).await;
                Ok(answer)
            }
        }
    }
}

/// Names a state of a resource.
pub fn etag(version: i64) -> String {
    version.to_string()
}

/// Refuses a change of a state that the caller has not seen; an empty etag is not compared.
pub fn compare_etag(given: &str, version: i64, kind: &'static str) -> Result<(), Error> {
    let same = given.is_empty() || given == etag(version);
    if same { Ok(()) } else { Err(kit::status::Error::EtagMismatch { kind }.into()) }
}
