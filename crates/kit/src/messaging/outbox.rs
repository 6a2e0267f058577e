//! The outbox: events leave a service only after the transaction that made them true has committed.
//!
//! One relay per schema publishes at a time (a session advisory lock decides which replica), reads *unpublished* rows rather
//! than "rows after n" (positions commit out of order), keeps at most one event of an aggregate in flight, and marks rows only
//! after JetStream's acknowledgement. Rows stay for a while: when the stream is found missing, they are published again.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::PublishMessage};
use chrono::{DateTime, SecondsFormat, Utc};
use prost::{Message, Name};
use sqlx::{FromRow, PgConnection};
use tokio::time::{Instant, interval, interval_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{AGGREGATE_ID, AGGREGATE_VERSION, EVENT_ID, TIME, TRACEPARENT};
use crate::db::Db;
use crate::ids::EventId;

/// Rows published between two looks at the table.
const BATCH: i64 = 500;
/// Rows reset in one statement when a lost stream is to be filled again.
const RESET: i64 = 10_000;
/// How soon a commit of another replica is noticed; this process's own commits wake the relay at once.
const POLL: Duration = Duration::from_millis(50);
/// How long an event waits for others to be published with.
const LINGER: Duration = Duration::from_millis(40);
/// How long published rows are kept so that a lost stream can be filled again.
const KEEP: &str = "14 days";
/// How often rows past their keeping are removed.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// How often an idle relay makes sure that its stream is still there; a busy one notices at once.
const LOOK_AT_STREAM: Duration = Duration::from_secs(5);
/// Wait after a failure: from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Wait before asking again whether the replica that publishes has gone.
const STANDBY: Duration = Duration::from_secs(1);

/// An event about to be told: the columns of its row.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its own id.
    pub id: EventId,
    /// The payload's protobuf full name.
    pub subject: String,
    /// The message.
    pub payload: Vec<u8>,
    /// W3C trace context of the request that causes it.
    pub traceparent: Option<String>,
}

impl Event {
    /// `message`, told in the course of what runs now.
    pub fn new<E: Message + Name>(message: &E) -> Self {
        Self {
            id: EventId::new(),
            subject: E::full_name(),
            payload: message.encode_to_vec(),
            traceparent: crate::telemetry::current_traceparent(),
        }
    }
}

/// Writes an event in the transaction that makes it true. `version` is the aggregate's after the change.
pub async fn put<E: Message + Name>(
    tx: &mut PgConnection,
    aggregate: impl Into<Uuid>,
    version: i64,
    event: &E,
) -> sqlx::Result<()> {
    let event = Event::new(event);
    sqlx::query(
        "insert into outbox (event_id, subject, aggregate_id, aggregate_version, payload, traceparent)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(event.id)
    .bind(event.subject)
    .bind(aggregate.into())
    .bind(version)
    .bind(event.payload)
    .bind(event.traceparent)
    .execute(tx)
    .await
    .map(drop)
}

#[derive(Clone, FromRow)]
struct Row {
    event_id: Uuid,
    subject: String,
    aggregate_id: Uuid,
    aggregate_version: i64,
    payload: Vec<u8>,
    traceparent: Option<String>,
    created_at: DateTime<Utc>,
}

/// Publishes `context`'s events until `shutdown`, whatever fails in between.
pub async fn relay(db: Db, nats: async_nats::Client, context: &'static str, shutdown: CancellationToken) {
    let relay = Relay { js: super::jetstream(nats), db, context };
    let mut backoff = BACKOFF.0;
    while !shutdown.is_cancelled() {
        let run = shutdown.run_until_cancelled(relay.lead(&mut backoff)).await;
        if let Some(Err(error)) = run {
            tracing::warn!(context, error = format!("{error:#}"), retry_in = ?backoff, "events wait in the outbox");
            shutdown.run_until_cancelled(tokio::time::sleep(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }
}

struct Relay {
    db: Db,
    js: jetstream::Context,
    context: &'static str,
}

impl Relay {
    /// Waits to be the one that publishes, then publishes until something fails.
    async fn lead(&self, backoff: &mut Duration) -> anyhow::Result<()> {
        // Detached, because the lock belongs to this session and must end with it.
        let mut conn = self.db.pool().acquire().await?.detach();
        let key = format!("{}.outbox", self.context);
        while !sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(&key)
            .fetch_one(&mut conn)
            .await?
        {
            tokio::time::sleep(STANDBY).await;
        }
        // What this session writes down, that an event was published, may be lost in a crash: the event is told again then.
        sqlx::query("set synchronous_commit = off").execute(&mut conn).await?;
        self.ensure_stream(&mut conn).await?;
        let mut clean = interval(CLEAN_EVERY);
        let mut look = interval_at(Instant::now() + LOOK_AT_STREAM, LOOK_AT_STREAM);
        loop {
            while self.publish_batch(&mut conn).await? == BATCH as usize {}
            *backoff = BACKOFF.0;
            tokio::select! {
                () = self.db.committed().notified() => tokio::time::sleep(LINGER).await,
                () = tokio::time::sleep(POLL) => {}
                _ = clean.tick() => clean_up(&mut conn).await?,
                _ = look.tick() => self.ensure_stream(&mut conn).await?,
            }
        }
    }

    /// When the stream is missing, every kept event is told again: the table is the truth. The rows are reset before the stream
    /// is made, so that a crash in between repeats this instead of forgetting it.
    async fn ensure_stream(&self, conn: &mut PgConnection) -> anyhow::Result<()> {
        let name = super::stream_name(self.context);
        if super::has_stream(&self.js, &name).await.context("JetStream does not answer")? {
            return Ok(());
        }
        let mut again = 0;
        loop {
            let reset = sqlx::query(
                "update outbox set published_at = null where event_id in (
                     select event_id from outbox where published_at is not null limit $1)",
            )
            .bind(RESET)
            .execute(&mut *conn)
            .await?
            .rows_affected();
            again += reset;
            if reset < RESET as u64 {
                break;
            }
        }
        super::make_stream(&self.js, &name, format!("clinic.{}.>", self.context), super::RETENTION).await?;
        tracing::info!(
            context = self.context,
            events = again,
            "made the event stream; kept events are told again"
        );
        Ok(())
    }

    async fn publish_batch(&self, conn: &mut PgConnection) -> anyhow::Result<usize> {
        let rows: Vec<Row> = sqlx::query_as(
            "select event_id, subject, aggregate_id, aggregate_version, payload, traceparent, created_at
             from outbox where published_at is null order by position limit $1",
        )
        .bind(BATCH)
        .fetch_all(&mut *conn)
        .await?;
        let count = rows.len();
        for wave in waves(rows) {
            let published = self.publish(&wave).await;
            if let Ok(ids) = &published {
                sqlx::query("update outbox set published_at = now() where event_id = any($1)")
                    .bind(ids)
                    .execute(&mut *conn)
                    .await?;
                metrics::counter!("outbox_published_total", "context" => self.context)
                    .increment(ids.len() as u64);
            }
            published?;
        }
        Ok(count)
    }

    /// Sends all of `rows`, then waits for every acknowledgement.
    async fn publish(&self, rows: &[Row]) -> anyhow::Result<Vec<Uuid>> {
        let mut acks = Vec::with_capacity(rows.len());
        for row in rows {
            let message = PublishMessage::build()
                .payload(row.payload.clone().into())
                .headers(self.headers(row))
                .message_id(row.event_id.to_string());
            acks.push(self.js.send_publish(row.subject.clone(), message).await?);
        }
        for ack in acks {
            ack.await.context("publishing to JetStream")?;
        }
        Ok(rows.iter().map(|r| r.event_id).collect())
    }

    fn headers(&self, row: &Row) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(EVENT_ID, row.event_id.to_string());
        headers.insert("ce-specversion", "1.0");
        headers.insert("ce-type", row.subject.as_str());
        headers.insert("ce-source", format!("/clinic/{}", self.context));
        headers.insert(AGGREGATE_ID, row.aggregate_id.to_string());
        headers.insert(TIME, row.created_at.to_rfc3339_opts(SecondsFormat::Micros, true));
        headers.insert(AGGREGATE_VERSION, row.aggregate_version.to_string());
        headers.insert("content-type", "application/protobuf");
        if let Some(trace) = &row.traceparent {
            headers.insert(TRACEPARENT, trace.as_str());
        }
        headers
    }
}

/// Splits rows so that no wave has two events of one aggregate, each aggregate's own order kept.
fn waves(mut rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut waves = vec![];
    while !rows.is_empty() {
        let mut seen = HashSet::new();
        let (wave, rest) = rows.into_iter().partition(|row| seen.insert(row.aggregate_id));
        waves.push(wave);
        rows = rest;
    }
    waves
}

/// Forgets what nobody will ask for again.
async fn clean_up(conn: &mut PgConnection) -> sqlx::Result<()> {
    const REQUESTS: &str = "24 hours";
    for (sql, keep) in [
        ("delete from outbox where published_at < now() - $1::interval", KEEP),
        ("delete from inbox where received_at < now() - $1::interval - interval '30 days'", KEEP),
        ("delete from request where created_at < now() - $1::interval", REQUESTS),
    ] {
        sqlx::query(sql).bind(keep).execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_aggregate_has_one_event_in_flight_and_keeps_its_order() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let row = |aggregate_id, aggregate_version| Row {
            event_id: EventId::new().uuid(),
            subject: String::new(),
            aggregate_id,
            aggregate_version,
            payload: vec![],
            traceparent: None,
            created_at: DateTime::UNIX_EPOCH,
        };
        let waves = waves(vec![row(a, 1), row(a, 2), row(b, 1), row(a, 3)]);
        let shape: Vec<Vec<(Uuid, i64)>> =
            waves.iter().map(|w| w.iter().map(|r| (r.aggregate_id, r.aggregate_version)).collect()).collect();
        assert_eq!(shape, [vec![(a, 1), (b, 1)], vec![(a, 2)], vec![(a, 3)]]);
    }
}
