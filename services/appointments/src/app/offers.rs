//! Answers to offers. An offer is a reservation in state OFFERED: whoever changes that row first has answered it.
//!
//! For a new visit it is booked as a hold is, co-pay included; for one that moves a visit, it gives its time back and the visit takes it,
//! in one transaction. Locks are taken in one order: visit, offer's reservation, offer, entry.

use kit::auth::Caller;
use kit::idempotency::{self, Attempt, Key};
use kit::ids::{AppointmentId, ChargeId, OfferId, PatientId, PaymentMethodId};
use kit::merges;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::auth::v1::Role;
use sqlx::{Connection as _, PgConnection};

use super::book::{CALENDAR_PAUSE, JUDGEMENTS, Judged, Receipt, Taken, as_seen_by, id_of, receipt};
use super::reschedule::{Move, movable, try_move};
use super::{App, Booked, Change, expire, step};
use crate::domain::waitlist::{Offer, OfferState};
use crate::domain::{Clash, Conflict, Copay, NewReservation, Reservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{NAME, events, store, wire};

impl App {
    /// Takes an open offer, for a new visit or by moving one. With a co-pay the answer may still be OFFERED.
    pub async fn accept(
        &self,
        caller: &Caller,
        id: OfferId,
        payment_method: Option<PaymentMethodId>,
        key: Option<Key>,
    ) -> Result<Booked, Error> {
        match self.accept_open(caller, id, payment_method, key).await {
            Err(Error::HoldExpired | Error::Overtaken { .. }) => Err(self.no_longer(id).await?),
            accepted => accepted,
        }
    }

    async fn accept_open(
        &self,
        caller: &Caller,
        id: OfferId,
        payment_method: Option<PaymentMethodId>,
        key: Option<Key>,
    ) -> Result<Booked, Error> {
        let mut conn = self.db.pool().acquire().await?;
        if let Some(key) = &key
            && let Some(receipt) = idempotency::find::<Receipt>(&mut conn, key).await?
        {
            drop(conn);
            return self.settled(id_of(&receipt)?).await;
        }
        let offer = visible(&mut conn, caller, id).await?;
        drop(conn);
        let actor = answering(caller, offer.patient_id);
        match offer.replaces_id {
            Some(visit) => self.accept_by_moving(caller, &actor, &offer, visit, key).await,
            None => self.accept_anew(caller, Some(&actor), &offer, payment_method, key).await,
        }
    }

    /// Books the offer's own reservation.
    async fn accept_anew(
        &self,
        caller: &Caller,
        actor: Option<&Caller>,
        offer: &Offer,
        payment_method: Option<PaymentMethodId>,
        key: Option<Key>,
    ) -> Result<Booked, Error> {
        let id = offer.appointment();
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let (provider, version) = self.fresh_calendar_version(caller, id).await?;
            let answer = receipt(id);
            let mut fresh = match idempotency::begin_keyed(&self.db, key.clone(), Some(&answer)).await? {
                Attempt::Replayed(receipt) => return self.settled(id_of(&receipt)?).await,
                Attempt::Fresh(fresh) => fresh,
            };
            let seen = store::calendar_seen(&mut fresh.tx, provider).await?;
            let mut row = lock_open(&mut fresh.tx, offer.id).await?;
            if seen > version {
                continue;
            }
            row.patient_id = merges::survivor(&mut fresh.tx, row.patient_id).await?;
            clear_way(&mut fresh.tx, &row).await?;
            let clashes = own_clashes(&mut fresh.tx, &row).await?;
            if !clashes.is_empty() {
                return Err(Error::clashes(as_seen_by(caller, clashes)));
            }
            if row.copay != Copay::NotRequired {
                let entry = match offer.entry_id {
                    Some(entry) => store::entry(&mut fresh.tx, entry).await?,
                    None => None,
                };
                let card = payment_method.or(entry.and_then(|entry| entry.payment_method_id));
                let mine = store::drive(&mut fresh.tx, id, card, version).await?;
                if let Some(actor) = actor.filter(|_| mine) {
                    store::note_answer(&mut fresh.tx, offer.id, actor).await?;
                }
                fresh.commit().await?;
                return if mine {
                    self.drive_to_end(self.load(id).await?, false).await
                } else {
                    self.settled(id).await
                };
            }
            row.calendar_version = row.calendar_version.max(version);
            match become_booked(&mut fresh.tx, &mut row, By { actor, ..By::default() }).await {
                Ok(()) => {
                    fresh.commit().await?;
                    return Ok(row.into());
                }
                // Its patient, or someone who waits for us, was faster: look again at what is in the way.
                Err(error) if store::is_taken(&error) || store::is_deadlock(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::CalendarMoving)
    }

    /// Moves the visit that the offer would replace to the offer's place.
    async fn accept_by_moving(
        &self,
        caller: &Caller,
        actor: &Caller,
        offer: &Offer,
        visit: AppointmentId,
        key: Option<Key>,
    ) -> Result<Booked, Error> {
        let received = self.now();
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let held = self.load(offer.appointment()).await?;
            must_be_open(&held)?;
            let before = self.load(visit).await?;
            movable(&before)?;
            let candidate = self.fresh_calendar_version(caller, held.id).await?;
            let mut conn = self.db.pool().acquire().await?;
            let patient_id = merges::survivor(&mut conn, before.patient_id).await?;
            drop(conn);
            let judged = Judged {
                providers: vec![candidate],
                rooms: vec![held.room_id.uuid()],
                new: NewReservation { id: visit, state: State::Booked, patient_id, ..held.again() },
            };
            let to = Move {
                change: Change { id: visit, etag: String::new(), key: None },
                clinic: Some(held.clinic_id),
                provider: Some(held.provider_id),
                room: Some(held.room_id),
                start: held.start,
                override_reason: String::new(),
            };
            let answer = receipt(visit);
            let mut fresh = match idempotency::begin_keyed(&self.db, key.clone(), Some(&answer)).await? {
                Attempt::Replayed(receipt) => return self.settled(id_of(&receipt)?).await,
                Attempt::Fresh(fresh) => fresh,
            };
            match try_move(&mut fresh.tx, actor, &to, &judged, received, Some(offer.id)).await? {
                Taken::Yes(row) => {
                    fresh.commit().await?;
                    self.freed.notify_one();
                    return Ok((*row).into());
                }
                Taken::Stranger | Taken::Merged(_) | Taken::Stale => {}
                Taken::No(clashes) => return Err(Error::clashes(as_seen_by(caller, clashes))),
            }
        }
        Err(Error::CalendarMoving)
    }

    /// Turns an open offer down; the entry waits on.
    pub async fn decline(&self, caller: &Caller, id: OfferId, key: Option<Key>) -> Result<pb::Offer, Error> {
        let mut fresh = match idempotency::begin_keyed(&self.db, key, None).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let offer = visible(&mut fresh.tx, caller, id).await?;
        let mut row = lock_open(&mut fresh.tx, id).await?;
        let actor = answering(caller, offer.patient_id);
        let by = By { actor: Some(&actor), ..By::default() };
        let offer = close(&mut fresh.tx, &mut row, OfferState::Declined, by, None).await?;
        let answer = wire::offer(&offer, &row);
        fresh.finish(&answer).await?;
        self.freed.notify_one();
        Ok(answer)
    }

    /// Accepts an offer for an entry that books by itself. What its patient's own visits forbid passes to the next.
    pub(super) async fn accept_by_itself(&self, id: OfferId) -> Result<(), Error> {
        let suite = Caller { subject: NAME.to_owned(), roles: vec![Role::Service] };
        let mut conn = self.db.pool().acquire().await?;
        let offer = visible(&mut conn, &suite, id).await?;
        drop(conn);
        let accepted = match offer.replaces_id {
            Some(visit) => self.accept_by_moving(&suite, &suite, &offer, visit, None).await,
            None => self.accept_anew(&suite, None, &offer, None, None).await,
        };
        match accepted {
            Ok(_) => Ok(()),
            Err(Error::Refused(_) | Error::WrongState { .. }) => {
                self.end_offer(offer.appointment(), OfferState::Withdrawn).await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the suite itself answers for the patient, who is not there to try another card.
    pub(super) async fn books_by_itself(&self, row: &Reservation) -> Result<bool, Error> {
        if row.state != State::Offered {
            return Ok(false);
        }
        let mut conn = self.db.pool().acquire().await?;
        Ok(store::offer(&mut conn, row.id.uuid().into()).await?.is_some_and(|offer| offer.auto_book))
    }

    /// Ends an offer that is still open, in the suite's own name.
    pub(super) async fn end_offer(&self, id: AppointmentId, outcome: OfferState) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        if let Some(mut row) = store::lock(&mut tx, id).await?.filter(|row| row.state == State::Offered) {
            close(&mut tx, &mut row, outcome, By::default(), None).await?;
        }
        tx.commit().await?;
        self.freed.notify_one();
        Ok(())
    }

    /// Why an offer cannot be taken any more.
    async fn no_longer(&self, id: OfferId) -> Result<Error, Error> {
        let row = self.load(id.uuid().into()).await?;
        Ok(must_be_open(&row).err().unwrap_or(Error::OfferExpired))
    }
}

/// The offer, if it is the caller's to see.
async fn visible(conn: &mut PgConnection, caller: &Caller, id: OfferId) -> Result<Offer, Error> {
    let offer = store::offer(conn, id).await?.ok_or_else(|| KitError::not_found(id))?;
    merges::see(conn, caller, offer.patient_id, id).await?;
    Ok(offer)
}

/// Who answers: a service brings the patient's own answer, from a phone.
fn answering(caller: &Caller, patient: PatientId) -> Caller {
    if caller.is(Role::Service) {
        return Caller { subject: patient.to_string(), roles: vec![Role::Service] };
    }
    caller.clone()
}

fn must_be_open(row: &Reservation) -> Result<(), Error> {
    match row.state {
        State::Offered if !row.is_over() => Ok(()),
        State::Offered | State::Expired => Err(Error::OfferExpired),
        state => Err(Error::WrongState { id: row.id, state }),
    }
}

/// The reservation of an open offer, locked.
async fn lock_open(tx: &mut PgConnection, id: OfferId) -> Result<Reservation, Error> {
    let row = store::lock(tx, id.uuid().into()).await?.ok_or_else(|| KitError::not_found(id))?;
    must_be_open(&row)?;
    Ok(row)
}

/// The patient's own rules that an offer would break as a visit.
async fn own_clashes(tx: &mut PgConnection, row: &Reservation) -> Result<Vec<Clash>, Error> {
    let visit = NewReservation { state: State::Booked, ..row.again() };
    let mut clashes = store::conflicts(tx, &visit, row.provider_id, &[]).await?;
    clashes.retain(|clash| Conflict::is_own_rule(clash.rule.reason()));
    Ok(clashes)
}

/// Ends the patient's holds whose time is up, which must not stand in the way of a visit.
async fn clear_way(tx: &mut PgConnection, row: &Reservation) -> Result<(), Error> {
    for mut stale in
        store::lock_stale_in_the_way(tx, row.provider_id, &[], row.patient_id, row.occupied()).await?
    {
        expire(tx, &mut stale).await?;
    }
    Ok(())
}

/// A locked offer becomes the visit it was made for; the database refuses it with the name of a constraint.
async fn become_booked(tx: &mut PgConnection, row: &mut Reservation, by: By<'_>) -> sqlx::Result<()> {
    (row.state, row.hold_expires_at) = (State::Booked, None);
    let id = row.id;
    let offer = store::close_offer(tx, id.uuid().into(), OfferState::Accepted, by.actor, Some(id)).await?;
    store::save(tx, row, by, |row| events::offer_closed(row, &offer)).await?;
    store::save(tx, row, by, |row| events::booked_from(row, offer.entry_id)).await
}

/// Books a locked offer whose co-pay is settled. If its patient has taken a visit in its way since, it is withdrawn instead.
pub(super) async fn book(
    tx: &mut PgConnection,
    mut row: Reservation,
    copay: Copay,
    charge: Option<ChargeId>,
) -> Result<Reservation, Error> {
    let mut booked = row.clone();
    booked.copay = copay;
    booked.charge_id = charge.or(row.charge_id);
    booked.patient_id = merges::survivor(tx, row.patient_id).await?;
    clear_way(tx, &booked).await?;
    let actor = store::answerer(tx, row.id.uuid().into()).await?;
    let mut attempt = tx.begin().await?;
    match become_booked(&mut attempt, &mut booked, By { actor: actor.as_ref(), ..By::default() }).await {
        Ok(()) => {
            attempt.commit().await?;
            Ok(booked)
        }
        Err(error) if store::is_taken(&error) => {
            attempt.rollback().await?;
            let mut clashes = own_clashes(tx, &booked).await?;
            // Whoever hears of it may be the patient.
            clashes.iter_mut().for_each(|clash| clash.with = None);
            close(tx, &mut row, OfferState::Withdrawn, By::default(), None).await?;
            Err(Error::clashes(clashes))
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends a locked offer without a visit of its own, and tells; its entry waits on, or has the visit it `led_to`.
pub(super) async fn close(
    tx: &mut PgConnection,
    row: &mut Reservation,
    outcome: OfferState,
    by: By<'_>,
    led_to: Option<AppointmentId>,
) -> Result<Offer, Error> {
    let next = match outcome {
        OfferState::Declined => State::Declined,
        OfferState::Expired => State::Expired,
        OfferState::Accepted | OfferState::Withdrawn | OfferState::Open => State::Released,
    };
    step(row, next)?;
    let offer = store::close_offer(tx, row.id.uuid().into(), outcome, by.actor, led_to).await?;
    store::save(tx, row, by, |row| events::no_longer_kept(row, &offer)).await?;
    Ok(offer)
}

/// Closes an open offer as accepted by moving `visit`, which is locked.
pub(super) async fn accept_for(
    tx: &mut PgConnection,
    id: OfferId,
    visit: AppointmentId,
    caller: &Caller,
) -> Result<(), Error> {
    let mut row = lock_open(tx, id).await?;
    let by = By { actor: Some(caller), ..By::default() };
    close(tx, &mut row, OfferState::Accepted, by, Some(visit)).await.map(drop)
}
