//! Money that a bank takes back.
//!
//! What a dispute has withdrawn in all, as the provider tells it, is compared with what the ledger has of it, and the difference
//! posted. So the order in which its events come, and how often, does not matter. Patients' accounts are left alone: whether one
//! owes again what its bank took back is for people to settle.

use super::App;
use super::refund::Taken;
use crate::domain::ledger;
use crate::error::Error;
use crate::gateway::Dispute;
use crate::store::{charges, disputes, ledger as journal};

impl App {
    /// Takes over what a dispute has withdrawn; without `keep` it only says what that would be.
    pub async fn take_over_dispute(&self, dispute: &Dispute, keep: bool) -> Result<Taken, Error> {
        let Some(payment) = &dispute.payment else { return Ok(Taken::Foreign) };
        let mut tx = self.db.begin().await?;
        let Some((found, _)) = charges::that_took(&mut tx, payment).await? else { return Ok(Taken::Foreign) };
        let locked = charges::lock(&mut tx, found.appointment, found.kind).await?;
        let Some(charge) = locked else { return Ok(Taken::Foreign) };
        // What a bank takes back was taken before; that is posted first.
        if charge.pending() {
            return Ok(Taken::TooEarly);
        }
        let posted = disputes::withdrawn(&mut tx, &dispute.reference).await?.unwrap_or(0);
        let Some(entry) = ledger::withdrawn(dispute.withdrawn - posted) else { return Ok(Taken::Known) };
        let now = self.clock.now();
        journal::post(&mut tx, &charge, &entry, now).await?;
        disputes::put(&mut tx, &dispute.reference, charge.id, dispute.withdrawn, now).await?;
        if keep {
            tx.commit().await?
        } else {
            tx.rollback().await?
        }
        Ok(Taken::News)
    }
}
