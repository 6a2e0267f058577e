//! Whatever order the provider's webhooks come in, and however often, the end is the same.

use chrono::TimeDelta;
use kit::ids::PatientId;
use prost::Name as _;
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::ChargeState;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{FIRST_SEED, Seed, books, number};
use crate::visits::{AFTER_BOOKING, completed};
use crate::world::World;

/// Orders tried of each story's webhooks.
const ORDERS: usize = 6;
/// Longer than a reservation lives.
const LONG: TimeDelta = TimeDelta::days(8);

/// What happens at the provider while billing hears nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// The bank asks, and the patient passes.
    Confirmed,
    /// The patient fails, and pays with another card in the browser.
    PaidOtherwise,
    /// The reservation of a far visit dies.
    Lapsed,
    /// Part of what was taken is given back at the provider itself.
    GivenBack,
}

#[tokio::test]
async fn any_order_of_webhooks_ends_in_the_same_state() {
    let seed = number("BILLING_MODEL_SEED", FIRST_SEED);
    let told = Seed(seed);
    let mut draws = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    // This test delivers them itself.
    world.script(&json!({ "route": "*", "kind": "drop_webhook", "times": 1_000_000 })).await;
    let asks = patient(&world, "pm_card_authenticationRequired").await;
    let pays = patient(&world, "pm_card_visa").await;
    for story in [Story::Confirmed, Story::PaidOtherwise, Story::Lapsed, Story::GivenBack] {
        let (who, end) = match story {
            Story::Confirmed | Story::PaidOtherwise => (asks, ChargeState::Authorized),
            Story::Lapsed => (pays, ChargeState::Lapsed),
            Story::GivenBack => (pays, ChargeState::Captured),
        };
        let mut visits = vec![];
        for _ in 0..ORDERS {
            let request = world.request_in(who, TimeDelta::days(30));
            let charge = world.authorize(&request).await.unwrap();
            if story == Story::GivenBack {
                let attended = completed(&world, &request, VisitOutcome::Attended);
                world.tell(&request, AFTER_BOOKING, &attended).await;
                world.until_copay(&request, end).await;
            }
            live(&world, story, &charge.provider_reference).await;
            visits.push((request, charge));
        }
        if story == Story::Lapsed {
            world.servers.advance(LONG).await;
        }
        for (_, charge) in &visits {
            deliver(&world, &mut draws, &charge.provider_reference).await;
        }
        let mut ends = vec![];
        for (request, charge) in &visits {
            world.until_copay(request, end).await;
            if story == Story::GivenBack {
                testkit::until("both refunds being known", async || {
                    (essence(&world, &charge.id).await.1[3] == 1_000).then_some(())
                })
                .await;
            }
            ends.push(essence(&world, &charge.id).await);
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{story:?}: {ends:#?}");
    }
    drop(told);
}

async fn patient(world: &World, token: &str) -> PatientId {
    let patient = PatientId::new();
    let card = world.save_card(patient, token).await.unwrap();
    if let Some((setup, _)) = card.client_secret.split_once("_secret") {
        world.confirm(setup, true).await;
    }
    patient
}

async fn live(world: &World, story: Story, payment: &str) {
    match story {
        Story::Confirmed => world.confirm(payment, true).await,
        Story::PaidOtherwise => {
            world.confirm(payment, false).await;
            world.pay_in_browser(payment, "pm_card_visa").await;
        }
        Story::Lapsed => {}
        Story::GivenBack => {
            for amount in ["700", "300"] {
                world.at_provider("refunds", &[("payment_intent", payment), ("amount", amount)]).await;
            }
        }
    }
}

/// Delivers all that the provider has to tell of a payment, in some order, some of it twice.
async fn deliver(world: &World, draws: &mut StdRng, payment: &str) {
    let about = |event: &Value| {
        let object = &event["data"]["object"];
        object["id"] == payment || object["payment_intent"] == payment
    };
    let mut events = world.all_provider_lists("events").await;
    events.retain(about);
    assert!(events.len() > 1, "{events:#?}");
    for at in 0..events.len() {
        if draws.random_bool(0.3) {
            events.push(events[at].clone());
        }
    }
    events.shuffle(draws);
    for event in &events {
        assert!(world.deliver(event).await.is_success());
    }
}

/// Everything about a charge but its names, with what was told of it.
async fn essence(world: &World, charge: &str) -> (String, [i64; 5], Vec<String>) {
    let books = books::read(world).await;
    let row = books.charges.iter().find(|row| row.id == charge).unwrap();
    // A failure to pay is told or not, by when billing looks for itself.
    let passing = pb::CopayAuthorizationFailed::full_name();
    let told = books.told.iter().filter(|(subject, id)| id == charge && *subject != passing);
    let mut told: Vec<_> = told.map(|(subject, _)| subject.clone()).collect();
    told.sort();
    (row.state.clone(), [row.authorized, row.captured, row.drawn, row.refunded, row.owed], told)
}
