//! Who waits, and what was offered to whom.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::ids::{
    AppointmentId, ClinicId, OfferId, PatientId, PaymentMethodId, ServiceTypeId, WaitlistEntryId,
};
use proto::clinic::auth::v1::Role;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::waitlist::{
    Entry, EntryState, Length, MOST_OFFERS, OFFERS_WITHIN, Offer, OfferState, PACE_DAYS,
};

/// `query_as!` for whole entries: the columns are spelled once.
macro_rules! entries {
    ($tail:literal $(, $bind:expr)* $(,)?) => {
        sqlx::query_as!(
            Entry,
            r#"select e.id as "id: WaitlistEntryId", e.state as "state: EntryState", e.patient_id as "patient_id: _",
                      e.service_type_id as "service_type_id: _", e.clinic_ids, e.provider_ids, e.first_date, e.last_date,
                      e.from_minute, e.before_minute, e.weekdays, e.priority, e.priority_reason, e.auto_book,
                      e.payment_method_id as "payment_method_id: _", e.replaces_id as "replaces_id: _",
                      e.appointment_id as "appointment_id: _", e.created_at, e.updated_at
               from appointments.waitlist_entry e "# + $tail
            $(, $bind)*
        )
    };
}

/// The same for offers.
macro_rules! offers {
    ($tail:literal $(, $bind:expr)* $(,)?) => {
        sqlx::query_as!(
            Offer,
            r#"select o.id as "id: OfferId", o.entry_id as "entry_id: _", o.state as "state: OfferState",
                      o.patient_id as "patient_id: _", o.service_type_id as "service_type_id: _",
                      o.clinic_id as "clinic_id: _", o.provider_id as "provider_id: _", o.starts_at,
                      o.replaces_id as "replaces_id: _", o.preference, o.auto_book, o.made_at, o.expires_at
               from appointments.offer o "# + $tail
            $(, $bind)*
        )
    };
}

/// One entry.
pub async fn entry(conn: &mut PgConnection, id: WaitlistEntryId) -> sqlx::Result<Option<Entry>> {
    entries!("where e.id = $1", id.uuid()).fetch_optional(conn).await
}

/// Opens an entry, and answers when; nothing when its id is taken, or its patient has an open one for the service type.
pub async fn join(conn: &mut PgConnection, entry: &Entry) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "insert into appointments.waitlist_entry
             (id, patient_id, service_type_id, clinic_ids, provider_ids, first_date, last_date, from_minute, before_minute,
              weekdays, priority, priority_reason, auto_book, payment_method_id, replaces_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         on conflict do nothing returning created_at",
        entry.id.uuid(),
        entry.patient_id.uuid(),
        entry.service_type_id.uuid(),
        &entry.clinic_ids,
        &entry.provider_ids,
        entry.first_date,
        entry.last_date,
        entry.from_minute,
        entry.before_minute,
        entry.weekdays,
        entry.priority,
        entry.priority_reason,
        entry.auto_book,
        entry.payment_method_id.map(PaymentMethodId::uuid),
        entry.replaces_id.map(AppointmentId::uuid),
    )
    .fetch_optional(conn)
    .await
}

/// Open entries of a patient, oldest first; nobody else opens or closes one until the transaction ends.
pub async fn lock_open_entries(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Vec<Entry>> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1::uuid::text, 1))", patient.uuid())
        .execute(&mut *conn)
        .await?;
    entries!(
        "where e.patient_id = $1 and e.state in ('waiting', 'offered') order by e.created_at, e.id",
        patient.uuid()
    )
    .fetch_all(conn)
    .await
}

/// Open entries that name `patient` by this very id.
pub async fn entries_naming(
    conn: &mut PgConnection,
    patient: PatientId,
) -> sqlx::Result<Vec<WaitlistEntryId>> {
    sqlx::query_scalar!(
        r#"select id as "id: WaitlistEntryId" from appointments.waitlist_entry
           where patient_id = $1 and state in ('waiting', 'offered') order by created_at, id"#,
        patient.uuid()
    )
    .fetch_all(conn)
    .await
}

/// Closes an entry that waits; false when it does not, or not any more.
pub async fn close_waiting(
    conn: &mut PgConnection,
    id: WaitlistEntryId,
    state: EntryState,
) -> sqlx::Result<bool> {
    let closed = sqlx::query!(
        "update appointments.waitlist_entry set state = $2, updated_at = clock.now() where id = $1 and state = 'waiting'",
        id.uuid(),
        state as EntryState
    );
    Ok(closed.execute(conn).await?.rows_affected() == 1)
}

/// Makes an open entry another patient's.
pub async fn pass_entry(conn: &mut PgConnection, id: WaitlistEntryId, to: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.waitlist_entry set patient_id = $2, updated_at = clock.now()
         where id = $1 and state in ('waiting', 'offered')",
        id.uuid(),
        to.uuid()
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Lets an entry stand where the better placed of it and another would.
pub async fn promote(conn: &mut PgConnection, id: WaitlistEntryId, other: &Entry) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.waitlist_entry
         set created_at = least(created_at, $2), updated_at = clock.now(), priority = greatest(priority, $3),
             priority_reason = case when $3 > priority then $4 else priority_reason end
         where id = $1",
        id.uuid(),
        other.created_at,
        other.priority,
        other.priority_reason
    )
    .execute(conn)
    .await
    .map(drop)
}

/// What a list of entries asks for. Empty filters match all.
#[derive(Debug, Default)]
pub struct EntryFilter {
    /// Only this patient's, by any of the person's ids.
    pub patient: Option<PatientId>,
    /// Only those who would come to this clinic.
    pub clinic: Option<ClinicId>,
    /// Only for this service type.
    pub service_type: Option<ServiceTypeId>,
    /// Only in these states.
    pub states: Vec<EntryState>,
}

/// Sort key of entries: the highest priority less its own, then age, then id.
pub type EntryKey = (i16, DateTime<Utc>, Uuid);

/// Entries in the order in which they are served, after the key `after`.
pub async fn list_entries(
    conn: &mut PgConnection,
    filter: &EntryFilter,
    after: Option<EntryKey>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    entries!(
        "where ($1::uuid is null or e.patient_id = any(appointments.ids_of($1)))
           and ($2::uuid is null or e.clinic_ids = '{}' or $2 = any(e.clinic_ids))
           and ($3::uuid is null or e.service_type_id = $3) and e.state = any($4)
           and ($5::smallint is null or (-e.priority, e.created_at, e.id) > (-$5::smallint, $6::timestamptz, $7::uuid))
         order by e.priority desc, e.created_at, e.id limit $8",
        filter.patient.map(PatientId::uuid),
        filter.clinic.map(ClinicId::uuid),
        filter.service_type.map(ServiceTypeId::uuid),
        &filter.states as &[EntryState],
        after.map(|key| key.0),
        after.map(|key| key.1),
        after.map(|key| key.2),
        limit
    )
    .fetch_all(conn)
    .await
}

/// How an open entry stands in the queue.
#[derive(Debug)]
pub struct Place {
    /// Which entry.
    pub id: WaitlistEntryId,
    /// 1 = next.
    pub position: i64,
    /// Offers of its service type at its clinics in the last [`PACE_DAYS`] days.
    pub offers: i64,
    /// Days from today to its last day.
    pub days_left: i64,
}

/// The places of these entries, in any order; closed ones have none.
pub async fn places(conn: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<Place>> {
    sqlx::query_as!(
        Place,
        r#"with paces as materialized (
               select service_type_id, clinic_id, count(*) as made from appointments.offer
               where made_at > clock.now() - make_interval(days => $2) and entry_id is not null
               group by service_type_id, clinic_id),
           queue as materialized (
               select id, service_type_id, clinic_ids,
                      row_number() over (partition by service_type_id order by priority desc, created_at, id) as place
               from appointments.waitlist_entry
               where state in ('waiting', 'offered')
                 and service_type_id = any(array(select service_type_id from appointments.waitlist_entry where id = any($1)))),
           -- Whoever names the same clinics is counted at once: width_bucket says how many of them are before a place.
           sets as materialized (
               select service_type_id, clinic_ids, array_agg(place order by place) as places
               from queue group by service_type_id, clinic_ids)
           select e.id as "id: WaitlistEntryId",
                  1 + (select sum(width_bucket(q.place - 1, s.places)) from sets s
                       where s.service_type_id = e.service_type_id
                         and (s.clinic_ids = '{}' or e.clinic_ids = '{}' or s.clinic_ids && e.clinic_ids))::bigint as "position!",
                  (select coalesce(sum(made), 0)::bigint from paces p
                   where p.service_type_id = e.service_type_id
                     and (e.clinic_ids = '{}' or p.clinic_id = any(e.clinic_ids))) as "offers!",
                  (e.last_date - clock.now()::date)::bigint as "days_left!"
           from appointments.waitlist_entry e join queue q using (id) where e.id = any($1)"#,
        ids,
        PACE_DAYS as i32
    )
    .fetch_all(conn)
    .await
}

/// One offer.
pub async fn offer(conn: &mut PgConnection, id: OfferId) -> sqlx::Result<Option<Offer>> {
    offers!("where o.id = $1", id.uuid()).fetch_optional(conn).await
}

/// The open offer of an entry.
pub async fn open_offer(conn: &mut PgConnection, entry: WaitlistEntryId) -> sqlx::Result<Option<Offer>> {
    offers!("where o.entry_id = $1 and o.state = 'open'", entry.uuid()).fetch_optional(conn).await
}

/// What a list of offers asks for. Empty filters match all.
#[derive(Debug, Default)]
pub struct OfferFilter {
    /// Only this patient's, by any of the person's ids.
    pub patient: Option<PatientId>,
    /// Only of this entry.
    pub entry: Option<WaitlistEntryId>,
    /// Only in these states.
    pub states: Vec<OfferState>,
}

/// Offers, latest first, before the key `after`.
pub async fn list_offers(
    conn: &mut PgConnection,
    filter: &OfferFilter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Offer>> {
    let (after_made, after_id) = after.unzip();
    offers!(
        "where ($1::uuid is null or o.patient_id = any(appointments.ids_of($1))) and ($2::uuid is null or o.entry_id = $2)
           and o.state = any($3) and ($4::timestamptz is null or (o.made_at, o.id) < ($4, $5::uuid))
         order by o.made_at desc, o.id desc limit $6",
        filter.patient.map(PatientId::uuid),
        filter.entry.map(WaitlistEntryId::uuid),
        &filter.states as &[OfferState],
        after_made,
        after_id,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Puts down for whom a reservation that was just made holds its time, as made of an entry that waits; false when the entry does not
/// wait any more, or its patient has another open offer or had enough of them.
pub async fn make_offer(conn: &mut PgConnection, offer: &Offer) -> sqlx::Result<bool> {
    let made = sqlx::query_scalar!(
        r#"with made as (
               insert into appointments.offer
                   (id, entry_id, patient_id, service_type_id, clinic_id, provider_id, starts_at, replaces_id, preference,
                    auto_book, made_at, expires_at)
               select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
               where $2::uuid is null
                  or (select count(*) from appointments.offer
                      where patient_id = $3 and entry_id is not null
                        and made_at > clock.now() - make_interval(secs => $13)) < $14
               on conflict do nothing returning entry_id),
           told as (
               update appointments.waitlist_entry set state = 'offered', updated_at = $11
               where id = (select entry_id from made) and state = 'waiting' and patient_id = $3 returning id)
           select count(*) as "made!" from made where entry_id is null or exists (select from told)"#,
        offer.id.uuid(),
        offer.entry_id.map(WaitlistEntryId::uuid),
        offer.patient_id.uuid(),
        offer.service_type_id.uuid(),
        offer.clinic_id.uuid(),
        offer.provider_id.uuid(),
        offer.starts_at,
        offer.replaces_id.map(AppointmentId::uuid),
        offer.preference,
        offer.auto_book,
        offer.made_at,
        offer.expires_at,
        OFFERS_WITHIN.as_seconds_f64(),
        MOST_OFFERS,
    );
    Ok(made.fetch_one(conn).await? == 1)
}

/// Notes who accepts an offer whose co-pay is still to be settled.
pub async fn note_answer(conn: &mut PgConnection, id: OfferId, actor: &Caller) -> sqlx::Result<()> {
    sqlx::query!(
        "update appointments.offer set answered_by = $2, answered_role = $3 where id = $1 and state = 'open'",
        id.uuid(),
        actor.subject,
        actor.roles.first().map(|role| *role as i32)
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Closes an open offer whose reservation is locked; its entry has `led_to`, or waits on. Who accepted it before stays noted. Freed
/// time that waited for this answer is due.
pub async fn close_offer(
    conn: &mut PgConnection,
    id: OfferId,
    outcome: OfferState,
    actor: Option<&Caller>,
    led_to: Option<AppointmentId>,
) -> sqlx::Result<Offer> {
    // First, so that the next statement sees what a worker has put off meanwhile until this offer is answered.
    sqlx::query!("select from appointments.offer where id = $1 for update", id.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "with closed as (
             update appointments.offer
             set state = $2::appointments.offer_state, answered_at = clock.now(),
                 answered_by = case when $3::text is null and $2::appointments.offer_state = 'accepted' then answered_by else $3 end,
                 answered_role = case when $3::text is null and $2::appointments.offer_state = 'accepted' then answered_role else $4 end
             where id = $1 returning entry_id, expires_at),
         asked_again as (
             update appointments.freed set due_at = clock.now()
             where id in (select id from appointments.freed
                          where due_at = (select expires_at from closed) and claimed_until is null
                          for update skip locked))
         update appointments.waitlist_entry e
         set state = case when $5::uuid is null then 'waiting' else 'fulfilled' end::appointments.entry_state,
             appointment_id = $5, updated_at = clock.now()
         from closed where e.id = closed.entry_id and e.state = 'offered'",
        id.uuid(),
        outcome as OfferState,
        actor.map(|actor| actor.subject.as_str()),
        actor.and_then(|actor| actor.roles.first()).map(|role| *role as i32),
        led_to.map(AppointmentId::uuid),
    )
    .execute(&mut *conn)
    .await?;
    offers!("where o.id = $1", id.uuid()).fetch_one(conn).await
}

/// Who said that an open offer is accepted, while its co-pay is settled; `None` = the suite itself.
pub async fn answerer(conn: &mut PgConnection, id: OfferId) -> sqlx::Result<Option<Caller>> {
    let row =
        sqlx::query!("select answered_by, answered_role from appointments.offer where id = $1", id.uuid())
            .fetch_one(conn)
            .await?;
    let role = |number: i32| Role::try_from(number).ok();
    let roles = row.answered_role.and_then(role).into_iter().collect();
    Ok(row.answered_by.map(|subject| Caller { subject, roles }))
}

/// Open offers that the suite itself answers and that nobody does.
pub async fn unanswered(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<OfferId>> {
    sqlx::query_scalar!(
        r#"select o.id as "id: OfferId" from appointments.offer o join appointments.reservation r using (id)
           where o.state = 'open' and o.auto_book and r.state = 'offered' and r.driven_until is null
             and o.expires_at > clock.now()
           order by o.made_at limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Expires entries whose last day has passed at every clinic, wherever it is.
pub async fn expire_entries(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let expired = sqlx::query!(
        "update appointments.waitlist_entry set state = 'expired', updated_at = clock.now()
         where state = 'waiting' and last_date < (clock.now() - interval '12 hours')::date"
    );
    Ok(expired.execute(conn).await?.rows_affected())
}

/// Open entries that would replace a visit that is over or called off.
pub async fn without_visit(conn: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<WaitlistEntryId>> {
    sqlx::query_scalar!(
        r#"select e.id as "id: WaitlistEntryId"
           from appointments.waitlist_entry e join appointments.reservation r on r.id = e.replaces_id
           where e.state in ('waiting', 'offered') and r.state not in ('booked', 'displaced') limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Notes how long visits of a kind are, and where they may start; `None` = as known.
pub async fn note_length(
    conn: &mut PgConnection,
    service_type: ServiceTypeId,
    length: Length,
    step: Option<i32>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into appointments.service_length as known
             (service_type_id, visit_minutes, before_minutes, after_minutes, step_minutes)
         values ($1, $2::int, $3::int, $4::int, coalesce($5::int, $2::int))
         on conflict (service_type_id) do update
         set visit_minutes = excluded.visit_minutes, before_minutes = excluded.before_minutes,
             after_minutes = excluded.after_minutes, step_minutes = coalesce($5::int, known.step_minutes)
         where (known.visit_minutes, known.before_minutes, known.after_minutes, known.step_minutes)
               is distinct from ($2::int, $3::int, $4::int, coalesce($5::int, known.step_minutes))",
        service_type.uuid(),
        length.visit,
        length.before,
        length.after,
        step
    )
    .execute(conn)
    .await
    .map(drop)
}
