//! Cards on file.

use chrono::{DateTime, Datelike as _, Utc};
use kit::ids::{PatientId, PaymentMethodId};

/// Cards one patient may have.
pub const MOST_PER_PATIENT: usize = 20;

/// A patient's card, kept at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Ours.
    pub id: PaymentMethodId,
    /// Whose.
    pub patient: PatientId,
    /// The provider's name for it.
    pub provider_id: String,
    /// The provider's record of saving it.
    pub setup_reference: String,
    /// The bank does not wait for the patient's confirmation (any more).
    pub confirmed: bool,
    /// Lower case, as the provider names it.
    pub brand: String,
    /// Last four digits.
    pub last4: String,
    /// 1 to 12.
    pub expiry_month: i32,
    /// Four digits.
    pub expiry_year: i32,
    /// Charged when a call names no card.
    pub is_default: bool,
    /// When saved.
    pub created_at: DateTime<Utc>,
}

impl Card {
    /// Whether its last month is over.
    pub fn expired(&self, now: DateTime<Utc>) -> bool {
        (now.year(), now.month() as i32) > (self.expiry_year, self.expiry_month)
    }
}
