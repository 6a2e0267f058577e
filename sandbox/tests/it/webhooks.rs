//! Payment events on their way to the suite.

use hmac::{Hmac, KeyInit, Mac};
use sandbox::Settings;
use serde_json::json;
use sha2::Sha256;

use crate::support::{Received, Receiver, START, Sandbox, eventually, send};

async fn listening(refuse_first: u32) -> (Receiver, Sandbox) {
    let receiver = Receiver::start(refuse_first).await;
    let settings = Settings { webhook_url: Some(receiver.url.clone()), ..Settings::default() };
    let sandbox = Sandbox::with(settings).await;
    (receiver, sandbox)
}

fn kinds(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| one.json()["type"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_event_is_signed_over_its_time_and_its_body() {
    let (receiver, sandbox) = listening(0).await;
    let intent = sandbox.authorize().await;
    let received = receiver.until(|all| all.len() == 3).await;
    for one in &received {
        let signature = one.header("stripe-signature");
        let (at, signature) = signature.split_once(",v1=").unwrap();
        assert_eq!(at, format!("t={START}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(b"whsec_sandbox").unwrap();
        mac.update(format!("{START}.{}", one.body).as_bytes());
        mac.verify_slice(&hex::decode(signature).unwrap()).unwrap();
    }
    let mut seen = kinds(&received);
    seen.sort();
    assert_eq!(
        seen,
        ["charge.succeeded", "payment_intent.amount_capturable_updated", "payment_intent.created"]
    );
    let updated =
        received.iter().map(Received::json).find(|e| e["type"] == "payment_intent.amount_capturable_updated");
    assert_eq!(updated.unwrap()["data"]["object"]["id"], intent["id"]);
}

#[tokio::test]
async fn an_endpoint_takes_the_kinds_that_it_chose_and_the_list_has_all() {
    let receiver = Receiver::start(0).await;
    let wanted = "payment_intent.amount_capturable_updated";
    let settings = Settings {
        webhook_url: Some(receiver.url.clone()),
        webhook_events: vec![wanted.into(), "payment_intent.canceled".into()],
        ..Settings::default()
    };
    let sandbox = Sandbox::with(settings).await;
    let intent = sandbox.authorize().await;
    let path = format!("/v1/payment_intents/{}/cancel", intent["id"].as_str().unwrap());
    send(sandbox.pay(&path, "")).await;
    let seen = kinds(&receiver.until(|all| all.len() == 2).await);
    assert!(seen.iter().all(|kind| kind == wanted || kind == "payment_intent.canceled"), "{seen:?}");
    let (_, events) = send(sandbox.look("/v1/events")).await;
    let listed: Vec<_> = events["data"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert!(listed.contains(&&json!("payment_intent.created")), "{listed:?}");
}

#[tokio::test]
async fn a_refused_event_is_delivered_again_until_taken() {
    let (receiver, sandbox) = listening(4).await;
    sandbox.authorize().await;
    receiver.until(|all| all.len() == 3).await;
    let taken = || async {
        let (_, events) = send(sandbox.look("/v1/events")).await;
        let events = events["data"].as_array().unwrap().clone();
        events.iter().all(|event| event["pending_webhooks"] == 0).then_some(events.len())
    };
    assert_eq!(eventually(taken).await, 3);
}

#[tokio::test]
async fn scripted_webhooks_come_twice_late_or_not_at_all() {
    let (receiver, sandbox) = listening(0).await;
    sandbox.fault(json!({ "route": "payment_intent.created", "kind": "reorder_webhook", "ms": 20000 })).await;
    sandbox.fault(json!({ "route": "charge.succeeded", "kind": "drop_webhook" })).await;
    sandbox.fault(json!({ "route": "payment_intent.amount*", "kind": "duplicate_webhook" })).await;
    sandbox.authorize().await;
    let seen = kinds(&receiver.until(|all| all.len() == 3).await);
    let updated = "payment_intent.amount_capturable_updated";
    assert_eq!(seen, [updated, updated, "payment_intent.created"]);
    sandbox
        .fault(json!({ "route": "payment_method.attached", "kind": "delay_webhook", "secs": 432_000 }))
        .await;
    let (_, customer) = send(sandbox.pay("/v1/customers", "payment_method=pm_card_visa")).await;
    receiver.until(|all| kinds(all).contains(&"customer.created".to_owned())).await;
    assert!(customer["id"].is_string(), "{customer}");
    sandbox.advance(432_000).await;
    let late = receiver.until(|all| kinds(all).contains(&"payment_method.attached".to_owned())).await;
    let late = late.last().unwrap().header("stripe-signature");
    assert!(late.starts_with(&format!("t={},", START + 432_000)), "signed when it leaves: {late}");
    sandbox.fault(json!({ "route": "customer.created", "kind": "delay_webhook", "ms": 20 })).await;
    send(sandbox.pay("/v1/customers", "")).await;
    let created = |all: &[Received]| kinds(all).iter().filter(|kind| *kind == "customer.created").count();
    receiver.until(|all| created(all) == 2).await;
}
