//! What the payment provider tells of its own accord (docs.stripe.com/webhooks).
//!
//! A delivery is believed only so far as its signature goes, and even then only as a hint: it is remembered by its id and the
//! charge it is about is looked up. So late, repeated and shuffled deliveries end in the same state.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use crate::app::App;
use crate::config::Secret;
use crate::domain::charge::State;
use crate::store::{charges, webhooks};

/// The largest delivery that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// How old, or how far ahead, a signature may be, in seconds.
const TOLERANCE_SECS: i64 = 300;
/// Longest provider id that is kept.
const MAX_ID: usize = 255;

/// The route, for the service's port.
pub fn router(app: App, secret: Secret) -> Router {
    Router::new()
        .route("/webhooks/payments", post(receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state((app, secret))
}

/// Why a delivery is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No signature, or one that cannot be read.
    #[error("the signature header is missing or malformed")]
    Malformed,
    /// Signed too long ago, or for a time to come.
    #[error("the signature is too old or too new")]
    Stale,
    /// None of the signatures is right.
    #[error("no signature matches")]
    Mismatch,
}

/// Checks a `Stripe-Signature` header (`t=…,v1=…,v1=…`) over the raw body: any one `v1` of HMAC-SHA256 over `t.body` within
/// [`TOLERANCE_SECS`] will do, compared in constant time.
pub fn verify(secret: &Secret, header: &str, body: &[u8], now: DateTime<Utc>) -> Result<(), Refusal> {
    let mut at = None;
    let mut signatures = vec![];
    for (name, value) in header.split(',').filter_map(|part| part.trim().split_once('=')) {
        match name {
            "t" => at = Some(value),
            "v1" => signatures.extend(hex::decode(value)),
            _ => {}
        }
    }
    let text = at.ok_or(Refusal::Malformed)?;
    let at: i64 = text.parse().map_err(|_| Refusal::Malformed)?;
    if signatures.is_empty() {
        return Err(Refusal::Malformed);
    }
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.update(b".");
    mac.update(body);
    if !signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok()) {
        return Err(Refusal::Mismatch);
    }
    if now.timestamp().saturating_sub(at).unsigned_abs() > TOLERANCE_SECS.unsigned_abs() {
        return Err(Refusal::Stale);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Event {
    id: String,
    r#type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    object: Option<String>,
    payment_intent: Option<String>,
}

impl Event {
    /// The payment it is about.
    fn payment(&self) -> Option<&str> {
        let object = &self.data.object;
        match object.object.as_deref() {
            Some("payment_intent") => object.id.as_deref(),
            _ => object.payment_intent.as_deref(),
        }
        .filter(|id| id.len() <= MAX_ID)
    }

    /// The state of a charge that knows this news already; `None` = it is no news about payments.
    fn known(&self) -> Option<State> {
        match self.r#type.as_str() {
            "payment_intent.amount_capturable_updated" => Some(State::Authorized),
            "payment_intent.payment_failed" => Some(State::Declined),
            "payment_intent.requires_action" => Some(State::RequiresAction),
            "payment_intent.succeeded" => Some(State::Captured),
            "payment_intent.canceled" | "charge.expired" => Some(State::Voided),
            _ => None,
        }
    }
}

async fn receive(
    Extract((app, secret)): Extract<(App, Secret)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Err(refusal) = verify(&secret, header, &body, app.clock.now()) {
        tracing::warn!(reason = %refusal, bytes = body.len(), "a payment webhook was refused");
        return StatusCode::BAD_REQUEST;
    }
    let event = match serde_json::from_slice::<Event>(&body) {
        Ok(event) if event.id.len() <= MAX_ID && event.r#type.len() <= MAX_ID => event,
        _ => {
            tracing::warn!(reason = "not an event", bytes = body.len(), "a payment webhook was refused");
            return StatusCode::BAD_REQUEST;
        }
    };
    match store(&app, &event).await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::warn!(event = event.id, %error, "a payment webhook could not be kept; the provider sends it again");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn store(app: &App, event: &Event) -> sqlx::Result<()> {
    let mut tx = app.db.begin().await?;
    let payment = event.payment();
    if webhooks::put(&mut tx, &event.id, &event.r#type, payment, app.clock.now()).await?
        && let (Some(payment), Some(known)) = (payment, event.known())
    {
        charges::look_at(&mut tx, payment, known).await?;
    }
    tx.commit().await?;
    app.wake.notify_one();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const SIGNED_AT: i64 = 1_700_000_000;

    fn secret() -> Secret {
        Secret::from("whsec_test")
    }

    fn signature(secret: &str, at: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
        mac.update(format!("{at}.").as_bytes());
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    fn at(offset: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(SIGNED_AT + offset, 0).expect("in range")
    }

    #[test]
    fn any_one_good_signature_will_do() {
        let good = signature("whsec_test", SIGNED_AT, BODY);
        let old = signature("whsec_old", SIGNED_AT, BODY);
        for header in [
            format!("t={SIGNED_AT},v1={good}"),
            format!("t={SIGNED_AT},v1={old},v1={good}"),
            format!("t={SIGNED_AT},v0=zz,v1={good},v1={old}"),
            format!("v1={good}, t={SIGNED_AT}"),
        ] {
            assert_eq!(verify(&secret(), &header, BODY, at(TOLERANCE_SECS)), Ok(()), "{header}");
        }
    }

    #[test]
    fn every_tampering_is_refused() {
        let good = signature("whsec_test", SIGNED_AT, BODY);
        let header = format!("t={SIGNED_AT},v1={good}");
        assert_eq!(verify(&secret(), &header, b"{}", at(0)), Err(Refusal::Mismatch));
        assert_eq!(verify(&Secret::from("whsec_other"), &header, BODY, at(0)), Err(Refusal::Mismatch));
        let moved = format!("t={},v1={good}", SIGNED_AT + 1);
        assert_eq!(verify(&secret(), &moved, BODY, at(0)), Err(Refusal::Mismatch));
        let short = format!("t={SIGNED_AT},v1={}", &good[..32]);
        assert_eq!(verify(&secret(), &short, BODY, at(0)), Err(Refusal::Mismatch));
        for offset in [TOLERANCE_SECS + 1, -TOLERANCE_SECS - 1] {
            assert_eq!(verify(&secret(), &header, BODY, at(offset)), Err(Refusal::Stale));
        }
        let only_v0 = format!("t={SIGNED_AT},v0={good}");
        let not_hex = format!("t={SIGNED_AT},v1=zz");
        for header in ["", "t=", "v1=", "t=x,v1=00", &only_v0, &not_hex, &format!("v1={good}")] {
            assert_eq!(verify(&secret(), header, BODY, at(0)), Err(Refusal::Malformed), "{header}");
        }
    }
}
