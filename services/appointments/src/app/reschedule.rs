//! Moving a booking in one step: it never conflicts with itself, and keeps what it has when it is refused.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::idempotency::{self, Attempt};
use kit::ids::{ClinicId, OfferId, ProviderId, RoomId};
use kit::merges;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::book::{CALENDAR_PAUSE, JUDGEMENTS, Judged, Slot, Taken, no_room};
use super::{App, Change, alternatives, look, offers, open, staff_only};
use crate::domain::{Reservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{events, store};

/// Where a booking shall go; what is left out stays as it is.
#[derive(Debug)]
#[allow(missing_docs, reason = "the contract's RescheduleAppointmentRequest explains each")]
pub struct Move {
    pub change: Change,
    pub clinic: Option<ClinicId>,
    pub provider: Option<ProviderId>,
    pub room: Option<RoomId>,
    pub start: DateTime<Utc>,
    pub override_reason: String,
}

impl App {
    /// Moves a booking. Whether a later cancellation is late is judged by when this call reached us, not by when it was done.
    pub async fn reschedule(&self, caller: &Caller, to: &Move) -> Result<pb::Appointment, Error> {
        let received = self.now();
        if to.room.is_some() || !to.override_reason.is_empty() {
            staff_only(caller)?;
        }
        if let Some(key) = &to.change.key {
            let mut conn = self.db.pool().acquire().await?;
            if let Some(answer) = idempotency::find(&mut conn, key).await? {
                return Ok(answer);
            }
        }
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let row = self.load(to.change.id).await?;
            let mut conn = self.db.pool().acquire().await?;
            merges::see(&mut conn, caller, row.patient_id, row.id).await?;
            // What has not passed to the survivor yet does so now.
            let patient = merges::survivor(&mut conn, row.patient_id).await?;
            drop(conn);
            movable(&row)?;
            let provider = to.provider.unwrap_or(row.provider_id);
            let slot = Slot {
                patient: Some(patient),
                service_type: row.service_type_id,
                clinic: to.clinic.unwrap_or(row.clinic_id),
                provider: Some(provider),
                room: to.room,
                start: to.start,
                override_reason: to.override_reason.clone(),
            };
            let mut judged = self.judge(caller, &slot, patient, row.id, |_| State::Booked).await?;
            // It stays in its room where it can.
            judged.rooms.sort_by_key(|room| *room != row.room_id.uuid());
            let mut fresh = match idempotency::begin_keyed(&self.db, to.change.key.clone(), None).await? {
                Attempt::Replayed(answer) => return Ok(answer),
                Attempt::Fresh(fresh) => fresh,
            };
            match try_move(&mut fresh.tx, caller, to, &judged, received, None).await? {
                Taken::Yes(row) => return self.finish_freeing(fresh, &row).await,
                Taken::Stranger | Taken::Merged(_) | Taken::Stale => {}
                Taken::No(clashes) => {
                    drop(fresh);
                    return Err(self.refusal(caller, &slot, &judged.new, clashes).await);
                }
            }
        }
        Err(Error::CalendarMoving)
    }
}

pub(super) fn movable(row: &Reservation) -> Result<(), Error> {
    match row.state {
        State::Booked | State::Displaced => Ok(()),
        state => Err(Error::WrongState { id: row.id, state }),
    }
}

/// One attempt, perhaps to the time that an open offer holds, which is accepted by it. What is held instead of a displaced visit goes
/// with the move. Nothing is kept of a refusal, for the caller rolls back.
pub(super) async fn try_move(
    tx: &mut PgConnection,
    caller: &Caller,
    to: &Move,
    judged: &Judged,
    received: DateTime<Utc>,
    offer: Option<OfferId>,
) -> Result<Taken, Error> {
    let Judged { rooms, new, providers } = judged;
    let &(provider, calendar_version) = providers
        .first()
        .ok_or_else(|| KitError::internal(anyhow::anyhow!("a slot was allowed without a provider")))?;
    let before = store::get(tx, to.change.id).await?.ok_or_else(|| KitError::not_found(to.change.id))?;
    let own = [before.provider_id.uuid(), before.room_id.uuid(), provider.uuid()];
    let places: Vec<Uuid> = own.into_iter().chain(rooms.iter().copied()).collect();
    store::lock_places(tx, &places).await?;
    // Before the row: a calendar's event takes the two in this order.
    let mut taken = offer;
    let leaves = before.state == State::Displaced;
    if offer.is_some() || leaves {
        store::calendar_seen(tx, provider).await?;
        movable(&open(tx, caller, to.change.id, &to.change.etag).await?)?;
        let held = store::lock_alternatives(tx, before.id).await?;
        if let Some(offer) = offer {
            offers::accept_for(tx, offer, before.id, caller).await?;
        }
        let by = By { actor: Some(caller), ..By::default() };
        taken = alternatives::leave(tx, before.id, held, (provider, to.start), offer, by).await?;
    }
    let mut look = look(tx, new, provider, rooms).await?;
    let before = open(tx, caller, to.change.id, &to.change.etag).await?;
    movable(&before)?;
    let displaced_since = before.state == State::Displaced && !leaves;
    if displaced_since
        || !places.contains(&before.provider_id.uuid())
        || !places.contains(&before.room_id.uuid())
    {
        // Someone moved or displaced it while we waited.
        return Ok(Taken::Stale);
    }
    if look.calendar_seen > calendar_version {
        return Ok(Taken::Stale);
    }
    let after = Reservation {
        state: State::Booked,
        patient_id: new.patient_id,
        clinic_id: new.clinic_id,
        provider_id: provider,
        start: new.visit.start,
        end: new.visit.end,
        occupied_start: new.occupied.start,
        occupied_end: new.occupied.end,
        visit_date: new.visit_date,
        time_zone: new.time_zone.clone(),
        calendar_version,
        fee_start: before.fee_start_moved(new.visit.start, received),
        overridden: new.overridden.clone(),
        displaced_at: None,
        displaced_reasons: vec![],
        judge_at: None,
        work_list_at: None,
        ..before.clone()
    };
    let override_reason = (!to.override_reason.is_empty()).then_some(to.override_reason.as_str());
    let by = By { actor: Some(caller), override_reason, overridden: &new.overridden };
    for _ in 0..=rooms.len() {
        let Some(room) = look.room else { break };
        let mut after = Reservation { room_id: room, ..after.clone() };
        // The database may refuse it for a rival that has not been seen; the transaction goes on regardless.
        let mut attempt = tx.begin().await?;
        let tell = |row: &Reservation| events::rescheduled(row, &before, taken);
        match store::relocate(&mut attempt, &mut after, &before, by, tell).await {
            Ok(()) => {
                attempt.commit().await?;
                return Ok(Taken::Yes(Box::new(after)));
            }
            Err(error) => {
                attempt.rollback().await?;
                if store::is_deadlock(&error) {
                    return Ok(Taken::Stale);
                }
                if !store::is_taken(&error) {
                    return Err(error.into());
                }
            }
        }
        let clashes = store::conflicts(tx, new, provider, rooms).await?;
        if !clashes.is_empty() {
            return Ok(Taken::No(clashes));
        }
        look = store::look(tx, new, provider, rooms).await?;
        if look.stale {
            return Ok(Taken::Stale);
        }
    }
    no_room(tx, judged, provider).await
}
