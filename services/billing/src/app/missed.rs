//! The fee of a late cancellation or a missed visit.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::App;
use super::renew::{away, card_on_file};
use super::settle::{after_change, record};
use crate::domain::charge::{Charge, Kind, State};
use crate::domain::visit::Visit;
use crate::store::{attempts, charges};

impl App {
    /// Makes the fee that the visit's end costs. Once its co-pay can give it nothing more than what was `drawn`, of which payment,
    /// what is left is asked of the card on file.
    pub(super) async fn bring_fee_along(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        copay: Option<&Charge>,
        drawn: (i64, Option<String>),
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let settled = copay.is_none_or(Charge::gives_no_more);
        if !settled && visit.ended.is_none_or(|ended| ended.fee == 0) {
            return Ok(());
        }
        let fee = match charges::lock(tx, visit.appointment, Kind::NoShowFee).await? {
            Some(fee) => Some(fee),
            None => self.begin_fee(tx, visit, copay, now).await?,
        };
        let Some(mut fee) = fee.filter(|fee| settled && fee.awaits_copay()) else { return Ok(()) };
        // Who came after all is charged nothing more.
        let card = match fee.take_from_copay(drawn.0, drawn.1) && !visit.fee_reversed {
            true => {
                card_on_file(tx, visit.patient, copay.and_then(|copay| copay.payment_method), now).await?
            }
            false => None,
        };
        match card {
            Some(card) => {
                let attempt = away(&mut fee, card.id);
                attempts::insert(tx, &attempt).await?;
            }
            None => {
                let happened = fee.settle_fee();
                record(tx, visit, &mut fee, &happened, now).await?;
            }
        }
        let due = after_change(&fee, visit, now);
        charges::save(tx, &mut fee, due, now).await?;
        self.reverse_if_late(tx, visit, &mut fee, now).await
    }

    /// `None` = the visit costs no fee, or it is not known yet what its co-pay can give.
    async fn begin_fee(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        copay: Option<&Charge>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<Option<Charge>> {
        let Some(ended) = visit.ended.filter(|ended| ended.fee > 0 && !visit.fee_reversed) else {
            return Ok(None);
        };
        if copay.is_some_and(|copay| copay.state == State::Authorizing) {
            return Ok(None);
        }
        let currency = copay.map_or(self.currency, |copay| copay.currency);
        let fee = Charge::fee(visit.appointment, ended.fee, currency, now);
        charges::insert(tx, &fee, None).await?;
        Ok(Some(fee))
    }
}
