//! Time that became free and is still to be matched with those who wait.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId, ServiceTypeId, WaitlistEntryId};
use sqlx::PgConnection;
use sqlx::postgres::types::PgRange;
use uuid::Uuid;

use super::range;
use crate::domain::waitlist::{Entry, EntryState, Length, MOST_OFFERS, OFFERS_WITHIN};
use crate::domain::{DRIVE_LEASE, Span};

/// Provider's time that became free.
#[derive(Clone, Debug)]
pub struct Freed {
    /// Its place on the list.
    pub id: i64,
    /// Whose.
    pub provider: ProviderId,
    /// Where, with the zone; `None` = scheduling is to be asked.
    pub place: Option<(ClinicId, String)>,
    /// When; an end that is open was cut.
    pub free: Span,
    /// The calendar version that made it so.
    pub calendar_version: i64,
    /// Until when it is this worker's; any other may take it up then.
    pub claimed_until: DateTime<Utc>,
    /// How long it has been on the list.
    pub age: TimeDelta,
    /// When it was read, by the clock that all replicas share.
    pub now: DateTime<Utc>,
}

/// How far ahead freed time is looked at: as far as anybody may wait.
const FURTHEST_DAYS: i32 = 366;

/// Takes over, for a while, what is due: of known places, or what scheduling is to be asked about.
pub async fn claim_freed(conn: &mut PgConnection, placed: bool, limit: i64) -> sqlx::Result<Vec<Freed>> {
    let rows = sqlx::query!(
        r#"update appointments.freed set claimed_until = clock.now() + make_interval(secs => $1)
           where id in (
               select id from appointments.freed
               where due_at <= clock.now() and (claimed_until is null or claimed_until <= clock.now())
                 and (clinic_id is not null) = $4
               order by due_at limit $2 for update skip locked)
           returning id, provider_id as "provider: ProviderId", clinic_id as "clinic: ClinicId", time_zone,
                     greatest(lower(free), clock.now()) as "start!",
                     least(upper(free), clock.now() + make_interval(days => $3)) as "end!", calendar_version,
                     claimed_until as "claimed_until!", noted_at, clock.now() as "now!""#,
        DRIVE_LEASE.as_secs_f64(),
        limit,
        FURTHEST_DAYS,
        placed
    )
    .fetch_all(conn)
    .await?;
    let freed = rows.into_iter().map(|row| Freed {
        id: row.id,
        provider: row.provider,
        place: row.clinic.zip(row.time_zone),
        free: Span { start: row.start, end: row.end },
        calendar_version: row.calendar_version,
        claimed_until: row.claimed_until,
        age: row.now - row.noted_at,
        now: row.now,
    });
    Ok(freed.collect())
}

/// Keeps it for longer; false when another worker has taken it up.
pub async fn keep_freed(conn: &mut PgConnection, freed: &mut Freed) -> sqlx::Result<bool> {
    let renewed = sqlx::query_scalar!(
        r#"update appointments.freed set claimed_until = clock.now() + make_interval(secs => $3)
           where id = $1 and claimed_until = $2 returning claimed_until as "until!""#,
        freed.id,
        freed.claimed_until,
        DRIVE_LEASE.as_secs_f64()
    );
    let until = renewed.fetch_optional(conn).await?;
    freed.claimed_until = until.unwrap_or(freed.claimed_until);
    Ok(until.is_some())
}

/// Nothing is left to do about it; false when another worker has taken it up.
pub async fn freed_done(conn: &mut PgConnection, freed: &Freed) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from appointments.freed where id = $1 and claimed_until = $2",
        freed.id,
        freed.claimed_until
    );
    Ok(gone.execute(conn).await?.rows_affected() == 1)
}

/// It is looked at again at `due`.
pub async fn freed_later(conn: &mut PgConnection, freed: &Freed, due: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.freed set due_at = $3, claimed_until = null where id = $1 and claimed_until = $2",
        freed.id,
        freed.claimed_until,
        due
    )
    .execute(conn)
    .await
    .map(drop)
}

/// It is looked at again when an offer that ends at `ends` is answered, or has ended. The offer is locked: an answer under way is
/// waited for, and a later one finds the note.
pub async fn freed_until_answered(
    conn: &mut PgConnection,
    freed: &Freed,
    ends: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "with open as (select from appointments.offer where state = 'open' and expires_at = $3 for share)
         update appointments.freed set claimed_until = null,
                due_at = case when exists (select from open) then $3 else clock.now() end
         where id = $1 and claimed_until = $2",
        freed.id,
        freed.claimed_until,
        ends
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Whether anybody who waits may want time of a place, as coarsely as those ask who free it.
pub async fn is_wanted(
    conn: &mut PgConnection,
    freed: &Freed,
    clinic: ClinicId,
    day: NaiveDate,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select appointments.wanted($1, $2, $3, $4) as "wanted!""#,
        freed.provider.uuid(),
        clinic.uuid(),
        day,
        freed.free.end
    )
    .fetch_one(conn)
    .await
}

/// Puts time of a known place on the list.
pub async fn free_place(
    conn: &mut PgConnection,
    provider: ProviderId,
    clinic: ClinicId,
    zone: &str,
    free: Span,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.freed (provider_id, clinic_id, time_zone, free) values ($1, $2, $3, $4)",
        provider.uuid(),
        clinic.uuid(),
        zone,
        range(free)
    )
    .execute(conn)
    .await
    .map(drop)
}

/// A provider's calendar changed in these ranges: what of it became free is to be asked, if anyone may want it.
pub async fn free_calendar(
    conn: &mut PgConnection,
    provider: Uuid,
    version: i64,
    affected: &[PgRange<DateTime<Utc>>],
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.freed (provider_id, free, calendar_version)
         select $1, affected, $2 from unnest($3::tstzrange[]) affected
         where (upper_inf(affected) or upper(affected) > clock.now()) and not isempty(affected)
           and exists (select from appointments.waitlist_entry e
                       where e.state in ('waiting', 'offered') and (e.provider_ids = '{}' or $1 = any(e.provider_ids)))",
        provider,
        version,
        affected
    )
    .execute(conn)
    .await
    .map(drop)
}

/// A kind of visit that someone may want with a provider, the days it is wanted on, and where: no clinic = any.
#[derive(Debug)]
pub struct Wanted {
    /// Which kind.
    pub service_type: ServiceTypeId,
    /// From.
    pub first_date: NaiveDate,
    /// Until, inclusive.
    pub last_date: NaiveDate,
    /// Where; empty = anywhere.
    pub clinics: Vec<Uuid>,
}

/// What is wanted with a provider.
pub async fn wanted_with(conn: &mut PgConnection, provider: ProviderId) -> sqlx::Result<Vec<Wanted>> {
    sqlx::query_as!(
        Wanted,
        r#"select e.service_type_id as "service_type: ServiceTypeId", min(e.first_date) as "first_date!",
                  max(e.last_date) as "last_date!",
                  case when bool_or(e.clinic_ids = '{}') then '{}'
                       else array(select distinct clinic from appointments.waitlist_entry w, unnest(w.clinic_ids) clinic
                                  where w.service_type_id = e.service_type_id and w.state in ('waiting', 'offered')
                                  order by clinic) end as "clinics!"
           from appointments.waitlist_entry e
           where e.state in ('waiting', 'offered') and (e.provider_ids = '{}' or $1 = any(e.provider_ids))
           group by e.service_type_id"#,
        provider.uuid()
    )
    .fetch_all(conn)
    .await
}

/// The most minutes that a visit takes of a provider, of kinds that someone waits for; 0 = nobody waits.
pub async fn longest_wanted(conn: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"select coalesce(max(l.before_minutes + l.visit_minutes + l.after_minutes), 0) as "longest!"
           from appointments.service_length l
           where exists (select from appointments.waitlist_entry e
                         where e.service_type_id = l.service_type_id and e.state in ('waiting', 'offered'))"#
    )
    .fetch_one(conn)
    .await
}

/// Provider's time that is taken within a stretch, by start.
pub async fn taken_within(
    conn: &mut PgConnection,
    provider: ProviderId,
    within: Span,
) -> sqlx::Result<Vec<Span>> {
    sqlx::query_as!(
        Span,
        r#"select lower(occupied) as "start!", upper(occupied) as "end!" from appointments.reservation
           where provider_id = $1 and occupied && $2
             and state in ('held', 'offered', 'booked', 'displaced', 'checked_in')
           order by lower(occupied)"#,
        provider.uuid(),
        range(within)
    )
    .fetch_all(conn)
    .await
}

/// Provider's time within a stretch that became free at a clinic and is on the list.
pub async fn freed_within(
    conn: &mut PgConnection,
    provider: ProviderId,
    clinic: ClinicId,
    within: Span,
) -> sqlx::Result<Vec<Span>> {
    sqlx::query_as!(
        Span,
        r#"select lower(free) as "start!", upper(free) as "end!" from appointments.freed
           where provider_id = $1 and clinic_id = $2 and free && $3"#,
        provider.uuid(),
        clinic.uuid(),
        range(within)
    )
    .fetch_all(conn)
    .await
}

/// An open entry that may want a stretch of time.
#[derive(Debug)]
pub struct Candidate {
    /// Who waits.
    pub entry: Entry,
    /// How long the visit is.
    pub length: Length,
    /// Starts are on multiples of so many minutes of the wall clock.
    pub step: i32,
    /// Until when the patient has another offer to answer.
    pub engaged_until: Option<DateTime<Utc>>,
    /// Where the patient is already.
    pub busy: Vec<Span>,
    /// Starts with this provider that were offered before.
    pub offered: Vec<DateTime<Utc>>,
    /// Only earlier starts are wanted.
    pub before: Option<DateTime<Utc>>,
}

/// Which stretch is to be filled.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Whose.
    pub provider: ProviderId,
    /// Where.
    pub clinic: ClinicId,
    /// When.
    pub free: Span,
    /// Local days of its start and its end.
    pub days: (NaiveDate, NaiveDate),
    /// Local minutes of the day of both, where they are on one day.
    pub minutes: (i16, i16),
}

/// Who may want a stretch of time: in the order in which they are served, the first `most` of each kind of visit, of those who have
/// another offer to answer (`engaged`) or of those who do not. Left out is who plainly cannot take it: with a visit too near with the
/// same provider, or enough offers for a day, or other hours.
pub async fn candidates(
    conn: &mut PgConnection,
    stretch: Stretch,
    engaged: bool,
    most: i64,
) -> sqlx::Result<Vec<Candidate>> {
    let rows = sqlx::query!(
        r#"select e.id as "id: WaitlistEntryId", e.state as "state: EntryState", e.patient_id as "patient_id: PatientId",
                  e.service_type_id as "service_type_id: ServiceTypeId", e.clinic_ids, e.provider_ids, e.first_date,
                  e.last_date, e.from_minute, e.before_minute, e.weekdays, e.priority, e.priority_reason, e.auto_book,
                  e.payment_method_id, e.replaces_id, e.appointment_id, e.created_at, e.updated_at,
                  l.before_minutes as length_before, l.visit_minutes, l.after_minutes,
                  l.step_minutes, e.before as "before?",
                  (select max(o.expires_at) from appointments.offer o
                   where o.patient_id = e.patient_id and o.state = 'open' and o.entry_id is not null) as "engaged_until?",
                  array(select r.visit from appointments.reservation r
                        where r.patient_id = e.patient_id and r.id is distinct from e.replaces_id and r.visit && $3
                          and r.state in ('held', 'booked', 'displaced', 'checked_in')) as "busy!: Vec<PgRange<DateTime<Utc>>>",
                  array(select o.starts_at from appointments.offer o
                        where o.entry_id = e.id and o.provider_id = $1 and o.starts_at <@ $3::tstzrange
                          and o.state <> 'withdrawn') as "offered!"
           from (select w.*, lower(replaced.visit) as before,
                        row_number() over (partition by w.service_type_id order by w.priority desc, w.created_at, w.id) as place
                 from appointments.waitlist_entry w
                 left join appointments.reservation replaced on replaced.id = w.replaces_id
                 where w.state in ('waiting', 'offered') and w.first_date <= $5 and w.last_date >= $4
                   and (w.clinic_ids = '{}' or $2 = any(w.clinic_ids))
                   and (w.provider_ids = '{}' or $1 = any(w.provider_ids))
                   and ($4 <> $5 or (w.weekdays & (1 << (extract(isodow from $4::date)::int - 1)) <> 0
                                     and w.from_minute < $11 and $10 < w.before_minute))
                   and (w.replaces_id is null
                        or (replaced.state in ('booked', 'displaced') and lower(replaced.visit) > lower($3::tstzrange)))
                   and $9 = exists (select from appointments.offer o
                                    where o.patient_id = w.patient_id and o.state = 'open' and o.entry_id is not null)
                   and not exists (
                       select from appointments.reservation r
                       where r.patient_id = w.patient_id and r.provider_id = $1 and r.id is distinct from w.replaces_id
                         and r.state in ('held', 'booked', 'displaced', 'checked_in')
                         and daterange(r.visit_date, r.visit_date + 7) && daterange($4, $4 + 7)
                         and daterange(r.visit_date, r.visit_date + 7) && daterange($5, $5 + 7))
                   and (select count(*) from appointments.offer o
                        where o.patient_id = w.patient_id and o.entry_id is not null
                          and o.made_at > clock.now() - make_interval(secs => $6)) < $7) e
           join appointments.service_length l using (service_type_id)
           where e.place <= $8
             and make_interval(mins => l.before_minutes + l.visit_minutes + l.after_minutes) <= upper($3) - lower($3)
           order by e.priority desc, e.created_at, e.id"#,
        stretch.provider.uuid(),
        stretch.clinic.uuid(),
        range(stretch.free),
        stretch.days.0,
        stretch.days.1,
        OFFERS_WITHIN.as_seconds_f64(),
        MOST_OFFERS,
        most,
        engaged,
        stretch.minutes.0,
        stretch.minutes.1
    )
    .fetch_all(conn)
    .await?;
    let candidates = rows.into_iter().map(|row| Candidate {
        entry: Entry {
            id: row.id,
            state: row.state,
            patient_id: row.patient_id,
            service_type_id: row.service_type_id,
            clinic_ids: row.clinic_ids,
            provider_ids: row.provider_ids,
            first_date: row.first_date,
            last_date: row.last_date,
            from_minute: row.from_minute,
            before_minute: row.before_minute,
            weekdays: row.weekdays,
            priority: row.priority,
            priority_reason: row.priority_reason,
            auto_book: row.auto_book,
            payment_method_id: row.payment_method_id.map(Into::into),
            replaces_id: row.replaces_id.map(AppointmentId::from),
            appointment_id: row.appointment_id.map(AppointmentId::from),
            created_at: row.created_at,
            updated_at: row.updated_at,
        },
        length: Length { before: row.length_before, visit: row.visit_minutes, after: row.after_minutes },
        step: row.step_minutes,
        engaged_until: row.engaged_until,
        busy: row.busy.into_iter().filter_map(super::span).collect(),
        offered: row.offered,
        before: row.before,
    });
    Ok(candidates.collect())
}
