//! A text received is written down, and carrier words take effect, in one transaction.

use chrono::{DateTime, Utc};
use kit::db::Db;
use kit::ids::MessageId;
use proto::clinic::notify::v1::{
    Channel, DropReason, FailureReason, MessageKind, MessageState, ReplyMeaning,
};

use super::understand::{Word, understand};
use crate::gsm7;
use crate::store::opt_out::{self, NumberHash};
use crate::store::{Message, inbound, outgoing};

/// One text, as the provider told of it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The provider's id.
    pub reference: &'a str,
    /// From whom.
    pub number: NumberHash,
    /// Its words.
    pub body: &'a str,
    /// The provider has answered it.
    pub answered: bool,
    /// When.
    pub at: DateTime<Utc>,
}

/// Keeps a text once, however often it is told; answers its id the first time.
pub async fn keep(db: &Db, text: &Received<'_>) -> sqlx::Result<Option<MessageId>> {
    let meaning = match understand(text.body) {
        Word::Stop => Some(ReplyMeaning::OptOut),
        Word::Start => Some(ReplyMeaning::OptIn),
        Word::Help => Some(ReplyMeaning::Help),
        // Which visit a digit is about takes a look at others' records.
        Word::Digit(_) => None,
        Word::Other => Some(ReplyMeaning::Unknown),
    };
    // PostgreSQL's text holds no NUL.
    let body = text.body.replace('\0', "");
    let measure = gsm7::measure(&body);
    let message = Message {
        id: MessageId::new(),
        patient: None,
        appointment: None,
        appointment_version: 0,
        reminder: None,
        in_reply_to: None,
        channel: Channel::Sms,
        kind: MessageKind::Inbound,
        language: String::new(),
        state: MessageState::Received,
        drop_reason: DropReason::Unspecified,
        failure_reason: FailureReason::Unspecified,
        provider_error_code: String::new(),
        body,
        encoding: measure.encoding,
        segments: measure.segments as i32,
        attempts: 0,
        version: 0,
        provider_reference: Some(text.reference.to_owned()),
        create_time: text.at,
        send_time: None,
        deliver_time: None,
        update_time: text.at,
    };
    let mut tx = db.begin().await?;
    if inbound::is_known(&mut tx, text.reference).await? {
        return Ok(None);
    }
    outgoing::insert_message(&mut tx, &message).await?;
    inbound::insert(&mut tx, message.id, text.number, meaning, text.answered, text.at).await?;
    match meaning {
        Some(ReplyMeaning::OptOut) => opt_out::decide(&mut tx, text.number, true, text.at).await?,
        Some(ReplyMeaning::OptIn) => opt_out::decide(&mut tx, text.number, false, text.at).await?,
        Some(_) | None => {}
    }
    tx.commit().await?;
    Ok(Some(message.id))
}
