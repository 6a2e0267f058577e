//! Half a year of visits on the simulated clock.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::PatientId;
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::ChargeState;
use serde_json::Value;

use crate::visits::{AFTER_BOOKING, completed, released};
use crate::world::{COPAY, World, usd};

/// Days ahead, and the odd hours beside each.
const DAYS: [i64; 12] = [0, 1, 2, 5, 6, 7, 8, 14, 30, 60, 90, 180];
const ODD_HOURS: [i64; 2] = [1, 23];
const CARDS: [&str; 2] = ["pm_card_visa", "pm_card_mastercard"];
/// How long a visit takes, and then how long the desk takes to close it.
const CLOSED_AFTER: TimeDelta = TimeDelta::minutes(40);
/// So long before it a reservation stands for every visit.
const AHEAD: TimeDelta = TimeDelta::hours(47);
/// What was booked one after the other comes due together.
const TOGETHER: TimeDelta = TimeDelta::minutes(1);
/// Who asks the provider has a charge for itself for less than this.
const LEASE_SECS: f64 = 25.0;

struct Booked {
    request: pb::AuthorizeCopayRequest,
    start: DateTime<Utc>,
    closed: bool,
}

fn instant(seconds: &Value) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds.as_i64().unwrap(), 0).unwrap()
}

fn capture_before(charge: &Value) -> DateTime<Utc> {
    instant(&charge["payment_method_details"]["card"]["capture_before"])
}

/// Every payment the provider has, by appointment, oldest first.
async fn ledger_of_the_provider(world: &World) -> BTreeMap<String, Vec<Value>> {
    let url = format!("{}/sandbox/payment_intents", world.provider);
    let payments: Vec<Value> = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let mut by_visit = BTreeMap::<_, Vec<_>>::new();
    for payment in payments.into_iter().rev() {
        let appointment = payment["metadata"]["appointment_id"].as_str().unwrap().to_owned();
        by_visit.entry(appointment).or_default().push(payment);
    }
    by_visit
}

/// When something is to happen next by billing's own plan.
async fn next_look(world: &World) -> Option<DateTime<Utc>> {
    sqlx::query_scalar("select min(due_at) from billing.charge")
        .fetch_one(&mut world.servers.admin().await)
        .await
        .unwrap()
}

/// Waits until nothing is to be done at this moment.
async fn settled(world: &World) {
    testkit::until("charges coming to rest", async || {
        let due =
            "select count(*) from billing.charge where due_at <= clock.now() + make_interval(secs => $1)";
        let due: i64 = sqlx::query_scalar(due)
            .bind(LEASE_SECS)
            .fetch_one(&mut world.servers.admin().await)
            .await
            .unwrap();
        (due == 0).then_some(())
    })
    .await;
}

/// Has the provider fail in another way at each hop: what it does is lost, or it does nothing, or its webhooks go astray.
async fn fail(world: &World, hop: usize) {
    const ROUTES: [&str; 5] = ["create", "cancel", "capture", "retrieve", "list"];
    const KINDS: [&str; 4] = ["act_then_drop", "error_500", "error_500_remembered", "drop"];
    const WEBHOOKS: [&str; 3] = ["drop_webhook", "duplicate_webhook", "reorder_webhook"];
    world.end_trouble().await;
    for (route, kind) in [(hop, hop / ROUTES.len()), (hop * 3 + 2, hop / 2)] {
        let route = format!("payment_intents.{}", ROUTES[route % ROUTES.len()]);
        world.trouble(&route, KINDS[kind % KINDS.len()], 0, 1).await;
    }
    world.trouble("*", WEBHOOKS[hop % WEBHOOKS.len()], 0, 1).await;
}

#[tokio::test]
async fn no_capture_is_late_and_no_lapse_is_lost_in_half_a_year_of_visits() {
    half_a_year(&CARDS, &ODD_HOURS, false).await;
}

#[tokio::test]
async fn no_capture_is_late_and_no_lapse_is_lost_while_the_provider_fails() {
    half_a_year(&CARDS[..1], &ODD_HOURS[..1], true).await;
}

async fn half_a_year(cards: &[&str], odd_hours: &[i64], failing: bool) {
    let world = World::start().await;
    let mut visits = vec![];
    for card in cards {
        let patient = world.patient_with(card).await;
        for (days, hours) in DAYS.iter().flat_map(|days| odd_hours.iter().map(|hours| (*days, *hours))) {
            let request = world.request_in(patient, TimeDelta::days(days) + TimeDelta::hours(hours));
            world.authorize(&request).await.unwrap();
            let start = world.today() + TimeDelta::days(days) + TimeDelta::hours(hours);
            visits.push(Booked { request, start, closed: false });
        }
    }
    let nobody = world.request(PatientId::new());
    let mut hop = 0;
    while visits.iter().any(|visit| !visit.closed) {
        hop += 1;
        if failing {
            fail(&world, hop).await;
        }
        // To the next moment at which anything happens: billing's plan, a reservation's end, a visit's.
        let ledger = ledger_of_the_provider(&world).await;
        let live = |payment: &&Value| payment["status"] == "requires_capture";
        let lapse = ledger.values().flatten().filter(live).map(|p| capture_before(&p["latest_charge"])).min();
        let close = visits.iter().filter(|v| !v.closed).map(|v| v.start + CLOSED_AFTER).min();
        let next = [next_look(&world).await, lapse, close].into_iter().flatten().min().unwrap();
        world.servers.advance_to(next.max(world.today()) + TOGETHER).await;
        // Whatever event arrives has the worker look at once, not within a second.
        world.tell(&nobody, 2, &released(&world, &nobody)).await;

        for visit in visits.iter_mut().filter(|v| !v.closed && v.start + CLOSED_AFTER <= world.today()) {
            let event = completed(&world, &visit.request, VisitOutcome::Attended);
            world.tell(&visit.request, AFTER_BOOKING, &event).await;
            visit.closed = true;
            world.until_copay(&visit.request, ChargeState::Captured).await;
        }
        settled(&world).await;

        let (now, ledger) = (world.today(), ledger_of_the_provider(&world).await);
        for visit in &visits {
            let live = ledger[&visit.request.appointment_id].iter().filter(live).count();
            let stands = !visit.closed && visit.start - AHEAD <= now;
            assert!(live <= 1 && (live == 1 || !stands), "{live} live for {} at {now}", visit.start);
        }
    }

    let captured = world.provider_lists("events?type=charge.captured").await;
    assert_eq!(captured.len(), visits.len());
    for event in captured {
        assert!(instant(&event["created"]) < capture_before(&event["data"]["object"]), "{event}");
    }
    let expired = world.provider_lists("events?type=charge.expired").await;
    assert!(!expired.is_empty());
    let lapses = world.told::<pb::CopayLapsed>(expired.len()).await;
    assert_eq!(world.count::<pb::CopayLapsed>().await, expired.len() as i64);
    let told = world.count::<pb::CopayAuthorized>().await as usize;
    let authorized = world.told::<pb::CopayAuthorized>(told).await;
    for lapse in &lapses {
        let renewed = |e: &&pb::CopayAuthorized| e.charge_id == lapse.charge_id && e.version > lapse.version;
        assert!(authorized.iter().find(renewed).is_some_and(|e| e.renewal), "{lapse:?} was not renewed");
    }
    for payments in ledger_of_the_provider(&world).await.values() {
        let taken = payments.iter().filter_map(|p| p["amount_received"].as_i64()).sum::<i64>();
        assert_eq!(taken, COPAY);
    }
    let patient = &visits[0].request.patient_id;
    assert_eq!(world.account(patient).await.balance, Some(usd(0)));
    assert_eq!(world.count::<pb::BalanceOwed>().await, 0);
}
