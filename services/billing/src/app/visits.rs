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
    pub async fn follow_visit(&self, tx: &mut PgConnection, visit: Visit) -> sqlx::Result<()> {
        if !visits::put(tx, &visit).await? {
            return Ok(());
        }
        let now = self.clock.now();
        // The visit's row is locked by having been written.
        let Some(mut copay) = charges::lock(tx, visit.appointment, Kind::Copay).await? else {
            return self.bring_fee_along(tx, &visit, None, 0, now).await;
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
        self.bring_fee_along(tx, &visit, Some(&copay), 0, now).await
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
