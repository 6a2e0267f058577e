//! Putting right what is certain.

use chrono::TimeDelta;

use super::Run;
use crate::app::refund::Asked;
use crate::domain::charge::{Charge, Kind, Standing, State, VoidCause};
use crate::domain::reconcile::{Differs, compare, expected};
use crate::domain::refund::Cause;
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::store::charges;

/// How old a reservation is before appointments is asked whether its visit was booked: long after the end of its hold.
const BOOKED_WITHIN: TimeDelta = TimeDelta::hours(1);

/// A charge and its payment that do not agree.
type Difference = (Differs, Option<i64>, Option<i64>);

impl Run<'_> {
    /// Whether a difference is still there when both sides are asked anew.
    pub(super) async fn look_again(
        &mut self,
        seen: &Charge,
        payment: &str,
    ) -> Result<Option<Difference>, Error> {
        let Ok(there) = self.app.gateway.look_up(payment).await else { return Ok(None) };
        let Some((charge, _)) = charges::get_with_visit(self.conn, seen.id).await? else {
            return Ok(None);
        };
        if charge.provider_reference.as_deref() != Some(payment) {
            return Ok(None);
        }
        let drawn = charges::drawn(self.conn, payment).await?;
        Ok(compare(expected(&charge, drawn), &there.standing))
    }

    /// Has the charge follow its payment.
    pub(super) async fn drive(
        &mut self,
        charge: &Charge,
        payment: &str,
    ) -> Result<(bool, &'static str), Error> {
        if self.report.dry_run {
            return Ok((false, "Reconcile without dry_run, and the charge is looked up."));
        }
        self.app.drive(charge.id).await?;
        Ok(match self.look_again(charge, payment).await? {
            None => (true, "The charge was looked up, and follows the provider."),
            Some(_) => (false, "Looking the charge up did not help: compare it with the provider's page."),
        })
    }

    /// Releases a reservation that serves no visit.
    pub(super) async fn release(&self, payment: &str) -> (bool, &'static str) {
        if self.report.dry_run {
            return (false, "Reconcile without dry_run, and the reservation is released.");
        }
        match self.app.gateway.cancel(&format!("reconcile-{payment}"), payment).await {
            Ok(now) if now.standing == Standing::Released => (true, "The reservation was released."),
            Ok(_) | Err(_) => (false, "The reservation could not be released: cancel it at the provider."),
        }
    }

    /// Gives back a co-pay that was taken though its visit was called off or missed.
    pub(super) async fn give_back(&mut self, seen: &Charge) -> Result<(bool, &'static str), Error> {
        if self.report.dry_run {
            return Ok((false, "Taken without cause: reconcile without dry_run, and it is given back."));
        }
        let now = self.app.clock.now();
        let mut tx = self.app.db.begin().await?;
        let found = charges::lock_with_visit(&mut tx, seen.appointment, seen.kind).await?;
        if let Some((mut charge, _)) = found.filter(|(charge, _)| charge.refundable() > 0) {
            let left = charge.refundable();
            let asked = Asked { cause: Cause::Reconciliation, reason: "", by: "" };
            self.app.begin_refund(&mut tx, &mut charge, left, &asked, now).await?;
            charges::save(&mut tx, &mut charge, None, now).await?;
            tx.commit().await?;
            self.app.books.notify_one();
        }
        Ok((true, "Taken without cause, and given back."))
    }

    /// Whether nothing is known any more of the visit that a reservation was made for, as when appointments was restored from a
    /// backup of before.
    pub(super) async fn unbooked(&mut self, charge: &Charge, visit: &Visit) -> Result<bool, Error> {
        let age = self.app.clock.now() - charge.created_at;
        if self.unanswered || !reserves(charge) || visit.ended.is_some() || age < BOOKED_WITHIN {
            return Ok(false);
        }
        Ok(self.app.appointments.is_gone(charge.appointment).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "appointments does not answer: whether visits are booked is left to the next reconciliation");
            self.unanswered = true;
            false
        }))
    }

    /// Voids a reservation that no booked visit stands behind.
    pub(super) async fn void(&mut self, seen: &Charge) -> Result<(bool, &'static str), Error> {
        if self.report.dry_run {
            return Ok((false, "No visit is booked for it: reconcile without dry_run, and it is released."));
        }
        let now = self.app.clock.now();
        let mut tx = self.app.db.begin().await?;
        let found = charges::lock_with_visit(&mut tx, seen.appointment, seen.kind).await?;
        if let Some((mut charge, visit)) =
            found.filter(|(charge, visit)| reserves(charge) && visit.ended.is_none())
        {
            let was = charge.state;
            let happened = charge.void(VoidCause::Reconciliation, 0);
            self.app.conclude(&mut tx, &visit, was, &mut charge, happened, now).await?;
            tx.commit().await?;
            self.app.drive(charge.id).await?;
        }
        let ended = charges::get_with_visit(self.conn, seen.id).await?;
        Ok(match ended.is_some_and(|(charge, _)| charge.state == State::Voided) {
            true => (true, "No visit is booked for it, and it was released."),
            false => (false, "No visit is booked for it: its release is under way."),
        })
    }
}

fn reserves(charge: &Charge) -> bool {
    charge.kind == Kind::Copay && matches!(charge.state, State::Authorized | State::RequiresAction)
}
