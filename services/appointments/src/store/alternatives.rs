//! Places that are held instead of displaced visits, and the visits for which none is.

use chrono::{DateTime, Utc};
use kit::ids::AppointmentId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Copay, Reservation, State};
use kit::ids::{ClinicId, PatientId, ProviderId, RoomId};

/// What is held instead of a visit, in the order of preference.
pub async fn alternatives(conn: &mut PgConnection, visit: AppointmentId) -> sqlx::Result<Vec<Reservation>> {
    reservations!(
        "join appointments.offer o using (id)
         where o.replaces_id = $1 and o.state = 'open' and o.entry_id is null and r.state = 'offered'
         order by o.preference",
        visit.uuid()
    )
    .fetch_all(conn)
    .await
}

/// The same, locked until the transaction ends; in the order of ids, as those lock whom calendars tell. The visit is locked.
pub async fn lock_alternatives(
    conn: &mut PgConnection,
    visit: AppointmentId,
) -> sqlx::Result<Vec<Reservation>> {
    reservations!(
        "where r.state = 'offered' and r.id in (
             select id from appointments.offer where replaces_id = $1 and state = 'open' and entry_id is null)
         order by r.id for update of r",
        visit.uuid()
    )
    .fetch_all(conn)
    .await
}

/// Which of these visits with these providers are free of anybody else's, by their places in the list, the first `limit`.
pub async fn free_of(
    conn: &mut PgConnection,
    providers: &[Uuid],
    starts: &[DateTime<Utc>],
    ends: &[DateTime<Utc>],
    limit: i64,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"select place - 1 as "place!"
           from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) with ordinality as slot(provider, starts, ends, place)
           where not exists (
               select from appointments.reservation r
               where r.provider_id = slot.provider and r.occupied && tstzrange(slot.starts, slot.ends)
                 and r.state in ('held', 'offered', 'booked', 'displaced', 'checked_in'))
           order by place limit $4"#,
        providers,
        starts,
        ends,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Puts displaced visits for which nothing is held on the front desk's work list.
pub async fn put_on_work_list(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let put = sqlx::query!(
        "update appointments.reservation set work_list_at = clock.now()
         where id in (
             select r.id from appointments.reservation r
             where r.state = 'displaced' and r.work_list_at is null
               and not exists (select from appointments.offer o
                               where o.replaces_id = r.id and o.state = 'open' and o.entry_id is null)
             order by r.id for update skip locked)"
    );
    Ok(put.execute(conn).await?.rows_affected())
}

/// Places held for more than `secs` instead of visits that are not displaced: whoever held them did not live to displace those.
pub async fn without_displacement(
    conn: &mut PgConnection,
    secs: f64,
    limit: i64,
) -> sqlx::Result<Vec<AppointmentId>> {
    sqlx::query_scalar!(
        r#"select o.id as "id: AppointmentId"
           from appointments.offer o join appointments.reservation r on r.id = o.replaces_id
           where o.state = 'open' and o.entry_id is null and r.state <> 'displaced'
             and o.made_at < clock.now() - make_interval(secs => $1)
           order by o.made_at limit $2"#,
        secs,
        limit
    )
    .fetch_all(conn)
    .await
}
