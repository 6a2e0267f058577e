//! The payment provider's objects, field for field as they travel. What a name means is in the provider's own
//! reference (docs.stripe.com/api); comments here mark only what this provider does in its own way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) type Metadata = BTreeMap<String, String>;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PaymentMethod {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) r#type: String,
    pub(crate) card: Card,
    pub(crate) customer: Option<String>,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
}

/// A card as callers see it; its last four digits say which test card it is, and so how it behaves.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) brand: String,
    pub(crate) last4: String,
    pub(crate) exp_month: u32,
    pub(crate) exp_year: i32,
    pub(crate) funding: String,
    /// On a charge's card: until when it can be captured, seconds since 1970. Absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capture_before: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    RequiresCapture,
    Canceled,
    Succeeded,
}

impl IntentStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::RequiresCapture => "requires_capture",
            Self::Canceled => "canceled",
            Self::Succeeded => "succeeded",
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PaymentIntent {
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) amount_capturable: i64,
    pub(crate) amount_received: i64,
    pub(crate) canceled_at: Option<i64>,
    pub(crate) cancellation_reason: Option<String>,
    pub(crate) capture_method: String,
    pub(crate) client_secret: String,
    pub(crate) confirmation_method: String,
    pub(crate) created: i64,
    pub(crate) currency: String,
    pub(crate) customer: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) last_payment_error: Option<Value>,
    pub(crate) latest_charge: Option<String>,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
    pub(crate) next_action: Option<Value>,
    pub(crate) payment_method: Option<String>,
    pub(crate) payment_method_types: Vec<String>,
    pub(crate) setup_future_usage: Option<String>,
    pub(crate) status: IntentStatus,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SetupIntent {
    pub(crate) id: String,
    pub(crate) cancellation_reason: Option<String>,
    pub(crate) client_secret: String,
    pub(crate) created: i64,
    pub(crate) customer: Option<String>,
    pub(crate) last_setup_error: Option<Value>,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
    pub(crate) next_action: Option<Value>,
    pub(crate) payment_method: Option<String>,
    pub(crate) payment_method_types: Vec<String>,
    pub(crate) status: IntentStatus,
    pub(crate) usage: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) amount_captured: i64,
    /// Includes what a partial capture or a cancellation released, as at the real provider.
    pub(crate) amount_refunded: i64,
    pub(crate) captured: bool,
    pub(crate) created: i64,
    pub(crate) currency: String,
    pub(crate) customer: Option<String>,
    #[serde(default)]
    pub(crate) disputed: bool,
    pub(crate) failure_code: Option<String>,
    pub(crate) failure_message: Option<String>,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
    pub(crate) paid: bool,
    pub(crate) payment_intent: String,
    pub(crate) payment_method: String,
    pub(crate) payment_method_details: PaymentMethodDetails,
    pub(crate) refunded: bool,
    pub(crate) status: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PaymentMethodDetails {
    pub(crate) r#type: String,
    pub(crate) card: Card,
}

impl Charge {
    /// The authorization this charge keeps open: when it lapses, and whose it is.
    pub(crate) fn hold(&self) -> Option<(i64, String)> {
        let open = self.paid && !self.captured && !self.refunded;
        let until = self.payment_method_details.card.capture_before.filter(|_| open)?;
        Some((until, self.payment_intent.clone()))
    }

    /// Gives `amount` of the captured or authorized money back to the card.
    pub(crate) fn release(&mut self, amount: i64) {
        self.amount_refunded += amount;
        self.refunded = self.amount_refunded == self.amount;
    }

    /// Undoes a `release` that the card's bank refused.
    pub(crate) fn take_back(&mut self, amount: i64) {
        self.amount_refunded -= amount;
        self.refunded = false;
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) charge: String,
    pub(crate) created: i64,
    pub(crate) currency: String,
    #[serde(default)]
    pub(crate) destination_details: Destination,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure_reason: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) payment_intent: String,
    pub(crate) reason: Option<String>,
    pub(crate) status: RefundStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Pending,
    Succeeded,
    Failed,
}

/// Where a refund goes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Destination {
    pub(crate) r#type: String,
    pub(crate) card: RefundedCard,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RefundedCard {
    pub(crate) reference_status: Reference,
    pub(crate) r#type: String,
}

impl Default for Destination {
    /// A card whose bank took the money back at once.
    fn default() -> Self {
        let card = RefundedCard { reference_status: Reference::Available, r#type: "refund".into() };
        Self { r#type: "card".into(), card }
    }
}

/// Whether the card's bank has said how the refund went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reference {
    Pending,
    Available,
    Unavailable,
}

impl Refund {
    /// How long a refund that its bank answers late waits for the answer: an hour.
    const BANK_SECS: i64 = 60 * 60;

    /// When the bank will have answered; `None` = it has.
    pub(crate) fn answered(&self) -> Option<i64> {
        let pending = self.destination_details.card.reference_status == Reference::Pending;
        pending.then_some(self.created + Self::BANK_SECS)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DisputeStatus {
    NeedsResponse,
    Won,
    Lost,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Dispute {
    pub(crate) id: String,
    pub(crate) amount: i64,
    /// What it took out of the merchant's balance, and what it put back.
    #[serde(default)]
    pub(crate) balance_transactions: Vec<BalanceTransaction>,
    pub(crate) charge: String,
    pub(crate) created: i64,
    pub(crate) currency: String,
    pub(crate) is_charge_refundable: bool,
    pub(crate) livemode: bool,
    pub(crate) metadata: Metadata,
    pub(crate) payment_intent: String,
    pub(crate) reason: String,
    pub(crate) status: DisputeStatus,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct BalanceTransaction {
    pub(crate) id: String,
    pub(crate) object: String,
    /// Below zero = out of the balance; the provider's own fee not counted.
    pub(crate) amount: i64,
    pub(crate) created: i64,
    pub(crate) currency: String,
    pub(crate) fee: i64,
    pub(crate) net: i64,
    pub(crate) reporting_category: String,
    pub(crate) source: String,
    pub(crate) r#type: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) api_version: String,
    pub(crate) created: i64,
    pub(crate) data: EventData,
    pub(crate) livemode: bool,
    pub(crate) pending_webhooks: u32,
    pub(crate) request: EventRequest,
    pub(crate) r#type: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EventData {
    /// The object as it was when the event happened.
    pub(crate) object: Value,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EventRequest {
    pub(crate) id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}
