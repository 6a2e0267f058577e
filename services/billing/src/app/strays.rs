//! Payments whose answer nobody waited for.
//!
//! A payment is asked for under a key until it is answered, or until the key is too old. One that the provider makes after that,
//! or makes a second time because it has forgotten the key, would reserve money for nothing until it dies of age; the provider
//! tells of it, and so it is ended.

use kit::ids::ChargeId;

use super::App;
use super::refund::Taken;
use crate::domain::charge::{Charge, Standing, Step};
use crate::error::Error;
use crate::gateway::Failure;
use crate::store::charges;

impl App {
    /// Ends a payment made for `charge` that is not its newest.
    pub(super) async fn end_stray(
        &self,
        payment: &str,
        charge: ChargeId,
    ) -> Result<Result<Taken, Failure>, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let found = charges::get_with_visit(&mut conn, charge).await?;
        drop(conn);
        let Some((charge, _)) = found else { return Ok(Ok(Taken::Foreign)) };
        if charge.provider_reference.as_deref() == Some(payment) {
            return Ok(Ok(Taken::Known));
        }
        // The payment may be what is just being answered.
        if self.awaits_payment(&charge) {
            return Ok(Ok(Taken::TooEarly));
        }
        let standing = match self.gateway.look_up(payment).await {
            Ok(found) => found.standing,
            Err(failure) => return Ok(Err(failure)),
        };
        match standing {
            Standing::Reserved { .. } | Standing::ActionRequired { .. } => {}
            // What was taken is left to reconciliation, which names it.
            Standing::Taken { .. } | Standing::Refused { .. } | Standing::Released => {
                return Ok(Ok(Taken::Known));
            }
        }
        let ended = self.gateway.cancel(&format!("stray-{payment}"), payment).await;
        Ok(ended.map(|_| {
            tracing::warn!(charge = %charge.id, payment, "a payment that nobody waited for was cancelled");
            Taken::News
        }))
    }

    fn awaits_payment(&self, charge: &Charge) -> bool {
        match charge.step(self.clock.now()) {
            Some(Step::Authorize | Step::Charge(_)) => true,
            Some(Step::Capture(_) | Step::Cancel | Step::LookUp) | None => false,
        }
    }
}
