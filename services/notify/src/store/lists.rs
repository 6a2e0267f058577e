//! Reminders and messages, listed page by page.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, PatientId};
use proto::clinic::notify::v1::{DropReason, ReminderKind, ReminderState};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Message, MessageRow, Reminder};

/// Which rows to list; `None` and empty = any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this patient, by any of the person's ids.
    pub patient: Option<PatientId>,
    /// Of this visit.
    pub appointment: Option<AppointmentId>,
    /// Names of kinds.
    pub kinds: Vec<String>,
    /// Names of states.
    pub states: Vec<String>,
    /// Due or made not before this.
    pub from: Option<DateTime<Utc>>,
    /// Due or made before this.
    pub until: Option<DateTime<Utc>>,
}

/// Place of a row in its list.
pub type Key = (DateTime<Utc>, Uuid);

/// Reminders by due time, then id.
pub async fn reminders(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<Key>,
    limit: i64,
) -> sqlx::Result<Vec<Reminder>> {
    let (time, id) = after.unzip();
    let rows = sqlx::query!(
        "select id, appointment_id, appointment_version, patient_id, kind, visit_start_time, due_time, state,
                drop_reason, message_id, create_time, update_time
         from notify.reminder
         where ($1::uuid is null or patient_id = any(notify.ids_of($1)))
           and ($2::uuid is null or appointment_id = $2)
           and (cardinality($3::text[]) = 0 or kind = any($3))
           and (cardinality($4::text[]) = 0 or state = any($4))
           and ($5::timestamptz is null or due_time >= $5)
           and ($6::timestamptz is null or due_time < $6)
           and ($7::timestamptz is null or (due_time, id) > ($7, $8::uuid))
         order by due_time, id
         limit $9",
        filter.patient.map(Uuid::from),
        filter.appointment.map(Uuid::from),
        &filter.kinds,
        &filter.states,
        filter.from,
        filter.until,
        time,
        id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let reminders = rows.into_iter().map(|row| Reminder {
        id: row.id.into(),
        appointment: row.appointment_id.into(),
        appointment_version: row.appointment_version,
        patient: row.patient_id.into(),
        kind: ReminderKind::from_str_name(&row.kind).unwrap_or_default(),
        visit_start_time: row.visit_start_time,
        due_time: row.due_time,
        state: ReminderState::from_str_name(&row.state).unwrap_or_default(),
        drop_reason: DropReason::from_str_name(&row.drop_reason).unwrap_or_default(),
        message: row.message_id.map(Into::into),
        create_time: row.create_time,
        update_time: row.update_time,
    });
    Ok(reminders.collect())
}

/// Messages, newest first, then by id. `channel` = name of the channel, empty = any.
pub async fn messages(
    conn: &mut PgConnection,
    filter: &Filter,
    channel: &str,
    after: Option<Key>,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    let (time, id) = after.unzip();
    let rows = sqlx::query_as!(
        MessageRow,
        "select id, patient_id, appointment_id, appointment_version, reminder_id, in_reply_to_id, kind, channel, language,
                state, drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts, version,
                provider_reference, create_time, send_time, deliver_time, update_time
         from notify.message
         where ($1::uuid is null or patient_id = any(notify.ids_of($1)))
           and ($2::uuid is null or appointment_id = $2)
           and (cardinality($3::text[]) = 0 or kind = any($3))
           and (cardinality($4::text[]) = 0 or state = any($4))
           and ($5::timestamptz is null or create_time >= $5)
           and ($6::timestamptz is null or create_time < $6)
           and ($7 = '' or channel = $7)
           and ($8::timestamptz is null or create_time < $8 or (create_time = $8 and id > $9::uuid))
         order by create_time desc, id
         limit $10",
        filter.patient.map(Uuid::from),
        filter.appointment.map(Uuid::from),
        &filter.kinds,
        &filter.states,
        filter.from,
        filter.until,
        channel,
        time,
        id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}
