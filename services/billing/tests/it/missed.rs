//! What a missed visit costs, and where the money comes from.

use chrono::TimeDelta;
use kit::ids::PatientId;
use proto::clinic::appointments::v1::{CancelTimeliness, VisitOutcome};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState};

use crate::visits::{AFTER_BOOKING, cancelled, completed};
use crate::world::{COPAY, World, usd};

/// A fee that the co-pay does not cover.
const LARGE: i64 = 4_000;

async fn world_with(copay: Option<i64>, fee: i64) -> World {
    let world = World::without_fees().await;
    world.set_fees(vec![world.fee(copay, Some(fee))], "").await.unwrap();
    world
}

async fn missed(world: &World, request: &pb::AuthorizeCopayRequest) -> pb::Charge {
    world.tell(request, AFTER_BOOKING, &completed(world, request, VisitOutcome::NoShow)).await;
    world.until(request, ChargeKind::NoShowFee, ChargeState::Captured).await
}

#[tokio::test]
async fn what_a_fee_cannot_draw_is_charged_to_the_card_on_file() {
    let world = world_with(Some(COPAY), LARGE).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let copay = world.authorize(&request).await.unwrap();
    let fee = missed(&world, &request).await;
    assert_eq!((&fee.captured_amount, &fee.owed_amount), (&Some(usd(LARGE)), &Some(usd(0))));
    assert_eq!(fee.drawn_from_copay_amount, Some(usd(COPAY)));
    assert_eq!(fee.payment_method_id, copay.payment_method_id);

    // Each took its part: the fee's own payment, and the co-pay's.
    let payments = world.payments(&request).await;
    let took: Vec<_> = payments.iter().map(|p| (p["id"].as_str().unwrap(), &p["amount_received"])).collect();
    let (rest, drawn) = ((LARGE - COPAY).into(), COPAY.into());
    assert_eq!(took, [(fee.provider_reference.as_str(), &rest), (copay.provider_reference.as_str(), &drawn)]);
    let told = world.told::<pb::NoShowFeeCharged>(1).await.remove(0);
    assert_eq!((told.amount, told.drawn_from_copay_amount), (Some(usd(LARGE)), Some(usd(COPAY))));
    assert_eq!((told.off_session_amount, told.owed_amount), (Some(usd(LARGE - COPAY)), Some(usd(0))));
    assert_eq!(world.count::<pb::BalanceOwed>().await, 0);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_fee_whose_answer_is_lost_is_charged_once() {
    let world = world_with(Some(COPAY), LARGE).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intents.create", "act_then_drop", 0, 1).await;
    world.trouble("payment_intents.create", "error_500", 0, 1).await;
    let fee = missed(&world, &request).await;
    assert_eq!(fee.captured_amount, Some(usd(LARGE)));
    assert_eq!(world.standings(&request).await, ["succeeded", "succeeded"]);
}

#[tokio::test]
async fn what_neither_reservation_nor_card_gives_is_owed_and_told_once() {
    let world = world_with(Some(COPAY), LARGE).await;
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    world.confirm(card.client_secret.split("_secret").next().unwrap(), true).await;
    let request = world.request(patient);
    let copay = world.authorize(&request).await.unwrap();
    world.confirm(&copay.provider_reference, true).await;
    world.until_copay(&request, ChargeState::Authorized).await;

    let fee = missed(&world, &request).await;
    let rest = Some(usd(LARGE - COPAY));
    assert_eq!((&fee.captured_amount, &fee.owed_amount), (&Some(usd(COPAY)), &rest));
    assert_eq!(fee.decline_code, "authentication_required");
    let owed = world.told::<pb::BalanceOwed>(1).await.remove(0);
    assert_eq!((&owed.amount, &owed.balance, owed.kind()), (&rest, &rest, ChargeKind::NoShowFee));
    assert_eq!(owed.decline_code, "authentication_required");
    assert_eq!(world.standings(&request).await, ["canceled", "succeeded"]);
    assert_eq!(world.account(&request.patient_id).await.balance, rest);
    let list = pb::ListChargesRequest { owed_only: true, ..Default::default() };
    let owing = world.desk().list_charges(list).await.unwrap().into_inner().charges;
    assert_eq!(owing.iter().map(|c| &c.id).collect::<Vec<_>>(), [&fee.id]);
}

#[tokio::test]
async fn a_rest_too_small_for_a_card_is_owed() {
    const CENTS: i64 = 49;
    let world = world_with(Some(COPAY), COPAY + CENTS).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    let fee = missed(&world, &request).await;
    assert_eq!((fee.captured_amount, fee.owed_amount), (Some(usd(COPAY)), Some(usd(CENTS))));
    assert_eq!(world.told::<pb::BalanceOwed>(1).await.remove(0).decline_code, "amount_too_small");
    assert_eq!(world.standings(&request).await, ["succeeded"]);
}

#[tokio::test]
async fn a_visit_without_co_pay_charges_its_fee_to_the_card_on_file() {
    let world = world_with(None, LARGE).await;
    let request = world.request(world.patient_with("pm_card_mastercard").await);
    world.tell(&request, AFTER_BOOKING, &cancelled(&world, &request, CancelTimeliness::Late)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!((fee.captured_amount, fee.drawn_from_copay_amount), (Some(usd(LARGE)), Some(usd(0))));
    assert_eq!(world.standings(&request).await, ["succeeded"]);
    assert!(world.told::<pb::NoShowFeeCharged>(1).await.remove(0).late_cancellation);
}

#[tokio::test]
async fn a_fee_of_a_patient_without_a_card_is_owed() {
    let world = world_with(None, LARGE).await;
    let request = world.request_in(PatientId::new(), TimeDelta::days(2));
    let fee = missed(&world, &request).await;
    assert_eq!((fee.captured_amount, fee.owed_amount), (Some(usd(0)), Some(usd(LARGE))));
    assert_eq!((fee.provider_reference.as_str(), fee.payment_method_id.as_str()), ("", ""));
    let owed = world.told::<pb::BalanceOwed>(1).await.remove(0);
    assert_eq!((owed.amount, owed.decline_code.as_str()), (Some(usd(LARGE)), ""));
}
