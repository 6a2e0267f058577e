//! Calendars as booking knows them: their versions, and what must be judged again.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId, RoomId};
use sqlx::PgConnection;
use sqlx::postgres::types::PgRange;
use uuid::Uuid;

use crate::domain::{Copay, DRIVE_LEASE, Reservation, State};

/// Pause before a replica of scheduling that has not followed a calendar's change is asked again.
const JUDGE_AGAIN_SECS: f64 = 0.5;

/// Marks what a provider's calendar must be asked about again: what lies in `affected` and was judged before `version`. Locks by
/// id, as those do who clear stale holds away.
pub async fn mark_to_judge(
    conn: &mut PgConnection,
    provider: Uuid,
    version: i64,
    affected: &[PgRange<DateTime<Utc>>],
) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.reservation set judge_at = $2, judging_until = null
         where id in (
             select id from appointments.reservation
             where provider_id = $1 and state in ('held', 'offered', 'booked', 'displaced') and calendar_version < $2
               and coalesce(judge_at, 0) < $2 and upper(visit) > clock.now()
               and exists (select from unnest($3::tstzrange[]) affected where visit && affected)
             order by id for update)",
        provider,
        version,
        affected
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Takes over, for a while, some that must be judged again.
pub async fn claim_to_judge(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Reservation>> {
    let claimed = sqlx::query_scalar!(
        "update appointments.reservation set judging_until = clock.now() + make_interval(secs => $1)
         where id in (
             select id from appointments.reservation
             where judge_at is not null and (judging_until is null or judging_until <= clock.now())
             order by judging_until nulls first limit $2 for update skip locked)
         returning id",
        DRIVE_LEASE.as_secs_f64(),
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    reservations!("where r.id = any($1)", &claimed).fetch_all(conn).await
}

/// Gives one that was claimed up for a while: scheduling does not know yet what it must be judged by.
pub async fn judge_later(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.reservation set judging_until = clock.now() + make_interval(secs => $2) where id = $1",
        id.uuid(),
        JUDGE_AGAIN_SECS
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Notes that a locked row was judged, and that nothing else about it changed.
pub async fn judged(conn: &mut PgConnection, row: &Reservation) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.reservation set calendar_version = $2, judge_at = null, displaced_reasons = $3 where id = $1",
        row.id.uuid(),
        row.calendar_version,
        &row.displaced_reasons
    )
    .execute(conn)
    .await
    .map(drop)
}

/// The newest calendar version known of a provider, kept from changing until the transaction ends.
pub async fn calendar_seen(conn: &mut PgConnection, provider: ProviderId) -> sqlx::Result<i64> {
    let seen = sqlx::query_scalar!(
        "select version from appointments.calendar_seen where provider_id = $1 for share",
        provider.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(version) = seen {
        return Ok(version);
    }
    // A row to lock, so that the provider's first event waits for this transaction too.
    see_calendar(conn, provider.uuid(), 0).await?;
    sqlx::query_scalar!(
        "select version from appointments.calendar_seen where provider_id = $1 for share",
        provider.uuid()
    )
    .fetch_one(conn)
    .await
}

/// Notes a provider's calendar version; an older one changes nothing.
pub async fn see_calendar(conn: &mut PgConnection, provider: Uuid, version: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.calendar_seen (provider_id, version) values ($1, $2)
         on conflict (provider_id) do update set version = excluded.version where calendar_seen.version < excluded.version",
        provider,
        version
    )
    .execute(conn)
    .await
    .map(drop)
}
