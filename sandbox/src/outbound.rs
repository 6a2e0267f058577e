//! Deliveries to the suite: signed payment events and signed message statuses, in the background, with retries.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder};
use sha1::Sha1;
use sha2::Sha256;
use tokio::sync::watch;

use crate::{State, faults::Trouble, payments::objects::Event};

/// How long the receiver may take to answer one delivery.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait before the first retry; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a delivery that waits for the simulated clock looks at it.
const CLOCK_LOOK: Duration = Duration::from_millis(50);
/// Deliveries of an event before it is left to the events list: about ten minutes' worth.
const EVENT_ATTEMPTS: u32 = 28;
/// Deliveries of a message status, which the real provider hardly repeats.
const STATUS_ATTEMPTS: u32 = 2;

/// The client deliveries go through, and how many got there.
pub(crate) struct Outbound {
    client: Client,
    delivered: watch::Sender<u64>,
}

impl Outbound {
    pub(crate) fn new() -> anyhow::Result<Self> {
        // Refused when the process has chosen its TLS provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { client: Client::builder().timeout(PATIENCE).build()?, delivered: watch::Sender::new(0) })
    }
}

/// Delivers a payment event to the configured address, if there is one, until it is taken.
pub(crate) fn deliver_event(state: &State, mut event: Event) {
    let Some(url) = state.settings().webhook_url.clone().filter(|_| event.pending_webhooks > 0) else {
        return;
    };
    let Ok(body) = serde_json::to_string(&crate::store::Kind::wrap(event.clone())) else { return };
    let signer = state.clone();
    let request = move |client: &Client| {
        // Each attempt is signed anew, so that a late one is not refused for its age.
        let at = signer.now().timestamp();
        let signature = event_signature(&signer.settings().webhook_secret, at, &body);
        client
            .post(&url)
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", format!("t={at},v1={signature}"))
            .body(body.clone())
    };
    let kind = event.r#type.clone();
    let after = state.clone();
    deliver(state, &kind, EVENT_ATTEMPTS, request, move || {
        event.pending_webhooks = 0;
        let mut store = after.store();
        store.put(&event);
        if let Err(error) = store.commit() {
            tracing::error!(%error, "The journal could not be written.");
        }
    });
}

/// Posts a message's status to the address its sender named.
pub(crate) fn deliver_status(state: &State, name: &str, url: String, params: Vec<(String, String)>) {
    let signature = status_signature(&state.settings().sms_token, &url, &params);
    let request = move |client: &Client| {
        client.post(&url).header("x-twilio-signature", signature.clone()).form(&params)
    };
    deliver(state, name, STATUS_ATTEMPTS, request, || ());
}

fn deliver(
    state: &State,
    name: &str,
    attempts: u32,
    request: impl Fn(&Client) -> RequestBuilder + Send + Sync + 'static,
    done: impl FnOnce() + Send + 'static,
) {
    // Faults and the watch are taken here, in the order things happened, not when the task gets to run.
    let fault = state.faults().strike_webhook(name);
    let trouble = fault.as_ref().map(|fault| fault.kind);
    let due = state.now() + TimeDelta::seconds(fault.as_ref().map_or(0, |fault| fault.secs));
    let mut others = state.outbound().delivered.subscribe();
    let name = name.to_owned();
    let at = state.clone();
    let task = async move {
        let outbound = at.outbound();
        let pause = fault.map(|fault| fault.pause()).unwrap_or_default();
        match trouble {
            Some(Trouble::DropWebhook) => return done(),
            Some(Trouble::DelayWebhook) => {
                tokio::time::sleep(pause).await;
                while at.now() < due {
                    tokio::time::sleep(CLOCK_LOOK).await;
                }
            }
            Some(Trouble::ReorderWebhook) => drop(tokio::time::timeout(pause, others.changed()).await),
            _ => {}
        }
        let copies = if trouble == Some(Trouble::DuplicateWebhook) { 2 } else { 1 };
        let mut taken = false;
        for _ in 0..copies {
            taken |= send(&outbound.client, &name, attempts, &request).await;
        }
        if taken {
            done();
            outbound.delivered.send_modify(|count| *count += 1);
        }
    };
    drop(state.spawn(task));
}

async fn send(
    client: &Client,
    name: &str,
    attempts: u32,
    request: &impl Fn(&Client) -> RequestBuilder,
) -> bool {
    let mut wait = FIRST_WAIT;
    for attempt in 1..=attempts {
        match request(client).send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => return true,
            Err(error) => tracing::debug!(%error, name, attempt, "A delivery was not taken."),
        }
        if attempt < attempts {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
    tracing::warn!(name, attempts, "A delivery was given up.");
    false
}

/// Hexadecimal HMAC-SHA256 of `t.body` (docs.stripe.com/webhooks#verify-manually).
fn event_signature(secret: &str, at: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{at}.{body}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Base64 HMAC-SHA1 of the address and the sorted parameters (twilio.com/docs/usage/security).
fn status_signature(token: &str, url: &str, params: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = params.iter().collect();
    sorted.sort();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Takes up the deliveries an earlier process did not finish.
pub(crate) fn resume(state: &State) {
    let pending: Vec<Event> =
        state.store().all::<Event>().filter(|e| e.pending_webhooks > 0).cloned().collect();
    for event in pending {
        deliver_event(state, event);
    }
}

#[cfg(test)]
mod tests {
    use super::status_signature;

    /// The worked example of the real provider's security page.
    #[test]
    fn the_status_signature_is_the_documented_one() {
        let params = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ];
        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(status_signature("12345", url, &params), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    }
}
