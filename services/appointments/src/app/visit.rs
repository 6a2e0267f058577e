//! From a booking to a closed visit: cancel, check in, complete.

use kit::auth::Caller;
use kit::ids::AppointmentId;
use proto::clinic::appointments::v1::VisitOutcome;

use super::{App, staff_only, step};
use crate::domain::{Reservation, State};
use crate::error::Error;
use crate::{events, store};

impl App {
    /// Calls an appointment off and frees its time. Late is judged by when the call reached us, not by when it was done.
    pub async fn cancel(
        &self,
        caller: &Caller,
        id: AppointmentId,
        etag: &str,
        by_clinic: bool,
    ) -> Result<Reservation, Error> {
        let received = self.now();
        if by_clinic {
            staff_only(caller)?;
        }
        let (mut tx, mut row) = self.open(caller, id, etag).await?;
        let displaced = row.state == State::Displaced;
        step(&mut row, State::Cancelled)?;
        row.cancel_received_at = Some(received);
        row.cancelled_by_clinic = Some(by_clinic);
        row.fee_due = !by_clinic && !displaced && !row.timely(received);
        store::save(&mut tx, &mut row, Some(caller), None).await?;
        events::cancelled(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Notes that the patient is here.
    pub async fn check_in(
        &self,
        caller: &Caller,
        id: AppointmentId,
        etag: &str,
    ) -> Result<Reservation, Error> {
        let now = self.now();
        let (mut tx, mut row) = self.open(caller, id, etag).await?;
        let after_no_show = row.state == State::NoShow;
        step(&mut row, State::CheckedIn)?;
        if !row.is_visit_day(now) {
            return Err(Error::NotVisitDay(id));
        }
        (row.checked_in_at, row.closed_at, row.fee_due) = (Some(now), None, false);
        let saved = store::save(&mut tx, &mut row, Some(caller), None).await;
        saved.map_err(Error::of_reoccupied)?;
        events::checked_in(&mut tx, &row, after_no_show).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Closes a visit.
    pub async fn complete(
        &self,
        caller: &Caller,
        id: AppointmentId,
        etag: &str,
        outcome: VisitOutcome,
    ) -> Result<Reservation, Error> {
        let now = self.now();
        let (mut tx, mut row) = self.open(caller, id, etag).await?;
        let displaced = row.state == State::Displaced;
        let next = if outcome == VisitOutcome::NoShow { State::NoShow } else { State::Completed };
        step(&mut row, next)?;
        if next == State::NoShow && now < row.start {
            return Err(Error::NotStarted(id));
        }
        row.closed_at = Some(now);
        row.fee_due = next == State::NoShow && !displaced;
        store::save(&mut tx, &mut row, Some(caller), None).await?;
        events::completed(&mut tx, &row, outcome).await?;
        tx.commit().await?;
        Ok(row)
    }
}
