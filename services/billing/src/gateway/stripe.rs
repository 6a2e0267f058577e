//! Stripe's wire protocol (docs.stripe.com/api): setup intents, payment intents with manual capture.
//!
//! The provider in this repository's `sandbox` speaks it too, so this is what runs everywhere. An answer that came from an
//! idempotency key's memory tells the past; it is followed by a look-up of the present. That memory holds trouble too: a key whose
//! first answer was a 5xx answers nothing else for its whole life. That call is over, so what it made can be looked up, and when it
//! made nothing, the next key in a fixed order is asked with. Any other answer that says nothing is asked for with the same key.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::PatientId;
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;

use super::objects::{
    Customer, DisputeObject, ErrorBody, EventObject, Intent, List, Listed, RefundObject, Setup, classify,
};
use super::{
    Dispute, Event, Failure, GivenBack, Order, Page, Payment, PaymentGateway, RefundOrder, SavedCard, Span,
    TOO_LARGE,
};
use crate::config::Config;
use crate::domain::charge::Standing;

/// The protocol version whose fields are read here.
const VERSION: &str = "2025-09-30.clover";
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Payments asked for in one page of a list: the provider's most.
const PAGE: &str = "100";
/// Keys tried in a row, each after the one before is known to remember trouble and to have made nothing.
const KEYS: u32 = 10;
/// How far the provider's clock may be behind ours.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// The events that say something of payments, refunds and disputes (docs.stripe.com/api/events/types): a list of events takes up to 20.
/// An endpoint enabled for these alone tells all that is used.
pub const EVENTS: [&str; 14] = [
    "payment_intent.amount_capturable_updated",
    "payment_intent.payment_failed",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_intent.canceled",
    "charge.expired",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refund.updated",
    "charge.dispute.created",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "charge.dispute.closed",
];

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

    /// Makes something under `key`, or under one that follows it. What a call that ended in trouble has made is found by its
    /// metadata in the list that `query` asks for; `None` = it need not be found.
    async fn make<T: DeserializeOwned + Listed>(
        &self,
        path: &str,
        key: &str,
        form: &[(&str, &str)],
        query: Option<&[(&str, &str)]>,
    ) -> Result<Answer<T>, Refusal> {
        for number in 1..=KEYS {
            let next = if number == 1 { key.to_owned() } else { format!("{key}-{number}") };
            let answer = self.post(path, &next, form).await;
            if !matches!(answer, Err(Refusal { failure: Failure::Unknown(_), replayed: true, .. })) {
                return answer;
            }
            let made = match query {
                Some(query) => self.listed(path, query, key).await.map_err(Refusal::of)?,
                None => None,
            };
            if let Some(body) = made {
                return Ok(Answer { body, replayed: false });
            }
            tracing::warn!(path, number, "a key remembers the provider's trouble; the next one is used");
        }
        Err(Refusal::unknown(format!("{KEYS} keys remember trouble at {path}")))
    }

    /// The newest of a list whose metadata names `key`.
    async fn listed<T: DeserializeOwned + Listed>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        key: &str,
    ) -> Result<Option<T>, Failure> {
        let mut after: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            query.extend(after.as_deref().map(|after| ("starting_after", after)));
            let mut page: List<T> = self.get(path, &query).await.map_err(Refusal::failure)?;
            let named = |it: &T| it.metadata().get("key").is_some_and(|known| known == key);
            if let Some(at) = page.data.iter().position(named) {
                return Ok(Some(page.data.swap_remove(at)));
            }
            match page.data.last().filter(|_| page.has_more) {
                Some(last) => after = Some(last.id().to_owned()),
                None => return Ok(None),
            }
        }
    }

    /// A page of a list of what was made in a time, each as `read` reads it.
    async fn page<T: DeserializeOwned, U>(
        &self,
        path: &str,
        span: Span,
        after: Option<String>,
        more: &[(&str, &str)],
        id: fn(&T) -> &str,
        read: fn(T) -> U,
    ) -> Result<Page<U>, Failure> {
        // The provider counts whole seconds: the one that the time ends in is a part of it.
        let (from, until) = (span.from.timestamp().to_string(), (span.until.timestamp() + 1).to_string());
        let mut query = vec![("created[gte]", from.as_str()), ("created[lt]", &until), ("limit", PAGE)];
        query.extend_from_slice(more);
        query.extend(after.as_deref().map(|after| ("starting_after", after)));
        let page: List<T> = self.get(path, &query).await.map_err(Refusal::failure)?;
        let next = page.data.last().filter(|_| page.has_more).map(|last| id(last).to_owned());
        Ok(Page { items: page.data.into_iter().map(read).collect(), next })
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
        // A record that a broken call may have left behind has no card and does nothing, so it need not be found.
        let answer: Result<Answer<Customer>, Refusal> =
            self.make("customers", &format!("customer-{id}"), &form, None).await;
        Ok(answer.map_err(Refusal::failure)?.body.id)
    }

    async fn save_card(&self, key: &str, customer: &str, token: &str) -> Result<SavedCard, Failure> {
        let form = [
            ("customer", customer),
            ("payment_method", token),
            ("payment_method_types[]", "card"),
            ("usage", "off_session"),
            ("confirm", "true"),
            ("metadata[key]", key),
            ("expand[]", "payment_method"),
        ];
        let query = [("customer", customer), ("expand[]", "data.payment_method")];
        let answer: Answer<Setup> =
            self.make("setup_intents", key, &form, Some(&query)).await.map_err(Refusal::failure)?;
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
        let since = created_since(order.since);
        let query = made_for(&order.customer, &since);
        match self.make::<Intent>("payment_intents", &order.key, &form, Some(&query)).await {
            Ok(answer) if answer.replayed => self.intent(&answer.body.id).await,
            Ok(answer) => answer.body.payment(),
            // The intent that a declined card leaves behind can still be confirmed in a browser, so it is remembered.
            Err(Refusal { failure: Failure::Declined { code }, payment: Some(id), replayed: true }) => {
                let now = self.intent(&id).await?;
                let ended = now.standing == Standing::Released;
                Ok(if ended { Payment { standing: Standing::Refused { code }, ..now } } else { now })
            }
            Err(Refusal {
                failure: Failure::Declined { code } | Failure::Refused { code }, payment, ..
            }) => Ok(Payment { reference: payment, standing: Standing::Refused { code } }),
            Err(Refusal { failure: Failure::Unknown(why), .. }) => Err(Failure::Unknown(why)),
        }
    }

    async fn capture(
        &self,
        key: &str,
        payment: &str,
        amount: i64,
        reserved: i64,
    ) -> Result<Payment, Failure> {
        within(amount, reserved)?;
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
        let since = created_since(since);
        let found: Option<Intent> = self.listed("payment_intents", &made_for(customer, &since), key).await?;
        found.map(|intent| intent.payment()).transpose()
    }

    async fn refund(&self, order: &RefundOrder) -> Result<GivenBack, Failure> {
        within(order.amount, order.left)?;
        let (amount, charge) = (order.amount.to_string(), order.charge.to_string());
        let form = [
            ("payment_intent", order.payment.as_str()),
            ("amount", &amount),
            ("metadata[charge_id]", &charge),
            ("metadata[key]", &order.key),
            ("expand[]", "charge"),
        ];
        let query = refunds_of(&order.payment);
        let answer: Answer<RefundObject> =
            self.make("refunds", &order.key, &form, Some(&query)).await.map_err(Refusal::failure)?;
        if answer.replayed {
            self.look_up_refund(&answer.body.id).await
        } else {
            Ok(answer.body.given_back())
        }
    }

    async fn look_up_refund(&self, reference: &str) -> Result<GivenBack, Failure> {
        let refund: RefundObject = self
            .get(&format!("refunds/{reference}"), &[("expand[]", "charge")])
            .await
            .map_err(Refusal::failure)?;
        Ok(refund.given_back())
    }

    async fn find_refund(&self, payment: &str, key: &str) -> Result<Option<GivenBack>, Failure> {
        let found: Option<RefundObject> = self.listed("refunds", &refunds_of(payment), key).await?;
        Ok(found.map(RefundObject::given_back))
    }

    async fn payments(&self, span: Span, after: Option<String>) -> Result<Page<super::Listed>, Failure> {
        let with = [("expand[]", "data.latest_charge")];
        self.page("payment_intents", span, after, &with, |it: &Intent| &it.id, Intent::listed).await
    }

    async fn refunds(&self, span: Span, after: Option<String>) -> Result<Page<GivenBack>, Failure> {
        let with = [("expand[]", "data.charge")];
        self.page("refunds", span, after, &with, |it: &RefundObject| &it.id, RefundObject::given_back).await
    }

    async fn look_up_dispute(&self, reference: &str) -> Result<Dispute, Failure> {
        let dispute: DisputeObject =
            self.get(&format!("disputes/{reference}"), &[]).await.map_err(Refusal::failure)?;
        Ok(dispute.dispute())
    }

    async fn disputes(&self, span: Span, after: Option<String>) -> Result<Page<Dispute>, Failure> {
        self.page("disputes", span, after, &[], |it: &DisputeObject| &it.id, DisputeObject::dispute).await
    }

    async fn events(&self, span: Span, after: Option<String>) -> Result<Page<Event>, Failure> {
        let kinds = EVENTS.map(|kind| ("types[]", kind));
        self.page("events", span, after, &kinds, |it: &EventObject| &it.id, EventObject::event).await
    }
}

/// Refuses an amount that is none, or more than there is.
fn within(amount: i64, most: i64) -> Result<(), Failure> {
    if (1..=most).contains(&amount) { Ok(()) } else { Err(Failure::Refused { code: TOO_LARGE.to_owned() }) }
}

/// Asks for a payment's refunds.
fn refunds_of(payment: &str) -> [(&str, &str); 2] {
    [("payment_intent", payment), ("expand[]", "data.charge")]
}

fn created_since(since: DateTime<Utc>) -> String {
    (since - SKEW).timestamp().to_string()
}

/// Asks for a customer's payments.
fn made_for<'a>(customer: &'a str, since: &'a str) -> [(&'a str, &'a str); 3] {
    [("customer", customer), ("created[gte]", since), ("expand[]", "data.latest_charge")]
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
        Self::of(Failure::Unknown(why.into()))
    }

    fn of(failure: Failure) -> Self {
        Self { failure, payment: None, replayed: false }
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
