//! Visits as appointments last told them.

use chrono::{DateTime, Utc};
use kit::ids::AppointmentId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::visit::{Ended, Ending, Visit};

pub(super) struct Row {
    pub(super) appointment_id: Uuid,
    pub(super) version: i64,
    pub(super) patient_id: Uuid,
    pub(super) clinic_id: Uuid,
    pub(super) service_type_id: Uuid,
    pub(super) start_time: DateTime<Utc>,
    pub(super) ending: Option<String>,
    pub(super) fee_amount: i64,
    pub(super) fee_reversed: bool,
}

impl TryFrom<Row> for Visit {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let how = row.ending.map(|word| super::word(Ending::of_word, &word)).transpose()?;
        Ok(Self {
            appointment: row.appointment_id.into(),
            version: row.version,
            patient: row.patient_id.into(),
            clinic: row.clinic_id.into(),
            service_type: row.service_type_id.into(),
            start: row.start_time,
            ended: how.map(|how| Ended { how, fee: row.fee_amount }),
            fee_reversed: row.fee_reversed,
        })
    }
}

/// Remembers `visit` unless something newer is known; true when it was news. That a fee was reversed stays known.
pub async fn put(tx: &mut PgConnection, visit: &mut Visit) -> sqlx::Result<bool> {
    let reversed = sqlx::query_scalar!(
        "insert into billing.visit as visit
             (appointment_id, version, patient_id, clinic_id, service_type_id, start_time, ending, fee_amount)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (appointment_id) do update set
             version = excluded.version,
             patient_id = excluded.patient_id,
             clinic_id = excluded.clinic_id,
             service_type_id = excluded.service_type_id,
             start_time = excluded.start_time,
             ending = excluded.ending,
             fee_amount = excluded.fee_amount
         where visit.version < excluded.version
         returning fee_reversed",
        visit.appointment.uuid(),
        visit.version,
        visit.patient.uuid(),
        visit.clinic.uuid(),
        visit.service_type.uuid(),
        visit.start,
        visit.ended.map(|ended| ended.how.word()),
        visit.ended.map_or(0, |ended| ended.fee),
    )
    .fetch_optional(tx)
    .await?;
    visit.fee_reversed = reversed.unwrap_or(visit.fee_reversed);
    Ok(reversed.is_some())
}

/// Remembers that the fee of `visit` is reversed, whatever else is known of it; true when it was news. The row is locked by it.
pub async fn reverse_fee(tx: &mut PgConnection, visit: &Visit) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "insert into billing.visit as visit
             (appointment_id, version, patient_id, clinic_id, service_type_id, start_time, fee_amount, fee_reversed)
         values ($1, 0, $2, $3, $4, $5, 0, true)
         on conflict (appointment_id) do update set fee_reversed = true where not visit.fee_reversed",
        visit.appointment.uuid(),
        visit.patient.uuid(),
        visit.clinic.uuid(),
        visit.service_type.uuid(),
        visit.start,
    )
    .execute(tx)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// What is known of the visit that `named` names, locked together with its charges.
pub struct Met {
    /// As known before; `None` = `named` is the first to be heard of it, and is remembered now.
    pub known: Option<Visit>,
    /// The instant by which replicas agree whether a hold is over.
    pub now: DateTime<Utc>,
}

/// Meets the visit that a call names.
pub async fn meet(tx: &mut PgConnection, named: &Visit) -> sqlx::Result<Met> {
    let first = sqlx::query_scalar!(
        r#"insert into billing.visit
             (appointment_id, version, patient_id, clinic_id, service_type_id, start_time, ending, fee_amount)
         values ($1, $2, $3, $4, $5, $6, null, 0)
         on conflict do nothing
         returning clock.now() as "now!""#,
        named.appointment.uuid(),
        named.version,
        named.patient.uuid(),
        named.clinic.uuid(),
        named.service_type.uuid(),
        named.start,
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(now) = first {
        return Ok(Met { known: None, now });
    }
    let known = lock(&mut *tx, named.appointment).await?;
    // Read after the lock is had: waiting for it takes time.
    let now = sqlx::query_scalar!(r#"select clock.now() as "now!""#).fetch_one(tx).await?;
    Ok(Met { known: Some(known), now })
}

/// A visit, locked together with its charges.
pub async fn lock(tx: &mut PgConnection, id: AppointmentId) -> sqlx::Result<Visit> {
    let row = sqlx::query_as!(
        Row,
        r#"select appointment_id, version, billing.survivor(patient_id) as "patient_id!", clinic_id, service_type_id, start_time,
                  ending, fee_amount, fee_reversed
           from billing.visit where appointment_id = $1 for update"#,
        id.uuid()
    );
    row.fetch_one(tx).await?.try_into()
}
