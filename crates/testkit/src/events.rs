//! Events in tests: telling one as another service's outbox would, and reading what a service told.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, stream};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use kit::ids::EventId;
use kit::messaging;
use prost::{Message, Name};
use uuid::Uuid;

/// Publishes `event` of `context` about `aggregate`, as that service's relay would. Answers the event's id.
pub async fn publish<E: Message + Name>(
    nats: &async_nats::Client,
    context: &str,
    aggregate: impl Into<Uuid>,
    version: i64,
    event: &E,
) -> EventId {
    publish_at(nats, context, aggregate, version, kit::clock::Clock::System.now(), event).await
}

/// As [`publish`], of something that happened at `time`.
pub async fn publish_at<E: Message + Name>(
    nats: &async_nats::Client,
    context: &str,
    aggregate: impl Into<Uuid>,
    version: i64,
    time: DateTime<Utc>,
    event: &E,
) -> EventId {
    let js = messaging::jetstream(nats.clone());
    ensure(&js, context).await;
    let id = EventId::new();
    let mut headers = HeaderMap::new();
    headers.insert(messaging::EVENT_ID, id.to_string());
    headers.insert(messaging::AGGREGATE_ID, aggregate.into().to_string());
    headers.insert(messaging::AGGREGATE_VERSION, version.to_string());
    headers.insert(messaging::TIME, time.to_rfc3339());
    // A broker on a busy machine answers late. Told twice, an event has one id.
    crate::until("an event is kept", || async {
        let body = event.encode_to_vec().into();
        js.publish_with_headers(E::full_name(), headers.clone(), body).await.ok()?.await.ok()
    })
    .await;
    id
}

/// How far `consumer` is behind the stream of `context`, for a test that fails.
pub async fn behind(nats: &async_nats::Client, context: &str, consumer: &str) -> String {
    let js = messaging::jetstream(nats.clone());
    let stream = js.get_stream(messaging::stream_name(context)).await.expect("just made");
    match stream.consumer_info(consumer).await {
        Ok(info) => format!(
            "{} to be delivered, {} delivered and not acknowledged, {} delivered again",
            info.num_pending, info.num_ack_pending, info.num_redelivered
        ),
        Err(error) => error.to_string(),
    }
}

/// The first `count` events of type `E` that `context` told, waiting for them; fails the test when they do not come.
pub async fn collect<E: Message + Name + Default>(
    nats: &async_nats::Client,
    context: &str,
    count: usize,
) -> Vec<E> {
    let js = messaging::jetstream(nats.clone());
    ensure(&js, context).await;
    let stream = js.get_stream(messaging::stream_name(context)).await.expect("just made");
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        filter_subject: E::full_name(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages");
    let read =
        messages.map(|m| E::decode(m.expect("a message").payload.clone()).expect("its own type")).take(count);
    tokio::time::timeout(crate::SOON, read.collect())
        .await
        .unwrap_or_else(|_| panic!("{context} did not tell {count} x {}", E::full_name()))
}

/// The stream as its owner makes it, for tests in which the owner does not run.
async fn ensure(js: &jetstream::Context, context: &str) {
    let config = stream::Config {
        name: messaging::stream_name(context),
        subjects: vec![format!("clinic.{context}.>")],
        ..Default::default()
    };
    crate::until("a stream", || async { js.get_or_create_stream(config.clone()).await.ok() }).await;
}
