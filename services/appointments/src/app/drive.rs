//! From a hold, or an accepted offer, to a booking: the saga around the co-pay, and the workers that finish what a crash or an outage left open.
//!
//! Every step is decided by what the database says, so any replica may take the next one. Billing's answer is asked for outside
//! of transactions and under one attempt id, so that asking twice gives one authorization.

use std::time::{Duration, Instant};

use kit::deadline;
use kit::fields::{date, timestamp};
use kit::ids::{AppointmentId, ChargeId};
use kit::status::Error as KitError;
use proto::clinic::billing::v1::{AuthorizeCopayRequest, ChargeState};
use sqlx::PgConnection;
use tracing::Instrument as _;

use super::{App, Booked, expire, offers, step};
use crate::domain::waitlist::OfferState;
use crate::domain::{Copay, Reservation, State};
use crate::error::Error;
use crate::ports::Authorization;
use crate::store::{By, Standing};
use crate::{events, store};

/// Pause before an authorization whose outcome is unknown is asked about again.
const RETRY_SECS: f64 = 2.0;
/// Pause before billing is asked whether the patient has completed a card's check; its event usually comes first.
const ASK_AGAIN_SECS: f64 = 10.0;
/// How often the workers look; a forgotten booking waits at most this and its lease.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows that one look takes.
const BATCH: i64 = 100;
/// How often a waiting duplicate of a call looks whether the first has ended.
const SETTLE_EVERY: Duration = Duration::from_millis(25);
/// How long it waits before it answers with what there is.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

/// A hold as the booking it becomes.
fn confirmed(mut row: Reservation, copay: Copay, charge: Option<ChargeId>) -> Result<Reservation, Error> {
    step(&mut row, State::Booked)?;
    row.copay = copay;
    row.charge_id = charge.or(row.charge_id);
    Ok(row)
}

impl App {
    /// Drives a booking in a task of its own, so that it goes on when the caller leaves.
    /// `created` = the hold was made by the same call, and goes with it when nothing could be tried.
    pub(super) async fn drive_to_end(&self, row: Reservation, created: bool) -> Result<Booked, Error> {
        if !row.is_kept() {
            return Ok(row.into());
        }
        let app = self.clone();
        let task = tokio::spawn(async move { app.drive(row, created).await }.in_current_span());
        task.await.map_err(|e| Error::Kit(KitError::internal(e)))?
    }

    /// One pass over an open booking: ask billing where a co-pay is due, then confirm, or note why not.
    async fn drive(&self, row: Reservation, created: bool) -> Result<Booked, Error> {
        let id = row.id;
        let (true, Some(attempt)) = (row.is_kept(), row.attempt_id) else { return Ok(row.into()) };
        let by_itself = self.books_by_itself(&row).await?;
        if row.copay == Copay::NotRequired {
            return Ok(self.confirm(row, Copay::NotRequired, None).await?.into());
        }
        let request = AuthorizeCopayRequest {
            request_id: attempt.to_string(),
            appointment_id: id.to_string(),
            patient_id: row.patient_id.to_string(),
            clinic_id: row.clinic_id.to_string(),
            service_type_id: row.service_type_id.to_string(),
            visit_start_time: Some(timestamp(row.start)),
            visit_date: Some(date(row.visit_date)),
            payment_method_id: row.payment_method_id.map(|m| m.to_string()).unwrap_or_default(),
            authorize_by: row.hold_expires_at.map(timestamp),
            off_session: by_itself,
        };
        match self.billing.authorize(request).await {
            Authorization::Charge(charge) => {
                let charge_id = charge.id.parse().ok();
                match charge.state() {
                    ChargeState::Authorized => {
                        Ok(self.confirm(row, Copay::Authorized, charge_id).await?.into())
                    }
                    ChargeState::RequiresAction => {
                        let row = self
                            .note(id, standing(Copay::ActionRequired, charge_id, Some(ASK_AGAIN_SECS)))
                            .await?;
                        Ok(Booked { row, client_secret: charge.client_secret })
                    }
                    // Everything else is undecided as far as this hold is concerned.
                    _ => {
                        Ok(self.note(id, standing(Copay::Pending, charge_id, Some(RETRY_SECS))).await?.into())
                    }
                }
            }
            Authorization::NotDue => Ok(self.confirm(row, Copay::NotRequired, None).await?.into()),
            Authorization::Declined(decline_code) => {
                let declined =
                    Standing { decline_code: &decline_code, ..standing(Copay::Declined, None, None) };
                if by_itself {
                    self.end_offer(id, OfferState::Declined).await?;
                } else {
                    self.note(id, declined).await?;
                }
                Err(Error::PaymentDeclined { hold: id, decline_code })
            }
            Authorization::HoldExpired => {
                let mut tx = self.db.begin().await?;
                let row = self.end_if_over(&mut tx, id).await?;
                tx.commit().await?;
                // Billing hears that a hold has ended, but not why.
                Err(row.as_ref().and_then(ended).unwrap_or(Error::HoldExpired))
            }
            Authorization::Refused(status) => {
                if created {
                    self.give_up(id).await?;
                } else if by_itself {
                    self.end_offer(id, OfferState::Declined).await?;
                } else {
                    self.note(id, standing(Copay::Pending, None, None)).await?;
                }
                Err(Error::Remote(status))
            }
            Authorization::Unknown => {
                Ok(self.note(id, standing(Copay::Pending, None, Some(RETRY_SECS))).await?.into())
            }
        }
    }

    /// HELD becomes BOOKED, unless the hold's time is up by the shared clock. Whoever is second finds it done.
    async fn confirm(
        &self,
        row: Reservation,
        copay: Copay,
        charge: Option<ChargeId>,
    ) -> Result<Reservation, Error> {
        let id = row.id;
        if row.state == State::Offered {
            return self.confirm_slowly(id, copay, charge).await;
        }
        let mut booked = confirmed(row, copay, charge)?;
        booked.version += 1;
        if let Some(at) = store::confirm_at_once(self.db.pool(), &booked, &events::booked(&booked)).await? {
            self.db.wake_relay();
            (booked.updated_at, booked.read_at, booked.driven_until) = (at, at, None);
            return Ok(booked);
        }
        self.confirm_slowly(id, copay, charge).await
    }

    async fn confirm_slowly(
        &self,
        id: AppointmentId,
        copay: Copay,
        charge: Option<ChargeId>,
    ) -> Result<Reservation, Error> {
        let mut tx = self.db.begin().await?;
        let row = self.confirm_in(&mut tx, id, copay, charge).await;
        tx.commit().await?;
        self.freed.notify_one();
        row
    }

    /// As [`App::confirm`], in a transaction of the caller's. An expired hold is ended in it, and told; an offer that its patient's
    /// own visits forbid by now, likewise.
    pub(crate) async fn confirm_in(
        &self,
        tx: &mut PgConnection,
        id: AppointmentId,
        copay: Copay,
        charge: Option<ChargeId>,
    ) -> Result<Reservation, Error> {
        let Some(row) = self.end_if_over(tx, id).await? else { return Err(Error::HoldExpired) };
        match row.state {
            State::Booked => return Ok(row),
            State::Held => {}
            State::Offered => return offers::book(tx, row, copay, charge).await,
            state => return Err(ended(&row).unwrap_or(Error::WrongState { id, state })),
        }
        let mut booked = confirmed(row, copay, charge)?;
        store::save(tx, &mut booked, By::default(), events::booked).await?;
        Ok(booked)
    }

    /// The locked row, after ending it when it is a hold whose time is up; `None` when it was ended just now.
    async fn end_if_over(
        &self,
        tx: &mut PgConnection,
        id: AppointmentId,
    ) -> Result<Option<Reservation>, Error> {
        let mut row = store::lock(tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
        if row.is_kept() && row.is_over() {
            expire(tx, &mut row).await?;
            return Ok(None);
        }
        Ok(Some(row))
    }

    /// The hold with what was noted of it, or why it has ended meanwhile.
    async fn note(&self, id: AppointmentId, standing: Standing<'_>) -> Result<Reservation, Error> {
        let mut conn = self.db.pool().acquire().await?;
        store::note_copay(&mut conn, id, standing).await?;
        drop(conn);
        let row = self.load(id).await?;
        ended(&row).map_or(Ok(row), Err)
    }

    /// Releases a hold whose own call came to nothing.
    async fn give_up(&self, id: AppointmentId) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        if let Some(mut row) = store::lock(&mut tx, id).await?.filter(|row| row.state == State::Held) {
            step(&mut row, State::Released)?;
            store::save(&mut tx, &mut row, By::default(), events::released).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Notes that the card's own check failed: the hold stays for another card.
    pub(crate) async fn decline_in(
        &self,
        tx: &mut PgConnection,
        id: AppointmentId,
        decline_code: &str,
    ) -> Result<(), Error> {
        if store::lock(tx, id).await?.is_some_and(|row| row.copay == Copay::ActionRequired) {
            store::note_copay(tx, id, Standing { decline_code, ..standing(Copay::Declined, None, None) })
                .await?;
        }
        Ok(())
    }

    /// Waits until nobody drives the booking any more, then answers as the call that did: the appointment, or its error.
    pub(super) async fn settled(&self, id: AppointmentId) -> Result<Booked, Error> {
        let end = Instant::now() + deadline::left(SETTLE_WITHIN);
        let row = loop {
            let row = self.load(id).await?;
            let open = row.is_kept() && row.copay != Copay::ActionRequired && row.driven_until.is_some();
            if !open || Instant::now() >= end {
                break row;
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        };
        match (row.state, row.copay) {
            // Asked under the same attempt, billing says how it stands, with the secret that a lost answer took along.
            (State::Held | State::Offered, Copay::ActionRequired) => self.drive_to_end(row, false).await,
            (State::Held | State::Offered, Copay::Declined) => {
                Err(Error::PaymentDeclined { hold: id, decline_code: row.decline_code })
            }
            _ => ended(&row).map_or(Ok(row.into()), Err),
        }
    }

    /// Ends holds and offers whose time is up, finishes bookings that nobody drives, judges what calendars have marked, hands over what
    /// merged patients had, searches changed calendars for free time, and offers freed time to those who wait, until told to stop. The
    /// latter four ask scheduling, so they have loops of their own: while scheduling is away, or has much to answer, nothing else waits
    /// for it.
    pub async fn work(self) {
        tokio::join!(
            self.keep_at(Job::Bookings),
            self.keep_at(Job::Visits),
            self.keep_at(Job::Calendars),
            self.keep_at(Job::Waitlist),
            self.keep_counting()
        );
    }

    async fn keep_at(&self, job: Job) {
        let mut failing = false;
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.marked.notified(), if job == Job::Visits => {}
                () = self.freed.notified(), if job == Job::Waitlist => {}
                () = self.stop.cancelled() => return,
            }
            let done = match job {
                Job::Bookings => self.look_at_bookings().await,
                Job::Visits => self.look_at_visits().await,
                Job::Calendars => self.look_at_calendars().await,
                Job::Waitlist => self.look_at_waitlist().await,
            };
            match done {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, ?job, "what the workers look after waits");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// One look of all workers, one after the other.
    pub async fn look_after(&self) -> Result<(), Error> {
        self.end_stale().await?;
        self.look_at_visits().await?;
        self.look_at_calendars().await?;
        self.look_at_waitlist().await?;
        self.finish_left_open().await
    }

    async fn look_at_visits(&self) -> Result<(), Error> {
        self.judge_marked().await?;
        self.hand_over_due().await?;
        self.look_at_displaced().await
    }

    async fn look_at_bookings(&self) -> Result<(), Error> {
        self.end_stale().await?;
        self.finish_left_open().await
    }

    async fn end_stale(&self) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        let stale = store::lock_stale(&mut tx, BATCH).await?;
        let freed = !stale.is_empty();
        for mut row in stale {
            expire(&mut tx, &mut row).await?;
        }
        tx.commit().await?;
        if freed {
            self.freed.notify_one();
        }
        Ok(())
    }

    /// Bookings that it goes on with are driven in tasks of their own.
    async fn finish_left_open(&self) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        let left_open = store::take_over(&mut tx, BATCH).await?;
        tx.commit().await?;
        for id in left_open {
            tracing::info!(%id, "finishing a booking that was left open");
            let app = self.clone();
            tokio::spawn(async move {
                let driven = async { app.drive(app.load(id).await?, false).await };
                if let Err(error) = driven.await {
                    let cause = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(%id, cause, "a booking that was left open came to nothing this time");
                }
            });
        }
        Ok(())
    }
}

/// What a worker looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Bookings,
    Visits,
    Calendars,
    Waitlist,
}

/// What is told of a hold that came to nothing; `None` of anything else.
fn ended(row: &Reservation) -> Option<Error> {
    match row.state {
        State::Expired | State::Declined => Some(Error::HoldExpired),
        State::Released if row.is_overtaken() => Some(Error::overtaken(row)),
        State::Released => Some(Error::WrongState { id: row.id, state: row.state }),
        State::Held | State::Offered | State::Booked | State::Displaced => None,
        State::CheckedIn | State::Completed | State::NoShow | State::Cancelled => None,
    }
}

fn standing(copay: Copay, charge: Option<ChargeId>, retry_in_secs: Option<f64>) -> Standing<'static> {
    Standing { copay, charge, decline_code: "", retry_in_secs }
}
