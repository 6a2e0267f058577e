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
    testkit::until("the events being forgotten", async || (kept(&world).await == 0).then_some(())).await;
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
    assert_eq!(kept(&world).await, before);
}

#[tokio::test]
async fn each_event_of_the_provider_is_kept_once() {
    let world = World::start().await;
    world.trouble("payment_intent.*", "duplicate_webhook", 0, 2).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    let events = world.provider_lists("events").await.len() as i64;
    assert!(events > 0);
    testkit::until("all events arriving", async || (kept(&world).await == events).then_some(())).await;
    world.until_copay(&request, ChargeState::Authorized).await;
}
