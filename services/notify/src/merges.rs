//! What notify has of a patient whose record was merged passes to the survivor, who is then asked how to be reached.

use async_trait::async_trait;
use kit::merges;
use kit::messaging::inbox::{Handler, Incoming, Subscription};
use prost::Name as _;
use proto::clinic::patients::v1::PatientChanged;
use sqlx::PgConnection;

use crate::{NAME, store};

/// The events of patients that notify follows.
pub fn subscription() -> Subscription {
    Subscription { context: "patients", consumer: NAME, subjects: vec![PatientChanged::full_name()] }
}

/// Follows merges.
#[derive(Debug)]
pub struct Merges;

#[async_trait]
impl Handler for Merges {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        if let Some(changed) = event.decode::<PatientChanged>()?
            && let Some((merged, survivor)) = merges::told(&changed)?
        {
            merges::note(tx, merged, survivor).await?;
            store::hand_over(tx, merged).await?;
        }
        Ok(())
    }
}
