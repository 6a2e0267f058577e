//! Keeping time for a patient who did not ask for it at this moment: an offer of freed time from the waitlist, or a place that a
//! displaced visit could move to. Either is a reservation in state OFFERED, taken as a hold is.

use chrono::{DateTime, SubsecRound as _, Utc};
use kit::ids::{AppointmentId, OfferId, PatientId, PaymentMethodId, WaitlistEntryId};
use sqlx::PgConnection;

use super::book::Judged;
use super::{App, look};
use crate::domain::waitlist::{LEAST_NOTICE, Offer, OfferState};
use crate::domain::{Conflict, Copay, NewReservation, State};
use crate::error::Error;
use crate::store::By;
use crate::{events, store};

/// For whom time is kept, and what for.
pub(super) struct Proposal {
    pub(super) patient: PatientId,
    /// `None` = it is kept instead of the displaced visit that it `replaces`.
    pub(super) entry: Option<WaitlistEntryId>,
    pub(super) replaces: Option<AppointmentId>,
    pub(super) preference: Option<i16>,
    pub(super) auto_book: bool,
    pub(super) payment_method: Option<PaymentMethodId>,
}

/// What became of an attempt.
pub(super) enum Made {
    /// It is kept.
    Yes,
    /// Someone was faster at the provider.
    Taken,
    /// No suitable room is free.
    NoRoom,
    /// The patient cannot have it.
    NotTheirs,
    /// The calendar moved on.
    Stale,
}

impl App {
    /// Keeps a place, and tells.
    pub(super) async fn keep(&self, proposal: &Proposal, judged: &Judged) -> Result<Made, Error> {
        let mut tx = self.db.begin().await?;
        let made = self.try_keep(&mut tx, proposal, judged).await?;
        if matches!(made, Made::Yes) {
            tx.commit().await?;
        }
        Ok(made)
    }

    /// One attempt. Nothing is kept of a refusal, for the caller rolls back.
    async fn try_keep(
        &self,
        tx: &mut PgConnection,
        proposal: &Proposal,
        judged: &Judged,
    ) -> Result<Made, Error> {
        let Some(&(provider, version)) = judged.providers.first() else { return Ok(Made::NoRoom) };
        let mut new = NewReservation {
            id: AppointmentId::new(),
            state: State::Offered,
            patient_id: proposal.patient,
            payment_method_id: proposal.payment_method,
            ..judged.new.clone()
        };
        if proposal.entry.is_none() {
            // The visit that moves there has its own.
            new.copay = Copay::NotRequired;
        }
        let mut look = look(tx, &new, provider, &judged.rooms).await?;
        if look.calendar_seen > version {
            return Ok(Made::Stale);
        }
        let expires_at = self.kept_until(proposal, new.visit.start, look.now);
        if look.merged_into.is_some() || expires_at <= look.now {
            return Ok(Made::NotTheirs);
        }
        for _ in 0..=judged.rooms.len() {
            let Some(room) = look.room else { return Ok(Made::NoRoom) };
            let mut row = new.clone().placed((provider, version), room, look.now);
            row.hold_expires_at = Some(expires_at);
            let offer = Offer {
                id: OfferId::from(row.id.uuid()),
                entry_id: proposal.entry,
                state: OfferState::Open,
                patient_id: row.patient_id,
                service_type_id: row.service_type_id,
                clinic_id: row.clinic_id,
                provider_id: provider,
                starts_at: row.start,
                replaces_id: proposal.replaces,
                preference: proposal.preference,
                auto_book: proposal.auto_book,
                made_at: look.now,
                expires_at,
            };
            match store::insert(tx, &row, By::default(), &events::kept(&row, &offer)).await {
                Ok(true) if store::make_offer(tx, &offer).await? => return Ok(Made::Yes),
                Ok(true) => return Ok(Made::NotTheirs),
                Ok(false) => {}
                Err(error) if store::is_deadlock(&error) => return Ok(Made::Stale),
                Err(error) => return Err(error.into()),
            }
            let clashes = store::conflicts(tx, &new, provider, &judged.rooms).await?;
            if clashes.iter().any(|clash| clash.rule == Conflict::Provider) {
                return Ok(Made::Taken);
            }
            look = store::look(tx, &new, provider, &judged.rooms).await?;
        }
        Ok(Made::NoRoom)
    }

    /// Until when the patient may answer. What is kept for long is given back while someone else can still have it.
    fn kept_until(&self, proposal: &Proposal, start: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let until = match proposal.entry {
            Some(_) => now + self.offer_ttl,
            None => (now + self.alternative_ttl).min(start - LEAST_NOTICE),
        };
        until.trunc_subsecs(0)
    }
}
