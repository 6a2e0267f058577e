//! Who opted out at the provider, told to patients: the provider hears STOP first, and refuses the next text.

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use proto::clinic::patients::v1::SmsConsentSource;

use super::ports::Wish;
use super::worker::{BATCH, Replies, TEND};
use crate::dispatch::backoff;
use crate::handover::LEASE;
use crate::store::opt_out::{self, Refused};

impl Replies {
    /// Tells patients of one batch.
    pub(super) async fn tell_withdrawn(&self) -> sqlx::Result<()> {
        let claimed = opt_out::claim_refused(self.db.pool(), BATCH, LEASE).await?;
        stream::iter(claimed).for_each_concurrent(None, |refused| self.tell(refused)).await;
        Ok(())
    }

    async fn tell(&self, refused: Refused) {
        let told = tokio::time::timeout(TEND, self.try_tell(&refused)).await;
        let wait = match told.context("it took too long").and_then(|told| told) {
            Ok(()) => None,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(message = %refused.message, error, "patients has not heard of a withdrawal yet");
                Some(backoff(refused.tries))
            }
        };
        if let Err(error) = opt_out::tell_again(self.db.pool(), &refused, wait).await {
            // The lease ends by itself, and telling it twice changes nothing.
            tracing::debug!(%error, "the next try could not be written down");
        }
    }

    async fn try_tell(&self, refused: &Refused) -> anyhow::Result<()> {
        let Some(patient) = refused.patient else { return Ok(()) };
        let wish = Wish {
            granted: false,
            wording: format!("The SMS provider refused a text: {}, the number has opted out.", refused.code),
            source: SmsConsentSource::Carrier,
            at: refused.at,
            request: refused.message.uuid(),
        };
        self.partners.holders.decide(patient, &wish).await
    }
}
