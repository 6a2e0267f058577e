//! Keys that come: what stands in plain text is sealed at the start, what older keys sealed is sealed anew in the background.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;
use crate::store::sealed::{self, Which};

/// Patients sealed in one transaction: others wait for their rows no longer than that.
const BATCH: i64 = 500;
/// How often the file of the keys is read again, and rows of older keys are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// Seals what an earlier release left in plain text; until then it could not be found by phone or MRN.
    pub async fn seal_plain(&self) -> anyhow::Result<()> {
        let sealed = self.reseal(Which::Plain).await?;
        if sealed > 0 {
            tracing::info!(patients = sealed, "contact data that stood in plain text is sealed");
        }
        Ok(())
    }

    /// Reads the keys again and seals everything with the newest; answers how many patients were. Others go on reading and writing
    /// meanwhile.
    pub async fn rotate(&self) -> anyhow::Result<usize> {
        self.keys.refresh()?;
        let mut tx = self.db.begin().await?;
        sealed::check(&mut tx, &self.keys).await?;
        tx.commit().await?;
        self.reseal_answers().await?;
        self.reseal(Which::Older).await
    }

    /// Rotates whenever a key was added, until `stop`.
    pub async fn follow_keys(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match stop.run_until_cancelled(self.rotate()).await {
                Some(Ok(0)) | None => {}
                Some(Ok(patients)) => {
                    tracing::info!(patients, "patient data is sealed with the newest key");
                }
                Some(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "patient data cannot be sealed anew");
                }
            }
        }
    }

    async fn reseal(&self, which: Which) -> anyhow::Result<usize> {
        let mut all = 0;
        loop {
            let mut tx = self.db.begin().await?;
            let sealed = sealed::reseal(&mut tx, &self.keys, which, BATCH).await?;
            tx.commit().await?;
            all += sealed;
            if sealed == 0 {
                return Ok(all);
            }
        }
    }
}
