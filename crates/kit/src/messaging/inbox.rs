//! The inbox: another service's events, applied once, in the transaction that remembers their ids.
//!
//! Delivery is at least once and may be out of order, so a handler's effect must be guarded by the aggregate's version: events
//! carry the whole state, the highest version wins. While the database is down a batch is kept alive and tried again; an event
//! whose handler itself fails is delivered again as [`Retry`] says, and then set aside.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::{Message, Name};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{AGGREGATE_ID, AGGREGATE_VERSION, EVENT_ID, TIME, TRACEPARENT, dead_letters};
use crate::db::Db;

/// Events that share a transaction at most.
const BATCH: usize = 200;
/// How long an event waits for others to share its transaction: a commit costs much more than an event.
const LINGER: Duration = Duration::from_millis(40);
/// JetStream delivers again what was not acknowledged for this long.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// A stream followed for this long counts as found: its loss is worth a line again.
const STEADY: Duration = Duration::from_secs(10);
/// Wait before a failed batch, or a lost stream, is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// JetStream shows this often that an idle request for events still stands; twice as long without a sign, and it is made anew.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// One event as it came off the stream.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event's own id, the same on every delivery.
    pub id: Uuid,
    /// The payload's protobuf full name.
    pub subject: String,
    /// What it is about.
    pub aggregate_id: Uuid,
    /// Version of that aggregate after the change.
    pub version: i64,
    /// When it was committed.
    pub time: DateTime<Utc>,
    /// W3C trace context of the request that caused it.
    pub traceparent: Option<String>,
    payload: Bytes,
}

impl Incoming {
    fn parse(message: &async_nats::Message) -> anyhow::Result<Self> {
        let headers = message.headers.as_ref().context("no headers")?;
        let header =
            |name: &str| headers.get(name).map(|v| v.as_str()).with_context(|| format!("no {name} header"));
        Ok(Self {
            id: header(EVENT_ID)?.parse()?,
            subject: message.subject.to_string(),
            aggregate_id: header(AGGREGATE_ID)?.parse()?,
            version: header(AGGREGATE_VERSION)?.parse()?,
            time: header(TIME)?.parse()?,
            traceparent: header(TRACEPARENT).ok().map(str::to_owned),
            payload: message.payload.clone(),
        })
    }

    /// `event` about an aggregate, as a stream would bring it: for those who hand it to a [`Handler`] themselves.
    pub fn new<E: Message + Name>(aggregate_id: Uuid, version: i64, time: DateTime<Utc>, event: &E) -> Self {
        Self {
            id: Uuid::now_v7(),
            subject: E::full_name(),
            aggregate_id,
            version,
            time,
            traceparent: None,
            payload: event.encode_to_vec().into(),
        }
    }

    /// The payload as `E`; `None` when the subject says that it is something else.
    pub fn decode<E: Message + Name + Default>(&self) -> anyhow::Result<Option<E>> {
        if self.subject != E::full_name() {
            return Ok(None);
        }
        E::decode(self.payload.clone()).map(Some).with_context(|| format!("decoding {}", self.subject))
    }
}

/// What a service does with other services' events.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Applies one event inside `tx`. No remote calls: write down what is to be done and let a worker do it.
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()>;

    /// Applies several, in their order: one after the other, unless a service can do it with fewer statements.
    async fn handle_all(&self, tx: &mut PgConnection, events: &[&Incoming]) -> Result<(), Failure> {
        for (at, event) in events.iter().enumerate() {
            let span = crate::telemetry::span_of_event(event);
            let handled = self.handle(tx, event).instrument(span).await;
            handled.map_err(|error| Failure { at: Some(at), error })?;
        }
        Ok(())
    }

    /// Called after these events' effects have been committed: wake workers, refresh what is mirrored in memory.
    async fn committed(&self, _events: &[Incoming]) {}
}

/// Why several events could not be applied together.
#[derive(Debug)]
pub struct Failure {
    /// Whose fault it is, counted from 0; `None` = nobody knows.
    pub at: Option<usize>,
    /// What happened.
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { at: None, error: error.into() }
    }
}

/// Which events a service follows.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Context whose stream it reads, such as `appointments`.
    pub context: &'static str,
    /// The following service: name of the durable consumer, and of the inbox rows.
    pub consumer: &'static str,
    /// Full names of the events it wants.
    pub subjects: Vec<String>,
}

/// When an event whose handler failed is delivered again, and when no more. By default 10 times, the last after 51 s in all.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Deliveries before the event is set aside as a dead letter, at least 1.
    pub deliveries: i64,
    /// Delay of the first redelivery; each further one is twice as long.
    pub first_delay: Duration,
    /// No delay is longer.
    pub longest_delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            deliveries: 10,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// Delay after the `delivery`-th delivery (counted from 1) has failed; `None` = give up.
    fn delay(&self, delivery: i64) -> Option<Duration> {
        const MOST_DOUBLINGS: i64 = 16;
        let doublings = (delivery - 1).clamp(0, MOST_DOUBLINGS) as u32;
        (delivery < self.deliveries).then(|| (self.first_delay * 2u32.pow(doublings)).min(self.longest_delay))
    }
}

/// Follows a stream until `shutdown`, whatever fails in between. Several replicas share the work.
pub async fn consume<H: Handler>(
    db: Db,
    nats: async_nats::Client,
    subscription: Subscription,
    handler: Arc<H>,
    shutdown: CancellationToken,
) {
    consume_with(db, nats, subscription, handler, Retry::default(), shutdown).await;
}

/// As [`consume`], with other delays.
pub async fn consume_with<H: Handler>(
    db: Db,
    nats: async_nats::Client,
    subscription: Subscription,
    handler: Arc<H>,
    retry: Retry,
    shutdown: CancellationToken,
) {
    let consumer = Consumer { js: super::jetstream(nats), db, subscription, handler, retry };
    let mut waiting = false;
    while !shutdown.is_cancelled() {
        let began = Instant::now();
        if let Some(Err(error)) = shutdown.run_until_cancelled(consumer.follow()).await {
            // A stream that its owner has not made yet is a normal start, not worth a line for each try; one lost later is.
            waiting &= began.elapsed() < STEADY;
            if !waiting {
                let Subscription { context, consumer, .. } = consumer.subscription;
                tracing::info!(
                    context,
                    consumer,
                    error = format!("{error:#}"),
                    "waiting for the event stream"
                );
            }
            waiting = true;
            shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await;
        }
    }
}

struct Consumer<H> {
    db: Db,
    js: jetstream::Context,
    subscription: Subscription,
    handler: Arc<H>,
    retry: Retry,
}

impl<H: Handler> Consumer<H> {
    async fn follow(&self) -> anyhow::Result<()> {
        let Subscription { context, consumer, subjects } = &self.subscription;
        let stream = self.js.get_stream_no_info(super::stream_name(context)).await?;
        let config = pull::Config {
            durable_name: Some((*consumer).to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 4 * BATCH as i64,
            filter_subjects: subjects.clone(),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.context("creating the consumer")?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .expires(Duration::from_secs(5))
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        let messages = messages.map_err(anyhow::Error::from);
        let mut batches = pin!(tokio_stream::StreamExt::chunks_timeout(messages, BATCH, LINGER));
        while let Some(batch) = batches.next().await {
            let (mut good, mut failure) = (vec![], None);
            for message in batch {
                match message {
                    Ok(message) => good.push(message),
                    Err(error) => failure = Some(error),
                }
            }
            if !good.is_empty() {
                self.apply(good).await;
            }
            if let Some(error) = failure {
                // A missed heartbeat comes with every lost connection; asking for the consumer anew settles both.
                return Err(error);
            }
        }
        Err(anyhow!("the stream of events ended"))
    }

    /// Applies one batch; comes back only when every message is acknowledged, delayed or set aside.
    async fn apply(&self, messages: Vec<jetstream::Message>) {
        let (mut events, mut broken) = (vec![], vec![]);
        for message in messages {
            match Incoming::parse(&message) {
                Ok(event) => events.push((message, event)),
                Err(error) => broken.push((message, error)),
            }
        }
        for (message, error) in broken {
            self.set_aside(&message, &error).await;
        }
        let outcome = loop {
            match self.transaction(&events).await {
                Ok(outcome) => break outcome,
                Err(error) => {
                    tracing::warn!(
                        consumer = self.subscription.consumer,
                        error = format!("{error:#}"),
                        "events wait"
                    );
                    join_all(events.iter().map(|(m, _)| m.ack_with(AckKind::Progress))).await;
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let mut done = vec![];
        for ((message, event), result) in events.into_iter().zip(outcome) {
            match result {
                Ok(()) => done.push((message, event)),
                Err(error) => self.delay_or_set_aside(&message, &event, &error).await,
            }
        }
        let (messages, events): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        metrics::counter!("inbox_applied_total", "consumer" => self.subscription.consumer)
            .increment(events.len() as u64);
        self.handler.committed(&events).await;
        for result in join_all(messages.iter().map(jetstream::Message::ack)).await {
            if let Err(error) = result {
                tracing::debug!(%error, "an acknowledgement was lost; the inbox will know the event when it comes again");
            }
        }
    }

    /// One transaction for the batch. The outer error is the database's, an inner one a handler's.
    async fn transaction(
        &self,
        events: &[(jetstream::Message, Incoming)],
    ) -> anyhow::Result<Vec<anyhow::Result<()>>> {
        let Err(Failure { at, error }) = self.together(events).await else {
            return Ok(events.iter().map(|_| Ok(())).collect());
        };
        tracing::debug!(error = format!("{error:#}"), "a batch of events is applied one by one");
        let Some(culprit) = at else { return self.one_by_one(events.iter()).await };
        // It has failed on this delivery; the others need not wait for it.
        let innocent = events.iter().enumerate().filter(|(at, _)| *at != culprit).map(|(_, event)| event);
        let mut outcome = self.one_by_one(innocent).await?;
        outcome.insert(culprit, Err(error));
        Ok(outcome)
    }

    /// All of them or none, without a savepoint for each.
    async fn together(&self, events: &[(jetstream::Message, Incoming)]) -> Result<(), Failure> {
        let mut tx = self.db.begin().await?;
        let ids: Vec<Uuid> = events.iter().map(|(_, event)| event.id).collect();
        let new: Vec<Uuid> = sqlx::query_scalar(
            "insert into inbox (consumer, event_id) select $1, unnest($2::uuid[]) on conflict do nothing returning event_id",
        )
        .bind(self.subscription.consumer)
        .bind(ids)
        .fetch_all(&mut *tx)
        .await?;
        let mut new: HashSet<Uuid> = new.into_iter().collect();
        // Of an event that is there twice, the first.
        let (places, events): (Vec<usize>, Vec<&Incoming>) = events
            .iter()
            .enumerate()
            .filter_map(|(at, (_, event))| new.remove(&event.id).then_some((at, event)))
            .unzip();
        let applied = self.handler.handle_all(&mut tx, &events).await;
        applied.map_err(|failure| Failure { at: failure.at.map(|at| places[at]), ..failure })?;
        Ok(tx.commit().await?)
    }

    /// A savepoint for each event.
    async fn one_by_one(
        &self,
        events: impl Iterator<Item = &(jetstream::Message, Incoming)>,
    ) -> anyhow::Result<Vec<anyhow::Result<()>>> {
        let mut tx = self.db.begin().await?;
        let mut outcome = vec![];
        for (_, event) in events {
            let mut savepoint = tx.begin().await?;
            let span = crate::telemetry::span_of_event(event);
            let result = async {
                if self.is_new(&mut savepoint, event).await? {
                    self.handler.handle(&mut savepoint, event).await?;
                }
                Ok(())
            }
            .instrument(span)
            .await;
            match result {
                Ok(()) => savepoint.commit().await?,
                Err(_) => savepoint.rollback().await?,
            }
            outcome.push(result);
        }
        tx.commit().await?;
        Ok(outcome)
    }

    async fn is_new(&self, tx: &mut PgConnection, event: &Incoming) -> sqlx::Result<bool> {
        let inserted =
            sqlx::query("insert into inbox (consumer, event_id) values ($1, $2) on conflict do nothing")
                .bind(self.subscription.consumer)
                .bind(event.id)
                .execute(tx)
                .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn delay_or_set_aside(
        &self,
        message: &jetstream::Message,
        event: &Incoming,
        error: &anyhow::Error,
    ) {
        let attempt = message.info().map(|i| i.delivered).unwrap_or(1);
        let Some(delay) = self.retry.delay(attempt) else {
            return self.set_aside(message, error).await;
        };
        let (consumer, subject, id) = (self.subscription.consumer, &event.subject, event.id);
        tracing::warn!(consumer, subject, %id, attempt, error = format!("{error:#}"), "an event failed and will come again");
        if let Err(error) = message.ack_with(AckKind::Nak(Some(delay))).await {
            tracing::debug!(%error, "a delay was lost; the event comes again all the same");
        }
    }

    async fn set_aside(&self, message: &jetstream::Message, error: &anyhow::Error) {
        let consumer = self.subscription.consumer;
        let words = format!("{error:#}");
        if let Err(error) = dead_letters::put(&self.js, consumer, message, &words).await {
            // Not acknowledged: it stays on its own stream and comes again.
            tracing::warn!(consumer, error = format!("{error:#}"), "a dead letter could not be kept");
            return;
        }
        metrics::counter!("dead_letters_total", "consumer" => consumer).increment(1);
        tracing::error!(consumer, subject = %message.subject, error = words, "an event was set aside; see `clinic dlq list`");
        if let Err(error) = message.ack_with(AckKind::Term).await {
            tracing::debug!(%error, "the end of an event was not acknowledged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_event_is_delivered_ten_times_within_a_minute() {
        let delays: Vec<_> = (1..).map_while(|delivery| Retry::default().delay(delivery)).collect();
        assert_eq!(delays.len(), 9);
        assert_eq!(delays[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(delays.iter().sum::<Duration>(), Duration::from_millis(51_100));
    }
}
