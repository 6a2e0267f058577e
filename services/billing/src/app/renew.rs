//! Reserving a co-pay anew, with the card on file, while the patient is away.

use chrono::{DateTime, Utc};
use kit::ids::{PatientId, PaymentMethodId};
use sqlx::PgConnection;

use super::App;
use super::settle::LEASE;
use crate::domain::card::Card;
use crate::domain::charge::Charge;
use crate::error::Error;
use crate::store::attempts::{self, Asking, Attempt};
use crate::store::{cards, charges};

impl App {
    /// Writes down that the co-pay `seen` is reserved anew, if that is still due. The reservation before is given up by asking for
    /// the new one, so that two never live at once.
    pub(super) async fn renew(&self, seen: &Charge) -> Result<Option<(Charge, Asking)>, Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let found = charges::lock_with_visit(&mut tx, seen.appointment, seen.kind).await?;
        let Some((mut charge, visit)) = found else { return Ok(None) };
        if !charge.renews(&visit, now) {
            return Ok(None);
        }
        // With nothing better at hand the bank is asked about an expired card: it may have renewed that, and says so if not.
        let fitting = card_on_file(&mut tx, visit.patient, charge.payment_method, now).await?;
        let Some(card) = fitting.map(|card| card.id).or(charge.payment_method) else { return Ok(None) };
        let attempt = away(&mut charge, card);
        charges::save(&mut tx, &mut charge, Some(LEASE), now).await?;
        let asking = attempts::insert(&mut tx, &attempt).await?;
        tx.commit().await?;
        Ok(Some((charge, asking)))
    }
}

/// Begins an attempt of which the patient knows nothing.
pub(super) fn away(charge: &mut Charge, card: PaymentMethodId) -> Attempt {
    let replaces = charge.ask(card);
    Attempt {
        charge: charge.id,
        number: charge.attempt,
        request: None,
        fingerprint: vec![],
        card,
        off_session: true,
        replaces,
    }
}

/// The card to charge while the patient is away: the one used before, else the default, else the newest; `None` = none is fit.
pub(super) async fn card_on_file(
    conn: &mut PgConnection,
    patient: PatientId,
    used: Option<PaymentMethodId>,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<Card>> {
    let mut fit = cards::of_patient(conn, patient).await?;
    fit.retain(|card| card.confirmed && !card.expired(now));
    let used = fit.iter().position(|card| Some(card.id) == used);
    Ok((!fit.is_empty()).then(|| fit.swap_remove(used.unwrap_or(0))))
}
