//! Cards on file.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::idempotency::{self, Attempt};
use kit::ids::{PatientId, PaymentMethodId, RequestId};
use kit::merges;
use proto::clinic::billing::v1 as pb;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::App;
use crate::domain::card::{self, Card};
use crate::error::Error;
use crate::gateway::{Failure, SavedCard};
use crate::store::cards;
use crate::wire;

impl App {
    /// Puts a card on file. The provider is asked under a key made of patient, token and request, so that a call whose answer
    /// was lost can be repeated.
    pub async fn save_card(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        request: &pb::SavePaymentMethodRequest,
        patient: PatientId,
    ) -> Result<pb::PaymentMethod, Error> {
        const METHOD: &str = "SavePaymentMethod";
        let mut seen = match idempotency::begin(&self.db, caller, METHOD, request_id, request).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh.tx,
        };
        let patient = merges::survivor(&mut seen, patient).await?;
        let full = cards::of_patient(&mut seen, patient).await?.len() >= card::MOST_PER_PATIENT;
        // The provider is asked outside any transaction; the request is begun again with the answer at hand.
        seen.rollback().await?;
        if full {
            return Err(Error::TooManyPaymentMethods);
        }
        let customer = self.customer(patient).await?;
        let mut key = Sha256::new().chain_update(patient.uuid()).chain_update(&request.provider_token);
        key.update(&request.request_id);
        let key = format!("card-{}", hex::encode(key.finalize()));
        let saved =
            self.gateway.save_card(&key, &customer, &request.provider_token).await.map_err(card_failure)?;

        let mut fresh = match idempotency::begin(&self.db, caller, METHOD, request_id, request).await? {
            Attempt::Replayed(answer) => return Ok(answer),
            Attempt::Fresh(fresh) => fresh,
        };
        let now = self.clock.now();
        let card = put(&mut fresh.tx, patient, &saved, request.make_default, now).await?;
        let answer = wire::card(&card, saved.client_secret, now);
        fresh.finish(&answer).await?;
        Ok(answer)
    }

    /// The provider's record of a patient, made at the first card.
    async fn customer(&self, patient: PatientId) -> Result<String, Error> {
        let mut conn = self.db.pool().acquire().await?;
        if let Some(known) = cards::customer(&mut conn, patient).await? {
            return Ok(known);
        }
        drop(conn);
        let made = self.gateway.create_customer(patient).await.map_err(provider_failure)?;
        let mut conn = self.db.pool().acquire().await?;
        cards::put_customer(&mut conn, patient, &made, self.clock.now()).await?;
        let known = cards::customer(&mut conn, patient).await?;
        known.ok_or_else(|| {
            kit::status::Error::internal(anyhow::anyhow!("customer of {patient} is gone")).into()
        })
    }

    /// Asks the provider whether the patient has confirmed `card` in the meantime, and remembers it.
    pub(super) async fn confirm_card(&self, card: &Card) -> Result<(), Error> {
        match self.gateway.look_up_card(&card.setup_reference).await {
            Ok(saved) if saved.client_secret.is_none() => {
                Ok(cards::confirm(&mut *self.db.pool().acquire().await?, card.id).await?)
            }
            Ok(_) | Err(Failure::Declined { .. } | Failure::Refused { .. }) => {
                Err(Error::PaymentMethodRequired)
            }
            Err(failure @ Failure::Unknown(_)) => Err(provider_failure(failure)),
        }
    }
}

/// The card to charge: the one named, or the patient's default. It may still wait for the patient's confirmation.
pub(super) async fn usable_card(
    conn: &mut PgConnection,
    patient: PatientId,
    named: Option<PaymentMethodId>,
    now: DateTime<Utc>,
) -> Result<Card, Error> {
    let mut on_file = cards::of_patient(conn, patient).await?.into_iter();
    let card = match named {
        Some(id) => on_file.find(|card| card.id == id).ok_or_else(|| kit::status::Error::not_found(id))?,
        None => on_file.find(|card| card.is_default).ok_or(Error::PaymentMethodRequired)?,
    };
    if card.expired(now) { Err(Error::PaymentMethodRequired) } else { Ok(card) }
}

/// Writes a saved card down; one that is on file already stays as it is, but for being confirmed or made the default.
async fn put(
    tx: &mut PgConnection,
    patient: PatientId,
    saved: &SavedCard,
    make_default: bool,
    now: DateTime<Utc>,
) -> Result<Card, Error> {
    cards::lock(tx, patient).await?;
    let on_file = cards::of_patient(tx, patient).await?;
    let make_default = make_default || on_file.is_empty();
    let confirmed = saved.client_secret.is_none();
    if let Some(known) = on_file.iter().find(|card| card.provider_id == saved.provider_id) {
        if confirmed && !known.confirmed {
            cards::confirm(tx, known.id).await?;
        }
        if make_default && !known.is_default {
            cards::clear_default(tx, patient).await?;
            cards::make_default(tx, known.id).await?;
        }
        let (confirmed, is_default) = (confirmed || known.confirmed, make_default || known.is_default);
        return Ok(Card { confirmed, is_default, ..known.clone() });
    }
    if on_file.len() >= card::MOST_PER_PATIENT {
        return Err(Error::TooManyPaymentMethods);
    }
    if make_default {
        cards::clear_default(tx, patient).await?;
    }
    let card = Card {
        id: PaymentMethodId::new(),
        patient,
        provider_id: saved.provider_id.clone(),
        setup_reference: saved.setup_reference.clone(),
        confirmed,
        brand: saved.brand.clone(),
        last4: saved.last4.clone(),
        expiry_month: saved.expiry_month,
        expiry_year: saved.expiry_year,
        is_default: make_default,
        created_at: now,
    };
    cards::insert(tx, &card).await?;
    Ok(card)
}

fn card_failure(failure: Failure) -> Error {
    match failure {
        Failure::Declined { code } => Error::PaymentDeclined { code },
        Failure::Refused { code } => {
            let words =
                format!("must be a card token of the payment provider, used for the first time ({code})");
            kit::status::Error::invalid("provider_token", words).into()
        }
        unknown @ Failure::Unknown(_) => provider_failure(unknown),
    }
}

/// A failure that no caller can do anything about but wait.
fn provider_failure(failure: Failure) -> Error {
    tracing::warn!(error = %failure, "the payment provider gave no usable answer");
    Error::provider_down()
}
