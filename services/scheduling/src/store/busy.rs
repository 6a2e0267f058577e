//! The projection of appointments: who is taken when.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use kit::ids::{AppointmentId, ProviderId, RoomId};
use sqlx::{PgConnection, PgExecutor};

use super::span;
use crate::domain::network::Busy;
use crate::domain::span::{Minute, Span, instant};

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

/// Takes over states of different appointments, each unless a later one is known. Written so that every look goes through the
/// index, whatever the planner believes of the table's size.
pub async fn apply(db: &mut PgConnection, states: &[Taken]) -> sqlx::Result<()> {
    fn column<T>(states: &[Taken], value: impl Fn(&Taken) -> T) -> Vec<T> {
        states.iter().map(value).collect()
    }
    sqlx::query!("select pg_advisory_xact_lock($1)", WRITER).execute(&mut *db).await?;
    let at = |pick: fn(&(Span, Span)) -> Minute| {
        column(states, |state| state.times.as_ref().map(|times| instant(pick(times))))
    };
    sqlx::query!(
        "with told as (
             select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[],
                                  $7::timestamptz[], $8::timestamptz[])
                 as told (appointment_id, version, provider_id, room_id, occupied_start, occupied_end, visit_start, visit_end)
             where told.version > coalesce((
                 select max(known.version) from scheduling.busy known
                 where known.appointment_id = told.appointment_id), 0)
         ), left_behind as (
             update scheduling.busy
             set occupied_start = null, occupied_end = null, visit_start = null, visit_end = null,
                 changed = nextval('scheduling.busy_change')
             from told
             where busy.appointment_id = any($1) and busy.appointment_id = told.appointment_id
               and busy.provider_id <> told.provider_id and busy.occupied_end is not null
         )
         insert into scheduling.busy
             (appointment_id, version, provider_id, room_id, occupied_start, occupied_end, visit_start, visit_end, changed)
         select told.*, nextval('scheduling.busy_change') from told
         on conflict (appointment_id, provider_id) do update
         set version = excluded.version, room_id = excluded.room_id, occupied_start = excluded.occupied_start,
             occupied_end = excluded.occupied_end, visit_start = excluded.visit_start, visit_end = excluded.visit_end,
             changed = excluded.changed",
        &column(states, |state| state.appointment_id.uuid()),
        &column(states, |state| state.version),
        &column(states, |state| state.provider_id.uuid()),
        &column(states, |state| state.room_id.uuid()),
        &at(|(occupied, _)| occupied.start) as &[Option<DateTime<Utc>>],
        &at(|(occupied, _)| occupied.end) as &[Option<DateTime<Utc>>],
        &at(|(_, visit)| visit.start) as &[Option<DateTime<Utc>>],
        &at(|(_, visit)| visit.end) as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await
    .map(drop)
}

/// What became of an appointment's hold on a provider's time; `None` = it takes none.
pub type Change = (ProviderId, AppointmentId, Option<Busy>);

/// A row of the projection as it is read.
struct Row {
    changed: i64,
    provider_id: ProviderId,
    appointment_id: AppointmentId,
    room_id: RoomId,
    occupied_start: Option<DateTime<Utc>>,
    occupied_end: Option<DateTime<Utc>>,
    visit_start: Option<DateTime<Utc>>,
    visit_end: Option<DateTime<Utc>>,
}

impl From<Row> for Change {
    fn from(row: Row) -> Self {
        let occupied = row.occupied_start.zip(row.occupied_end).map(|(start, end)| span(start, end));
        let visit = row.visit_start.zip(row.visit_end).map(|(start, end)| span(start, end));
        let Row { appointment_id, room_id, .. } = row;
        let busy =
            occupied.zip(visit).map(|(occupied, visit)| Busy { appointment_id, room_id, occupied, visit });
        (row.provider_id, appointment_id, busy)
    }
}

/// All that is taken and ends after `since`.
pub async fn taken(db: impl PgExecutor<'_>, since: DateTime<Utc>) -> sqlx::Result<Vec<Change>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select changed, provider_id as "provider_id: ProviderId", appointment_id as "appointment_id: AppointmentId",
                  room_id as "room_id: RoomId", occupied_start, occupied_end, visit_start, visit_end
           from scheduling.busy where occupied_end > $1"#,
        since,
    );
    rows.fetch(db).map_ok(Change::from).try_collect().await
}

/// Everything that changed after number `seen`, in that order.
pub async fn changes(db: &mut PgConnection, seen: i64) -> sqlx::Result<Vec<Change>> {
    /// As in the statement, which has it as a constant: so the planner knows that few rows are wanted, and takes the index.
    const PAGE: usize = 100;
    let (mut changes, mut last) = (vec![], seen);
    loop {
        let rows = sqlx::query_as!(
            Row,
            r#"select changed, provider_id as "provider_id: ProviderId",
                      appointment_id as "appointment_id: AppointmentId", room_id as "room_id: RoomId", occupied_start,
                      occupied_end, visit_start, visit_end
               from scheduling.busy where changed > $1 order by changed limit 100"#,
            last,
        )
        .fetch_all(&mut *db)
        .await?;
        let count = rows.len();
        last = rows.last().map_or(last, |row| row.changed);
        changes.extend(rows.into_iter().map(Change::from));
        if count < PAGE {
            return Ok(changes);
        }
    }
}
