//! Phones that write back: by script, from the page, and to the carrier.

use reqwest::Method;
use sandbox::Settings;
use serde_json::json;

use crate::support::{Receiver, Sandbox, folder, send};

const PHONE: &str = "+12125550100";
const OURS: &str = "+15005550006";

async fn writing(receiver: &Receiver, settings: Settings) -> Sandbox {
    Sandbox::with(Settings { sms_inbound_url: Some(receiver.url.clone()), ..settings }).await
}

/// Sends a text to [`PHONE`]; answers status and error code.
async fn text(sandbox: &Sandbox, body: &str) -> (u16, Option<u64>) {
    let account = &sandbox.settings.sms_account;
    let path = format!("/2010-04-01/Accounts/{account}/Messages.json");
    let form = [("To", PHONE), ("From", OURS), ("Body", body)];
    let request = sandbox.request(Method::POST, &path).basic_auth(account, Some(&sandbox.settings.sms_token));
    let (status, answer) = send(request.form(&form)).await;
    (status, answer["code"].as_u64())
}

async fn write(sandbox: &Sandbox, body: &str) -> u16 {
    let text = json!({ "from": PHONE, "to": OURS, "body": body });
    send(sandbox.request(Method::POST, "/sandbox/messages").json(&text)).await.0
}

async fn page(sandbox: &Sandbox, path: &str) -> String {
    sandbox.request(Method::GET, path).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_text_from_a_phone_is_told_and_can_be_read_by_its_id() {
    let receiver = Receiver::start(0).await;
    let sandbox = writing(&receiver, Settings::default()).await;
    assert_eq!(write(&sandbox, "1 & ¿2?").await, 200);
    let told = receiver.until(|all| all.len() == 1).await.remove(0);
    let params: Vec<(String, String)> = form_urlencoded::parse(told.body.as_bytes()).into_owned().collect();
    let get =
        |name: &str| params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap();
    assert_eq!((get("From"), get("To"), get("Body"), get("SmsStatus")), (PHONE, OURS, "1 & ¿2?", "received"));
    assert!(!told.header("x-twilio-signature").is_empty());
    let account = &sandbox.settings.sms_account;
    let path = format!("/2010-04-01/Accounts/{account}/Messages/{}.json", get("MessageSid"));
    let read = sandbox.request(Method::GET, &path).basic_auth(account, Some(&sandbox.settings.sms_token));
    let (_, message) = send(read).await;
    assert_eq!((message["direction"].as_str(), message["from"].as_str()), (Some("inbound"), Some(PHONE)));
    assert_eq!(
        send(sandbox.request(Method::POST, "/sandbox/messages").json(&json!({ "from": "12", "body": "" })))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn a_phone_that_says_stop_gets_nothing_until_it_says_start() {
    let receiver = Receiver::start(0).await;
    let settings = Settings { data_dir: Some(folder("stopped")), ..Settings::default() };
    let sandbox = writing(&receiver, settings.clone()).await;
    assert_eq!(text(&sandbox, "Hello.").await, (201, None));
    write(&sandbox, " stop ").await;
    assert_eq!(text(&sandbox, "Are you there?").await, (400, Some(21610)));
    sandbox.stop().await;
    let sandbox = writing(&receiver, settings).await;
    assert_eq!(text(&sandbox, "Still there?").await, (400, Some(21610)));
    write(&sandbox, "I said stop").await;
    write(&sandbox, "Start").await;
    assert_eq!(text(&sandbox, "Welcome back.").await, (201, None));
}

#[tokio::test]
async fn a_person_reads_and_answers_texts_on_a_page() {
    let receiver = Receiver::start(0).await;
    let sandbox = writing(&receiver, Settings::default()).await;
    assert_eq!(text(&sandbox, "Reply 1 <to> confirm & \"come\".").await, (201, None));
    let phones = page(&sandbox, "/sandbox/inbox").await;
    assert!(phones.contains("<a href=\"/sandbox/inbox/+12125550100\">"), "{phones}");
    let shown = "Reply 1 &lt;to&gt; confirm &amp; &quot;come&quot;.";
    assert!(phones.contains(shown), "{phones}");
    let path = format!("/sandbox/inbox/{PHONE}");
    assert!(page(&sandbox, &path).await.contains("<form method=\"post\">"));
    let answer = sandbox.request(Method::POST, &path).form(&[("body", "1")]).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    receiver.until(|all| all.len() == 1).await;
    let texts = page(&sandbox, &format!("{path}/texts")).await;
    assert!(texts.contains(shown) && texts.contains("<li class=\"mine\" dir=\"auto\">1<small>"), "{texts}");
    let elsewhere = sandbox.request(Method::POST, &path).header("sec-fetch-site", "cross-site");
    assert_eq!(elsewhere.form(&[("body", "2")]).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn without_an_address_phones_cannot_write() {
    let sandbox = Sandbox::start().await;
    assert_eq!(write(&sandbox, "1").await, 409);
}
