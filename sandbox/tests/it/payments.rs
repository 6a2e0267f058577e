//! The payment protocol: idempotency, the life of an authorization, declines, lists, what outlives the process.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use reqwest::Method;
use sandbox::{Config, Settings};
use serde_json::json;

use crate::support::{AUTHORIZE, START, Sandbox, folder, instant, send};

const DAY: i64 = 24 * 60 * 60;

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_and_acts_once() {
    let sandbox = Sandbox::start().await;
    let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k1");
    let (_, first) = send(ask()).await;
    let again = ask().send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.json::<serde_json::Value>().await.unwrap(), first);
    let (_, all) = send(sandbox.look("/v1/payment_intents")).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_decline_is_replayed_under_its_key() {
    let sandbox = Sandbox::start().await;
    let form = "amount=4000&currency=usd&payment_method=pm_card_chargeDeclined&confirm=true";
    let ask = || sandbox.pay("/v1/payment_intents", form).header("idempotency-key", "k1");
    let (status, first) = send(ask()).await;
    assert_eq!(status, 402);
    assert_eq!(send(ask()).await, (402, first));
}

#[tokio::test]
async fn a_refused_parameter_leaves_the_key_free() {
    let sandbox = Sandbox::start().await;
    let ask = |form: &str| sandbox.pay("/v1/payment_intents", form).header("idempotency-key", "k1");
    assert_eq!(send(ask("amount=-1&currency=usd")).await.0, 400);
    assert_eq!(send(ask(AUTHORIZE)).await.0, 200);
}

#[tokio::test]
async fn a_key_with_other_parameters_is_refused() {
    let sandbox = Sandbox::start().await;
    let ask = |form: &str| sandbox.pay("/v1/payment_intents", form).header("idempotency-key", "k1");
    send(ask(AUTHORIZE)).await;
    let (status, body) = send(ask("amount=1&currency=usd")).await;
    assert_eq!((status, body["error"]["type"].as_str()), (400, Some("idempotency_error")));
}

#[tokio::test]
async fn a_key_of_one_endpoint_is_refused_at_another() {
    let sandbox = Sandbox::start().await;
    let (_, intent) =
        send(sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k1")).await;
    let capture = format!("/v1/payment_intents/{}/capture", intent["id"].as_str().unwrap());
    let (status, body) = send(sandbox.pay(&capture, "").header("idempotency-key", "k1")).await;
    assert_eq!((status, body["error"]["type"].as_str()), (400, Some("idempotency_error")));
    assert!(body["error"]["message"].as_str().unwrap().contains("same endpoint"), "{body}");
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let sandbox = Sandbox::start().await;
    let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k1");
    let (_, first) = send(ask()).await;
    sandbox.advance(DAY).await;
    let (_, second) = send(ask()).await;
    assert_ne!(first["id"], second["id"]);
}

#[tokio::test]
async fn of_two_requests_at_once_with_one_key_the_other_conflicts() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "latency", "ms": 1500 })).await;
    let ask = || send(sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k1"));
    let (one, other) = tokio::join!(ask(), ask());
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let conflict = if one.0 == 409 { one.1 } else { other.1 };
    assert_eq!(conflict["error"]["code"], "idempotency_key_in_use");
}

#[tokio::test]
async fn an_authorization_is_captured_in_part_and_refunded() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.authorize().await;
    assert_eq!(intent["amount_capturable"], 4000);
    let card = &intent["latest_charge"]["payment_method_details"]["card"];
    assert_eq!(card["capture_before"], START + 7 * DAY);
    let path = format!("/v1/payment_intents/{}", intent["id"].as_str().unwrap());

    let (_, captured) = send(sandbox.pay(&format!("{path}/capture"), "amount_to_capture=2500")).await;
    assert_eq!(
        (captured["status"].as_str(), captured["amount_received"].as_i64()),
        (Some("succeeded"), Some(2500))
    );
    assert!(captured["latest_charge"].is_string(), "not expanded unless asked: {captured}");

    let refund =
        |form: &str| send(sandbox.pay("/v1/refunds", &format!("payment_intent={}{form}", &path[20..])));
    assert_eq!(refund("&amount=2501").await.0, 400);
    let (_, part) = refund("&amount=1000&reason=requested_by_customer").await;
    assert_eq!((part["status"].as_str(), part["amount"].as_i64()), (Some("succeeded"), Some(1000)));
    assert_eq!(refund("").await.1["amount"], 1500);
    assert_eq!(refund("").await.1["error"]["code"], "charge_already_refunded");
}

#[tokio::test]
async fn a_cancelled_authorization_cannot_be_captured() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.authorize().await;
    let path = format!("/v1/payment_intents/{}", intent["id"].as_str().unwrap());
    let (_, canceled) = send(sandbox.pay(&format!("{path}/cancel"), "cancellation_reason=abandoned")).await;
    assert_eq!(canceled["status"], "canceled");
    assert_eq!(canceled["cancellation_reason"], "abandoned");
    let (status, body) = send(sandbox.pay(&format!("{path}/capture"), "")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("payment_intent_unexpected_state")));
}

#[tokio::test]
async fn capturing_more_than_authorized_is_refused() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.authorize().await;
    let path = format!("/v1/payment_intents/{}/capture", intent["id"].as_str().unwrap());
    for (amount, code) in
        [("4001", "amount_too_large"), ("0", "parameter_invalid_integer"), ("x", "parameter_invalid_integer")]
    {
        let (status, body) = send(sandbox.pay(&path, &format!("amount_to_capture={amount}"))).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some(code)));
    }
}

#[tokio::test]
async fn an_authorization_lapses_at_capture_before() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.authorize().await;
    let path = format!("/v1/payment_intents/{}", intent["id"].as_str().unwrap());
    sandbox.advance(7 * DAY - 1).await;
    assert_eq!(send(sandbox.look(&path)).await.1["status"], "requires_capture");
    sandbox.advance(1).await;
    let (status, body) = send(sandbox.pay(&format!("{path}/capture"), "")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("payment_intent_unexpected_state")));
    assert_eq!(body["error"]["payment_intent"]["cancellation_reason"], "automatic");
    let (_, events) =
        send(sandbox.look("/v1/events?types[]=charge.expired&types[]=payment_intent.canceled")).await;
    assert_eq!(events["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn every_declining_card_says_why() {
    let sandbox = Sandbox::start().await;
    for (card, code, decline_code) in [
        ("pm_card_chargeDeclined", "card_declined", json!("generic_decline")),
        ("pm_card_visa_chargeDeclined", "card_declined", json!("generic_decline")),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", json!("insufficient_funds")),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", json!(null)),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", json!(null)),
        ("pm_card_chargeCustomerFail", "card_declined", json!("generic_decline")),
    ] {
        let form = format!("amount=4000&currency=usd&confirm=true&payment_method={card}");
        let (status, body) = send(sandbox.pay("/v1/payment_intents", &form)).await;
        let error = &body["error"];
        assert_eq!((status, error["type"].as_str()), (402, Some("card_error")), "{card}");
        assert_eq!((error["code"].as_str(), &error["decline_code"]), (Some(code), &decline_code), "{card}");
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method", "{card}");
    }
}

#[tokio::test]
async fn a_saved_card_pays_off_session_unless_its_bank_insists() {
    let sandbox = Sandbox::start().await;
    let (_, customer) = send(sandbox.pay("/v1/customers", "email=a%40example.org")).await;
    let customer = customer["id"].as_str().unwrap();
    let save = |card: &str| {
        let form = format!("customer={customer}&payment_method={card}&confirm=true");
        send(sandbox.pay("/v1/setup_intents", &form))
    };
    let charge = |method: String| {
        let form = format!(
            "amount=4000&currency=usd&customer={customer}&payment_method={method}&off_session=true&confirm=true\
             &capture_method=manual"
        );
        send(sandbox.pay("/v1/payment_intents", &form))
    };
    let method = |intent: &serde_json::Value| intent["payment_method"].as_str().unwrap().to_owned();

    let (_, saved) = save("pm_card_visa").await;
    assert_eq!(saved["status"], "succeeded");
    assert_eq!(charge(method(&saved)).await.1["status"], "requires_capture");

    let (_, asked) = save("pm_card_authenticationRequired").await;
    assert_eq!(asked["status"], "requires_action");
    let wish = json!({ "id": asked["id"], "succeeds": true });
    let (_, saved) = send(sandbox.request(Method::POST, "/sandbox/authenticate").json(&wish)).await;
    assert_eq!(saved["status"], "succeeded");
    let (status, refused) = charge(method(&saved)).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (402, Some("authentication_required")));

    assert_eq!(save("pm_card_chargeDeclined").await.0, 402);
    let (_, cards) = send(sandbox.look(&format!("/v1/payment_methods?customer={customer}"))).await;
    assert_eq!(cards["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_card_that_paid_while_its_owner_was_there_is_refused_later() {
    let sandbox = Sandbox::start().await;
    for (card, code) in [
        ("laterDeclined", "generic_decline"),
        ("laterInsufficientFunds", "insufficient_funds"),
        ("laterExpired", "expired_card"),
    ] {
        let (_, customer) = send(sandbox.pay("/v1/customers", "")).await;
        let customer = customer["id"].as_str().unwrap();
        let form = format!("customer={customer}&payment_method=pm_card_{card}&confirm=true");
        let (_, saved) = send(sandbox.pay("/v1/setup_intents", &form)).await;
        let method = saved["payment_method"].as_str().unwrap();
        let charge = |more: &str| {
            let form = format!(
                "amount=4000&currency=usd&customer={customer}&payment_method={method}&confirm=true{more}"
            );
            send(sandbox.pay("/v1/payment_intents", &form))
        };
        assert_eq!(charge("").await.1["status"], "succeeded", "{card}");
        let (status, body) = charge("&off_session=true").await;
        let error = &body["error"];
        let reason = error["decline_code"].as_str().or(error["code"].as_str());
        assert_eq!((status, reason), (402, Some(code)), "{card}");
    }
}

#[tokio::test]
async fn a_bank_may_take_its_time_with_a_refund_or_refuse_it() {
    let sandbox = Sandbox::start().await;
    for (card, first, then, returned) in
        [("pendingRefund", "pending", "succeeded", 1500), ("refundFail", "succeeded", "failed", 0)]
    {
        let form = format!("amount=4000&currency=usd&confirm=true&payment_method=pm_card_{card}");
        let (_, intent) = send(sandbox.pay("/v1/payment_intents", &form)).await;
        let form = format!("payment_intent={}&amount=1500", intent["id"].as_str().unwrap());
        let (_, refund) = send(sandbox.pay("/v1/refunds", &form)).await;
        assert_eq!(refund["status"], first, "{card}");
        sandbox.advance(60 * 60).await;
        let path = format!("/v1/refunds/{}", refund["id"].as_str().unwrap());
        assert_eq!(send(sandbox.look(&path)).await.1["status"], then, "{card}");
        let path = format!("/v1/charges/{}", intent["latest_charge"].as_str().unwrap());
        assert_eq!(send(sandbox.look(&path)).await.1["amount_refunded"], returned, "{card}");
    }
    let (_, told) = send(sandbox.look("/v1/events?types[]=refund.updated&types[]=refund.failed")).await;
    assert_eq!(told["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn an_off_session_authorization_lives_as_long_as_its_brand_says() {
    let sandbox = Sandbox::start().await;
    for (card, life) in [("visa", 4 * DAY + 18 * 60 * 60), ("mastercard", 7 * DAY)] {
        let form =
            format!("{AUTHORIZE}&off_session=true").replace("pm_card_visa", &format!("pm_card_{card}"));
        let (_, intent) = send(sandbox.pay("/v1/payment_intents", &form)).await;
        let until = &intent["latest_charge"]["payment_method_details"]["card"]["capture_before"];
        assert_eq!(*until, START + life, "{card}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let sandbox = Sandbox::start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, sandbox.authorize().await["id"].clone());
        sandbox.advance(60).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/payment_intents?limit=2".to_owned();
    loop {
        let (_, page) = send(sandbox.look(&path)).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|intent| intent["id"].clone()));
        if page["has_more"] == false {
            break;
        }
        path =
            format!("/v1/payment_intents?limit=2&starting_after={}", seen.last().unwrap().as_str().unwrap());
    }
    assert_eq!(seen, made);
    let range = format!("/v1/payment_intents?created[gte]={}&created[lt]={}", START + 60, START + 180);
    assert_eq!(send(sandbox.look(&range)).await.1["data"].as_array().unwrap().len(), 2);
    let (_, views) =
        send(sandbox.request(Method::GET, "/sandbox/payment_intents?metadata[appointment_id]=a1")).await;
    assert_eq!(views.as_array().unwrap().len(), 5);
    assert_eq!(views[0]["latest_charge"]["object"], "charge");
}

#[tokio::test]
async fn an_intent_that_no_card_was_asked_for_is_seen_too() {
    let sandbox = Sandbox::start().await;
    let form = "amount=4000&currency=usd&payment_method=pm_card_authenticationRequired&confirm=true";
    let (_, intent) = send(sandbox.pay("/v1/payment_intents", form)).await;
    let path = format!("/v1/payment_intents/{}/cancel", intent["id"].as_str().unwrap());
    assert_eq!(send(sandbox.pay(&path, "")).await.1["status"], "canceled");
    let (_, views) = send(sandbox.request(Method::GET, "/sandbox/payment_intents")).await;
    assert_eq!((&views[0]["id"], &views[0]["latest_charge"]), (&intent["id"], &json!(null)));
}

#[tokio::test]
async fn strangers_typos_and_missing_things_are_refused() {
    let sandbox = Sandbox::start().await;
    let bare = sandbox.request(Method::GET, "/v1/events");
    assert_eq!(send(bare).await.0, 401);
    assert_eq!(send(sandbox.request(Method::GET, "/v1/events").bearer_auth("sk_other")).await.0, 401);
    let (status, body) = send(sandbox.look("/v1/payment_intents/pi_none")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("resource_missing")));
    let (status, body) = send(sandbox.pay("/v1/payment_intents", "amount=100&currency=usd&ammount=1")).await;
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("parameter_unknown")));
}

#[tokio::test]
async fn the_real_clock_cannot_be_advanced() {
    let config = Config { settings: Settings::default(), clock: Arc::new(|| instant(START)), advance: None };
    let sandbox = Sandbox::serve(config).await;
    let wish = json!({ "advance_secs": 60 });
    let (status, body) = send(sandbox.request(Method::POST, "/sandbox/clock").json(&wish)).await;
    assert_eq!(status, 409);
    assert!(body["error"].as_str().unwrap().contains("real clock"));
    sandbox.stop().await;
}

/// The program with its journal in `data`, and the address it tells.
fn program(data: &std::path::Path) -> (std::process::Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (child, url.trim().to_owned())
}

#[tokio::test]
async fn a_killed_program_remembers_intents_and_keys() {
    let data = folder("killed");
    let mut sandbox = Sandbox::start().await;
    let (mut child, url) = program(&data);
    sandbox.url = url;
    let ask = |sandbox: &Sandbox| {
        send(sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k"))
    };
    let (_, first) = ask(&sandbox).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let mut journal = std::fs::OpenOptions::new().append(true).open(data.join("sandbox.jsonl")).unwrap();
    journal.write_all(b"[{\"object\":\"charge\",\"id").unwrap();

    let (mut child, url) = program(&data);
    sandbox.url = url;
    assert_eq!(ask(&sandbox).await, (200, first.clone()));
    let second = sandbox.authorize().await;
    assert!(second["id"].as_str() > first["id"].as_str(), "younger ids sort after older ones");
    let capture = format!("/v1/payment_intents/{}/capture", first["id"].as_str().unwrap());
    assert_eq!(send(sandbox.pay(&capture, "")).await.1["status"], "succeeded");
    child.kill().unwrap();
    child.wait().unwrap();
}
