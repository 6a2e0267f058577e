//! Calls that go wrong by script.

use reqwest::Method;
use sandbox::Settings;
use serde_json::{Value, json};

use crate::support::{AUTHORIZE, Sandbox, eventually, send};

async fn intents(sandbox: &Sandbox) -> usize {
    send(sandbox.look("/v1/payment_intents")).await.1["data"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_dropped_call_does_nothing_and_is_not_answered() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "drop" })).await;
    let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k");
    ask().send().await.expect_err("the connection is closed");
    assert_eq!(intents(&sandbox).await, 0);
    assert_eq!(send(ask()).await.0, 200);
}

#[tokio::test]
async fn a_call_acts_and_is_not_answered_but_its_key_finds_the_answer() {
    let sandbox = Sandbox::start().await;
    for (kind, key) in [("act_then_drop", "k1"), ("act_then_timeout", "k2")] {
        sandbox.fault(json!({ "route": "payment_intents.*", "kind": kind, "ms": 10 })).await;
        let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", key);
        ask().send().await.expect_err("the connection is closed");
        let answer = ask().send().await.unwrap();
        assert_eq!(answer.headers()["idempotent-replayed"], "true");
    }
    assert_eq!(intents(&sandbox).await, 2);
}

#[tokio::test]
async fn a_slow_call_acts_even_when_its_caller_has_left() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "latency", "ms": 300 })).await;
    let call = tokio::spawn(sandbox.pay("/v1/payment_intents", AUTHORIZE).send());
    let struck = || async {
        (send(sandbox.request(Method::GET, "/sandbox/faults")).await.1 == json!([])).then_some(())
    };
    eventually(struck).await;
    call.abort();
    eventually(|| async { (intents(&sandbox).await == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_broken_call_says_500_and_does_nothing_as_often_as_told() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "*", "kind": "error_500", "times": 2 })).await;
    for _ in 0..2 {
        let (status, body) = send(sandbox.pay("/v1/payment_intents", AUTHORIZE)).await;
        assert_eq!((status, body["error"]["type"].as_str()), (500, Some("api_error")));
    }
    assert_eq!(intents(&sandbox).await, 0);
}

#[tokio::test]
async fn a_broken_answer_that_is_remembered_comes_again_under_its_key_alone() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "error_500_remembered" })).await;
    let ask = |key: &str| sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", key);
    assert_eq!(send(ask("k1")).await.0, 500);
    let again = ask("k1").send().await.unwrap();
    assert_eq!(
        (again.status().as_u16(), &again.headers()["idempotent-replayed"]),
        (500, &"true".parse().unwrap())
    );
    assert_eq!(intents(&sandbox).await, 0);
    assert_eq!(send(ask("k2")).await.0, 200);
}

#[tokio::test]
async fn a_call_that_acted_and_says_500_says_so_again_under_its_key() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "act_then_error_500" })).await;
    let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k");
    let (status, first) = send(ask()).await;
    assert_eq!((status, intents(&sandbox).await), (500, 1));
    assert_eq!(send(ask()).await, (500, first));
    assert_eq!(intents(&sandbox).await, 1);
}

#[tokio::test]
async fn the_same_seed_draws_the_same_faults() {
    let draws = async || {
        let settings = Settings { fault_seed: Some(7), ..Settings::default() };
        let sandbox = Sandbox::with(settings).await;
        let fault = json!({ "route": "*", "kind": "error_500", "times": 1000, "percent": 50 });
        sandbox.fault(fault).await;
        let mut statuses = vec![];
        for _ in 0..20 {
            statuses.push(send(sandbox.pay("/v1/customers", "")).await.0);
        }
        statuses
    };
    let first = draws().await;
    assert!(first.contains(&200) && first.contains(&500), "{first:?}");
    assert_eq!(first, draws().await);
}

#[tokio::test]
async fn a_call_that_acted_in_silence_leaves_its_key_free() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "payment_intents.create", "kind": "act_then_timeout" })).await;
    let ask = || sandbox.pay("/v1/payment_intents", AUTHORIZE).header("idempotency-key", "k");
    let silent = tokio::spawn(ask().send());
    eventually(|| async { (intents(&sandbox).await == 1).then_some(()) }).await;
    assert_eq!(eventually(|| async { Some(send(ask()).await.0).filter(|status| *status != 409) }).await, 200);
    silent.abort();
}

#[tokio::test]
async fn faults_are_listed_checked_and_cleared() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "*", "kind": "drop", "times": 9 })).await;
    let (_, listed) = send(sandbox.request(Method::GET, "/sandbox/faults")).await;
    let expected =
        json!([{ "route": "*", "kind": "drop", "ms": null, "secs": 0, "times": 9, "percent": 100 }]);
    assert_eq!(listed, expected);
    let post = |fault: Value| send(sandbox.request(Method::POST, "/sandbox/faults").json(&fault));
    assert_eq!(post(json!({ "route": "*", "kind": "drop", "times": 0 })).await.0, 400);
    assert_eq!(post(json!({ "route": "*", "kind": "drop", "percent": 101 })).await.0, 400);
    assert_eq!(post(json!({ "route": "*", "kind": "drop", "secs": 5 })).await.0, 400);
    assert_eq!(post(json!({ "route": "*", "kind": "flood" })).await.0, 422);
    assert_eq!(send(sandbox.request(Method::DELETE, "/sandbox/faults")).await.0, 204);
    assert_eq!(intents(&sandbox).await, 0);
}
