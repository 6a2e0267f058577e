//! How visits end, and what that does to the money.

use proto::clinic::appointments::v1::{
    AppointmentCancelled, AppointmentState, CancelTimeliness, Cancellation, CancelledBy, SlotReleased,
    VisitCompleted, VisitOutcome,
};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState, StatementEntryKind};

use crate::world::{COPAY, FEE, World, reason, usd};

/// A visit that was booked at version 2.
pub(crate) const AFTER_BOOKING: i64 = 3;

pub(crate) fn completed(
    world: &World,
    request: &pb::AuthorizeCopayRequest,
    outcome: VisitOutcome,
) -> VisitCompleted {
    let state = match outcome {
        VisitOutcome::NoShow => AppointmentState::NoShow,
        _ => AppointmentState::Completed,
    };
    VisitCompleted {
        appointment_id: request.appointment_id.clone(),
        version: AFTER_BOOKING,
        appointment: world.facts(request, state),
        outcome: outcome.into(),
        close_time: None,
        fee_due: outcome == VisitOutcome::NoShow,
    }
}

pub(crate) fn cancelled(
    world: &World,
    request: &pb::AuthorizeCopayRequest,
    timeliness: CancelTimeliness,
) -> AppointmentCancelled {
    let cancellation = Cancellation {
        cancelled_by: CancelledBy::Patient.into(),
        timeliness: timeliness.into(),
        received_time: None,
        fee_due: timeliness == CancelTimeliness::Late,
    };
    AppointmentCancelled {
        appointment_id: request.appointment_id.clone(),
        version: AFTER_BOOKING,
        appointment: world.facts(request, AppointmentState::Cancelled),
        cancellation: Some(cancellation),
    }
}

pub(crate) fn released(world: &World, request: &pb::AuthorizeCopayRequest) -> SlotReleased {
    SlotReleased {
        appointment_id: request.appointment_id.clone(),
        version: 2,
        appointment: world.facts(request, AppointmentState::Expired),
    }
}

#[tokio::test]
async fn an_attended_visit_takes_the_money_once() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    assert_eq!(world.account(&request.patient_id).await.authorized_amount, Some(usd(COPAY)));

    let event = completed(&world, &request, VisitOutcome::Attended);
    for _ in 0..2 {
        world.tell(&request, AFTER_BOOKING, &event).await;
    }
    let charge = world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!((charge.captured_amount, charge.authorized_amount), (Some(usd(COPAY)), Some(usd(0))));
    let told = world.told::<pb::CopayCaptured>(1).await.remove(0);
    assert_eq!((told.amount, told.version), (Some(usd(COPAY)), 2));

    let payment = world.payments(&request).await.remove(0);
    assert_eq!((&payment["status"], &payment["amount_received"]), (&"succeeded".into(), &COPAY.into()));
    let account = world.account(&request.patient_id).await;
    assert_eq!((account.balance, account.authorized_amount), (Some(usd(0)), Some(usd(0))));
    let lines: Vec<_> =
        account.entries.iter().map(|e| (e.kind(), e.amount.as_ref().unwrap().units)).collect();
    assert_eq!(lines, [(StatementEntryKind::Payment, -25), (StatementEntryKind::Copay, 25)]);
    assert_eq!(account.entries[1].balance_after, Some(usd(COPAY)));
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "WRONG_STATE");
}

#[tokio::test]
async fn a_capture_whose_answer_is_lost_takes_the_money_once() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intents.capture", "act_then_drop", 0, 1).await;
    world.trouble("payment_intents.capture", "error_500", 0, 1).await;
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::Attended)).await;
    let charge = world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(charge.captured_amount, Some(usd(COPAY)));
    assert_eq!(world.count::<pb::CopayCaptured>().await, 1);
    assert_eq!(world.account(&request.patient_id).await.entries.len(), 2);
}

#[tokio::test]
async fn trouble_that_the_provider_remembers_keeps_no_payment_from_its_end() {
    let world = World::start().await;
    let patient = world.patient_with("pm_card_visa").await;
    let (attended, missed) = (world.request(patient), world.request(patient));
    for request in [&attended, &missed] {
        world.authorize(request).await.unwrap();
    }
    world.trouble("payment_intents.capture", "error_500_remembered", 0, 1).await;
    world.trouble("payment_intents.cancel", "error_500_remembered", 0, 1).await;

    world.tell(&attended, AFTER_BOOKING, &completed(&world, &attended, VisitOutcome::Attended)).await;
    world.tell(&missed, 2, &released(&world, &missed)).await;
    let charge = world.until_copay(&attended, ChargeState::Captured).await;
    assert_eq!(charge.captured_amount, Some(usd(COPAY)));
    world.until_copay(&missed, ChargeState::Voided).await;
}

#[tokio::test]
async fn a_hold_that_ends_gives_the_reservation_back_once() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    for _ in 0..2 {
        world.tell(&request, 2, &released(&world, &request)).await;
    }
    let charge = world.until_copay(&request, ChargeState::Voided).await;
    assert_eq!(charge.authorized_amount, Some(usd(0)));
    let told = world.told::<pb::CopayVoided>(1).await.remove(0);
    assert_eq!((told.released_amount, told.cause), (Some(usd(COPAY)), pb::VoidCause::HoldEnded.into()));
    assert_eq!(world.payments(&request).await.remove(0)["status"], "canceled");
    assert_eq!(world.count::<pb::CopayVoided>().await, 1);
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "HOLD_EXPIRED");
}

#[tokio::test]
async fn a_late_authorization_for_a_dead_hold_is_voided_once() {
    const FOREVER: u32 = 10_000;
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.trouble("payment_intents.create", "error_500", 0, FOREVER).await;
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "DEPENDENCY_DOWN");

    world.tell(&request, 2, &released(&world, &request)).await;
    testkit::until("the hold's end being known", async || {
        let ended = sqlx::query_scalar::<_, bool>("select ending is not null from billing.visit");
        ended.fetch_one(&mut world.servers.admin().await).await.unwrap().then_some(())
    })
    .await;
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "HOLD_EXPIRED");
    world.end_trouble().await;

    world.until_copay(&request, ChargeState::Voided).await;
    assert_eq!(world.standings(&request).await, ["canceled"]);
    assert_eq!(world.count::<pb::CopayVoided>().await, 1);
    assert_eq!(world.count::<pb::CopayAuthorized>().await, 0);
}

#[tokio::test]
async fn a_hold_that_ended_before_anyone_asked_is_not_authorized() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.tell(&request, 2, &released(&world, &request)).await;
    testkit::until("the hold's end being known", async || {
        let known = sqlx::query_scalar::<_, i64>("select count(*) from billing.visit");
        (known.fetch_one(&mut world.servers.admin().await).await.unwrap() == 1).then_some(())
    })
    .await;
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "HOLD_EXPIRED");
    assert!(world.payments(&request).await.is_empty());
}

#[tokio::test]
async fn a_declined_hold_leaves_nothing_behind_when_it_ends() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_chargeCustomerFail").await);
    world.authorize(&request).await.unwrap_err();
    world.tell(&request, 2, &released(&world, &request)).await;
    world.until_copay(&request, ChargeState::Voided).await;
    assert_eq!(world.payments(&request).await.remove(0)["status"], "canceled");
    assert_eq!(world.told::<pb::CopayVoided>(1).await.remove(0).released_amount, Some(usd(0)));
}

#[tokio::test]
async fn a_timely_cancellation_costs_nothing() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &cancelled(&world, &request, CancelTimeliness::Timely)).await;
    world.until_copay(&request, ChargeState::Voided).await;
    let told = world.told::<pb::CopayVoided>(1).await.remove(0);
    assert_eq!((told.cause(), told.drawn_for_fee_amount), (pb::VoidCause::Cancelled, Some(usd(0))));
    assert!(world.account(&request.patient_id).await.entries.is_empty());
}

#[tokio::test]
async fn a_late_cancellation_draws_its_fee_from_the_reservation_and_releases_the_rest() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intents.capture", "act_then_drop", 0, 1).await;
    world.tell(&request, AFTER_BOOKING, &cancelled(&world, &request, CancelTimeliness::Late)).await;

    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!((fee.captured_amount, fee.drawn_from_copay_amount), (Some(usd(FEE)), Some(usd(FEE))));
    assert_eq!(fee.owed_amount, Some(usd(0)));
    let copay = world.until_copay(&request, ChargeState::Voided).await;
    assert_eq!((copay.captured_amount, copay.authorized_amount), (Some(usd(0)), Some(usd(0))));
    let payment = world.payments(&request).await.remove(0);
    assert_eq!((&payment["status"], &payment["amount_received"]), (&"succeeded".into(), &FEE.into()));

    let voided = world.told::<pb::CopayVoided>(1).await.remove(0);
    assert_eq!(voided.cause(), pb::VoidCause::CancelledLate);
    assert_eq!(
        (voided.released_amount, voided.drawn_for_fee_amount),
        (Some(usd(COPAY - FEE)), Some(usd(FEE)))
    );
    let charged = world.told::<pb::NoShowFeeCharged>(1).await.remove(0);
    assert!(charged.late_cancellation);
    assert_eq!((charged.amount, charged.drawn_from_copay_amount), (Some(usd(FEE)), Some(usd(FEE))));
    assert_eq!(world.count::<pb::BalanceOwed>().await, 0);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn old_news_changes_nothing() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::Attended)).await;
    world.until_copay(&request, ChargeState::Captured).await;
    world.tell(&request, 2, &released(&world, &request)).await;
    let last = world.request(request.patient_id.parse().unwrap());
    world.tell(&last, 2, &released(&world, &last)).await;
    testkit::until("the later event being applied", async || {
        let known = sqlx::query_scalar::<_, i64>("select count(*) from billing.visit");
        (known.fetch_one(&mut world.servers.admin().await).await.unwrap() == 2).then_some(())
    })
    .await;
    world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(world.count::<pb::CopayVoided>().await, 0);
}
