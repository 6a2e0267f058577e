//! What wakes the workers of this process when something was committed that is due at once. What other replicas commit, and what a
//! bell missed, they find by polling.

use proto::clinic::notify::v1::MessageKind;
use tokio::sync::Notify;

/// One bell for each worker that may have something to do.
#[derive(Debug, Default)]
pub struct Bells {
    /// Offers wait to be told.
    pub offers: Notify,
    /// Other news wait to be told.
    pub news: Notify,
    /// Reminders are near.
    pub reminders: Notify,
}

impl Bells {
    /// Rings for a notice of this kind.
    pub fn ring(&self, kind: MessageKind) {
        match kind {
            MessageKind::WaitlistOffer => self.offers.notify_one(),
            _ => self.news.notify_one(),
        }
    }
}
