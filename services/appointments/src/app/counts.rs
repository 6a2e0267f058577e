//! Counts for those who watch over the service, on its `/metrics`. Every replica tells the same, as of its last look.

use std::time::Duration;

use super::App;
use crate::error::Error;
use crate::store;

/// How often it is counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

impl App {
    /// Counts now and then, until told to stop.
    pub(super) async fn keep_counting(&self) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.count().await {
                tracing::debug!(%error, "nothing could be counted this time");
            }
            tokio::select! {
                () = tokio::time::sleep(COUNT_EVERY) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn count(&self) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let counts = store::counts(&mut conn).await?;
        for (name, count) in [
            ("appointments_displaced", counts.displaced),
            ("appointments_on_work_list", counts.on_work_list),
            ("waitlist_entries_open", counts.waiting),
            ("waitlist_offers_open", counts.offers),
            ("alternatives_held", counts.alternatives),
        ] {
            metrics::gauge!(name).set(count as f64);
        }
        Ok(())
    }
}
