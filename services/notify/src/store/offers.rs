//! Offers of freed time, and who has answered them by text.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, PatientId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::inbound::Asked;
use super::opt_out::NumberHash;

/// The offers that these patients were texted, that stand as far as is known, and that nobody at this number has answered; by start.
pub async fn unanswered(
    pool: &PgPool,
    number: NumberHash,
    patients: &[PatientId],
) -> sqlx::Result<Vec<Asked>> {
    let patients: Vec<Uuid> = patients.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select v.appointment_id, v.patient_id, v.clinic_id, v.start_time, v.time_zone,
                  m.id as "message!", m.create_time as "at!"
           from notify.visit v
           cross join lateral (
               select id, create_time from notify.message m
               where m.appointment_id = v.appointment_id and m.kind = 'MESSAGE_KIND_WAITLIST_OFFER'
                 and m.state in ('MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN', 'MESSAGE_STATE_SENT',
                                 'MESSAGE_STATE_DELIVERED')
               order by m.create_time desc limit 1
           ) m
           where v.patient_id = any($2) and v.state = 'APPOINTMENT_STATE_OFFERED'
             and not exists (select from notify.inbound i
                             where i.number_hash = $1 and i.offer_id = v.appointment_id and i.meaning is not null)
           order by v.start_time, v.appointment_id"#,
        number.as_slice(),
        &patients,
    )
    .fetch_all(pool)
    .await?;
    let offers = rows.into_iter().map(|row| Asked {
        appointment: row.appointment_id.into(),
        patient: row.patient_id.into(),
        clinic: row.clinic_id.into(),
        start: row.start_time,
        // Checked when the visit was remembered.
        zone: row.time_zone.parse().unwrap_or(Tz::UTC),
        message: row.message.into(),
        at: row.at,
    });
    Ok(offers.collect())
}

/// Whether an offer was taken by a text received after `since`.
pub async fn is_taken_by_text(
    tx: &mut PgConnection,
    offer: AppointmentId,
    since: DateTime<Utc>,
) -> sqlx::Result<bool> {
    // By way of the offer's own texts and the questions which offer was meant: what was received has no index of offers.
    sqlx::query_scalar!(
        r#"select exists (
               select from notify.choice c
               join notify.message r on r.in_reply_to_id = c.message_id
               join notify.inbound i on i.message_id = r.id
               where c.offer_id = $1 and i.offer_id = $1 and i.meaning = 'REPLY_MEANING_ACCEPT_OFFER'
                 and i.receive_time > $2
           ) as "taken!""#,
        offer.uuid(),
        since,
    )
    .fetch_one(tx)
    .await
}
