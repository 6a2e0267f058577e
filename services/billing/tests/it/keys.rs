//! The adapter against a provider that fails by script: what it asks again, and under which idempotency key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use billing::Config;
use billing::domain::charge::Standing;
use billing::gateway::stripe::Stripe;
use billing::gateway::{Failure, Order, Payment, PaymentGateway as _, RefundOrder, TOO_LARGE};
use chrono::DateTime;
use kit::ids::{AppointmentId, ChargeId};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const KEY: &str = "authorize-1";

/// What the provider answers next: a status, a body, and whether it says that it only repeats itself.
type Answer = (u16, Value, bool);

#[derive(Clone, Default)]
struct Provider {
    script: Arc<Mutex<VecDeque<Answer>>>,
    /// The keys it was asked with; a list that was asked for has none.
    keys: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(provider): State<Provider>, method: Method, headers: HeaderMap) -> Response {
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    assert_eq!(key.is_some(), method == Method::POST);
    provider.keys.lock().unwrap().push(key.unwrap_or_default());
    let (status, body, replayed) =
        provider.script.lock().unwrap().pop_front().expect("no more is asked for than the script has");
    let mut response = (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response();
    if replayed {
        response.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
    }
    response
}

impl Provider {
    /// Serves on `listener`, following `script`.
    fn serve(&self, listener: TcpListener, script: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().extend(script);
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }
}

fn error(status: u16, kind: &str) -> Answer {
    (status, json!({ "error": { "type": kind, "message": "…" } }), false)
}

fn remembered(answer: Answer) -> Answer {
    (answer.0, answer.1, true)
}

fn intent(key: &str) -> Value {
    json!({ "id": "pi_1", "status": "requires_capture", "amount_capturable": 2500, "metadata": { "key": key } })
}

fn list(data: Value) -> Answer {
    (200, json!({ "object": "list", "data": data, "has_more": false }), false)
}

fn reserved() -> Payment {
    let standing = Standing::Reserved { amount: 2_500, capture_before: None };
    Payment { reference: Some("pi_1".into()), standing }
}

fn adapter(servers: &testkit::Servers, url: &str) -> Stripe {
    let config = Config {
        service: servers.service(billing::NAME),
        appointments_url: "http://127.0.0.1:9".into(),
        payments_api_base: url.to_owned(),
        payments_api_key: "sk_test".into(),
        payments_webhook_secret: "whsec_test".into(),
        payments_timeout_ms: 1_000,
        reconcile_every_secs: 0,
        currency: "USD".parse().unwrap(),
    };
    Stripe::new(&config).unwrap()
}

fn order() -> Order {
    Order {
        key: KEY.into(),
        customer: "cus_1".into(),
        card: "pm_1".into(),
        amount: 2_500,
        currency: "USD".parse().unwrap(),
        at_once: false,
        off_session: true,
        charge: ChargeId::new(),
        appointment: AppointmentId::new(),
        since: DateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn an_answer_that_says_nothing_is_asked_for_again_with_the_same_key() {
    let servers = testkit::Servers::start().await;
    let (listener, url) = testkit::listener().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (gateway, order) = (adapter(&servers, &url), order());
    // Nobody listens: lost before it was sent.
    assert!(matches!(gateway.authorize(&order).await, Err(Failure::Unknown(_))));

    let provider = Provider::default();
    let unknown = [
        error(409, "invalid_request_error"),
        error(429, "invalid_request_error"),
        error(500, "api_error"),
        error(502, ""),
        (503, Value::Null, false),
        error(400, "idempotency_error"),
        (200, json!("half an ans"), false),
    ];
    let asked = unknown.len();
    provider.serve(
        TcpListener::bind(address).await.unwrap(),
        unknown.into_iter().chain([(200, intent(KEY), false)]),
    );
    for _ in 0..asked {
        assert!(matches!(gateway.authorize(&order).await, Err(Failure::Unknown(_))));
    }
    assert_eq!(gateway.authorize(&order).await, Ok(reserved()));
    assert_eq!(provider.keys(), vec![KEY; asked + 1]);
}

#[tokio::test]
async fn a_key_that_remembers_trouble_gives_way_to_the_next_only_when_it_made_nothing() {
    let servers = testkit::Servers::start().await;
    let trouble = || remembered(error(500, "api_error"));
    let other = intent("authorize-0");

    let (listener, url) = testkit::listener().await;
    let (gateway, provider) = (adapter(&servers, &url), Provider::default());
    provider.serve(listener, [trouble(), list(json!([other, intent(KEY)]))]);
    assert_eq!(gateway.authorize(&order()).await, Ok(reserved()));
    assert_eq!(provider.keys(), [KEY, ""]);

    let (listener, url) = testkit::listener().await;
    let (gateway, provider) = (adapter(&servers, &url), Provider::default());
    let unlisted = [trouble(), list(json!([other])), trouble(), error(500, "api_error")];
    provider.serve(listener, unlisted);
    // The list is not to be had, so nothing is certain.
    assert!(matches!(gateway.authorize(&order()).await, Err(Failure::Unknown(_))));
    assert_eq!(provider.keys(), [KEY, "", "authorize-1-2", ""]);

    let (listener, url) = testkit::listener().await;
    let (gateway, provider) = (adapter(&servers, &url), Provider::default());
    provider.serve(listener, [trouble(), list(json!([])), (200, intent(KEY), false)]);
    assert_eq!(gateway.authorize(&order()).await, Ok(reserved()));
    assert_eq!(provider.keys(), [KEY, "", "authorize-1-2"]);
}

#[tokio::test]
async fn trouble_under_ten_keys_is_no_refusal_and_not_asked_for_more() {
    const KEYS: usize = 10;
    let servers = testkit::Servers::start().await;
    let (listener, url) = testkit::listener().await;
    let (gateway, provider) = (adapter(&servers, &url), Provider::default());
    provider.serve(listener, (0..KEYS).flat_map(|_| [remembered(error(500, "api_error")), list(json!([]))]));
    assert!(matches!(gateway.authorize(&order()).await, Err(Failure::Unknown(_))));
    assert_eq!(provider.keys().len(), 2 * KEYS);
}

#[tokio::test]
async fn more_than_there_is_is_refused_before_the_provider_is_asked() {
    let servers = testkit::Servers::start().await;
    // Nobody listens there: whoever asks learns nothing.
    let (listener, url) = testkit::listener().await;
    drop(listener);
    let provider = adapter(&servers, &url);
    for (amount, there) in
        [(2_501, 2_500), (0, 2_500), (-1, 2_500), (1, 0), (i64::MAX, 2_500), (i64::MIN, 2_500)]
    {
        let refused = Err(Failure::Refused { code: TOO_LARGE.to_owned() });
        assert_eq!(provider.capture(KEY, "pi_1", amount, there).await, refused, "{amount}");
        let order = RefundOrder {
            key: KEY.into(),
            payment: "pi_1".into(),
            amount,
            left: there,
            charge: ChargeId::new(),
        };
        let refused = Err(Failure::Refused { code: TOO_LARGE.to_owned() });
        assert_eq!(provider.refund(&order).await, refused, "{amount}");
    }
    assert!(matches!(provider.capture(KEY, "pi_1", 2_500, 2_500).await, Err(Failure::Unknown(_))));
}
