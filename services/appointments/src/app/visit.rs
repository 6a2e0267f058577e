//! From a hold or a booking to its end: release, cancel, check in, complete.

use kit::auth::Caller;
use kit::idempotency::{Attempt, Key};
use kit::ids::AppointmentId;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::VisitOutcome;
use sqlx::PgConnection;

use super::book::{JUDGEMENTS, as_seen_by};
use super::{App, alternatives, expire, finish, open, staff_only, step};
use crate::domain::{Clash, Reservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{events, store};

/// The fields that every change of an appointment has.
#[derive(Debug)]
pub struct Change {
    /// Which appointment.
    pub id: AppointmentId,
    /// The state it was read in; empty = not compared.
    pub etag: String,
    /// The caller's name for the call.
    pub key: Option<Key>,
}

impl App {
    /// Calls an appointment off and frees its time. Late is judged by when the call reached us, not by when it was done.
    pub async fn cancel(
        &self,
        caller: &Caller,
        change: Change,
        by_clinic: bool,
    ) -> Result<pb::Appointment, Error> {
        let received = self.now();
        if by_clinic {
            staff_only(caller)?;
        }
        let mut fresh = match self.begin(change.key).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let mut row = open(&mut fresh.tx, caller, change.id, &change.etag).await?;
        let displaced = row.state == State::Displaced;
        if displaced {
            alternatives::release(&mut fresh.tx, row.id, by(caller)).await?;
        }
        step(&mut row, State::Cancelled)?;
        row.cancel_received_at = Some(received);
        row.cancelled_by_clinic = Some(by_clinic);
        row.fee_due = !by_clinic && !displaced && !row.timely(received);
        store::save(&mut fresh.tx, &mut row, by(caller), events::cancelled).await?;
        self.finish_freeing(fresh, &row).await
    }

    /// Notes that the patient is here, with the intake form submitted or a reason to go without, which is kept in the history.
    pub async fn check_in(
        &self,
        caller: &Caller,
        change: Change,
        override_reason: &str,
    ) -> Result<pb::Appointment, Error> {
        for _ in 0..JUDGEMENTS {
            let now = self.now();
            let mut fresh = match self.begin(change.key.clone()).await? {
                Attempt::Replayed(answer) => return Ok(answer),
                Attempt::Fresh(fresh) => fresh,
            };
            if let Some(missed) =
                store::get(&mut fresh.tx, change.id).await?.filter(|row| row.state == State::NoShow)
            {
                clear_the_way(&mut fresh.tx, &missed).await?;
            }
            let mut row = open(&mut fresh.tx, caller, change.id, &change.etag).await?;
            let after_no_show = row.state == State::NoShow;
            if row.state == State::Displaced {
                alternatives::release(&mut fresh.tx, row.id, by(caller)).await?;
            }
            step(&mut row, State::CheckedIn)?;
            if !row.is_visit_day(now) {
                return Err(Error::NotVisitDay(row.id));
            }
            let needs_intake = row.intake_form_id.is_some() && override_reason.is_empty();
            if needs_intake && !store::is_intake_complete(&mut fresh.tx, row.id).await? {
                return Err(Error::IntakeIncomplete(row.id));
            }
            if after_no_show {
                (row.fee_due, row.closed_at) = (false, None);
            }
            row.checked_in_at = Some(now);
            let reason = (!override_reason.is_empty()).then_some(override_reason);
            // A no-show's time was free for others; the database says whether someone has it.
            let by = By { override_reason: reason, ..by(caller) };
            let tell = |row: &Reservation| events::checked_in(row, after_no_show);
            let Err(error) = store::save(&mut fresh.tx, &mut row, by, tell).await else {
                return finish(fresh, &row).await;
            };
            drop(fresh);
            if !store::is_taken(&error) {
                return Err(error.into());
            }
            let clashes = self.in_the_way(caller, &row).await?;
            if !clashes.is_empty() {
                return Err(Error::clashes(clashes));
            }
            // Who had the time has let go of it meanwhile.
        }
        Err(Error::CalendarMoving)
    }

    /// Who has the time that a patient who came after all would have back.
    async fn in_the_way(&self, caller: &Caller, row: &Reservation) -> Result<Vec<Clash>, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let clashes =
            store::conflicts(&mut conn, &row.again(), row.provider_id, &[row.room_id.uuid()]).await?;
        Ok(as_seen_by(caller, clashes))
    }

    /// Closes a visit.
    pub async fn complete(
        &self,
        caller: &Caller,
        change: Change,
        outcome: VisitOutcome,
    ) -> Result<pb::Appointment, Error> {
        let now = self.now();
        let mut fresh = match self.begin(change.key).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let mut row = open(&mut fresh.tx, caller, change.id, &change.etag).await?;
        let displaced = row.state == State::Displaced;
        if displaced {
            alternatives::release(&mut fresh.tx, row.id, by(caller)).await?;
        }
        let next = if outcome == VisitOutcome::NoShow { State::NoShow } else { State::Completed };
        step(&mut row, next)?;
        if next == State::NoShow && now < row.start {
            return Err(Error::NotStarted(row.id));
        }
        row.closed_at = Some(now);
        row.fee_due = next == State::NoShow && !displaced;
        let tell = |row: &Reservation| events::completed(row, outcome);
        store::save(&mut fresh.tx, &mut row, by(caller), tell).await?;
        finish(fresh, &row).await
    }

    /// Gives a hold back.
    pub async fn release(&self, caller: &Caller, change: Change) -> Result<pb::Appointment, Error> {
        let mut fresh = match self.begin(change.key).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let mut row = open(&mut fresh.tx, caller, change.id, &change.etag).await?;
        if row.state != State::Held {
            return Err(Error::WrongState { id: row.id, state: row.state });
        }
        step(&mut row, State::Released)?;
        store::save(&mut fresh.tx, &mut row, by(caller), events::released).await?;
        self.finish_freeing(fresh, &row).await
    }
}

fn by(caller: &Caller) -> By<'_> {
    By { actor: Some(caller), ..By::default() }
}

/// Before a no-show's time is taken again: nobody else moves there, and holds whose time is up end.
async fn clear_the_way(tx: &mut PgConnection, row: &Reservation) -> Result<(), Error> {
    let (provider, room) = (row.provider_id, row.room_id.uuid());
    store::lock_places(tx, &[provider.uuid(), room]).await?;
    for mut stale in
        store::lock_stale_in_the_way(tx, provider, &[room], row.patient_id, row.occupied()).await?
    {
        expire(tx, &mut stale).await?;
    }
    Ok(())
}
