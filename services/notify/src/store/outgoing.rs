//! The dispatcher's SQL: claims, and what became of them.
//!
//! A claim is a lease: it moves `next_try` ahead, and its holder asks for that very value, with [`hold`], before every later change,
//! so that one who was too slow changes nothing. Leases are judged by the database's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, MessageId, PatientId, ReminderId};
use proto::clinic::notify::v1::{Channel, DropReason, FailureReason, MessageState, ReminderKind};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::opt_out::NumberHash;
use super::{Message, MessageRow};

/// A reminder in this process's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Which.
    pub id: ReminderId,
    /// Of which visit.
    pub appointment: AppointmentId,
    /// Planned for this version.
    pub appointment_version: i64,
    /// Whom.
    pub patient: PatientId,
    /// How long before the visit.
    pub kind: ReminderKind,
    /// When the visit starts.
    pub start: DateTime<Utc>,
    /// The clinic.
    pub clinic: ClinicId,
    /// Its time zone.
    pub zone: Tz,
    /// When it was planned.
    pub planned: DateTime<Utc>,
    /// An intake form belongs to the visit.
    pub has_form: bool,
    /// Why it is not to be sent any more: the visit moved or ended. `None` = it stands as planned.
    pub obsolete: Option<DropReason>,
    /// Tries that failed so far.
    pub tries: i32,
    /// The lease.
    pub lease: DateTime<Utc>,
    /// The message it became at an earlier try.
    pub message: Option<Message>,
}

/// Claims up to `limit` reminders whose time has come, for `lease`.
pub async fn claim(pool: &PgPool, limit: i64, lease: Duration) -> sqlx::Result<Vec<Claimed>> {
    let mut conn = pool.acquire().await?;
    let rows = sqlx::query!(
        r#"with due as (
               select id from notify.reminder
               where state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING') and next_try <= clock.now()
               order by next_try
               limit $1
               for update skip locked
           )
           update notify.reminder r
           set next_try = clock.now() + make_interval(secs => $2)
           from due, notify.visit v
           where r.id = due.id and v.appointment_id = r.appointment_id
           returning r.id, r.appointment_id, r.appointment_version, r.patient_id, r.kind, r.visit_start_time, r.tries,
                     r.create_time, r.next_try, r.message_id, v.clinic_id, v.time_zone, v.standing, v.has_form,
                     v.version = r.appointment_version as "current!""#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = rows.iter().filter_map(|row| row.message_id).collect();
    let mut messages = if ids.is_empty() { vec![] } else { load(&mut conn, &ids).await? };
    let claimed = rows.into_iter().map(|row| Claimed {
        id: row.id.into(),
        appointment: row.appointment_id.into(),
        appointment_version: row.appointment_version,
        patient: row.patient_id.into(),
        kind: ReminderKind::from_str_name(&row.kind).unwrap_or_default(),
        start: row.visit_start_time,
        clinic: row.clinic_id.into(),
        // Checked when the visit was remembered.
        zone: row.time_zone.parse().unwrap_or(Tz::UTC),
        planned: row.create_time,
        has_form: row.has_form,
        obsolete: match (row.standing, row.current) {
            (true, true) => None,
            (true, false) => Some(DropReason::Superseded),
            (false, _) => Some(DropReason::VisitEnded),
        },
        tries: row.tries,
        lease: row.next_try,
        message: messages
            .iter()
            .position(|m| Some(m.id.uuid()) == row.message_id)
            .map(|at| messages.swap_remove(at)),
    });
    Ok(claimed.collect())
}

/// Reads messages.
pub async fn load(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Message>> {
    let rows = sqlx::query_as!(
        MessageRow,
        "select id, patient_id, appointment_id, appointment_version, reminder_id, in_reply_to_id, kind, channel, language,
                state, drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts, version,
                provider_reference, create_time, send_time, deliver_time, update_time
         from notify.message where id = any($1)",
        ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}

/// Locks a claimed reminder until the transaction ends; false when the lease was lost. Claims pass locked rows by.
pub async fn hold(tx: &mut PgConnection, claimed: &Claimed) -> sqlx::Result<bool> {
    let held = sqlx::query_scalar!(
        "select 1 from notify.reminder
         where id = $1 and next_try = $2 and state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING')
         for update",
        claimed.id.uuid(),
        claimed.lease,
    )
    .fetch_optional(tx)
    .await?;
    Ok(held.is_some())
}

/// Renews the lease of a held reminder whose message is handed over again: nobody looks for it before the provider must have answered.
/// Answers the new lease; `None` when the visit moved or ended, or the recipient opted out meanwhile.
pub async fn start_again(
    tx: &mut PgConnection,
    claimed: &Claimed,
    number: NumberHash,
    lease: Duration,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "update notify.reminder r
         set state = 'REMINDER_STATE_SENDING', update_time = $3, next_try = clock.now() + make_interval(secs => $4)
         from notify.visit v
         where r.id = $1
           and v.appointment_id = r.appointment_id and v.version = r.appointment_version and v.standing
           and not exists (select from notify.opt_out o where o.number_hash = $2 and o.opted_out)
         returning r.next_try",
        claimed.id.uuid(),
        number.as_slice(),
        now,
        lease.as_secs_f64(),
    )
    .fetch_optional(tx)
    .await
}

/// Writes a message at its first attempt.
pub async fn insert_message(tx: &mut PgConnection, message: &Message) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notify.message
            (id, patient_id, appointment_id, appointment_version, reminder_id, in_reply_to_id, kind, channel, language,
             state, drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts,
             provider_reference, create_time, update_time)
         values ($1, notify.survivor($2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '', $13, $14, $15, $16, $17, $18, $18)",
        message.id.uuid(),
        message.patient.map(Uuid::from),
        message.appointment.map(Uuid::from),
        message.appointment_version,
        message.reminder.map(Uuid::from),
        message.in_reply_to.map(Uuid::from),
        message.kind.as_str_name(),
        Channel::Sms.as_str_name(),
        message.language,
        message.state.as_str_name(),
        message.drop_reason.as_str_name(),
        message.failure_reason.as_str_name(),
        message.body,
        message.encoding.as_str_name(),
        message.segments,
        message.attempts,
        message.provider_reference,
        message.create_time,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Counts another attempt with a message that was surely not taken before; false when the provider has told otherwise meanwhile.
pub async fn attempt_again(
    tx: &mut PgConnection,
    message: MessageId,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let counted = sqlx::query!(
        "update notify.message
         set state = 'MESSAGE_STATE_SENDING', attempts = attempts + 1, update_time = $2
         where id = $1 and state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')",
        message.uuid(),
        now
    )
    .execute(tx)
    .await?;
    Ok(counted.rows_affected() == 1)
}

/// The provider refused a message: it and its reminder have failed. Answers the message as it is now; `None` when the provider has told
/// otherwise meanwhile.
pub async fn refused(
    tx: &mut PgConnection,
    message: &Message,
    (reason, code): (FailureReason, &str),
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Message>> {
    let version = sqlx::query_scalar!(
        "with failed as (
             update notify.message
             set state = 'MESSAGE_STATE_FAILED', failure_reason = $2, provider_error_code = $3, update_time = $4,
                 version = version + 1, next_try = case when $2 = 'FAILURE_REASON_OPTED_OUT' then clock.now() end
             where id = $1 and state = 'MESSAGE_STATE_SENDING'
             returning version, reminder_id
         ), closed as (
             update notify.reminder r set state = 'REMINDER_STATE_FAILED', update_time = $4
             from failed where r.id = failed.reminder_id
         )
         select version from failed",
        message.id.uuid(),
        reason.as_str_name(),
        code,
        now
    )
    .fetch_optional(tx)
    .await?;
    let (state, provider_error_code) = (MessageState::Failed, code.to_owned());
    let now_is =
        |version| Message { state, failure_reason: reason, provider_error_code, version, ..message.clone() };
    Ok(version.map(now_is))
}

/// Sets an open message's state: QUEUED when it was surely not taken, UNKNOWN when nobody knows.
pub async fn set_state(
    conn: &mut PgConnection,
    message: MessageId,
    state: MessageState,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.message set state = $2, update_time = $3
         where id = $1 and state in ('MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')",
        message.uuid(),
        state.as_str_name(),
        now
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Looks at a held reminder again after `wait`.
pub async fn try_later(tx: &mut PgConnection, reminder: ReminderId, wait: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.reminder set next_try = clock.now() + make_interval(secs => $2), tries = tries + 1 where id = $1",
        reminder.uuid(),
        wait.as_secs_f64(),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Moves a held reminder to another time.
pub async fn postpone(
    tx: &mut PgConnection,
    reminder: ReminderId,
    until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update notify.reminder set next_try = $2, due_time = $2, update_time = $3 where id = $1",
        reminder.uuid(),
        until,
        now
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Drops a held reminder and its open message. Of one whose outcome is unknown nothing more can be learned without a number to look
/// for.
pub async fn drop_held(
    tx: &mut PgConnection,
    reminder: ReminderId,
    reason: DropReason,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "with dropped as (
             update notify.reminder set state = 'REMINDER_STATE_DROPPED', drop_reason = $2, update_time = $3
             where id = $1
             returning message_id
         )
         update notify.message m set state = 'MESSAGE_STATE_DROPPED', drop_reason = $2, update_time = $3
         from dropped
         where m.id = dropped.message_id
           and m.state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')",
        reminder.uuid(),
        reason.as_str_name(),
        now
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The first of the provider's ids that no message of ours has.
pub async fn first_unclaimed(conn: &mut PgConnection, references: &[String]) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"select reference as "reference!" from unnest($1::text[]) with ordinality as listed (reference, place)
           where not exists (select from notify.message m where m.provider_reference = reference)
           order by place limit 1"#,
        references
    )
    .fetch_optional(conn)
    .await
}
