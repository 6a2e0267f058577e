//! The use cases. Each owns its transactions; no remote call is ever made inside one.

mod alternatives;
mod board;
mod book;
mod counts;
mod drive;
mod judge;
mod keep;
mod merge;
mod offers;
mod read;
mod refill;
mod reschedule;
mod unfold;
mod visit;
mod waitlist;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::clock::Clock;
use kit::db::Db;
use kit::idempotency::{self, Attempt, Fresh, Key};
use kit::ids::{AppointmentId, PatientId, ProviderId};
use kit::merges;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::auth::v1::Role;
use sqlx::PgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::waitlist::{ALTERNATIVE_TTL, OFFER_TTL, OfferState};
use crate::domain::{NewReservation, Reservation, State};
use crate::error::Error;
use crate::ports::{Billing, Patients, Scheduling};
use crate::store::{By, Look};
use crate::{events, store, wire};

pub use board::Day;
pub use book::{Booked, Booking, Expected, Slot, Target};
pub use read::{List, SortKey};
pub use reschedule::Move;
pub use visit::Change;
pub use waitlist::{Join, ListEntries, ListOffers};

/// Everything the use cases need.
#[derive(Clone)]
pub struct App {
    db: Db,
    clock: Clock,
    scheduling: Arc<dyn Scheduling>,
    patients: Arc<dyn Patients>,
    billing: Arc<dyn Billing>,
    stop: CancellationToken,
    /// Something waits to be judged again, or to pass to another patient.
    pub(crate) marked: Arc<Notify>,
    /// Time became free that someone may wait for.
    pub(crate) freed: Arc<Notify>,
    offer_ttl: Duration,
    alternative_ttl: Duration,
    feed: board::Feed,
}

impl App {
    /// The use cases on `db`, asking the other services through the ports.
    pub fn new(
        db: Db,
        clock: Clock,
        scheduling: Arc<dyn Scheduling>,
        patients: Arc<dyn Patients>,
        billing: Arc<dyn Billing>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            db,
            clock,
            scheduling,
            patients,
            billing,
            stop,
            marked: Arc::default(),
            freed: Arc::default(),
            offer_ttl: OFFER_TTL,
            alternative_ttl: ALTERNATIVE_TTL,
            feed: board::Feed::default(),
        }
    }

    /// The same with offers that hold their time for so long.
    pub fn offering_for(self, offer_ttl: Duration) -> Self {
        Self { offer_ttl, ..self }
    }

    /// The same with places that are held for so long instead of displaced visits.
    pub fn holding_alternatives_for(self, alternative_ttl: Duration) -> Self {
        Self { alternative_ttl, ..self }
    }

    /// The present instant, for what replicas do not race for.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Ends streams.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// For whom a patient-facing call acts: the calling patient, or the one that staff names.
    async fn patient_of(&self, caller: &Caller, named: Option<PatientId>) -> Result<PatientId, Error> {
        match (named, caller.only_patient()) {
            (Some(named), _) => {
                self.may_name(caller, named).await?;
                Ok(named)
            }
            (None, Some(own)) => Ok(own),
            (None, None) => Err(KitError::invalid("patient_id", "is required: the UUID of a Patient").into()),
        }
    }

    /// PATIENT_NOT_FOUND when a patient names another.
    pub async fn may_name(&self, caller: &Caller, named: PatientId) -> Result<(), Error> {
        Ok(merges::see_in(&self.db, caller, named, named).await?)
    }

    /// Opens a transaction for a call, or finds what it was answered before.
    async fn begin(&self, key: Option<Key>) -> Result<Attempt<pb::Appointment>, Error> {
        Ok(idempotency::begin_keyed(&self.db, key, None).await?)
    }

    /// As [`finish`], of a change that freed time.
    async fn finish_freeing(&self, fresh: Fresh, row: &Reservation) -> Result<pb::Appointment, Error> {
        let answer = finish(fresh, row).await?;
        self.freed.notify_one();
        Ok(answer)
    }
}

/// The answer to a change, kept beside it and committed with it.
async fn finish(fresh: Fresh, row: &Reservation) -> Result<pb::Appointment, Error> {
    let answer = wire::appointment(row);
    fresh.finish(&answer).await?;
    Ok(answer)
}

/// The row, locked, if it is the caller's to change and in the state it was read in.
async fn open(
    tx: &mut PgConnection,
    caller: &Caller,
    id: AppointmentId,
    etag: &str,
) -> Result<Reservation, Error> {
    let row = store::lock(tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
    merges::see(tx, caller, row.patient_id, id).await?;
    if !etag.is_empty() && etag != row.etag() {
        return Err(KitError::EtagMismatch { kind: "Appointment" }.into());
    }
    Ok(row)
}

/// Changes the state of a locked row, if the contract's diagram allows it.
fn step(row: &mut Reservation, next: State) -> Result<(), Error> {
    if !row.state.may_become(next) {
        return Err(Error::WrongState { id: row.id, state: row.state });
    }
    row.state = next;
    row.work_list_at = None;
    if !matches!(next, State::Held | State::Offered) {
        row.hold_expires_at = None;
    }
    Ok(())
}

/// Ends a locked hold or offer whose time is up, and tells.
async fn expire(tx: &mut PgConnection, row: &mut Reservation) -> Result<(), Error> {
    if row.state == State::Offered {
        offers::close(tx, row, OfferState::Expired, By::default(), None).await?;
        return Ok(());
    }
    let declined = row.state == State::Held && row.copay == crate::domain::Copay::Declined;
    step(row, if declined { State::Declined } else { State::Expired })?;
    Ok(store::save(tx, row, By::default(), events::released).await?)
}

/// Looks at a slot, after ending the holds in its way whose time is up.
async fn look(
    tx: &mut PgConnection,
    new: &NewReservation,
    provider: ProviderId,
    rooms: &[Uuid],
) -> Result<Look, Error> {
    let look = store::look(tx, new, provider, rooms).await?;
    if !look.stale {
        return Ok(look);
    }
    // While a room is free, those in the other rooms are in nobody's way.
    let in_rooms = if look.room.is_none() { rooms } else { &[] };
    for mut stale in
        store::lock_stale_in_the_way(tx, provider, in_rooms, new.patient_id, new.occupied).await?
    {
        expire(tx, &mut stale).await?;
    }
    Ok(store::look(tx, new, provider, rooms).await?)
}

/// Staff may do what patients may not: choose a room, override a rule.
fn staff_only(caller: &Caller) -> Result<(), Error> {
    let staff = caller.is(Role::FrontDesk) || caller.is(Role::Admin);
    if staff { Ok(()) } else { Err(KitError::RoleRequired.into()) }
}
