//! All SQL of appointments. Functions take a connection, so that the caller owns the transaction.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId, ProviderId, RoomId};
use sqlx::PgConnection;
use sqlx::error::ErrorKind;
use sqlx::postgres::types::PgRange;
use uuid::Uuid;

use crate::domain::{Clash, Conflict, Copay, HOLD_TTL_SECS, NewReservation, Reservation, Span, State};

/// How long whoever drives a booking has before a recovery worker takes over; longer than a call to billing may take.
const DRIVE_LEASE_SECS: f64 = 15.0;
/// PostgreSQL's word for two transactions that wait for each other.
const DEADLOCK: &str = "40P01";

/// `query_as!` for whole reservations: the columns are spelled once.
macro_rules! reservations {
    ($tail:literal $(+ $more:literal)* $(, $bind:expr)* $(,)?) => {
        sqlx::query_as!(
            Reservation,
            r#"select r.id as "id: AppointmentId", r.version, r.state as "state: State",
                      r.patient_id as "patient_id: PatientId", r.service_type_id as "service_type_id: _",
                      r.clinic_id as "clinic_id: ClinicId", r.provider_id as "provider_id: ProviderId",
                      r.room_id as "room_id: RoomId", lower(r.visit) as "start!", upper(r.visit) as "end!",
                      lower(r.occupied) as "occupied_start!", upper(r.occupied) as "occupied_end!",
                      r.visit_date, r.time_zone, r.calendar_version, r.hold_expires_at,
                      r.intake_form_id as "intake_form_id: _", r.fee_start, r.copay as "copay: Copay",
                      r.charge_id as "charge_id: _", r.payment_method_id as "payment_method_id: _",
                      r.driven_until, r.attempt_id, r.cancel_received_at, r.cancelled_by_clinic, r.fee_due,
                      r.checked_in_at, r.closed_at, r.created_at, r.updated_at, r.decline_code,
                      r.displaced_at, r.displaced_reasons, r.overridden, r.judge_at
               from appointments.reservation r "# + $tail $(+ $more)*
            $(, $bind)*
        )
    };
}

mod calendar;
mod history;
mod list;

pub use calendar::{calendar_seen, claim_to_judge, judge_later, judged, mark_to_judge, see_calendar};
pub use history::{Change, changed_since, history};
pub use list::{Filter, list};

/// One appointment.
pub async fn get(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<Option<Reservation>> {
    reservations!("where r.id = $1", id.uuid()).fetch_optional(conn).await
}

/// One appointment, locked until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<Option<Reservation>> {
    reservations!("where r.id = $1 for update of r", id.uuid()).fetch_optional(conn).await
}

/// Holds whose time is up, locked: those that stand in the way of a slot. In the order of their ids, so that two rivals who clear
/// the same ones wait for each other instead of dying.
pub async fn lock_stale_in_the_way(
    conn: &mut PgConnection,
    provider: ProviderId,
    rooms: &[Uuid],
    patient: PatientId,
    occupied: Span,
) -> sqlx::Result<Vec<Reservation>> {
    reservations!(
        r#"where r.state in ('held', 'offered') and r.hold_expires_at <= clock.now()
             and ((r.provider_id = $1 and r.occupied && $4) or (r.room_id = any($2) and r.visit && $4)
                  or r.patient_id = $3)
           order by r.id for update of r"#,
        provider.uuid(),
        rooms,
        patient.uuid(),
        range(occupied)
    )
    .fetch_all(conn)
    .await
}

/// Holds whose time is up, locked, at most `limit`.
pub async fn lock_stale(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Reservation>> {
    reservations!(
        r#"where r.state in ('held', 'offered') and r.hold_expires_at <= clock.now()
           order by r.hold_expires_at limit $1 for update of r skip locked"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// The first of `rooms` that nobody but `mover` has for `visit`.
pub async fn first_free_room(
    conn: &mut PgConnection,
    rooms: &[Uuid],
    visit: Span,
    mover: AppointmentId,
) -> sqlx::Result<Option<RoomId>> {
    sqlx::query_scalar!(
        r#"select room as "room!: RoomId" from unnest($1::uuid[]) with ordinality as wanted(room, place)
           where not exists (
               select from appointments.reservation r
               where r.room_id = wanted.room and r.visit && $2 and r.id <> $3
                 and r.state in ('held', 'offered', 'booked', 'displaced', 'checked_in'))
           order by place limit 1"#,
        rooms,
        range(visit),
        mover.uuid()
    )
    .fetch_optional(conn)
    .await
}

/// Takes the time, or answers `None` when one of the database's rules says no.
pub async fn insert(
    conn: &mut PgConnection,
    new: &NewReservation,
    provider: ProviderId,
    calendar_version: i64,
    room: RoomId,
) -> sqlx::Result<Option<Reservation>> {
    let inserted = sqlx::query!(
        r#"insert into appointments.reservation
               (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date,
                time_zone, calendar_version, hold_expires_at, intake_form_id, fee_start, copay, payment_method_id,
                driven_until, attempt_id, overridden)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                   case when $2 = 'held'::appointments.state then clock.now() + make_interval(secs => $13) end,
                   $14, $15, $16, $17,
                   case when $18 then clock.now() + make_interval(secs => $19) end, case when $18 then $20::uuid end, $21)
           on conflict do nothing"#,
        new.id.uuid(),
        new.state as State,
        new.patient_id.uuid(),
        new.service_type_id.uuid(),
        new.clinic_id.uuid(),
        provider.uuid(),
        room.uuid(),
        range(new.visit),
        range(new.occupied),
        new.visit_date,
        new.time_zone,
        calendar_version,
        HOLD_TTL_SECS,
        new.intake_form_id.map(|f| f.uuid()),
        new.visit.start,
        new.copay as Copay,
        new.payment_method_id.map(PaymentMethodId::uuid),
        new.drive,
        DRIVE_LEASE_SECS,
        Uuid::now_v7(),
        &new.overridden
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 0 { Ok(None) } else { get(conn, new.id).await }
}

/// The second look after a refusal: every rule that says no, and an appointment it says no for; `new` itself never is one. Empty
/// when the obstacle went away meanwhile. Without `rooms` none is looked at.
pub async fn conflicts(
    conn: &mut PgConnection,
    new: &NewReservation,
    provider: ProviderId,
    rooms: &[Uuid],
) -> sqlx::Result<Vec<Clash>> {
    let row = sqlx::query!(
        r#"with live as (
               select * from appointments.reservation
               where state in ('held', 'offered', 'booked', 'displaced', 'checked_in') and id <> $8
                 and (provider_id = $1 or room_id = any($2) or patient_id = $3)
                 and (occupied && $5 or patient_id = $3)
           )
           select (select id from live where provider_id = $1 and occupied && $5 limit 1) as "provider: AppointmentId",
                  (select id from live where room_id = any($2) and visit && $4 and not exists (
                      select from unnest($2::uuid[]) as wanted(room) where not exists (
                          select from live where room_id = wanted.room and visit && $4)) limit 1) as "room: AppointmentId",
                  (select id from live where patient_id = $3 and state <> 'offered' and visit && $4 limit 1)
                      as "patient: AppointmentId",
                  (select id from live where patient_id = $3 and provider_id = $1 and state <> 'offered'
                      and daterange(visit_date, visit_date + 7) && daterange($6::date, $6::date + 7) limit 1)
                      as "seven_days: AppointmentId",
                  (select id from live where patient_id = $3 and state = 'held' and $7 limit 1)
                      as "open_hold: AppointmentId""#,
        provider.uuid(),
        rooms,
        new.patient_id.uuid(),
        range(new.visit),
        range(new.occupied),
        new.visit_date,
        new.state == State::Held,
        new.id.uuid()
    )
    .fetch_one(conn)
    .await?;
    let broken = [
        (row.provider, Conflict::Provider),
        (row.room, Conflict::Room),
        (row.patient, Conflict::Patient),
        (row.seven_days, Conflict::SevenDays),
        (row.open_hold, Conflict::OpenHold),
    ];
    Ok(broken
        .into_iter()
        .filter(|(with, _)| with.is_some())
        .map(|(with, rule)| Clash { rule, with })
        .collect())
}

/// Waits until nobody else moves anything from or to these providers and rooms, and keeps it so until the transaction ends. In one
/// order for all, so that moves that cross cannot lock each other out.
pub async fn lock_places(conn: &mut PgConnection, places: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(place)
         from (select distinct hashtextextended(id::text, 0) as place from unnest($1::uuid[]) id order by place) places",
        places
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Puts a locked row somewhere else; the database refuses it with the name of a constraint.
pub async fn relocate(
    conn: &mut PgConnection,
    row: &Reservation,
    actor: &Caller,
    override_reason: Option<&str>,
) -> sqlx::Result<Reservation> {
    sqlx::query!(
        "update appointments.reservation
         set version = version + 1, state = $2, clinic_id = $3, provider_id = $4, room_id = $5, visit = $6, occupied = $7,
             visit_date = $8, time_zone = $9, calendar_version = $10, fee_start = $11, overridden = $12,
             displaced_at = null, displaced_reasons = '{}', judge_at = null, updated_at = clock.now()
         where id = $1",
        row.id.uuid(),
        row.state as State,
        row.clinic_id.uuid(),
        row.provider_id.uuid(),
        row.room_id.uuid(),
        range(row.visit()),
        range(Span { start: row.occupied_start, end: row.occupied_end }),
        row.visit_date,
        row.time_zone,
        row.calendar_version,
        row.fee_start,
        &row.overridden,
    )
    .execute(&mut *conn)
    .await?;
    let moved = get(&mut *conn, row.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    remember(conn, &moved, Some(actor), override_reason, &moved.overridden).await?;
    Ok(moved)
}

/// Whether one of the exclusion constraints refused a change.
pub fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.kind() == ErrorKind::ExclusionViolation)
}

/// Whether the database ended a change for the sake of another that waited for it.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == DEADLOCK)
}

/// Whether a patient is known to exist.
pub async fn patient_seen(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from appointments.patient_seen where patient_id = $1) as "seen!""#,
        patient.uuid()
    )
    .fetch_one(conn)
    .await
}

/// Notes that a patient exists.
pub async fn see_patient(conn: &mut PgConnection, patient: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.patient_seen (patient_id) values ($1) on conflict do nothing",
        patient
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Writes a locked row back after its state changed, with the next version, and its history. `actor` is `None` for the suite itself.
pub async fn save(
    conn: &mut PgConnection,
    row: &mut Reservation,
    actor: Option<&Caller>,
    override_reason: Option<&str>,
) -> sqlx::Result<()> {
    let saved = sqlx::query!(
        r#"update appointments.reservation
           set version = version + 1, state = $2, hold_expires_at = $3, copay = $4, charge_id = $5, driven_until = null,
               cancel_received_at = $6, cancelled_by_clinic = $7, fee_due = $8, checked_in_at = $9, closed_at = $10,
               calendar_version = $11, displaced_at = $12, displaced_reasons = $13, judge_at = $14, updated_at = clock.now()
           where id = $1 returning version, updated_at"#,
        row.id.uuid(),
        row.state as State,
        row.hold_expires_at,
        row.copay as Copay,
        row.charge_id.map(ChargeId::uuid),
        row.cancel_received_at,
        row.cancelled_by_clinic,
        row.fee_due,
        row.checked_in_at,
        row.closed_at,
        row.calendar_version,
        row.displaced_at,
        &row.displaced_reasons,
        row.judge_at
    )
    .fetch_one(&mut *conn)
    .await?;
    (row.version, row.updated_at, row.driven_until) = (saved.version, saved.updated_at, None);
    remember(conn, row, actor, override_reason, &[]).await
}

/// Adds the row's present version to its history.
pub async fn remember(
    conn: &mut PgConnection,
    row: &Reservation,
    actor: Option<&Caller>,
    override_reason: Option<&str>,
    overridden: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.change (reservation_id, version, state, actor, actor_role, visit, clinic_id, provider_id,
                                          room_id, override_reason, overridden)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        row.id.uuid(),
        row.version,
        row.state as State,
        actor.map(|a| a.subject.as_str()),
        actor.and_then(|a| a.roles.first()).map(|r| *r as i32),
        range(row.visit()),
        row.clinic_id.uuid(),
        row.provider_id.uuid(),
        row.room_id.uuid(),
        override_reason,
        overridden
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Whether a hold's time is up, by the clock that all replicas share.
pub async fn is_over(conn: &mut PgConnection, hold_expires_at: Option<DateTime<Utc>>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select coalesce($1 <= clock.now(), false) as "over!""#, hold_expires_at)
        .fetch_one(conn)
        .await
}

/// Makes this caller the one who drives the booking of a locked hold, as a new attempt; false when someone already does.
pub async fn drive(
    conn: &mut PgConnection,
    id: AppointmentId,
    payment_method: Option<PaymentMethodId>,
    calendar_version: i64,
) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "update appointments.reservation
         set driven_until = clock.now() + make_interval(secs => $2), attempt_id = $3, payment_method_id = $4,
             copay = case when copay = 'not_required' then copay else 'pending' end, decline_code = '',
             calendar_version = greatest(calendar_version, $5)
         where id = $1 and (driven_until is null or driven_until <= clock.now() or copay = 'action_required')",
        id.uuid(),
        DRIVE_LEASE_SECS,
        Uuid::now_v7(),
        payment_method.map(PaymentMethodId::uuid),
        calendar_version
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// How an authorization stands that has not led to a booking.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// As far as the booking is concerned.
    pub copay: Copay,
    /// Billing's charge, when there is one.
    pub charge: Option<ChargeId>,
    /// Why it was declined; empty when it was not.
    pub decline_code: &'a str,
    /// When a recovery worker asks again; `None` = it is the patient's turn.
    pub retry_in_secs: Option<f64>,
}

/// Notes how an undecided authorization stands.
pub async fn note_copay(
    conn: &mut PgConnection,
    id: AppointmentId,
    standing: Standing<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.reservation
         set copay = $2, charge_id = coalesce($3, charge_id), decline_code = $4, updated_at = clock.now(),
             driven_until = clock.now() + make_interval(secs => $5::float8)
         where id = $1 and state = 'held'",
        id.uuid(),
        standing.copay as Copay,
        standing.charge.map(ChargeId::uuid),
        standing.decline_code,
        standing.retry_in_secs
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Bookings that nobody drives any more, taken over by this worker, at most `limit`.
pub async fn take_over(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<AppointmentId>> {
    sqlx::query_scalar!(
        r#"update appointments.reservation set driven_until = clock.now() + make_interval(secs => $1)
           where id in (
               select id from appointments.reservation
               where state = 'held' and driven_until <= clock.now() and hold_expires_at > clock.now()
               order by driven_until limit $2 for update skip locked)
           returning id as "id: AppointmentId""#,
        DRIVE_LEASE_SECS,
        limit
    )
    .fetch_all(conn)
    .await
}

fn range(span: Span) -> PgRange<DateTime<Utc>> {
    (span.start..span.end).into()
}
