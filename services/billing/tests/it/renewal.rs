//! Reservations that die before the visit, and are made anew.

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::{date, timestamp};
use kit::ids::PatientId;
use proto::clinic::appointments::v1::{
    AppointmentRescheduled, AppointmentState, CancelTimeliness, VisitCompleted, VisitOutcome,
};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState};

use crate::visits::{AFTER_BOOKING, cancelled, completed};
use crate::world::{COPAY, FEE, World, usd};

/// Longer than anybody has a charge for itself.
const LEASE_OVER: TimeDelta = TimeDelta::seconds(21);

fn start(request: &pb::AuthorizeCopayRequest) -> DateTime<Utc> {
    let start = request.visit_start_time.unwrap();
    DateTime::from_timestamp(start.seconds, start.nanos as u32).unwrap()
}

/// A booked visit after `ahead`, of a patient with `card`.
async fn booked(world: &World, card: &str, ahead: TimeDelta) -> pb::AuthorizeCopayRequest {
    let request = world.request_in(world.patient_with(card).await, ahead);
    world.authorize(&request).await.unwrap();
    request
}

/// A booked visit after `ahead`, of a patient whose bank wants to ask each time.
async fn booked_with_a_card_that_asks(world: &World, ahead: TimeDelta) -> pb::AuthorizeCopayRequest {
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    world.confirm(card.client_secret.split("_secret").next().unwrap(), true).await;
    let request = world.request_in(patient, ahead);
    let charge = world.authorize(&request).await.unwrap();
    world.confirm(&charge.provider_reference, true).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    request
}

async fn attended(world: &World, request: &pb::AuthorizeCopayRequest, version: i64) {
    let event = VisitCompleted { version, ..completed(world, request, VisitOutcome::Attended) };
    world.tell(request, version, &event).await;
}

#[tokio::test]
async fn a_far_visits_reservation_lapses_and_is_made_anew_two_days_before() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(30)).await;
    world.servers.advance(TimeDelta::days(7)).await;
    let lapsed = world.until_copay(&request, ChargeState::Lapsed).await;
    assert_eq!((lapsed.authorized_amount, lapsed.capture_before), (Some(usd(0)), None));
    let told = world.told::<pb::CopayLapsed>(1).await.remove(0);
    assert_eq!((told.amount, told.visit_start_time), (Some(usd(COPAY)), request.visit_start_time));

    world.servers.advance_to(start(&request) - TimeDelta::hours(49)).await;
    assert_eq!(world.standings(&request).await, ["canceled"]);
    world.servers.advance(TimeDelta::hours(1)).await;
    let renewed = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(renewed.authorized_amount, Some(usd(COPAY)));
    let told: Vec<_> = world.told::<pb::CopayAuthorized>(2).await.iter().map(|e| e.renewal).collect();
    assert_eq!(told, [false, true]);

    world.servers.advance_to(start(&request) + TimeDelta::hours(1)).await;
    attended(&world, &request, AFTER_BOOKING).await;
    world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(world.standings(&request).await, ["succeeded", "canceled"]);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_lapse_that_nobody_tells_of_is_noticed_by_the_clock() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(30)).await;
    for event in ["payment_intent.canceled", "charge.expired"] {
        world.trouble(event, "drop_webhook", 0, 1).await;
    }
    world.servers.advance(TimeDelta::days(7)).await;
    world.until_copay(&request, ChargeState::Lapsed).await;
    world.told::<pb::CopayLapsed>(1).await;
}

#[tokio::test]
async fn a_reservation_of_a_program_without_renewals_is_renewed_all_the_same() {
    let mut world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(7)).await;
    world.kill();
    sqlx::query("update billing.charge set due_at = null")
        .execute(&mut world.servers.admin().await)
        .await
        .unwrap();
    world.servers.advance_to(start(&request) - TimeDelta::hours(48)).await;
    world.restart().await;
    testkit::until("the renewal", async || (world.payments(&request).await.len() == 2).then_some(())).await;
    world.until_copay(&request, ChargeState::Authorized).await;
}

#[tokio::test]
async fn a_reservation_that_would_end_with_its_visit_gives_way_to_another_before() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(7)).await;
    world.servers.advance_to(start(&request) - TimeDelta::hours(48)).await;
    testkit::until("the renewal", async || (world.payments(&request).await.len() == 2).then_some(())).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(world.standings(&request).await, ["requires_capture", "canceled"]);
    // Nobody's reservation lapsed.
    assert_eq!(world.count::<pb::CopayLapsed>().await, 0);
    assert!(world.told::<pb::CopayAuthorized>(2).await.remove(1).renewal);
}

#[tokio::test]
async fn a_refused_renewal_is_told_and_what_was_attended_is_owed_once() {
    let world = World::start().await;
    let request = booked_with_a_card_that_asks(&world, TimeDelta::days(10)).await;
    world.servers.advance_to(start(&request) - TimeDelta::hours(48)).await;
    let charge = world.until_copay(&request, ChargeState::Declined).await;
    assert_eq!((charge.decline_code.as_str(), charge.owed_amount), ("authentication_required", Some(usd(0))));
    let told = world.told::<pb::CopayAuthorizationFailed>(2).await;
    let told: Vec<_> = told.iter().map(|e| (e.state(), e.renewal, e.decline_code.as_str())).collect();
    let asked = (ChargeState::RequiresAction, false, "");
    assert_eq!(told, [asked, (ChargeState::Declined, true, "authentication_required")]);

    for _ in 0..2 {
        attended(&world, &request, AFTER_BOOKING).await;
    }
    let owed = world.told::<pb::BalanceOwed>(1).await.remove(0);
    assert_eq!((&owed.amount, &owed.balance), (&Some(usd(COPAY)), &Some(usd(COPAY))));
    assert_eq!((owed.kind(), owed.decline_code.as_str()), (ChargeKind::Copay, "authentication_required"));
    assert_eq!(world.until_copay(&request, ChargeState::Declined).await.owed_amount, Some(usd(COPAY)));
    assert_eq!(world.count::<pb::BalanceOwed>().await, 1);
    // What the refusal left behind cannot be paid any more.
    assert_eq!(world.standings(&request).await, ["canceled", "canceled"]);
}

#[tokio::test]
async fn another_card_heals_a_refused_renewal_while_the_visit_is_ahead() {
    let world = World::start().await;
    let request = booked_with_a_card_that_asks(&world, TimeDelta::days(10)).await;
    world.servers.advance_to(start(&request) - TimeDelta::hours(48)).await;
    world.until_copay(&request, ChargeState::Declined).await;

    let patient: PatientId = request.patient_id.parse().unwrap();
    let other = pb::AuthorizeCopayRequest {
        payment_method_id: world.save_card(patient, "pm_card_mastercard").await.unwrap().id,
        authorize_by: request.visit_start_time,
        ..request.clone()
    };
    assert_eq!(world.authorize(&other).await.unwrap().state(), ChargeState::Authorized);
    assert!(world.told::<pb::CopayAuthorized>(2).await.remove(1).renewal);
    attended(&world, &request, AFTER_BOOKING).await;
    world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(world.count::<pb::BalanceOwed>().await, 0);
    assert_eq!(world.standings(&request).await, ["succeeded", "canceled", "canceled"]);
}

#[tokio::test]
async fn a_visit_that_moves_takes_its_renewal_along() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(3)).await;
    let later = start(&request) + TimeDelta::days(9);
    let moved = pb::AuthorizeCopayRequest {
        visit_start_time: Some(timestamp(later)),
        visit_date: Some(date(later.date_naive())),
        ..request.clone()
    };
    let event = AppointmentRescheduled {
        appointment_id: request.appointment_id.clone(),
        version: AFTER_BOOKING,
        appointment: world.facts(&moved, AppointmentState::Booked),
        previous: world.facts(&request, AppointmentState::Booked),
        ..Default::default()
    };
    world.tell(&request, AFTER_BOOKING, &event).await;
    testkit::until("the move being known", async || {
        let charge = world.until_copay(&request, ChargeState::Authorized).await;
        (charge.visit_start_time == moved.visit_start_time).then_some(())
    })
    .await;

    world.servers.advance(TimeDelta::days(7)).await;
    world.until_copay(&request, ChargeState::Lapsed).await;
    world.servers.advance_to(later - TimeDelta::hours(48)).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    attended(&world, &moved, AFTER_BOOKING + 1).await;
    world.until_copay(&request, ChargeState::Captured).await;
}

#[tokio::test]
async fn what_was_attended_after_a_lapse_is_charged_to_the_card_on_file() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(2)).await;
    // So long after its start that nobody keeps the reservation up any more.
    world.servers.advance(TimeDelta::days(10)).await;
    world.until_copay(&request, ChargeState::Lapsed).await;
    attended(&world, &request, AFTER_BOOKING).await;
    let charge = world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!((charge.captured_amount, charge.owed_amount), (Some(usd(COPAY)), Some(usd(0))));
    assert_eq!(world.standings(&request).await, ["succeeded", "canceled"]);
    let renewals: Vec<_> = world.told::<pb::CopayAuthorized>(2).await.iter().map(|e| e.renewal).collect();
    assert_eq!(renewals, [false, true]);
    assert_eq!(world.count::<pb::CopayLapsed>().await, 1);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_capture_that_comes_too_late_reserves_and_takes_the_money_anew() {
    const FOREVER: u32 = 10_000;
    let world = World::start().await;
    // So near that its reservation outlives it by more than a day, and is not renewed before.
    let request = booked(&world, "pm_card_visa", TimeDelta::days(5)).await;
    world.trouble("payment_intents.capture", "error_500", 0, FOREVER).await;
    world.servers.advance_to(start(&request)).await;
    attended(&world, &request, AFTER_BOOKING).await;
    world.until_copay(&request, ChargeState::Capturing).await;
    world.servers.advance(TimeDelta::days(2)).await;
    world.told::<pb::CopayLapsed>(1).await;
    world.end_trouble().await;
    world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(world.standings(&request).await, ["succeeded", "canceled"]);
    assert_eq!(world.count::<pb::BalanceOwed>().await, 0);
}

#[tokio::test]
async fn a_renewal_that_a_killed_process_left_is_finished_by_the_next_one() {
    for (route, trouble) in [
        ("payment_intents.cancel", "act_then_timeout"),
        ("payment_intents.create", "act_then_timeout"),
        ("payment_intents.create", "latency"),
    ] {
        let mut world = World::start().await;
        let request = booked(&world, "pm_card_visa", TimeDelta::days(7)).await;
        world.trouble(route, trouble, 1_000, 1).await;
        world.servers.advance_to(start(&request) - TimeDelta::hours(48)).await;
        world.until_copay(&request, ChargeState::Authorizing).await;
        world.kill();
        world.restart().await;
        world.servers.advance(LEASE_OVER).await;
        world.until_copay(&request, ChargeState::Authorized).await;
        assert_eq!(world.standings(&request).await, ["requires_capture", "canceled"], "{route} {trouble}");
        assert_eq!(world.count::<pb::CopayAuthorized>().await, 2);
    }
}

#[tokio::test]
async fn a_lapsed_visit_that_is_cancelled_late_pays_its_fee_by_card() {
    let world = World::start().await;
    let request = booked(&world, "pm_card_visa", TimeDelta::days(30)).await;
    world.servers.advance(TimeDelta::days(7)).await;
    world.until_copay(&request, ChargeState::Lapsed).await;
    world.tell(&request, AFTER_BOOKING, &cancelled(&world, &request, CancelTimeliness::Late)).await;
    world.until_copay(&request, ChargeState::Voided).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!((fee.captured_amount, fee.drawn_from_copay_amount), (Some(usd(FEE)), Some(usd(0))));
    assert_eq!(world.standings(&request).await, ["succeeded", "canceled"]);
}
