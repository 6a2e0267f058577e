//! All SQL of appointments. Functions take a connection, so that the caller owns the transaction.

use std::ops::Bound;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId, ProviderId, RoomId};
use kit::messaging::outbox::Event;
use sqlx::PgConnection;
use sqlx::error::ErrorKind;
use sqlx::postgres::types::PgRange;
use uuid::Uuid;

use crate::domain::{Clash, Conflict, Copay, NewReservation, Reservation, Span, State};

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
                      r.displaced_at, r.displaced_reasons, r.overridden, r.judge_at, r.work_list_at,
                      (select clock.now()) as "read_at!"
               from appointments.reservation r "# + $tail $(+ $more)*
            $(, $bind)*
        )
    };
}

/// One statement for a change of a row, its history and its event, and what `$also` says: none is without the others. `$change`
/// may use $9 and up. Answers when the row was changed; nothing, when it was not.
macro_rules! change {
    ($by:expr, $event:expr, $change:literal $(+ $more:literal)* $(; also $also:literal)?, $($bind:expr),* $(,)?) => {
        sqlx::query_scalar!(
            "with changed as (" + $change $(+ $more)* + " returning *),
             remembered as (
                 insert into appointments.change (reservation_id, version, state, changed_at, actor, actor_role, visit,
                                                  clinic_id, provider_id, room_id, override_reason, overridden, patient_id)
                 select id, version, state, updated_at, $1::text, $2::int, visit, clinic_id, provider_id, room_id, $3::text,
                        $4::text[], patient_id from changed),
             told as (
                 insert into appointments.outbox
                     (event_id, subject, aggregate_id, aggregate_version, payload, traceparent)
                 select $5::uuid, $6::text, id, version, $7::bytea, $8::text from changed)"
                 $(+ $also)? + " select updated_at from changed",
            $by.actor.map(|actor| actor.subject.as_str()),
            $by.actor.and_then(|actor| actor.roles.first()).map(|role| *role as i32),
            $by.override_reason,
            $by.overridden,
            $event.id.uuid(),
            $event.subject,
            $event.payload,
            $event.traceparent.as_deref(),
            $($bind),*
        )
    };
}

mod alternatives;
mod at_once;
mod calendar;
mod counts;
mod drive;
mod freed;
mod handover;
mod history;
mod intake;
mod list;
mod waitlist;

pub use alternatives::{alternatives, first_free, lock_alternatives, put_on_work_list, without_displacement};
pub use at_once::{confirm_at_once, take_at_once};
pub use calendar::{calendar_seen, claim_to_judge, judge_later, judged, mark_to_judge, see_calendar};
pub use counts::{Counts, counts};
pub use drive::{Standing, drive, note_copay, take_over};
pub use freed::{
    Candidate, Freed, Stretch, Wanted, candidates, claim_freed, free_calendar, free_place, freed_done,
    freed_later, freed_until_answered, freed_within, is_wanted, keep_freed, longest_wanted, taken_within,
    wanted_with,
};
pub use handover::{claim_handovers, hand_over, handed_over, naming};
pub use history::{Change, changed_since, history};
pub use intake::{complete_intake, is_intake_complete};
pub use list::{Filter, list};
pub use waitlist::{
    EntryFilter, EntryKey, OfferFilter, Place, answerer, close_offer, close_waiting, entries_naming, entry,
    expire_entries, join, list_entries, list_offers, lock_open_entries, make_offer, note_answer, note_length,
    offer, open_offer, pass_entry, places, promote, unanswered, without_visit,
};

/// One appointment.
pub async fn get(conn: &mut PgConnection, id: AppointmentId) -> sqlx::Result<Option<Reservation>> {
    reservations!("where r.id = $1", id.uuid()).fetch_optional(conn).await
}

/// Appointments by id, in any order.
pub async fn of_ids(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Reservation>> {
    reservations!("where r.id = any($1)", ids).fetch_all(conn).await
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
        r#"where r.state in ('held', 'offered') and r.hold_expires_at <= (select clock.now())
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
        r#"where r.state in ('held', 'offered') and r.hold_expires_at <= (select clock.now())
           order by r.hold_expires_at limit $1 for update of r skip locked"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// What is known of a slot before it is taken.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The newest calendar version known of the provider, kept from changing until the transaction ends.
    pub calendar_seen: i64,
    /// Whether the patient is known to exist.
    pub patient_known: bool,
    /// The survivor, when the patient was merged.
    pub merged_into: Option<PatientId>,
    /// Whether holds whose time is up stand in the way.
    pub stale: bool,
    /// The first of the rooms that nobody else has for the visit.
    pub room: Option<RoomId>,
    /// The present instant, by the clock that all replicas share.
    pub now: DateTime<Utc>,
}

/// Looks at a slot for `new`, or for its row that moves there.
pub async fn look(
    conn: &mut PgConnection,
    new: &NewReservation,
    provider: ProviderId,
    rooms: &[Uuid],
) -> sqlx::Result<Look> {
    let row = sqlx::query!(
        r#"with seen as (select version from appointments.calendar_seen where provider_id = $1 for share)
           select (select version from seen) as calendar_seen, (select clock.now()) as "now!",
                  exists (select from appointments.patient_seen where patient_id = $3) as "patient_known!",
                  (select survivor_id from appointments.merged where merged_id = $3) as "merged_into: PatientId",
                  exists (
                      select from appointments.reservation r
                      where r.state in ('held', 'offered') and r.hold_expires_at <= (select clock.now())
                        and ((r.provider_id = $1 and r.occupied && $5) or r.patient_id = $3)) as "stale!",
                  exists (
                      select from appointments.reservation r
                      where r.state in ('held', 'offered') and r.hold_expires_at <= (select clock.now())
                        and r.room_id = any($2) and r.visit && $5) as "stale_room!",
                  (select room from unnest($2::uuid[]) with ordinality as wanted(room, place)
                   where not exists (
                       select from appointments.reservation r
                       where r.room_id = wanted.room and r.visit && $4 and r.id <> $6
                         and r.state in ('held', 'offered', 'booked', 'displaced', 'checked_in'))
                   order by place limit 1) as "room: RoomId""#,
        provider.uuid(),
        rooms,
        new.patient_id.uuid(),
        range(new.visit),
        range(new.occupied),
        new.id.uuid()
    )
    .fetch_one(&mut *conn)
    .await?;
    let calendar_seen = match row.calendar_seen {
        Some(version) => version,
        None => calendar_seen(conn, provider).await?,
    };
    Ok(Look {
        calendar_seen,
        patient_known: row.patient_known,
        merged_into: row.merged_into,
        stale: row.stale || (row.stale_room && row.room.is_none()),
        room: row.room,
        now: row.now,
    })
}

/// Who makes a change, and which schedule rules it overrides, and why.
#[derive(Clone, Copy, Debug, Default)]
pub struct By<'a> {
    /// `None` = the suite itself.
    pub actor: Option<&'a Caller>,
    /// As the desk said it.
    pub override_reason: Option<&'a str>,
    /// Their reasons.
    pub overridden: &'a [String],
}

/// Takes the time and tells, or answers false when one of the database's rules says no.
pub async fn insert(
    conn: &mut PgConnection,
    row: &Reservation,
    by: By<'_>,
    event: &Event,
) -> sqlx::Result<bool> {
    let inserted = change!(
        by,
        event,
        "insert into appointments.reservation
             (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date, time_zone,
              calendar_version, hold_expires_at, intake_form_id, fee_start, copay, payment_method_id, driven_until, attempt_id,
              overridden, created_at, updated_at)
         values ($9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $29)
         on conflict do nothing",
        row.id.uuid(),
        row.state as State,
        row.patient_id.uuid(),
        row.service_type_id.uuid(),
        row.clinic_id.uuid(),
        row.provider_id.uuid(),
        row.room_id.uuid(),
        range(row.visit()),
        range(row.occupied()),
        row.visit_date,
        row.time_zone,
        row.calendar_version,
        row.hold_expires_at,
        row.intake_form_id.map(|f| f.uuid()),
        row.fee_start,
        row.copay as Copay,
        row.payment_method_id.map(PaymentMethodId::uuid),
        row.driven_until,
        row.attempt_id,
        &row.overridden,
        row.created_at,
    );
    Ok(inserted.fetch_optional(conn).await?.is_some())
}

/// The second look after a refusal: every rule that says no, and an appointment it says no for; `new` itself never is one. Empty
/// when the obstacle went away meanwhile; a hold whose time is up is none. Without `rooms` none is looked at.
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
                 and (hold_expires_at is null or hold_expires_at > (select clock.now()))
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

/// Puts a locked row somewhere else, as its next version, and tells; the database refuses it with the name of a constraint. The time
/// it had `before` is freed.
pub async fn relocate(
    conn: &mut PgConnection,
    row: &mut Reservation,
    before: &Reservation,
    by: By<'_>,
    tell: impl FnOnce(&Reservation) -> Event,
) -> sqlx::Result<()> {
    next_version(row);
    let event = tell(row);
    let moved = change!(
        by,
        event,
        "update appointments.reservation
         set version = $10, state = $11, clinic_id = $12, provider_id = $13, room_id = $14, visit = $15, occupied = $16,
             visit_date = $17, time_zone = $18, calendar_version = $19, fee_start = $20, overridden = $21,
             displaced_at = null, displaced_reasons = '{}', judge_at = null, work_list_at = null, updated_at = $22, patient_id = $23
         where id = $9"; also ",
             freed as (
                 insert into appointments.freed (provider_id, clinic_id, time_zone, free)
                 select $24, $25, $26, $27 from changed
                 where (changed.provider_id, changed.occupied) is distinct from ($24::uuid, $27::tstzrange)
                   and appointments.wanted($24, $25, $28, upper($27)))",
        row.id.uuid(),
        row.version,
        row.state as State,
        row.clinic_id.uuid(),
        row.provider_id.uuid(),
        row.room_id.uuid(),
        range(row.visit()),
        range(row.occupied()),
        row.visit_date,
        row.time_zone,
        row.calendar_version,
        row.fee_start,
        &row.overridden,
        row.updated_at,
        row.patient_id.uuid(),
        before.provider_id.uuid(),
        before.clinic_id.uuid(),
        before.time_zone,
        range(before.occupied()),
        before.visit_date,
    );
    moved.fetch_one(conn).await.map(drop)
}

fn next_version(row: &mut Reservation) {
    row.version += 1;
    row.updated_at = row.read_at;
}

/// Whether one of the exclusion constraints refused a change.
pub fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.kind() == ErrorKind::ExclusionViolation)
}

/// Whether the database ended a change for the sake of another that waited for it.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == DEADLOCK)
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

/// Writes a locked row back after its state changed, as its next version, and tells. The time of one that ended is freed.
pub async fn save(
    conn: &mut PgConnection,
    row: &mut Reservation,
    by: By<'_>,
    tell: impl FnOnce(&Reservation) -> Event,
) -> sqlx::Result<()> {
    next_version(row);
    row.driven_until = None;
    let event = tell(row);
    let saved = change!(
        by,
        event,
        "update appointments.reservation
         set version = $10, state = $11, hold_expires_at = $12, copay = $13, charge_id = $14, driven_until = null,
             cancel_received_at = $15, cancelled_by_clinic = $16, fee_due = $17, checked_in_at = $18, closed_at = $19,
             calendar_version = $20, displaced_at = $21, displaced_reasons = $22, judge_at = $23, updated_at = $24,
             patient_id = $25, work_list_at = $26
         where id = $9"; also ",
             freed as (
                 insert into appointments.freed (provider_id, clinic_id, time_zone, free)
                 select provider_id, clinic_id, time_zone, occupied from changed
                 where state in ('cancelled', 'no_show', 'expired', 'released', 'declined')
                   and appointments.wanted(provider_id, clinic_id, visit_date, upper(visit)))",
        row.id.uuid(),
        row.version,
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
        row.judge_at,
        row.updated_at,
        row.patient_id.uuid(),
        row.work_list_at,
    );
    saved.fetch_one(conn).await.map(drop)
}

fn range(span: Span) -> PgRange<DateTime<Utc>> {
    (span.start..span.end).into()
}

/// `None` when an end is open.
fn span(range: PgRange<DateTime<Utc>>) -> Option<Span> {
    match (range.start, range.end) {
        (Bound::Included(start), Bound::Excluded(end)) => Some(Span { start, end }),
        _ => None,
    }
}
