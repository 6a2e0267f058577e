//! Merged patients whose appointments are still to pass to the survivor.

use std::time::Duration;

use kit::ids::{AppointmentId, PatientId};
use sqlx::PgConnection;

use crate::domain::HOLD_TTL;

/// Pause before appointments that could not pass are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long after a merge something new may name the merged patient: holds last this long, and calls that did not see the merge
/// are over long before.
const OPEN_FOR: Duration = HOLD_TTL.saturating_mul(2);

/// Lets the workers look after what names `patient`, or whoever was merged into the same survivor.
pub async fn hand_over(tx: &mut PgConnection, patient: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.handover (merged_id, due_at, open_until)
         select merged_id, clock.now(), clock.now() + make_interval(secs => $2) from appointments.merged
         where survivor_id = appointments.survivor($1)
         on conflict (merged_id) do update set due_at = excluded.due_at, open_until = excluded.open_until",
        patient.uuid(),
        OPEN_FOR.as_secs_f64()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Takes over, for a while, some merged patients whose appointments are to be looked at.
pub async fn claim_handovers(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<PatientId>> {
    sqlx::query_scalar!(
        r#"update appointments.handover set due_at = clock.now() + make_interval(secs => $1)
           where merged_id in (
               select merged_id from appointments.handover where due_at <= clock.now()
               order by due_at limit $2 for update skip locked)
           returning merged_id as "merged: PatientId""#,
        LOOK_AGAIN.as_secs_f64(),
        limit
    )
    .fetch_all(conn)
    .await
}

/// What names `patient` by this very id, earliest visit first.
pub async fn naming(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Vec<AppointmentId>> {
    sqlx::query_scalar!(
        r#"select id as "id: AppointmentId" from appointments.reservation where patient_id = $1 order by lower(visit), id"#,
        patient.uuid()
    )
    .fetch_all(conn)
    .await
}

/// Nothing names a merged patient any more: it is forgotten once nothing new can.
pub async fn handed_over(conn: &mut PgConnection, merged: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from appointments.handover where merged_id = $1 and open_until <= clock.now()",
        merged.uuid()
    )
    .execute(conn)
    .await
    .map(drop)
}
