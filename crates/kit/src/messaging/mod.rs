//! Events between services: committed facts, told at least once, applied exactly once.
//!
//! [`outbox::put`] writes an event in the transaction that makes it true; [`outbox::relay`] publishes it to JetStream;
//! [`inbox::consume`] applies it at another service together with its event id; what fails ten times waits in
//! [`dead_letters`] for a person.
//!
//! Subject = the payload's protobuf full name. Headers = CloudEvents 1.0 in NATS binary mode
//! (<https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md>).

pub mod dead_letters;
pub mod inbox;
pub mod outbox;

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream;

/// Header: the event's id (UUID).
pub const EVENT_ID: &str = "ce-id";
/// Header: version of the aggregate that the event is about.
pub const AGGREGATE_VERSION: &str = "ce-aggregateversion";
/// Header: id of the aggregate that the event is about.
pub const AGGREGATE_ID: &str = "ce-subject";
/// Header: when the fact was committed, RFC 3339.
pub const TIME: &str = "ce-time";
/// Header: W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// How long JetStream drops a message id it has seen. The inbox, not this, makes effects once.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long events stay on a stream.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// An acknowledgement later than this is asked for again with the same message id.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The stream of one context, such as `BILLING` for `billing`.
pub fn stream_name(context: &str) -> String {
    context.to_ascii_uppercase()
}

/// A JetStream context with our time limits.
pub fn jetstream(client: async_nats::Client) -> jetstream::Context {
    jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(2))
        .ack_timeout(ACK_TIMEOUT)
        .build(client)
}

/// Connects to NATS, now or whenever it comes up, and again whenever it is lost.
pub async fn connect(url: &str, name: &str) -> anyhow::Result<async_nats::Client> {
    const SLOWEST: Duration = Duration::from_secs(2);
    let client = async_nats::ConnectOptions::new()
        .name(name)
        .retry_on_initial_connect()
        .connection_timeout(SLOWEST)
        .reconnect_delay_callback(|attempts| SLOWEST.min(Duration::from_millis(50 * attempts as u64)))
        .event_callback(|event| async move { tracing::info!(%event, "NATS connection") })
        .connect(url)
        .await?;
    Ok(client)
}

/// Whether a stream is there; an error when JetStream does not answer.
async fn has_stream(js: &jetstream::Context, name: &str) -> anyhow::Result<bool> {
    match js.get_stream(name).await {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), GetStreamErrorKind::JetStream(ref j) if j.code() == 404) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Makes a stream that keeps its messages for `max_age`; zero = until they are deleted.
async fn make_stream(
    js: &jetstream::Context,
    name: &str,
    subject: String,
    max_age: Duration,
) -> anyhow::Result<()> {
    js.create_stream(stream::Config {
        name: name.to_owned(),
        subjects: vec![subject],
        storage: stream::StorageType::File,
        duplicate_window: DUPLICATE_WINDOW,
        max_age,
        ..Default::default()
    })
    .await?;
    Ok(())
}
