//! Stripe's objects and errors as they travel, and what each comes to.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Dispute, Event, Failure, GivenBack, NO_CODE, Payment, SavedCard};
use crate::domain::charge::Standing;
use crate::domain::refund::RefundState;

/// docs.stripe.com/api/errors. Only a refusal that the provider gives for good says that nothing happened.
pub(super) fn classify(status: StatusCode, error: &ErrorFields) -> Failure {
    let code = error.reason().unwrap_or_else(|| NO_CODE.to_owned());
    match (status, error.r#type.as_deref()) {
        (StatusCode::PAYMENT_REQUIRED, _) => Failure::Declined { code },
        (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, Some("invalid_request_error")) => {
            Failure::Refused { code }
        }
        // Among them: a key that was used with other parameters, one whose first use still runs, a key to the API that
        // is wrong, too many requests, trouble over there.
        (status, kind) => Failure::Unknown(format!("HTTP {status}, {}", kind.unwrap_or("no error type"))),
    }
}

#[derive(Deserialize)]
pub(super) struct Customer {
    pub(super) id: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// A page of a list, newest first.
#[derive(Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

/// What is listed with the metadata that it was made with.
pub(super) trait Listed {
    fn id(&self) -> &str;
    fn metadata(&self) -> &HashMap<String, String>;
}

macro_rules! listed {
    ($($kind:ident)*) => {
        $(impl Listed for $kind {
            fn id(&self) -> &str {
                &self.id
            }

            fn metadata(&self) -> &HashMap<String, String> {
                &self.metadata
            }
        })*
    };
}

listed! { Customer Intent Setup RefundObject }

#[derive(Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    status: String,
    #[serde(default)]
    amount_capturable: i64,
    #[serde(default)]
    amount_received: i64,
    client_secret: Option<String>,
    last_payment_error: Option<ErrorFields>,
    latest_charge: Option<Expandable<ChargeObject>>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// An object where expansion was asked for, else its id.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Expandable<T> {
    Object(Box<T>),
    Id(IgnoredAny),
}

impl<T> Expandable<T> {
    fn object(&self) -> Option<&T> {
        match self {
            Self::Object(object) => Some(object),
            Self::Id(_) => None,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ChargeObject {
    payment_method_details: Option<MethodDetails>,
}

#[derive(Deserialize)]
pub(super) struct MethodDetails {
    card: Option<CardDetails>,
}

#[derive(Deserialize)]
pub(super) struct CardDetails {
    capture_before: Option<i64>,
}

impl Intent {
    /// As a list tells it.
    pub(super) fn listed(self) -> super::Listed {
        let standing = self.payment().ok().map(|payment| payment.standing);
        let charge = self.metadata.get("charge_id").and_then(|id| id.parse().ok());
        super::Listed { reference: self.id, standing, charge }
    }

    pub(super) fn payment(&self) -> Result<Payment, Failure> {
        let standing = match self.status.as_str() {
            "requires_capture" => {
                Standing::Reserved { amount: self.amount_capturable, capture_before: self.capture_before() }
            }
            "requires_action" => {
                Standing::ActionRequired { client_secret: self.client_secret.clone().unwrap_or_default() }
            }
            "requires_payment_method" => {
                let code = self.last_payment_error.as_ref().and_then(ErrorFields::reason);
                Standing::Refused { code: code.unwrap_or_else(|| NO_CODE.to_owned()) }
            }
            "succeeded" => Standing::Taken { amount: self.amount_received },
            "canceled" => Standing::Released,
            // `processing` and `requires_confirmation` pass; so does whatever is invented later.
            other => return Err(Failure::Unknown(format!("the payment is {other}"))),
        };
        Ok(Payment { reference: Some(self.id.clone()), standing })
    }

    fn capture_before(&self) -> Option<DateTime<Utc>> {
        let details = self.latest_charge.as_ref()?.object()?.payment_method_details.as_ref()?;
        DateTime::from_timestamp(details.card.as_ref()?.capture_before?, 0)
    }
}

#[derive(Deserialize)]
pub(super) struct RefundObject {
    pub(super) id: String,
    amount: i64,
    status: Option<String>,
    payment_intent: Option<String>,
    charge: Option<Expandable<RefundedCharge>>,
    failure_reason: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct RefundedCharge {
    amount: i64,
    amount_captured: i64,
    amount_refunded: i64,
}

impl RefundObject {
    pub(super) fn given_back(self) -> GivenBack {
        let state = match self.status.as_deref() {
            Some("succeeded") => RefundState::Succeeded,
            Some("failed" | "canceled") => RefundState::Failed,
            // `pending` and `requires_action` pass; so does whatever is invented later.
            _ => RefundState::Pending,
        };
        // What a partial capture released counts as refunded over there.
        let real =
            |charge: &RefundedCharge| charge.amount_refunded - (charge.amount - charge.amount_captured);
        GivenBack {
            of_payment: self.charge.as_ref().and_then(Expandable::object).map(real),
            reference: self.id,
            payment: self.payment_intent,
            amount: self.amount,
            state,
            failure: self.failure_reason.unwrap_or_default(),
            key: self.metadata.get("key").cloned(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct DisputeObject {
    pub(super) id: String,
    amount: i64,
    payment_intent: Option<String>,
    status: String,
    #[serde(default)]
    balance_transactions: Vec<FundsMoved>,
}

/// Below zero = out of the account.
#[derive(Deserialize)]
pub(super) struct FundsMoved {
    amount: i64,
}

impl DisputeObject {
    pub(super) fn dispute(self) -> Dispute {
        let withdrawn = -self.balance_transactions.iter().map(|moved| moved.amount).sum::<i64>();
        let Self { id: reference, amount, payment_intent: payment, status, .. } = self;
        Dispute { reference, payment, amount, withdrawn, status }
    }
}

#[derive(Deserialize)]
pub(super) struct EventObject {
    pub(super) id: String,
    r#type: String,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: About,
}

#[derive(Deserialize)]
struct About {
    id: Option<String>,
    object: Option<String>,
    payment_intent: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl EventObject {
    pub(super) fn event(self) -> Event {
        let About { id, object, payment_intent, metadata } = self.data.object;
        let (payment, refund, dispute) = match object.as_deref() {
            Some("payment_intent") => (id, None, None),
            Some("refund") => (payment_intent, id, None),
            Some("dispute") => (payment_intent, None, id),
            _ => (payment_intent, None, None),
        };
        let charge = metadata.get("charge_id").and_then(|id| id.parse().ok());
        Event { id: self.id, kind: self.r#type, payment, refund, dispute, charge }
    }
}

#[derive(Deserialize)]
pub(super) struct Setup {
    pub(super) id: String,
    status: String,
    client_secret: Option<String>,
    payment_method: Option<Expandable<SavedMethod>>,
    last_setup_error: Option<ErrorFields>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct SavedMethod {
    id: String,
    card: Option<CardObject>,
}

#[derive(Deserialize)]
pub(super) struct CardObject {
    brand: String,
    last4: String,
    exp_month: i32,
    exp_year: i32,
}

impl Setup {
    pub(super) fn card(self) -> Result<SavedCard, Failure> {
        let client_secret = match self.status.as_str() {
            "succeeded" => None,
            "requires_action" => Some(self.client_secret.unwrap_or_default()),
            "requires_payment_method" | "canceled" => {
                let code = self.last_setup_error.as_ref().and_then(ErrorFields::reason);
                return Err(Failure::Declined { code: code.unwrap_or_else(|| NO_CODE.to_owned()) });
            }
            other => return Err(Failure::Unknown(format!("saving the card is {other}"))),
        };
        let Some(Expandable::Object(method)) = self.payment_method else {
            return Err(Failure::Unknown("the saved card is not in the answer".into()));
        };
        let Some(card) = method.card else {
            return Err(Failure::Refused { code: "payment_method_unsupported_type".into() });
        };
        Ok(SavedCard {
            provider_id: method.id,
            setup_reference: self.id,
            client_secret,
            brand: card.brand,
            last4: card.last4,
            expiry_month: card.exp_month,
            expiry_year: card.exp_year,
        })
    }
}

#[derive(Default, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorFields,
}

#[derive(Default, Deserialize)]
pub(super) struct ErrorFields {
    r#type: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    pub(super) payment_intent: Option<IntentRef>,
}

#[derive(Deserialize)]
pub(super) struct IntentRef {
    pub(super) id: String,
}

impl ErrorFields {
    /// The bank's reason when it gave one, else the provider's.
    fn reason(&self) -> Option<String> {
        self.decline_code.clone().or_else(|| self.code.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(json: serde_json::Value) -> Result<Payment, Failure> {
        serde_json::from_value::<Intent>(json).expect("an intent").payment()
    }

    #[test]
    fn an_authorization_says_until_when_it_may_be_captured() {
        let payment = intent(serde_json::json!({
            "id": "pi_1", "status": "requires_capture", "amount_capturable": 2500,
            "latest_charge": {"id": "ch_1", "payment_method_details": {"card": {"capture_before": 1_800_000_000}}},
        }));
        let capture_before = DateTime::from_timestamp(1_800_000_000, 0);
        let standing = Standing::Reserved { amount: 2500, capture_before };
        assert_eq!(payment, Ok(Payment { reference: Some("pi_1".into()), standing }));
    }

    #[test]
    fn a_status_that_passes_or_is_new_is_unknown() {
        for status in ["processing", "requires_confirmation", "something_new"] {
            let payment = intent(serde_json::json!({"id": "pi_1", "status": status}));
            assert!(matches!(payment, Err(Failure::Unknown(_))), "{status}");
        }
    }

    #[test]
    fn only_answers_for_good_say_that_nothing_happened() {
        let fields = |kind: &str| ErrorFields { r#type: Some(kind.into()), ..ErrorFields::default() };
        let unknown = [
            (400, "idempotency_error"),
            (401, "invalid_request_error"),
            (403, "invalid_request_error"),
            (409, "invalid_request_error"),
            (429, "invalid_request_error"),
            (500, "api_error"),
            (502, ""),
        ];
        for (status, kind) in unknown {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(matches!(classify(status, &fields(kind)), Failure::Unknown(_)), "{status} {kind}");
        }
        let bad = classify(StatusCode::BAD_REQUEST, &fields("invalid_request_error"));
        assert_eq!(bad, Failure::Refused { code: NO_CODE.into() });
    }

    #[test]
    fn the_banks_reason_goes_before_the_providers() {
        let error = ErrorFields {
            code: Some("card_declined".into()),
            decline_code: Some("insufficient_funds".into()),
            ..ErrorFields::default()
        };
        let declined = classify(StatusCode::PAYMENT_REQUIRED, &error);
        assert_eq!(declined, Failure::Declined { code: "insufficient_funds".into() });
    }
}
