//! What the payment provider tells of its own accord (docs.stripe.com/webhooks).
//!
//! A delivery is believed only so far as its signature goes, and even then only as a hint: if it can be news it is remembered by its id, and
//! answered; later the charge or refund it is about is looked up. So late, repeated and shuffled deliveries end in the same state.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::post;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::app::App;
use crate::config::Secret;
use crate::gateway::Event;

/// The largest delivery that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// What deliveries call themselves, parameters aside.
const JSON: &str = "application/json";
/// How old, or how far ahead, a signature may be, in seconds.
const TOLERANCE_SECS: i64 = 300;

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

async fn receive(
    Extract((app, secret)): Extract<(App, Secret)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> StatusCode {
    let refuse = |status, reason: &str, bytes| {
        tracing::warn!(reason, bytes, "a payment webhook was refused");
        status
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return refuse(rejection.status(), "it could not be read", None),
    };
    let bytes = Some(body.len());
    // Unsaid will do: what it says of itself proves nothing, but a form is no event of the provider's.
    let json = |given: &HeaderValue| given.to_str().is_ok_and(|given| given.starts_with(JSON));
    if !headers.get(CONTENT_TYPE).is_none_or(json) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "it does not call itself JSON", bytes);
    }
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Err(refusal) = verify(&secret, header, &body, app.clock.now()) {
        return refuse(StatusCode::BAD_REQUEST, &refusal.to_string(), bytes);
    }
    let Some(event) = Event::parse(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "it is no event", bytes);
    };
    match app.hear(&event).await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::warn!(event = event.id, %error, "a payment webhook could not be kept; the provider sends it again");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
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
