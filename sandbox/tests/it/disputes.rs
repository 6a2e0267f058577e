//! Cardholders who want their money back from their bank.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Sandbox, send};

async fn play(sandbox: &Sandbox, path: &str, wish: Value) -> (u16, Value) {
    send(sandbox.request(Method::POST, path).json(&wish)).await
}

/// A captured payment of 40 dollars.
async fn paid(sandbox: &Sandbox) -> String {
    let id = sandbox.authorize().await["id"].as_str().unwrap().to_owned();
    let (status, _) = send(sandbox.pay(&format!("/v1/payment_intents/{id}/capture"), "")).await;
    assert_eq!(status, 200);
    id
}

#[tokio::test]
async fn a_dispute_withdraws_the_money_until_the_bank_decides() {
    let sandbox = Sandbox::start().await;
    let (won, lost) = (paid(&sandbox).await, paid(&sandbox).await);
    for (payment, keeps, status) in [(&won, true, "won"), (&lost, false, "lost")] {
        let wish = json!({ "id": payment, "reason": "product_not_received" });
        let (_, dispute) = play(&sandbox, "/sandbox/disputes", wish).await;
        assert_eq!(
            (dispute["object"].as_str(), dispute["status"].as_str(), dispute["amount"].as_i64()),
            (Some("dispute"), Some("needs_response"), Some(4000))
        );
        let (refused, body) = send(sandbox.pay("/v1/refunds", &format!("payment_intent={payment}"))).await;
        assert_eq!((refused, body["error"]["code"].as_str()), (400, Some("charge_disputed")));
        let close =
            || play(&sandbox, "/sandbox/disputes/close", json!({ "id": dispute["id"], "won": keeps }));
        let closed = close().await.1;
        assert_eq!(closed["status"], status);
        let moved = closed["balance_transactions"].as_array().unwrap().iter();
        let moved: Vec<_> = moved.map(|one| (one["amount"].as_i64(), one["fee"].as_i64())).collect();
        let (out, back) = ((Some(-4000), Some(1500)), (Some(4000), Some(-1500)));
        assert_eq!(moved, if keeps { vec![out, back] } else { vec![out] });
        assert_eq!(close().await.0, 409, "a dispute ends once");
    }
    let list = |query: &str| send(sandbox.look(&format!("/v1/disputes{query}")));
    assert_eq!(list("").await.1["data"].as_array().unwrap().len(), 2);
    let (_, one) = list(&format!("?payment_intent={won}&limit=1")).await;
    assert_eq!((one["data"][0]["status"].as_str(), one["has_more"].as_bool()), (Some("won"), Some(false)));
    let kinds = "types[]=charge.dispute.created&types[]=charge.dispute.funds_withdrawn\
                 &types[]=charge.dispute.funds_reinstated&types[]=charge.dispute.closed";
    let (_, events) = send(sandbox.look(&format!("/v1/events?{kinds}"))).await;
    assert_eq!(events["data"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn what_was_not_taken_or_is_disputed_already_cannot_be_disputed() {
    let sandbox = Sandbox::start().await;
    let open = |wish: Value| play(&sandbox, "/sandbox/disputes", wish);
    let held = sandbox.authorize().await;
    assert_eq!(open(json!({ "id": held["id"] })).await.0, 409);
    assert_eq!(open(json!({ "id": "pi_none" })).await.0, 409);
    let payment = paid(&sandbox).await;
    assert_eq!(open(json!({ "id": payment, "reason": "boredom" })).await.0, 400);
    assert_eq!(open(json!({ "id": payment, "amount": 4001 })).await.0, 409);
    assert_eq!(open(json!({ "id": payment, "amount": 1000 })).await.1["amount"], 1000);
    assert_eq!(open(json!({ "id": payment })).await.0, 409);
}
