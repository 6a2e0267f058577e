//! Stripe's wire protocol (docs.stripe.com/api): setup intents, payment intents with manual capture.
//!
//! The provider in this repository's `sandbox` speaks it too, so this is what runs everywhere. An answer that came from an
//! idempotency key's memory tells the past; it is followed by a look-up of the present. That memory holds trouble too: a key whose
//! first answer was a 5xx answers nothing else for its whole life.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::PatientId;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Failure, NO_CODE, Order, Payment, PaymentGateway, SavedCard};
use crate::config::Config;
use crate::domain::charge::Standing;

/// The protocol version whose fields are read here.
const VERSION: &str = "2025-09-30.clover";
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Payments asked for in one page of a list: the provider's most.
const PAGE: &str = "100";
/// How far the provider's clock may be behind ours.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// A client of the provider.
pub struct Stripe {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Stripe {
    /// A client as `config` says; connects on first use.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        // Refused when the process has chosen its TLS provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_millis(config.payments_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the payment provider's client cannot be built")?;
        let base = config.payments_api_base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, key: config.payments_api_key.expose().to_owned() })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/v1/{path}", self.base);
        self.client.request(method, url).bearer_auth(&self.key).header("stripe-version", VERSION)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Refusal> {
        send(self.request(Method::GET, path).query(query)).await.map(|answer| answer.body)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer<T>, Refusal> {
        send(self.request(Method::POST, path).header("idempotency-key", key).form(form)).await
    }

    async fn intent(&self, id: &str) -> Result<Payment, Failure> {
        let intent: Intent = self
            .get(&format!("payment_intents/{id}"), &[("expand[]", "latest_charge")])
            .await
            .map_err(Refusal::failure)?;
        intent.payment()
    }

    /// Ends a payment one way or the other. When the provider says that it cannot, the payment's own standing says why.
    async fn end(&self, id: &str, verb: &str, key: &str, form: &[(&str, &str)]) -> Result<Payment, Failure> {
        let path = format!("payment_intents/{id}/{verb}");
        let answer = match self.post::<Intent>(&path, key, form).await {
            Err(Refusal { replayed: true, .. }) => {
                let payment = self.intent(id).await?;
                if matches!(payment.standing, Standing::Taken { .. } | Standing::Released) {
                    return Ok(payment);
                }
                // Under a key without a past. A payment ends once, whatever the keys, so this cannot act twice.
                self.post(&path, &format!("{key}-{:016x}", rand::random::<u64>()), form).await
            }
            answer => answer,
        };
        match answer {
            Ok(answer) => answer.body.payment(),
            Err(Refusal { failure: Failure::Unknown(why), .. }) => Err(Failure::Unknown(why)),
            Err(_) => self.intent(id).await,
        }
    }
}

#[async_trait]
impl PaymentGateway for Stripe {
    async fn create_customer(&self, patient: PatientId) -> Result<String, Failure> {
        let id = patient.to_string();
        let form = [("metadata[patient_id]", id.as_str())];
        let answer: Answer<Customer> =
            self.post("customers", &format!("customer-{id}"), &form).await.map_err(Refusal::failure)?;
        Ok(answer.body.id)
    }

    async fn save_card(&self, key: &str, customer: &str, token: &str) -> Result<SavedCard, Failure> {
        let form = [
            ("customer", customer),
            ("payment_method", token),
            ("payment_method_types[]", "card"),
            ("usage", "off_session"),
            ("confirm", "true"),
            ("expand[]", "payment_method"),
        ];
        let answer: Answer<Setup> = self.post("setup_intents", key, &form).await.map_err(Refusal::failure)?;
        if answer.replayed { self.look_up_card(&answer.body.id).await } else { answer.body.card() }
    }

    async fn look_up_card(&self, setup_reference: &str) -> Result<SavedCard, Failure> {
        let path = format!("setup_intents/{setup_reference}");
        let setup: Setup =
            self.get(&path, &[("expand[]", "payment_method")]).await.map_err(Refusal::failure)?;
        setup.card()
    }

    async fn authorize(&self, order: &Order) -> Result<Payment, Failure> {
        let (amount, currency) = (order.amount.to_string(), order.currency.code().to_lowercase());
        let (charge, appointment) = (order.charge.to_string(), order.appointment.to_string());
        let mut form = vec![
            ("amount", amount.as_str()),
            ("currency", &currency),
            ("customer", &order.customer),
            ("payment_method", &order.card),
            ("payment_method_types[]", "card"),
            ("capture_method", if order.at_once { "automatic" } else { "manual" }),
            ("confirm", "true"),
            ("metadata[charge_id]", &charge),
            ("metadata[appointment_id]", &appointment),
            ("metadata[key]", &order.key),
            ("expand[]", "latest_charge"),
        ];
        if order.off_session {
            form.push(("off_session", "true"));
        }
        match self.post::<Intent>("payment_intents", &order.key, &form).await {
            Ok(answer) if answer.replayed => self.intent(&answer.body.id).await,
            Ok(answer) => answer.body.payment(),
            // The intent that a declined card leaves behind can still be confirmed in a browser, so it is remembered.
            Err(Refusal { failure: Failure::Declined { .. }, payment: Some(id), replayed: true }) => {
                self.intent(&id).await
            }
            Err(Refusal {
                failure: Failure::Declined { code } | Failure::Refused { code }, payment, ..
            }) => Ok(Payment { reference: payment, standing: Standing::Refused { code } }),
            // The call is over, and its key will never say more. What it made is in the list, or was not made.
            Err(Refusal { failure: Failure::Unknown(_), replayed: true, .. }) => {
                let found = self.find(&order.customer, &order.key, order.since).await?;
                Ok(found.unwrap_or_else(Payment::never_made))
            }
            Err(Refusal { failure: Failure::Unknown(why), .. }) => Err(Failure::Unknown(why)),
        }
    }

    async fn capture(&self, key: &str, payment: &str, amount: i64) -> Result<Payment, Failure> {
        self.end(payment, "capture", key, &[("amount_to_capture", &amount.to_string())]).await
    }

    async fn cancel(&self, key: &str, payment: &str) -> Result<Payment, Failure> {
        self.end(payment, "cancel", key, &[("cancellation_reason", "abandoned")]).await
    }

    async fn look_up(&self, payment: &str) -> Result<Payment, Failure> {
        self.intent(payment).await
    }

    async fn find(
        &self,
        customer: &str,
        key: &str,
        since: DateTime<Utc>,
    ) -> Result<Option<Payment>, Failure> {
        let since = (since - SKEW).timestamp().to_string();
        let mut after: Option<String> = None;
        loop {
            let mut query = vec![
                ("customer", customer),
                ("created[gte]", since.as_str()),
                ("limit", PAGE),
                ("expand[]", "data.latest_charge"),
            ];
            if let Some(after) = &after {
                query.push(("starting_after", after));
            }
            let page: List = self.get("payment_intents", &query).await.map_err(Refusal::failure)?;
            if let Some(found) = page.data.iter().find(|i| i.metadata.get("key").is_some_and(|k| k == key)) {
                return found.payment().map(Some);
            }
            match page.data.last().filter(|_| page.has_more) {
                Some(last) => after = Some(last.id.clone()),
                None => return Ok(None),
            }
        }
    }
}

/// A good answer, and whether it is a repeat of an earlier one.
struct Answer<T> {
    body: T,
    replayed: bool,
}

/// A bad answer, with the payment it is about.
struct Refusal {
    failure: Failure,
    payment: Option<String>,
    replayed: bool,
}

impl Refusal {
    fn unknown(why: impl Into<String>) -> Self {
        Self { failure: Failure::Unknown(why.into()), payment: None, replayed: false }
    }

    fn failure(self) -> Failure {
        self.failure
    }
}

async fn send<T: DeserializeOwned>(request: RequestBuilder) -> Result<Answer<T>, Refusal> {
    // Without the address: it may hold what does not belong in a log.
    let lost =
        |error: reqwest::Error| Refusal::unknown(format!("{:?}", anyhow::Error::from(error.without_url())));
    let response = request.send().await.map_err(lost)?;
    let status = response.status();
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|v| v == "true");
    let body = response.bytes().await.map_err(lost)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map(|body| Answer { body, replayed })
            .map_err(|error| Refusal::unknown(format!("an answer that cannot be read: {error}")));
    }
    let error = serde_json::from_slice::<ErrorBody>(&body).unwrap_or_default().error;
    Err(Refusal {
        failure: classify(status, &error),
        payment: error.payment_intent.map(|intent| intent.id),
        replayed,
    })
}

/// docs.stripe.com/api/errors. Only a refusal that the provider gives for good says that nothing happened.
fn classify(status: StatusCode, error: &ErrorFields) -> Failure {
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
struct Customer {
    id: String,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Intent>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Intent {
    id: String,
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
enum Expandable<T> {
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
struct ChargeObject {
    payment_method_details: Option<MethodDetails>,
}

#[derive(Deserialize)]
struct MethodDetails {
    card: Option<CardDetails>,
}

#[derive(Deserialize)]
struct CardDetails {
    capture_before: Option<i64>,
}

impl Intent {
    fn payment(&self) -> Result<Payment, Failure> {
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
struct Setup {
    id: String,
    status: String,
    client_secret: Option<String>,
    payment_method: Option<Expandable<SavedMethod>>,
    last_setup_error: Option<ErrorFields>,
}

#[derive(Deserialize)]
struct SavedMethod {
    id: String,
    card: Option<CardObject>,
}

#[derive(Deserialize)]
struct CardObject {
    brand: String,
    last4: String,
    exp_month: i32,
    exp_year: i32,
}

impl Setup {
    fn card(self) -> Result<SavedCard, Failure> {
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
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Default, Deserialize)]
struct ErrorFields {
    r#type: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    payment_intent: Option<IntentRef>,
}

#[derive(Deserialize)]
struct IntentRef {
    id: String,
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
