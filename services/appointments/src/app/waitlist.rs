//! Joining and leaving the waitlist, and reading it.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kit::auth::Caller;
use kit::idempotency::{self, Attempt, Key};
use kit::ids::{AppointmentId, OfferId, PatientId, PaymentMethodId, ServiceTypeId, WaitlistEntryId};
use kit::merges;
use kit::page::Page;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::scheduling::v1::ServiceType;
use sqlx::PgConnection;
use uuid::Uuid;

use super::reschedule::movable;
use super::{App, offers, staff_only};
use crate::domain::State;
use crate::domain::waitlist::{Entry, EntryState, Length, MOST_ENTRIES, OfferState, outlook};
use crate::error::Error;
use crate::store::{By, EntryFilter, EntryKey, OfferFilter};
use crate::{store, wire};

/// The furthest day that anyone may wait for, from today.
const FURTHEST: TimeDelta = TimeDelta::days(365);
/// Days that are waited for when nobody says how many.
const USUAL: TimeDelta = TimeDelta::days(90);
/// Between UTC and the clocks that are furthest behind: on what is today there, some clinic may still be open.
const BEHIND: TimeDelta = TimeDelta::hours(12);
/// How often an entry that changes while it is being closed is looked at again.
const TRIES: usize = 5;

/// What a patient wants to wait for.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract's WaitlistEntry explains each")]
pub struct Join {
    pub id: Option<WaitlistEntryId>,
    pub patient: Option<PatientId>,
    pub service_type: ServiceTypeId,
    pub clinics: Vec<Uuid>,
    pub providers: Vec<Uuid>,
    pub first_date: Option<NaiveDate>,
    pub last_date: Option<NaiveDate>,
    pub from_minute: i16,
    pub before_minute: i16,
    pub weekdays: i16,
    pub priority: i16,
    pub priority_reason: String,
    pub auto_book: bool,
    pub payment_method: Option<PaymentMethodId>,
    pub replaces: Option<AppointmentId>,
    /// The caller's name for the call.
    pub key: Option<Key>,
}

/// What a list of entries asks for.
#[derive(Debug)]
pub struct ListEntries {
    /// Which entries.
    pub filter: EntryFilter,
    /// Which page.
    pub page: Page<EntryKey>,
}

/// What a list of offers asks for.
#[derive(Debug)]
pub struct ListOffers {
    /// Which offers.
    pub filter: OfferFilter,
    /// Which page.
    pub page: Page<(DateTime<Utc>, Uuid)>,
}

impl Join {
    /// The days that suit, with what was left out.
    fn dates(&self, now: DateTime<Utc>) -> Result<(NaiveDate, NaiveDate), Error> {
        let today = (now - BEHIND).date_naive();
        let furthest = now.date_naive() + FURTHEST;
        let first = self.first_date.unwrap_or(today);
        let last = self.last_date.unwrap_or((first + USUAL).min(furthest));
        if last < first || last < today {
            return Err(KitError::invalid("last_date", "must not be before first_date, nor passed").into());
        }
        if last > furthest {
            return Err(KitError::invalid("last_date", "must be at most 365 days ahead").into());
        }
        Ok((first, last))
    }
}

impl App {
    /// Joins the waitlist.
    pub async fn join(&self, caller: &Caller, join: Join) -> Result<pb::WaitlistEntry, Error> {
        let patient = self.patient_of(caller, join.patient).await?;
        if join.priority > 0 || !join.priority_reason.is_empty() {
            staff_only(caller)?;
        }
        if let Some(key) = &join.key {
            let mut conn = self.db.pool().acquire().await?;
            if let Some(answer) = idempotency::find(&mut conn, key).await? {
                return Ok(answer);
            }
        }
        let (first_date, last_date) = join.dates(self.now())?;
        let service = self.scheduling.service_type(join.service_type, &join.clinics, &join.providers).await?;
        if service.retired {
            return Err(Error::ServiceRetired(join.service_type));
        }
        self.must_exist(patient).await?;
        let takes_card = join.auto_book && service.copay_required && join.replaces.is_none();
        if takes_card && !self.billing.has_card(patient, join.payment_method).await? {
            return Err(Error::CardRequired);
        }
        let mut fresh = match idempotency::begin_keyed(&self.db, join.key.clone(), None).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let patient_id = merges::survivor(&mut fresh.tx, patient).await?;
        if let Some(visit) = join.replaces {
            replaceable(&mut fresh.tx, caller, patient_id, visit, join.service_type).await?;
        }
        let mut entry = Entry {
            id: join.id.unwrap_or_else(WaitlistEntryId::new),
            state: EntryState::Waiting,
            patient_id,
            service_type_id: join.service_type,
            clinic_ids: join.clinics,
            provider_ids: join.providers,
            first_date,
            last_date,
            from_minute: join.from_minute,
            before_minute: join.before_minute,
            weekdays: join.weekdays,
            priority: join.priority,
            priority_reason: join.priority_reason,
            auto_book: join.auto_book,
            payment_method_id: join.payment_method,
            replaces_id: join.replaces,
            appointment_id: None,
            created_at: self.now(),
            updated_at: self.now(),
        };
        let own = store::lock_open_entries(&mut fresh.tx, patient_id).await?;
        if let Some(same) = own.iter().find(|own| own.service_type_id == entry.service_type_id) {
            return Err(Error::AlreadyWaiting(same.id));
        }
        if own.len() as i64 >= MOST_ENTRIES {
            return Err(Error::TooManyEntries);
        }
        let joined = store::join(&mut fresh.tx, &entry).await?;
        let Some(at) = joined else { return Err(Error::EntryExists(entry.id)) };
        (entry.created_at, entry.updated_at) = (at, at);
        let (length, step) = length_of(&service);
        store::note_length(&mut fresh.tx, entry.service_type_id, length, Some(step)).await?;
        let answer = shown(&mut fresh.tx, caller, vec![entry]).await?.remove(0);
        fresh.finish(&answer).await?;
        Ok(answer)
    }

    /// Leaves the waitlist; an open offer is withdrawn.
    pub async fn leave(
        &self,
        caller: &Caller,
        id: WaitlistEntryId,
        key: Option<Key>,
    ) -> Result<pb::WaitlistEntry, Error> {
        let mut fresh = match idempotency::begin_keyed(&self.db, key, None).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let entry = store::entry(&mut fresh.tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
        merges::see(&mut fresh.tx, caller, entry.patient_id, id).await?;
        let by = By { actor: Some(caller), ..By::default() };
        let left = end_entry(&mut fresh.tx, id, EntryState::Left, by).await?;
        let entry = store::entry(&mut fresh.tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
        if !left {
            return Err(Error::EntryClosed { id, state: entry.state });
        }
        let answer = shown(&mut fresh.tx, caller, vec![entry]).await?.remove(0);
        fresh.finish(&answer).await?;
        self.freed.notify_one();
        Ok(answer)
    }

    /// Entries in the order in which they are served, with their places, and the token of the next page.
    pub async fn list_entries(
        &self,
        caller: &Caller,
        list: &ListEntries,
    ) -> Result<(Vec<pb::WaitlistEntry>, String), Error> {
        if let Some(patient) = list.filter.patient {
            self.may_name(caller, patient).await?;
        }
        let mut conn = self.db.pool().acquire().await?;
        let entries =
            store::list_entries(&mut conn, &list.filter, list.page.after, list.page.limit()).await?;
        let key = |entry: &Entry| (entry.priority, entry.created_at, entry.id.uuid());
        let (entries, next) = list.page.cut(entries, key);
        Ok((shown(&mut conn, caller, entries).await?, next))
    }

    /// Offers, latest first, and the token of the next page.
    pub async fn list_offers(
        &self,
        caller: &Caller,
        list: &ListOffers,
    ) -> Result<(Vec<pb::Offer>, String), Error> {
        if let Some(patient) = list.filter.patient {
            self.may_name(caller, patient).await?;
        }
        let mut conn = self.db.pool().acquire().await?;
        let offers = store::list_offers(&mut conn, &list.filter, list.page.after, list.page.limit()).await?;
        let (offers, next) = list.page.cut(offers, |offer| (offer.made_at, offer.id.uuid()));
        let ids: Vec<_> = offers.iter().map(|offer| offer.id.uuid()).collect();
        let rows = store::of_ids(&mut conn, &ids).await?;
        let rows: HashMap<OfferId, _> = rows.iter().map(|row| (row.id.uuid().into(), row)).collect();
        let offers = offers.iter().filter_map(|offer| Some(wire::offer(offer, rows.get(&offer.id)?)));
        Ok((offers.collect(), next))
    }

    /// Closes entries that nothing can come of any more: their last day passed, or the visit to replace is over or called off.
    pub(super) async fn close_entries(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        store::expire_entries(&mut conn).await?;
        let pointless = store::without_visit(&mut conn, super::refill::BATCH).await?;
        drop(conn);
        for id in pointless {
            let mut tx = self.db.begin().await?;
            end_entry(&mut tx, id, EntryState::Expired, By::default()).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Closes an open entry; an open offer is withdrawn first. False when it is closed already.
pub(super) async fn end_entry(
    tx: &mut PgConnection,
    id: WaitlistEntryId,
    state: EntryState,
    by: By<'_>,
) -> Result<bool, Error> {
    for _ in 0..TRIES {
        let entry = store::entry(tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
        match entry.state {
            // Else an offer was made at this moment.
            EntryState::Waiting => {
                if store::close_waiting(tx, id, state).await? {
                    return Ok(true);
                }
            }
            EntryState::Offered => {
                let Some(offer) = store::open_offer(tx, id).await? else { continue };
                // Its reservation before the entry, as whoever answers it.
                let row = store::lock(tx, offer.appointment()).await?;
                let Some(mut row) = row.filter(|row| row.state == State::Offered) else { continue };
                let outcome = if row.is_over() { OfferState::Expired } else { OfferState::Withdrawn };
                offers::close(tx, &mut row, outcome, by, None).await?;
            }
            EntryState::Fulfilled | EntryState::Left | EntryState::Expired => return Ok(false),
        }
    }
    Err(KitError::Unavailable { what: "the waitlist" }.into())
}

/// WRONG_STATE unless the visit can be moved; APPOINTMENT_NOT_FOUND unless it is the patient's.
async fn replaceable(
    tx: &mut PgConnection,
    caller: &Caller,
    patient: PatientId,
    visit: AppointmentId,
    service_type: ServiceTypeId,
) -> Result<(), Error> {
    let row = store::get(tx, visit).await?.ok_or_else(|| KitError::not_found(visit))?;
    merges::see(tx, caller, row.patient_id, visit).await?;
    if !merges::is_same_person(tx, row.patient_id, patient).await? {
        return Err(KitError::invalid("replaces_appointment_id", "must be a visit of the patient").into());
    }
    if row.service_type_id != service_type {
        return Err(KitError::invalid("replaces_appointment_id", "must be of the same service type").into());
    }
    movable(&row)
}

/// How long visits of this kind are, and the step of their starts.
fn length_of(service: &ServiceType) -> (Length, i32) {
    let length = Length {
        before: service.buffer_before_minutes,
        visit: service.duration_minutes,
        after: service.buffer_after_minutes,
    };
    let step = if service.step_minutes > 0 { service.step_minutes } else { service.duration_minutes };
    (length, step)
}

/// Entries as the caller may see them, with their places in the queue.
async fn shown(
    conn: &mut PgConnection,
    caller: &Caller,
    entries: Vec<Entry>,
) -> Result<Vec<pb::WaitlistEntry>, Error> {
    let ids: Vec<_> = entries.iter().filter(|e| e.state.is_open()).map(|e| e.id.uuid()).collect();
    let places = if ids.is_empty() { vec![] } else { store::places(conn, &ids).await? };
    let places: HashMap<_, _> = places.into_iter().map(|place| (place.id, place)).collect();
    let to_patient = caller.only_patient().is_some();
    let place = |entry: &Entry| {
        let place = places.get(&entry.id)?;
        Some((place.position, outlook(place.position, place.offers, place.days_left)))
    };
    Ok(entries.iter().map(|entry| wire::entry(entry, place(entry), to_patient)).collect())
}
