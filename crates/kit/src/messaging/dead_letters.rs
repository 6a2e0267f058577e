//! Events that a consumer failed on again and again wait on a stream of their own until a person sends them back.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, message::PublishMessage};
use async_nats::{HeaderMap, Message};
use futures::StreamExt as _;

use super::EVENT_ID;

/// The stream's name.
pub const STREAM: &str = "DEAD_LETTERS";
/// Header: which consumer gave up.
const CONSUMER: &str = "clinic-consumer";
/// Header: what it said at the last attempt.
const ERROR: &str = "clinic-error";
/// Header: subject that the event came in on.
const SUBJECT: &str = "clinic-subject";

/// One event set aside.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its place on the dead-letter stream; names it for [`redrive`].
    pub sequence: u64,
    /// Which consumer gave up.
    pub consumer: String,
    /// Subject that it came in on.
    pub subject: String,
    /// The event's id; empty when the message had none.
    pub event_id: String,
    /// The last error, in the consumer's words.
    pub error: String,
    message: Message,
}

/// Sets a message aside.
pub(super) async fn put(
    js: &jetstream::Context,
    consumer: &str,
    message: &jetstream::Message,
    error: &str,
) -> anyhow::Result<()> {
    ensure_stream(js).await?;
    let mut headers = message.headers.clone().unwrap_or_default();
    headers.insert(CONSUMER, consumer);
    headers.insert(SUBJECT, message.subject.as_str());
    // Header values are one line.
    headers.insert(ERROR, error.replace(['\r', '\n'], " "));
    // Its place, not its event id: what a person sent back may fail again, and a foreign message has no id at all.
    let place = message.info().map_err(|e| anyhow::anyhow!(e))?;
    let id = format!("dlq-{consumer}-{}-{}", place.stream, place.stream_sequence);
    let letter = PublishMessage::build().payload(message.payload.clone()).headers(headers).message_id(id);
    js.send_publish(format!("dlq.{consumer}.{}", message.subject), letter).await?.await?;
    Ok(())
}

/// Dead letters wait for a person, however long that takes.
async fn ensure_stream(js: &jetstream::Context) -> anyhow::Result<()> {
    if super::has_stream(js, STREAM).await? {
        return Ok(());
    }
    super::make_stream(js, STREAM, "dlq.>".to_owned(), Duration::ZERO).await
}

/// Everything set aside, oldest first. A broker that never had a dead letter has none.
pub async fn list(js: &jetstream::Context) -> anyhow::Result<Vec<DeadLetter>> {
    ensure_stream(js).await?;
    let mut stream = js.get_stream(STREAM).await?;
    let waiting = stream.info().await?.state.messages as usize;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        inactive_threshold: Duration::from_secs(30),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut letters = Vec::with_capacity(waiting);
    while letters.len() < waiting {
        let mut batch = consumer.fetch().max_messages(waiting - letters.len()).messages().await?;
        let before = letters.len();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|e| anyhow::anyhow!(e))?;
            let sequence = message.info().map_err(|e| anyhow::anyhow!(e))?.stream_sequence;
            letters.push(read(sequence, message.message.clone()));
        }
        if letters.len() == before {
            break;
        }
    }
    Ok(letters)
}

/// Sends one dead letter back on its subject and forgets it here. Consumers that had applied it know its id.
pub async fn redrive(js: &jetstream::Context, letter: &DeadLetter) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    for (name, values) in letter.message.headers.iter().flat_map(HeaderMap::iter) {
        let own =
            [CONSUMER, ERROR, SUBJECT, "Nats-Msg-Id"].iter().any(|h| h.eq_ignore_ascii_case(name.as_ref()));
        if let (false, Some(value)) = (own, values.first()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let again = PublishMessage::build()
        .payload(letter.message.payload.clone())
        .headers(headers)
        .message_id(format!("redrive-{}-{}", letter.sequence, letter.event_id));
    js.send_publish(letter.subject.clone(), again).await?.await.context("sending the event back")?;
    js.get_stream(STREAM).await?.delete_message(letter.sequence).await?;
    Ok(())
}

fn read(sequence: u64, message: Message) -> DeadLetter {
    let header = |name: &str| {
        message.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.to_string()).unwrap_or_default()
    };
    DeadLetter {
        sequence,
        consumer: header(CONSUMER),
        subject: header(SUBJECT),
        event_id: header(EVENT_ID),
        error: header(ERROR),
        message,
    }
}
