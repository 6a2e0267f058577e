//! The projection of appointments: who is taken when.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
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

/// Held by the one transaction that writes the projection, until it is committed. So changes become visible in the order of their
/// numbers, and a replica that has seen number n has seen all before it.
const WRITER: i64 = 0x6275_7379;

/// Takes over a state unless a later one is known.
pub async fn apply(db: &mut PgConnection, state: &Taken) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock($1)", WRITER).execute(&mut *db).await?;
    let (occupied, visit) = state.times.unzip();
    sqlx::query!(
        "with known as (
             select coalesce(max(version), 0) as version from scheduling.busy where appointment_id = $1
         ), left_behind as (
             update scheduling.busy
             set occupied_start = null, occupied_end = null, visit_start = null, visit_end = null,
                 changed = nextval('scheduling.busy_change')
             from known
             where appointment_id = $1 and provider_id <> $3 and occupied_end is not null and known.version < $2
         )
         insert into scheduling.busy
             (appointment_id, version, provider_id, room_id, occupied_start, occupied_end, visit_start, visit_end, changed)
         select $1, $2, $3, $4, $5, $6, $7, $8, nextval('scheduling.busy_change') from known where known.version < $2
         on conflict (appointment_id, provider_id) do update
         set version = $2, room_id = $4, occupied_start = $5, occupied_end = $6, visit_start = $7, visit_end = $8,
             changed = excluded.changed",
        state.appointment_id as AppointmentId,
        state.version,
        state.provider_id as ProviderId,
        state.room_id as RoomId,
        occupied.map(|s| instant(s.start)),
        occupied.map(|s| instant(s.end)),
        visit.map(|s| instant(s.start)),
        visit.map(|s| instant(s.end)),
    )
    .execute(db)
    .await
    .map(drop)
}

/// What became of an appointment's hold on a provider's time; `None` = it takes none.
pub type Change = (ProviderId, AppointmentId, Option<Busy>);

/// Everything that changed after number `seen`. From 0 on: all that is taken and ends after `since`.
pub async fn changes(db: impl PgExecutor<'_>, seen: i64, since: DateTime<Utc>) -> sqlx::Result<Vec<Change>> {
    struct Row {
        provider_id: ProviderId,
        appointment_id: AppointmentId,
        room_id: RoomId,
        occupied_start: Option<DateTime<Utc>>,
        occupied_end: Option<DateTime<Utc>>,
        visit_start: Option<DateTime<Utc>>,
        visit_end: Option<DateTime<Utc>>,
    }
    let rows = sqlx::query_as!(
        Row,
        r#"select provider_id as "provider_id: ProviderId", appointment_id as "appointment_id: AppointmentId",
                  room_id as "room_id: RoomId", occupied_start, occupied_end, visit_start, visit_end
           from scheduling.busy where changed > $1 and ($1 > 0 or occupied_end > $2)"#,
        seen,
        since,
    );
    let change = |r: Row| {
        let occupied = r.occupied_start.zip(r.occupied_end).map(|(start, end)| span(start, end));
        let visit = r.visit_start.zip(r.visit_end).map(|(start, end)| span(start, end));
        let Row { appointment_id, room_id, .. } = r;
        let busy =
            occupied.zip(visit).map(|(occupied, visit)| Busy { appointment_id, room_id, occupied, visit });
        (r.provider_id, appointment_id, busy)
    };
    rows.fetch(db).map_ok(change).try_collect().await
}
