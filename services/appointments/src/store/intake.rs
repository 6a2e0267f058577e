//! Intake forms as check-in knows them: for which appointments they were submitted.

use kit::ids::AppointmentId;
use sqlx::PgConnection;

/// Notes that nothing of the intake stands between an appointment and check-in any more.
pub async fn complete_intake(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.intake_completed (appointment_id) values ($1) on conflict do nothing",
        id.uuid()
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Whether the intake form of an appointment is known to be submitted.
pub async fn is_intake_complete(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        "select 1 from appointments.intake_completed where appointment_id = $1",
        id.uuid()
    );
    Ok(found.fetch_optional(conn).await?.is_some())
}
