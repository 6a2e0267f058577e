//! The payment provider as billing needs it, and what can come of asking it. One adapter: [`stripe`], with its `objects`.

mod objects;
pub mod stripe;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ChargeId, PatientId};

use crate::domain::charge::Standing;
use crate::domain::money::Currency;
use crate::domain::refund::RefundState;

/// Where cards are kept and charged. Every call that changes something carries an idempotency key: repeated with the same key
/// and parameters within [`KEY_LIFE_HOURS`] it acts once.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait PaymentGateway: Send + Sync + 'static {
    /// Makes the provider's record of a patient; answers its id. One per patient and key life.
    async fn create_customer(&self, patient: PatientId) -> Result<String, Failure>;

    /// Puts the card behind the single-use `token` on file for `customer`.
    async fn save_card(&self, key: &str, customer: &str, token: &str) -> Result<SavedCard, Failure>;

    /// How saving a card went in the meantime, by [`SavedCard::setup_reference`].
    async fn look_up_card(&self, setup_reference: &str) -> Result<SavedCard, Failure>;

    /// Reserves an amount on a card, or takes it at once. A card that says no is an answer, not a failure.
    async fn authorize(&self, order: &Order) -> Result<Payment, Failure>;

    /// Takes `amount` of what a payment has `reserved` and releases the rest; answers how the payment then stands. More than is
    /// reserved is refused without asking.
    async fn capture(&self, key: &str, payment: &str, amount: i64, reserved: i64)
    -> Result<Payment, Failure>;

    /// Releases a reservation, or ends a payment that never got one; answers how the payment then stands.
    async fn cancel(&self, key: &str, payment: &str) -> Result<Payment, Failure>;

    /// How a payment stands.
    async fn look_up(&self, payment: &str) -> Result<Payment, Failure>;

    /// The payment that `key` made for `customer` at or after `since`, if there is one.
    async fn find(&self, customer: &str, key: &str, since: DateTime<Utc>)
    -> Result<Option<Payment>, Failure>;

    /// Gives money back. More than the payment took and has left is refused without asking.
    async fn refund(&self, order: &RefundOrder) -> Result<GivenBack, Failure>;

    /// How a refund stands.
    async fn look_up_refund(&self, reference: &str) -> Result<GivenBack, Failure>;

    /// The refund of `payment` that `key` made, if there is one.
    async fn find_refund(&self, payment: &str, key: &str) -> Result<Option<GivenBack>, Failure>;

    /// A page of the payments made in a time, newest first, after the one named `after`.
    async fn payments(&self, span: Span, after: Option<String>) -> Result<Page<Listed>, Failure>;

    /// A page of the refunds made in a time, newest first, after the one named `after`.
    async fn refunds(&self, span: Span, after: Option<String>) -> Result<Page<GivenBack>, Failure>;

    /// How a dispute stands.
    async fn look_up_dispute(&self, reference: &str) -> Result<Dispute, Failure>;

    /// A page of the disputes opened in a time, newest first, after the one named `after`.
    async fn disputes(&self, span: Span, after: Option<String>) -> Result<Page<Dispute>, Failure>;

    /// A page of the events of a time, newest first, after the one named `after`: those that webhooks should have brought.
    async fn events(&self, span: Span, after: Option<String>) -> Result<Page<Event>, Failure>;
}

/// Hours after which a key no longer protects from acting twice (docs.stripe.com/api/idempotent_requests).
pub const KEY_LIFE_HOURS: i64 = 24;

/// One payment asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Idempotency key; the payment remembers it, see [`PaymentGateway::find`].
    pub key: String,
    /// The provider's customer.
    pub customer: String,
    /// The provider's card.
    pub card: String,
    /// Minor units.
    pub amount: i64,
    /// Of the amount.
    pub currency: Currency,
    /// Taken at once, instead of reserved to be captured later.
    pub at_once: bool,
    /// The patient is not there to confirm.
    pub off_session: bool,
    /// Kept with the payment, for people and for reconciliation.
    pub charge: ChargeId,
    /// Kept with the payment.
    pub appointment: AppointmentId,
    /// When it was asked for first: no payment of `key` is older.
    pub since: DateTime<Utc>,
}

/// A time, from its start to before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub from: DateTime<Utc>,
    /// First instant after.
    pub until: DateTime<Utc>,
}

/// A page of one of the provider's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// After which the next page begins; `None` = this is the last.
    pub next: Option<String>,
}

/// One refund asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundOrder {
    /// Idempotency key; the refund remembers it, see [`PaymentGateway::find_refund`].
    pub key: String,
    /// The provider's payment.
    pub payment: String,
    /// Minor units.
    pub amount: i64,
    /// What the payment took and has left, this refund not deducted.
    pub left: i64,
    /// Kept with the refund, for people and for reconciliation.
    pub charge: ChargeId,
}

/// A refund at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// The provider's id.
    pub reference: String,
    /// The provider's payment.
    pub payment: Option<String>,
    /// Minor units.
    pub amount: i64,
    /// How far it is.
    pub state: RefundState,
    /// Why it failed; empty = it did not.
    pub failure: String,
    /// The key it was asked for with; `None` = by someone else.
    pub key: Option<String>,
    /// What its payment has given back in all, where the provider says so. What a capture released is no part of it.
    pub of_payment: Option<i64>,
}

/// A payment in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The provider's id.
    pub reference: String,
    /// How it stands; `None` = that passes.
    pub standing: Option<Standing>,
    /// The charge that it was made for, as it says itself.
    pub charge: Option<ChargeId>,
}

/// A payment that a bank takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// The provider's id.
    pub reference: String,
    /// The provider's payment.
    pub payment: Option<String>,
    /// What the bank asks back, minor units.
    pub amount: i64,
    /// What it has withdrawn from the provider's account and not reinstated, minor units; the provider's own fee is no part of it.
    pub withdrawn: i64,
    /// In the provider's words, such as `needs_response`, `won`, `lost`.
    pub status: String,
}

/// What the provider tells of its own accord: a hint that something is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The provider's id.
    pub id: String,
    /// Such as `payment_intent.succeeded`.
    pub kind: String,
    /// The payment it is about.
    pub payment: Option<String>,
    /// The refund it is about.
    pub refund: Option<String>,
    /// The dispute it is about.
    pub dispute: Option<String>,
    /// The charge that the payment it is about says it was made for.
    pub charge: Option<ChargeId>,
}

impl Event {
    /// Longest id or kind that is kept.
    const MOST: usize = 255;

    /// Reads a delivery; `None` = that is no event.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let event: objects::EventObject = serde_json::from_slice(body).ok()?;
        let fits = |text: &String| text.len() <= Self::MOST;
        let event = event.event();
        let about = [&event.payment, &event.refund, &event.dispute].into_iter().flatten();
        let fit = about.chain([&event.id, &event.kind]).all(fits);
        fit.then_some(event)
    }
}

/// A payment at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The provider's id; `None` = it was refused before it became one.
    pub reference: Option<String>,
    /// How it stands.
    pub standing: Standing,
}

impl Payment {
    /// What an order came to that is known to have made no payment.
    pub fn never_made() -> Self {
        Self { reference: None, standing: Standing::Refused { code: NO_CODE.to_owned() } }
    }
}

/// The code of a request for something that does not exist.
pub const MISSING: &str = "resource_missing";

/// The code of a request for more than there is.
pub const TOO_LARGE: &str = "amount_too_large";

/// The code of a refusal that names none.
const NO_CODE: &str = "processing_error";

/// A card on file at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedCard {
    /// The provider's id.
    pub provider_id: String,
    /// The provider's record of saving it.
    pub setup_reference: String,
    /// Present while the patient is to confirm: the secret for the provider's page element.
    pub client_secret: Option<String>,
    /// Lower case.
    pub brand: String,
    /// Last four digits.
    pub last4: String,
    /// 1 to 12.
    pub expiry_month: i32,
    /// Four digits.
    pub expiry_year: i32,
}

/// Why there is no answer to go by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer, or one that says nothing: it may have happened or not. Ask again with the same key.
    #[error("the payment provider's answer is unknown: {0}")]
    Unknown(String),
    /// The card's bank said no.
    #[error("the card was declined: {code}")]
    Declined {
        /// Why, in the provider's words.
        code: String,
    },
    /// The provider refuses the request as it stands; nothing happened.
    #[error("the payment provider refuses the request: {code}")]
    Refused {
        /// Why, in the provider's words.
        code: String,
    },
}
