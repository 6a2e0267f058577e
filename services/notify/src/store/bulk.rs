//! What the dispatcher writes for many texts at once: one statement instead of one each.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::ids::{MessageId, ReminderId};
use kit::messaging::outbox::Event;
use proto::clinic::notify::v1::Channel;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Message;
use super::opt_out::NumberHash;
use crate::domain::notice::CAPS;

/// A reminder about to be handed over for the first time, as its message.
#[derive(Clone, Debug)]
pub struct Starting {
    /// The reminder.
    pub reminder: ReminderId,
    /// Its lease.
    pub lease: DateTime<Utc>,
    /// What it becomes.
    pub message: Message,
    /// The recipient's number.
    pub number: NumberHash,
}

/// Writes down the messages of claimed reminders and marks these as handed over, with their leases renewed: nobody looks for a message
/// before the provider must have answered. Answers the new leases; left out are reminders whose lease was lost, that another is changing
/// at this moment, whose visit moved or ended, whose recipient opted out meanwhile, or has got as many texts as [`CAPS`] allow.
pub async fn start(
    pool: &PgPool,
    batch: &[Starting],
    lease: Duration,
    now: DateTime<Utc>,
) -> sqlx::Result<HashMap<ReminderId, DateTime<Utc>>> {
    let texts = |of: fn(&Message) -> String| batch.iter().map(|s| of(&s.message)).collect::<Vec<_>>();
    let reminders: Vec<Uuid> = batch.iter().map(|s| s.reminder.uuid()).collect();
    let leases: Vec<DateTime<Utc>> = batch.iter().map(|s| s.lease).collect();
    let messages: Vec<Uuid> = batch.iter().map(|s| s.message.id.uuid()).collect();
    let numbers: Vec<Vec<u8>> = batch.iter().map(|s| s.number.to_vec()).collect();
    let segments: Vec<i32> = batch.iter().map(|s| s.message.segments).collect();
    let rows = sqlx::query!(
        r#"with input as (
               select * from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::bytea[], $5::text[], $6::text[],
                                    $7::text[], $8::text[], $9::int[])
                   as t (reminder_id, lease, message_id, number_hash, kind, language, body, encoding, segments)
           ), held as (
               -- Whoever holds one of them now changes it. To wait for that, holding others, may be to wait for ever.
               select i.*, r.patient_id from input i join notify.reminder r on r.id = i.reminder_id
               for update of r skip locked
           ), ranked as (
               -- Of several for one patient, each counts those before it.
               select h.*, row_number() over (partition by h.patient_id order by h.reminder_id) - 1 as ahead from held h
           ), started as (
               update notify.reminder r
               set state = 'REMINDER_STATE_SENDING', message_id = i.message_id, update_time = $10,
                   next_try = clock.now() + make_interval(secs => $12)
               from ranked i, notify.visit v
               where r.id = i.reminder_id and r.next_try = i.lease and r.state = 'REMINDER_STATE_PLANNED'
                 and v.appointment_id = r.appointment_id and v.version = r.appointment_version and v.standing
                 and not exists (select from notify.opt_out o where o.number_hash = i.number_hash and o.opted_out)
                 and not exists (
                     select from unnest($13::timestamptz[], $14::bigint[]) as cap (since, most)
                     where i.ahead + (select count(*) from notify.unasked_text m
                                      where m.patient_id = r.patient_id and m.moment > cap.since) >= cap.most)
               returning r.id, r.patient_id, r.appointment_id, r.appointment_version, r.next_try
           ), written as (
               insert into notify.message
                   (id, patient_id, appointment_id, appointment_version, reminder_id, kind, channel, language, state,
                    drop_reason, failure_reason, provider_error_code, body, encoding, segments, attempts, create_time,
                    update_time)
               select i.message_id, s.patient_id, s.appointment_id, s.appointment_version, s.id, i.kind, $11, i.language,
                      'MESSAGE_STATE_SENDING', 'DROP_REASON_UNSPECIFIED', 'FAILURE_REASON_UNSPECIFIED', '', i.body,
                      i.encoding, i.segments, 1, $10, $10
               from started s join input i on i.reminder_id = s.id
           )
           select id, next_try from started"#,
        &reminders,
        &leases,
        &messages,
        &numbers,
        &texts(|m| m.kind.as_str_name().to_owned()),
        &texts(|m| m.language.clone()),
        &texts(|m| m.body.clone()),
        &texts(|m| m.encoding.as_str_name().to_owned()),
        &segments,
        now,
        Channel::Sms.as_str_name(),
        lease.as_secs_f64(),
        &CAPS.map(|(window, _)| now - window),
        &CAPS.map(|(_, most)| most),
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.next_try)).collect())
}

/// Those of the patients who have got as many texts as [`CAPS`] allow.
pub async fn capped(pool: &PgPool, patients: &[Uuid], now: DateTime<Utc>) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"select patient_id as "patient_id!" from unnest($1::uuid[]) as p (patient_id)
           where exists (
               select from unnest($2::timestamptz[], $3::bigint[]) as cap (since, most)
               where (select count(*) from notify.unasked_text m
                      where m.patient_id = p.patient_id and m.moment > cap.since) >= cap.most)"#,
        patients,
        &CAPS.map(|(window, _)| now - window),
        &CAPS.map(|(_, most)| most),
    )
    .fetch_all(pool)
    .await
}

/// The provider took messages, under these ids: they and their reminders are sent. Answers the version of each; left out are those
/// that were settled before, by a status that was quicker or by another replica that looked them up.
pub async fn taken(
    tx: &mut PgConnection,
    messages: &[(MessageId, String)],
    now: DateTime<Utc>,
) -> sqlx::Result<HashMap<MessageId, i64>> {
    let (ids, references): (Vec<Uuid>, Vec<String>) =
        messages.iter().map(|(id, reference)| (id.uuid(), reference.clone())).unzip();
    let rows = sqlx::query!(
        "with held as (
             -- In one order everywhere, so that two who settle the same messages do not wait for each other.
             select m.id, i.reference
             from unnest($1::uuid[], $2::text[]) as i (id, reference) join notify.message m on m.id = i.id
             order by m.id for update of m
         ), sent as (
             update notify.message m
             set state = 'MESSAGE_STATE_SENT', provider_reference = i.reference, send_time = $3, update_time = $3,
                 version = version + 1
             from held i
             where m.id = i.id and m.state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN')
             returning m.id, m.version, m.reminder_id
         ), closed as (
             update notify.reminder r set state = 'REMINDER_STATE_SENT', update_time = $3
             from sent where r.id = sent.reminder_id
         )
         select id, version from sent",
        &ids,
        &references,
        now
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.version)).collect())
}

/// Tells events, each about a message, of a version: what [`put`](kit::messaging::outbox::put) does, for many.
pub async fn tell(tx: &mut PgConnection, events: &[(MessageId, i64, Event)]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = events.iter().map(|(_, _, event)| event.id.uuid()).collect();
    let subjects: Vec<String> = events.iter().map(|(_, _, event)| event.subject.clone()).collect();
    let messages: Vec<Uuid> = events.iter().map(|(message, _, _)| message.uuid()).collect();
    let versions: Vec<i64> = events.iter().map(|(_, version, _)| *version).collect();
    let payloads: Vec<Vec<u8>> = events.iter().map(|(_, _, event)| event.payload.clone()).collect();
    let parents: Vec<Option<String>> = events.iter().map(|(_, _, event)| event.traceparent.clone()).collect();
    sqlx::query!(
        "insert into notify.outbox (event_id, subject, aggregate_id, aggregate_version, payload, traceparent)
         select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bytea[], $6::text[])",
        &ids,
        &subjects,
        &messages,
        &versions,
        &payloads,
        &parents as &[Option<String>],
    )
    .execute(tx)
    .await
    .map(drop)
}
