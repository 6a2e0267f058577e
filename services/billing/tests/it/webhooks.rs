//! The provider's own callbacks.

use chrono::TimeDelta;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::ChargeState;
use reqwest::StatusCode;

use crate::world::World;

async fn kept(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from billing.webhook_event")
        .fetch_one(&mut world.servers.admin().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_lapse_is_learnt_from_the_provider_and_told_once_however_often_it_comes() {
    let world = World::start().await;
    let request = world.request_in(world.patient_with("pm_card_visa").await, TimeDelta::days(30));
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intent.canceled", "duplicate_webhook", 0, 1).await;
    world.servers.advance(TimeDelta::days(8)).await;
    world.until_copay(&request, ChargeState::Lapsed).await;
    world.told::<pb::CopayLapsed>(1).await;
    assert_eq!(world.count::<pb::CopayLapsed>().await, 1);
}

#[tokio::test]
async fn events_older_than_a_month_are_forgotten() {
    let mut world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    testkit::until("an event arriving", async || (kept(&world).await > 0).then_some(())).await;
    world.kill();
    world.servers.advance(TimeDelta::days(31)).await;
    world.restart().await;
    // What happened meanwhile is read from the provider's events, and stays.
    let old =
        "select count(*) from billing.webhook_event where kind = 'payment_intent.amount_capturable_updated'";
    testkit::until("the events being forgotten", async || (world.number(old).await == 0).then_some(())).await;
}

#[tokio::test]
async fn deliveries_that_are_not_the_providers_change_nothing() {
    let world = World::without_fees().await;
    let url = format!("{}/webhooks/payments", world.url);
    let before = kept(&world).await;
    let body = r#"{"id":"evt_1","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","object":"payment_intent"}}}"#;
    let send = async |signature: Option<&str>, body: String| {
        let request = world.http.post(&url).body(body);
        let request = signature.into_iter().fold(request, |r, s| r.header("stripe-signature", s));
        request.send().await.unwrap().status()
    };
    let now = world.today().timestamp();
    let forged = format!("t={now},v1={}", "00".repeat(32));
    assert_eq!(send(None, body.into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(send(Some("t=,v1="), body.into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(send(Some(&forged), body.into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(send(Some(&forged), "x".repeat(300 * 1024)).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Signed, and yet none that could be kept.
    let sign = |at: i64, body: &str| world.sign(at, body);
    for bad in
        ["", "{}", "not json", "[]", r#"{"id":"evt_1"}"#, r#"{"id":1,"type":"x","data":{"object":{}}}"#]
    {
        assert_eq!(send(Some(&sign(now, bad)), bad.into()).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    let long = body.replace("evt_1", &"e".repeat(300));
    assert_eq!(send(Some(&sign(now, &long)), long.clone()).await, StatusCode::BAD_REQUEST);
    for late in [now - 310, now + 310] {
        assert_eq!(send(Some(&sign(late, body)), body.into()).await, StatusCode::BAD_REQUEST);
    }
    let large = format!("{body}{}", " ".repeat(300 * 1024));
    assert_eq!(send(Some(&sign(now, &large)), large.clone()).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(kept(&world).await, before);
    assert_eq!(send(Some(&sign(now, body)), body.into()).await, StatusCode::OK);
    assert_eq!(kept(&world).await, before + 1);
}

#[tokio::test]
async fn what_no_webhook_brought_is_read_from_the_providers_events() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    world.trouble("*", "drop_webhook", 0, 10_000).await;
    world.at_provider(&format!("payment_intents/{}/capture", charge.provider_reference), &[]).await;
    world.at_provider("refunds", &[("payment_intent", charge.provider_reference.as_str())]).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    world.servers.advance(TimeDelta::minutes(6)).await;
    let charge = world.until_copay(&request, ChargeState::Refunded).await;
    assert_eq!(charge.refunds[0].cause(), pb::RefundCause::Provider);
    let news = world.number("select count(*) from billing.webhook_event where kind = 'refund.created'").await;
    assert_eq!(news, 1);
}

#[tokio::test]
async fn a_webhook_that_was_kept_is_applied_by_the_next_process() {
    let mut world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    world.trouble("refunds.retrieve", "error_500", 0, 10_000).await;
    world.at_provider("refunds", &[("payment_intent", charge.provider_reference.as_str())]).await;
    let waiting = "select count(*) from billing.webhook_event where refund_reference is not null and due_at is not null";
    testkit::until("the webhook", async || (world.number(waiting).await == 1).then_some(())).await;
    world.kill();
    world.end_trouble().await;
    world.restart().await;
    world.servers.advance(TimeDelta::seconds(21)).await;
    world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    testkit::until("it being applied", async || (world.number(waiting).await == 0).then_some(())).await;
}

#[tokio::test]
async fn each_event_that_is_news_is_kept_once_and_no_other() {
    let world = World::start().await;
    world.trouble("payment_intent.*", "duplicate_webhook", 0, 2).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    let listed = world.provider_lists("events").await;
    let news = listed.iter().filter(|e| e["type"] == "payment_intent.amount_capturable_updated").count();
    assert!(0 < news && news < listed.len(), "{listed:?}");
    testkit::until("the news arriving", async || (kept(&world).await == news as i64).then_some(())).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(kept(&world).await, news as i64);
}
