//! The SMS protocol: create, list, statuses, callbacks, refusals.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder};
use sandbox::{Config, Settings};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::support::{Receiver, START, Sandbox, eventually, folder, instant, send};

fn messages(sandbox: &Sandbox, method: Method, rest: &str) -> RequestBuilder {
    let account = &sandbox.settings.sms_account;
    let path = format!("/2010-04-01/Accounts/{account}/Messages{rest}");
    sandbox.request(method, &path).basic_auth(account, Some(&sandbox.settings.sms_token))
}

async fn text(sandbox: &Sandbox, params: &[(&str, &str)]) -> (u16, Value) {
    let mut form = vec![("From", "+15005550006"), ("Body", "See you at 9:00.")];
    form.extend(params);
    send(messages(sandbox, Method::POST, ".json").form(&form)).await
}

async fn settled(sandbox: &Sandbox, sid: &str) -> Value {
    let sid = format!("/{sid}.json");
    eventually(|| async {
        let (_, message) = send(messages(sandbox, Method::GET, &sid)).await;
        ["delivered", "undelivered", "failed"].contains(&message["status"].as_str()?).then_some(message)
    })
    .await
}

#[tokio::test]
async fn a_text_is_queued_sent_and_delivered_with_signed_callbacks() {
    let sandbox = Sandbox::start().await;
    let receiver = Receiver::start(0).await;
    let url = format!("{}?from=test", receiver.url);
    let (status, message) = text(&sandbox, &[("To", "+12125550100"), ("StatusCallback", &url)]).await;
    assert_eq!((status, message["status"].as_str()), (201, Some("queued")));
    assert_eq!(message["num_segments"], "1");
    let received = receiver.until(|all| all.len() == 2).await;
    let mut statuses = Vec::new();
    for one in received {
        let mut params: Vec<(String, String)> =
            form_urlencoded::parse(one.body.as_bytes()).into_owned().collect();
        params.sort();
        let signed = params.iter().fold(url.clone(), |text, (name, value)| text + name + value);
        let mut mac = Hmac::<Sha1>::new_from_slice(sandbox.settings.sms_token.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        mac.verify_slice(&STANDARD.decode(one.header("x-twilio-signature")).unwrap()).unwrap();
        statuses.extend(params.into_iter().find(|(name, _)| name == "MessageStatus").map(|(_, value)| value));
    }
    statuses.sort();
    assert_eq!(statuses, ["delivered", "sent"]);
}

#[tokio::test]
async fn texts_are_listed_by_recipient_and_day_page_by_page() {
    let sandbox = Sandbox::start().await;
    for to in ["+12125550101", "+12125550102", "+12125550101", "+12125550101"] {
        let (_, message) = text(&sandbox, &[("To", to)]).await;
        settled(&sandbox, message["sid"].as_str().unwrap()).await;
    }
    let (_, page) = send(messages(&sandbox, Method::GET, ".json?To=%2B12125550101&PageSize=2")).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    let next = page["next_page_uri"].as_str().unwrap();
    let rest = next.split_once("/Messages").unwrap().1;
    let (_, last) = send(messages(&sandbox, Method::GET, rest)).await;
    assert_eq!(last["messages"].as_array().unwrap().len(), 1);
    assert_eq!(last["next_page_uri"], Value::Null);
    for (filter, expected) in [
        ("DateSent=2026-11-02", 4),
        ("DateSent=2026-11-03", 0),
        ("DateSent%3E=2026-11-02", 4),
        ("DateSent%3C=2026-11-01", 0),
        ("DateSent%3E=2026-11-02T12:00:01Z", 0),
    ] {
        let (_, page) = send(messages(&sandbox, Method::GET, &format!(".json?{filter}"))).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), expected, "{filter}");
    }
    let (_, view) = send(sandbox.request(Method::GET, "/sandbox/messages?to=+12125550102")).await;
    assert_eq!(view.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_text_that_was_not_sent_yet_has_no_date_to_be_filtered_by() {
    let settings = Settings { sms_step_ms: 20_000, ..Settings::default() };
    let sandbox = Sandbox::with(settings).await;
    text(&sandbox, &[("To", "+12125550100")]).await;
    for (filter, expected) in
        [("To=%2B12125550100", 1), ("DateSent%3E=2026-11-01", 0), ("DateSent=2026-11-02", 0)]
    {
        let (_, page) = send(messages(&sandbox, Method::GET, &format!(".json?{filter}"))).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), expected, "{filter}");
    }
}

#[tokio::test]
async fn numbers_that_fail_fail_as_documented() {
    let sandbox = Sandbox::start().await;
    for (to, code) in
        [("+15005550001", 21211), ("12", 21211), ("+15005550004", 21610), ("+15005550009", 21614)]
    {
        let (status, body) = text(&sandbox, &[("To", to)]).await;
        assert_eq!((status, body["code"].as_u64()), (400, Some(code)), "{to}");
    }
    for (to, code) in [("+15005553003", 30003), ("+15005553006", 30006)] {
        let (_, message) = text(&sandbox, &[("To", to)]).await;
        let message = settled(&sandbox, message["sid"].as_str().unwrap()).await;
        assert_eq!(
            (message["status"].as_str(), message["error_code"].as_u64()),
            (Some("undelivered"), Some(code))
        );
    }
    let (_, body) = text(&sandbox, &[("To", "+12125550100"), ("ValidityPeriod", "36001")]).await;
    assert_eq!(body["code"], 21624);
    let path = format!("/2010-04-01/Accounts/{}/Messages.json", sandbox.settings.sms_account);
    let stranger = sandbox.request(Method::GET, &path).basic_auth("AC1", Some("x"));
    let (status, body) = send(stranger).await;
    assert_eq!((status, body["code"].as_u64()), (401, Some(20003)));
}

#[tokio::test]
async fn a_text_that_waited_too_long_fails_unsent() {
    let slow = Settings { data_dir: Some(folder("expired")), sms_step_ms: 20_000, ..Settings::default() };
    let sandbox = Sandbox::with(slow.clone()).await;
    let (_, message) = text(&sandbox, &[("To", "+12125550100"), ("ValidityPeriod", "60")]).await;
    sandbox.stop().await;
    let settings = Settings { sms_step_ms: 1, ..slow };
    let later = Config { settings, clock: Arc::new(|| instant(START + 61)), advance: None };
    let sandbox = Sandbox::serve(later).await;
    let message = settled(&sandbox, message["sid"].as_str().unwrap()).await;
    assert_eq!((message["status"].as_str(), message["error_code"].as_u64()), (Some("failed"), Some(30036)));
}

#[tokio::test]
async fn an_unanswered_text_is_found_in_the_list() {
    let sandbox = Sandbox::start().await;
    sandbox.fault(json!({ "route": "messages.create", "kind": "act_then_drop" })).await;
    let form = [("From", "+15005550006"), ("Body", "Hello."), ("To", "+12125550100")];
    messages(&sandbox, Method::POST, ".json").form(&form).send().await.expect_err("the connection is closed");
    let (_, page) = send(messages(&sandbox, Method::GET, ".json?To=%2B12125550100")).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_text_on_its_way_goes_on_after_a_restart() {
    let settings = Settings { data_dir: Some(folder("texts")), sms_step_ms: 20_000, ..Settings::default() };
    let sandbox = Sandbox::with(settings.clone()).await;
    let (_, message) = text(&sandbox, &[("To", "+12125550100")]).await;
    sandbox.stop().await;
    let sandbox = Sandbox::with(Settings { sms_step_ms: 1, ..settings }).await;
    assert_eq!(settled(&sandbox, message["sid"].as_str().unwrap()).await["status"], "delivered");
}
