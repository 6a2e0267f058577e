//! What happened to appointments, and what changed since a look.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId, RoomId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Copay, Reservation, State};

/// One step of an appointment's history.
#[derive(Debug)]
#[allow(missing_docs, reason = "the contract's AppointmentChange explains each")]
pub struct Change {
    pub version: i64,
    pub state: State,
    pub changed_at: DateTime<Utc>,
    pub actor: Option<String>,
    pub actor_role: Option<i32>,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub clinic_id: Uuid,
    pub provider_id: Uuid,
    pub room_id: Uuid,
    pub override_reason: Option<String>,
    pub overridden: Vec<String>,
    pub patient_id: Option<Uuid>,
}

/// An appointment's history, oldest first.
pub async fn history(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<Vec<Change>> {
    sqlx::query_as!(
        Change,
        r#"select version, state as "state: State", changed_at, actor, actor_role, lower(visit) as "start!",
                  upper(visit) as "end!", clinic_id, provider_id, room_id, override_reason, overridden,
                  patient_id
           from appointments.change where reservation_id = $1 order by version"#,
        id.uuid()
    )
    .fetch_all(conn)
    .await
}

/// A snapshot of the database as text, and the appointments changed by transactions that were not in the one before it; none
/// without one before it.
pub async fn changed_since(
    conn: &mut PgConnection,
    last: Option<&str>,
) -> sqlx::Result<(String, Vec<Reservation>)> {
    let look = sqlx::query!(
        r#"select pg_current_snapshot()::text as "snapshot!", array(
               select distinct reservation_id from appointments.change
               where transaction >= pg_snapshot_xmin($1::text::pg_snapshot)
                 and not pg_visible_in_snapshot(transaction, $1::text::pg_snapshot)) as "changed!""#,
        last
    )
    .fetch_one(&mut *conn)
    .await?;
    let rows = if look.changed.is_empty() {
        vec![]
    } else {
        reservations!("where r.id = any($1)", &look.changed).fetch_all(conn).await?
    };
    Ok((look.snapshot, rows))
}
