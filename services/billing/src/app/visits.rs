//! Following how visits end.

use chrono::NaiveDate;
use sqlx::PgConnection;

use super::App;
use super::settle::after_change;
use crate::domain::charge::Kind;
use crate::domain::visit::{Ended, Ending, Visit};
use crate::store::{charges, fees, visits};

impl App {
    /// Takes over a visit as its newest event tells it, in the transaction that remembers the event. Older news than what is
    /// known changes nothing.
    pub async fn follow_visit(&self, tx: &mut PgConnection, mut visit: Visit) -> sqlx::Result<()> {
        if !visits::put(tx, &mut visit).await? {
            return Ok(());
        }
        let now = self.clock.now();
        // The visit's row is locked by having been written.
        let Some(mut copay) = charges::lock(tx, visit.appointment, Kind::Copay).await? else {
            return self.bring_fee_along(tx, &visit, None, (0, None), now).await;
        };
        let before = copay.clone();
        let happened = visit.ended.map(|ended| copay.follow(ended)).unwrap_or_default();
        if copay != before {
            return self.conclude(tx, &visit, before.state, &mut copay, happened, now).await;
        }
        // A visit that moved, or ended, changes when its co-pay is to be looked at; what is on its way goes on.
        if !copay.pending() || copay.renews(&visit, now) {
            charges::postpone(tx, copay.id, copay.revision, after_change(&copay, &visit, now)).await?;
        }
        self.bring_fee_along(tx, &visit, Some(&copay), (0, None), now).await
    }

    /// Follows a patient who comes after the visit was closed as missed: its fee is taken back, once, whatever came before or comes
    /// after. The co-pay is taken when the visit is attended, as any other; one that was voided meanwhile is then asked for anew.
    pub async fn follow_late_arrival(&self, tx: &mut PgConnection, visit: Visit) -> sqlx::Result<()> {
        let news = visits::reverse_fee(tx, &visit).await?;
        let appointment = visit.appointment;
        self.follow_visit(tx, Visit { fee_reversed: true, ..visit }).await?;
        if news
            && let Some((mut fee, visit)) = charges::lock_with_visit(tx, appointment, Kind::NoShowFee).await?
        {
            self.reverse_if_late(tx, &visit, &mut fee, self.clock.now()).await?;
        }
        Ok(())
    }

    /// What an ending costs: nothing, or the no-show fee in force on the visit's date.
    pub async fn ended(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        visit_date: NaiveDate,
        how: Ending,
        fee_due: bool,
    ) -> sqlx::Result<Ended> {
        if !fee_due {
            return Ok(Ended { how, fee: 0 });
        }
        let fee = fees::in_force(tx, visit.clinic, visit.service_type, visit_date).await?;
        Ok(Ended { how, fee: fee.and_then(|(fee, _)| fee.no_show).unwrap_or(0) })
    }
}
