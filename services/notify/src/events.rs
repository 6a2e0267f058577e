//! What notify tells the others.

use chrono::{DateTime, Utc};
use kit::fields::timestamp;
use kit::messaging::outbox;
use proto::clinic::notify::v1::{MessageDelivered, MessageFailed, MessageSent};
use sqlx::PgConnection;

use crate::store::Message;

/// An id that may be absent, as events spell it.
pub(crate) fn optional(id: Option<impl ToString>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// The provider took `message`, which is now of `version`.
pub fn message_sent(message: &Message, version: i64, send_time: DateTime<Utc>) -> MessageSent {
    MessageSent {
        message_id: message.id.to_string(),
        version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        appointment_version: message.appointment_version,
        reminder_id: optional(message.reminder),
        kind: message.kind.into(),
        channel: message.channel.into(),
        segments: message.segments,
        send_time: Some(timestamp(send_time)),
    }
}

/// `message` reached the handset.
pub async fn message_delivered(
    tx: &mut PgConnection,
    message: &Message,
    deliver_time: DateTime<Utc>,
) -> sqlx::Result<()> {
    let event = MessageDelivered {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        kind: message.kind.into(),
        channel: message.channel.into(),
        deliver_time: Some(timestamp(deliver_time)),
    };
    outbox::put(tx, message.id, message.version, &event).await
}

/// The provider refused `message`, or could not deliver it.
pub async fn message_failed(tx: &mut PgConnection, message: &Message) -> sqlx::Result<()> {
    let event = MessageFailed {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        reminder_id: optional(message.reminder),
        kind: message.kind.into(),
        channel: message.channel.into(),
        reason: message.failure_reason.into(),
        provider_error_code: message.provider_error_code.clone(),
    };
    outbox::put(tx, message.id, message.version, &event).await
}
