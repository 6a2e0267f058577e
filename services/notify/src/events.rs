//! What notify tells the others.

use chrono::Utc;
use kit::fields::timestamp;
use kit::messaging::outbox;
use proto::clinic::notify::v1::{MessageFailed, MessageSent};
use sqlx::PgConnection;

use crate::store::Message;

/// An id that may be absent, as events spell it.
pub(crate) fn optional(id: Option<impl ToString>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// The provider took `message`.
pub async fn message_sent(
    tx: &mut PgConnection,
    message: &Message,
    send_time: chrono::DateTime<Utc>,
) -> sqlx::Result<()> {
    let event = MessageSent {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        appointment_version: message.appointment_version,
        reminder_id: optional(message.reminder),
        kind: message.kind.into(),
        channel: message.channel.into(),
        segments: message.segments,
        send_time: Some(timestamp(send_time)),
    };
    outbox::put(tx, message.id, message.version, &event).await
}

/// The provider refused `message`.
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
