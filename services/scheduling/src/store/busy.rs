//! The projection of appointments: who is taken when.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ProviderId, RoomId};
use sqlx::{PgConnection, PgExecutor};

use super::span;
use crate::domain::network::Busy;
use crate::domain::span::{Span, instant};

/// One state of an appointment, as far as time is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which one.
    pub appointment_id: AppointmentId,
    /// The state's number.
    pub version: i64,
    /// Whose time.
    pub provider_id: ProviderId,
    /// Which room.
    pub room_id: RoomId,
    /// Provider's time with buffers, and visit; `None` = it takes no time.
    pub times: Option<(Span, Span)>,
}

/// Held by the one transaction that writes the projection, so that replicas that follow together cannot deadlock.
const WRITER: i64 = 0x6275_7379;

/// Takes over a state unless a later one is known; raises the busy version of each provider whose time changed.
pub async fn apply(db: &mut PgConnection, state: &Taken) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock($1)", WRITER).execute(&mut *db).await?;
    let (occupied, visit) = state.times.unzip();
    let changed = sqlx::query_scalar!(
        r#"with before as (
               select provider_id from scheduling.busy where appointment_id = $1
           ), written as (
               insert into scheduling.busy
                   (appointment_id, version, provider_id, room_id, occupied_start, occupied_end, visit_start, visit_end)
               values ($1, $2, $3, $4, $5, $6, $7, $8)
               on conflict (appointment_id) do update
               set version = $2, provider_id = $3, room_id = $4, occupied_start = $5, occupied_end = $6, visit_start = $7,
                   visit_end = $8
               where busy.version < $2
               returning provider_id
           )
           select provider_id as "id!: ProviderId" from written
           union select before.provider_id from before, written"#,
        state.appointment_id as AppointmentId,
        state.version,
        state.provider_id as ProviderId,
        state.room_id as RoomId,
        occupied.map(|s| instant(s.start)),
        occupied.map(|s| instant(s.end)),
        visit.map(|s| instant(s.start)),
        visit.map(|s| instant(s.end)),
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!(
        "insert into scheduling.busy_counter (provider_id, version) select id, 1 from unnest($1::uuid[]) id
         on conflict (provider_id) do update set version = busy_counter.version + 1",
        changed.as_slice() as &[ProviderId],
    )
    .execute(db)
    .await
    .map(drop)
}

/// Time of these providers that is taken and ends after `since`.
pub async fn of(
    db: impl PgExecutor<'_>,
    providers: &[ProviderId],
    since: DateTime<Utc>,
) -> sqlx::Result<Vec<(ProviderId, Busy)>> {
    let rows = sqlx::query!(
        r#"select provider_id as "provider_id: ProviderId", appointment_id as "appointment_id: AppointmentId",
                  room_id as "room_id: RoomId", occupied_start as "occupied_start!", occupied_end as "occupied_end!",
                  visit_start as "visit_start!", visit_end as "visit_end!"
           from scheduling.busy where provider_id = any ($1) and occupied_end > $2"#,
        providers as &[ProviderId],
        since,
    )
    .fetch_all(db)
    .await?;
    let busy = rows.into_iter().map(|r| {
        let occupied = span(r.occupied_start, r.occupied_end);
        let visit = span(r.visit_start, r.visit_end);
        (r.provider_id, Busy { appointment_id: r.appointment_id, room_id: r.room_id, occupied, visit })
    });
    Ok(busy.collect())
}
