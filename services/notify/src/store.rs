//! All SQL: visits, reminders and their planning here, sending in [`outgoing`] and [`bulk`], the pace of it in [`sender`],
//! texts received in [`inbound`], offers in [`offers`], who wants no texts in [`opt_out`], lists in [`lists`].
//!
//! Enums are stored by their names in the contract.

pub mod bulk;
pub mod inbound;
pub mod lists;
pub mod mails;
pub mod notices;
pub mod offers;
pub mod opt_out;
pub mod outgoing;
pub mod sender;
pub mod status;
pub mod templates;

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, MessageId, PatientId, ReminderId};
use proto::clinic::notify::v1::{
    Channel, DropReason, FailureReason, MessageKind, MessageState, ReminderKind, ReminderState, TextEncoding,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Plan, Visit, first_look};

/// One planned reminder.
#[derive(Clone, Debug)]
pub struct Reminder {
    /// Its id.
    pub id: ReminderId,
    /// The visit.
    pub appointment: AppointmentId,
    /// The version it was planned for.
    pub appointment_version: i64,
    /// Whom.
    pub patient: PatientId,
    /// How long before the visit.
    pub kind: ReminderKind,
    /// When the visit starts.
    pub visit_start_time: DateTime<Utc>,
    /// When it is to be sent.
    pub due_time: DateTime<Utc>,
    /// How far it is.
    pub state: ReminderState,
    /// Why it was dropped.
    pub drop_reason: DropReason,
    /// The message it became.
    pub message: Option<MessageId>,
    /// When planned.
    pub create_time: DateTime<Utc>,
    /// When last changed.
    pub update_time: DateTime<Utc>,
}

/// One text, without its number.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// To or from whom; `None` = a number of nobody, or of several.
    pub patient: Option<PatientId>,
    /// The visit it is about.
    pub appointment: Option<AppointmentId>,
    /// The version of the visit it speaks of; 0 = none.
    pub appointment_version: i64,
    /// The reminder it came from.
    pub reminder: Option<ReminderId>,
    /// The message it answers.
    pub in_reply_to: Option<MessageId>,
    /// What it is about.
    pub kind: MessageKind,
    /// By which way.
    pub channel: Channel,
    /// BCP 47.
    pub language: String,
    /// How far it is.
    pub state: MessageState,
    /// Why it was not sent.
    pub drop_reason: DropReason,
    /// Why it failed.
    pub failure_reason: FailureReason,
    /// The provider's error code; empty = none.
    pub provider_error_code: String,
    /// The words.
    pub body: String,
    /// How they are encoded.
    pub encoding: TextEncoding,
    /// Parts they are sent in.
    pub segments: i32,
    /// How often it was handed over.
    pub attempts: i32,
    /// Counts the events told of it.
    pub version: i64,
    /// The provider's id.
    pub provider_reference: Option<String>,
    /// When made.
    pub create_time: DateTime<Utc>,
    /// When the provider took it.
    pub send_time: Option<DateTime<Utc>>,
    /// When it reached the handset.
    pub deliver_time: Option<DateTime<Utc>>,
    /// When last changed.
    pub update_time: DateTime<Utc>,
}

/// Remembers a visit unless the same or a newer version is known; answers whether it was news.
pub async fn remember_visit(tx: &mut PgConnection, visit: &Visit) -> sqlx::Result<bool> {
    let remembered = sqlx::query!(
        "insert into notify.visit
            (appointment_id, version, patient_id, clinic_id, start_time, time_zone, standing, end_time, state, has_form)
         values ($1, $2, notify.survivor($3), $4, $5, $6, $7, $8, $9, $10)
         on conflict (appointment_id) do update
         set version = excluded.version, patient_id = excluded.patient_id, clinic_id = excluded.clinic_id,
             start_time = excluded.start_time, time_zone = excluded.time_zone, standing = excluded.standing,
             end_time = excluded.end_time, state = excluded.state, has_form = excluded.has_form
         where visit.version < excluded.version",
        visit.appointment.uuid(),
        visit.version,
        visit.patient.uuid(),
        visit.clinic.uuid(),
        visit.start,
        visit.zone.name(),
        visit.standing(),
        visit.end,
        visit.state.as_str_name(),
        visit.has_form,
    )
    .execute(tx)
    .await?;
    Ok(remembered.rows_affected() == 1)
}

/// Drops what is still planned for older versions of a visit. What the dispatcher has in hand it judges itself.
pub async fn drop_older(tx: &mut PgConnection, visit: &Visit, now: DateTime<Utc>) -> sqlx::Result<()> {
    let reason = if visit.standing() { DropReason::Superseded } else { DropReason::VisitEnded };
    sqlx::query!(
        "update notify.reminder
         set state = 'REMINDER_STATE_DROPPED', drop_reason = $3, update_time = $4
         where appointment_id = $1 and appointment_version < $2 and state = 'REMINDER_STATE_PLANNED'",
        visit.appointment.uuid(),
        visit.version,
        reason.as_str_name(),
        now,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Writes down one reminder as it was planned for a recipient who lives where the clinic is; one that comes too late too, so that it
/// can be asked why. Where the recipient really lives, and whether it is night there, is found out before it is due.
pub async fn insert_reminder(
    tx: &mut PgConnection,
    visit: &Visit,
    kind: ReminderKind,
    planned: Plan,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let (due_time, state, reason) = match planned {
        Plan::Due(at) => (at, ReminderState::Planned, DropReason::Unspecified),
        Plan::Dropped(DropReason::QuietHours) => (now, ReminderState::Planned, DropReason::Unspecified),
        Plan::Dropped(reason) => (now, ReminderState::Dropped, reason),
    };
    let look = first_look(kind, visit.start, now);
    sqlx::query!(
        "insert into notify.reminder
            (id, appointment_id, appointment_version, patient_id, kind, visit_start_time, due_time, next_try, state,
             drop_reason, create_time, update_time)
         values ($1, $2, $3, notify.survivor($4), $5, $6, $7, $11, $8, $9, $10, $10)",
        ReminderId::new().uuid(),
        visit.appointment.uuid(),
        visit.version,
        visit.patient.uuid(),
        kind.as_str_name(),
        visit.start,
        due_time,
        state.as_str_name(),
        reason.as_str_name(),
        now,
        look,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Passes what a merged patient had on to the survivor.
pub async fn hand_over(tx: &mut PgConnection, merged: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "with visits as (
             update notify.visit set patient_id = notify.survivor($1) where patient_id = $1
         ), reminders as (
             update notify.reminder set patient_id = notify.survivor($1) where patient_id = $1
         ), notices as (
             update notify.notice set patient_id = notify.survivor($1) where patient_id = $1
         )
         update notify.message set patient_id = notify.survivor($1) where patient_id = $1",
        merged.uuid()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// A row of `notify.message`.
struct MessageRow {
    id: Uuid,
    patient_id: Option<Uuid>,
    appointment_id: Option<Uuid>,
    appointment_version: i64,
    reminder_id: Option<Uuid>,
    in_reply_to_id: Option<Uuid>,
    kind: String,
    channel: String,
    language: String,
    state: String,
    drop_reason: String,
    failure_reason: String,
    provider_error_code: String,
    body: String,
    encoding: String,
    segments: i32,
    attempts: i32,
    version: i64,
    provider_reference: Option<String>,
    create_time: DateTime<Utc>,
    send_time: Option<DateTime<Utc>>,
    deliver_time: Option<DateTime<Utc>>,
    update_time: DateTime<Utc>,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        Self {
            id: row.id.into(),
            patient: row.patient_id.map(Into::into),
            appointment: row.appointment_id.map(Into::into),
            appointment_version: row.appointment_version,
            reminder: row.reminder_id.map(Into::into),
            in_reply_to: row.in_reply_to_id.map(Into::into),
            kind: MessageKind::from_str_name(&row.kind).unwrap_or_default(),
            channel: Channel::from_str_name(&row.channel).unwrap_or_default(),
            language: row.language,
            state: MessageState::from_str_name(&row.state).unwrap_or_default(),
            drop_reason: DropReason::from_str_name(&row.drop_reason).unwrap_or_default(),
            failure_reason: FailureReason::from_str_name(&row.failure_reason).unwrap_or_default(),
            provider_error_code: row.provider_error_code,
            body: row.body,
            encoding: TextEncoding::from_str_name(&row.encoding).unwrap_or_default(),
            segments: row.segments,
            attempts: row.attempts,
            version: row.version,
            provider_reference: row.provider_reference,
            create_time: row.create_time,
            send_time: row.send_time,
            deliver_time: row.deliver_time,
            update_time: row.update_time,
        }
    }
}

/// Reads one message.
pub async fn message(conn: &mut PgConnection, id: MessageId) -> sqlx::Result<Option<Message>> {
    let row = sqlx::query_as!(
        MessageRow,
        "select id, patient_id, appointment_id, appointment_version, reminder_id, in_reply_to_id, kind, channel, language,
                state, drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts, version,
                provider_reference, create_time, send_time, deliver_time, update_time
         from notify.message where id = $1",
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Message::from))
}
