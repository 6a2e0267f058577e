//! What the provider tells of messages after it took them. States only move forward, in whatever order it tells them.

use chrono::{DateTime, Utc};
use kit::ids::MessageId;
use proto::clinic::notify::v1::{FailureReason, MessageState};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Message, MessageRow};

/// Finds and locks the message that the provider calls `reference`; if it is not known by that name yet, the one that we called
/// `message` when we handed it over.
pub async fn find(
    tx: &mut PgConnection,
    reference: &str,
    message: Option<MessageId>,
) -> sqlx::Result<Option<Message>> {
    let row = sqlx::query_as!(
        MessageRow,
        "select id, patient_id, appointment_id, appointment_version, reminder_id, in_reply_to_id, kind, channel, language,
                state, drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts, version,
                provider_reference, create_time, send_time, deliver_time, update_time
         from notify.message
         where provider_reference = $1 or id = $2 and provider_reference is null
         order by provider_reference is null
         limit 1
         for update",
        reference,
        message.map(Uuid::from),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Message::from))
}

/// A SENT message reached the handset; answers it as it is now, `None` = it was not SENT.
pub async fn delivered(
    tx: &mut PgConnection,
    message: &Message,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<Message>> {
    let version = sqlx::query_scalar!(
        "update notify.message
         set state = 'MESSAGE_STATE_DELIVERED', deliver_time = $2, update_time = $2, version = version + 1
         where id = $1 and state = 'MESSAGE_STATE_SENT'
         returning version",
        message.id.uuid(),
        at
    )
    .fetch_optional(tx)
    .await?;
    let state = MessageState::Delivered;
    Ok(version.map(|version| Message { state, version, deliver_time: Some(at), ..message.clone() }))
}

/// A SENT message did not arrive; answers it as it is now, `None` = it was not SENT.
pub async fn not_delivered(
    tx: &mut PgConnection,
    message: &Message,
    state: MessageState,
    (reason, code): (FailureReason, &str),
    at: DateTime<Utc>,
) -> sqlx::Result<Option<Message>> {
    let version = sqlx::query_scalar!(
        "update notify.message
         set state = $2, failure_reason = $3, provider_error_code = $4, update_time = $5, version = version + 1,
             next_try = case when $3 = 'FAILURE_REASON_OPTED_OUT' then clock.now() end
         where id = $1 and state = 'MESSAGE_STATE_SENT'
         returning version",
        message.id.uuid(),
        state.as_str_name(),
        reason.as_str_name(),
        code,
        at
    )
    .fetch_optional(tx)
    .await?;
    let now_is = |version| Message {
        state,
        failure_reason: reason,
        provider_error_code: code.to_owned(),
        version,
        ..message.clone()
    };
    Ok(version.map(now_is))
}
