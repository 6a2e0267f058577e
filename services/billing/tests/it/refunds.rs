//! Money given back.

use chrono::TimeDelta;
use kit::ids::{ChargeId, RequestId};
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState, RefundCause, RefundState};
use proto::google::r#type::Money;
use tonic::{Code, Status};

use crate::visits::{AFTER_BOOKING, completed};
use crate::world::{COPAY, World, bad_fields, reason, usd};

fn asked(charge: &pb::Charge, cents: Option<i64>) -> pb::RefundChargeRequest {
    pb::RefundChargeRequest {
        request_id: RequestId::new().to_string(),
        charge_id: charge.id.clone(),
        amount: cents.map(usd),
        reason: "the doctor was ill".into(),
        etag: charge.etag.clone(),
    }
}

async fn refund(world: &World, request: pb::RefundChargeRequest) -> Result<pb::Charge, Status> {
    Ok(world.desk().refund_charge(request).await?.into_inner())
}

/// What the provider gave back of `payment`, and in how many refunds.
async fn given_back(world: &World, payment: &str) -> (i64, usize) {
    let mut refunds = world.provider_lists("refunds").await;
    refunds.retain(|refund| refund["payment_intent"] == payment && refund["status"] != "failed");
    (refunds.iter().map(|refund| refund["amount"].as_i64().unwrap()).sum(), refunds.len())
}

fn settled(state: RefundState) -> impl Fn(&pb::Charge) -> bool {
    move |charge| charge.refunds.iter().all(|refund| refund.state() == state) && !charge.refunds.is_empty()
}

#[tokio::test]
async fn all_is_given_back_once_however_often_it_is_asked_for() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    let request = asked(&charge, None);
    let answer = refund(&world, request.clone()).await.unwrap();
    assert_eq!(answer.refunded_amount, Some(usd(COPAY)));
    assert_eq!((answer.refunds.len(), answer.refunds[0].state()), (1, RefundState::Pending));
    assert_eq!(refund(&world, request.clone()).await.unwrap(), answer);
    let other = pb::RefundChargeRequest { amount: Some(usd(1)), ..request };
    assert_eq!(reason(&refund(&world, other).await.unwrap_err()), "REQUEST_ID_REUSED");

    let charge = world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    let back = &charge.refunds[0];
    assert_eq!((back.state(), back.cause()), (RefundState::Succeeded, RefundCause::Staff));
    assert_eq!((back.reason.as_str(), back.requested_by.as_str()), ("the doctor was ill", "ana"));
    assert!(back.provider_reference.starts_with("re_"));
    assert_eq!(given_back(&world, &charge.provider_reference).await, (COPAY, 1));
    let told = world.told::<pb::ChargeRefunded>(1).await.remove(0);
    assert_eq!((&told.amount, &told.remaining_amount), (&Some(usd(COPAY)), &Some(usd(0))));
    assert_eq!((told.kind(), told.cause(), told.version), (ChargeKind::Copay, RefundCause::Staff, 3));
    assert_eq!(world.count::<pb::ChargeRefunded>().await, 1);
    assert_eq!(reason(&refund(&world, asked(&charge, None)).await.unwrap_err()), "REFUND_EXCEEDS_CAPTURE");
}

#[tokio::test]
async fn parts_are_given_back_until_nothing_is_left() {
    const PART: i64 = 1_000;
    let world = World::start().await;
    let (_, mut charge) = world.captured("pm_card_visa").await;
    for n in 1..=2_i64 {
        refund(&world, asked(&charge, Some(PART))).await.unwrap();
        charge = world.until_charge(&charge.id, "a part", settled(RefundState::Succeeded)).await;
        assert_eq!((charge.state(), &charge.refunded_amount), (ChargeState::Captured, &Some(usd(n * PART))));
    }
    let too_much = refund(&world, asked(&charge, Some(PART))).await.unwrap_err();
    assert_eq!(
        (too_much.code(), reason(&too_much).as_str()),
        (Code::FailedPrecondition, "REFUND_EXCEEDS_CAPTURE")
    );
    refund(&world, asked(&charge, None)).await.unwrap();
    let charge = world.until_charge(&charge.id, "the rest", |c| c.state() == ChargeState::Refunded).await;
    let amounts: Vec<_> = charge.refunds.iter().map(|r| r.amount.clone().unwrap()).collect();
    assert_eq!(amounts, [usd(PART), usd(PART), usd(COPAY - 2 * PART)]);
    assert_eq!(given_back(&world, &charge.provider_reference).await, (COPAY, 3));
}

#[tokio::test]
async fn what_cannot_be_a_refund_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    let money = |code: &str, units, nanos| Some(Money { currency_code: code.into(), units, nanos });
    for amount in [
        money("USD", 0, 0),
        money("USD", -25, 0),
        money("USD", 0, -10_000_000),
        money("USD", 1, 5_000_000),
        money("USD", i64::MAX, 0),
        money("USD", i64::MIN, i32::MIN),
        money("EUR", 25, 0),
        money("", 25, 0),
    ] {
        let request = pb::RefundChargeRequest { amount: amount.clone(), ..asked(&charge, None) };
        assert_eq!(bad_fields(&refund(&world, request).await.unwrap_err()), ["amount"], "{amount:?}");
    }
    let empty = pb::RefundChargeRequest { request_id: "x".into(), ..Default::default() };
    let all = ["request_id", "charge_id", "reason", "etag"];
    assert_eq!(bad_fields(&refund(&world, empty).await.unwrap_err()), all);
    let long = pb::RefundChargeRequest { reason: "x".repeat(501), ..asked(&charge, None) };
    assert_eq!(bad_fields(&refund(&world, long).await.unwrap_err()), ["reason"]);
    let above = refund(&world, asked(&charge, Some(COPAY + 1))).await.unwrap_err();
    assert_eq!(reason(&above), "REFUND_EXCEEDS_CAPTURE");
    let stale = pb::RefundChargeRequest { etag: "1".into(), ..asked(&charge, None) };
    let stale = refund(&world, stale).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let unknown = pb::RefundChargeRequest { charge_id: ChargeId::new().to_string(), ..asked(&charge, None) };
    assert_eq!(reason(&refund(&world, unknown).await.unwrap_err()), "CHARGE_NOT_FOUND");
    let denied = world.client(Role::Service, "appointments").refund_charge(asked(&charge, None)).await;
    assert_eq!(reason(&denied.unwrap_err()), "ROLE_REQUIRED");

    let reserved = world.authorize(&world.request(world.patient_with("pm_card_visa").await)).await.unwrap();
    assert_eq!(reason(&refund(&world, asked(&reserved, None)).await.unwrap_err()), "WRONG_STATE");
    let after = world.until_charge(&charge.id, "the charge", |_| true).await;
    assert_eq!(after, charge);
    assert_eq!(world.number("select count(*) from billing.refund").await, 0);
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_or_broken_gives_back_once() {
    let world = World::start().await;
    for fault in ["act_then_drop", "error_500", "error_500_remembered", "act_then_error_500"] {
        let (_, charge) = world.captured("pm_card_visa").await;
        world.trouble("refunds.create", fault, 0, 1).await;
        refund(&world, asked(&charge, None)).await.unwrap();
        world.until_charge(&charge.id, fault, |c| c.state() == ChargeState::Refunded).await;
        assert_eq!(given_back(&world, &charge.provider_reference).await, (COPAY, 1), "{fault}");
    }
    assert_eq!(world.number("select count(*) from billing.journal where kind = 'REFUND'").await, 4);
}

#[tokio::test]
async fn a_refund_that_a_killed_process_was_asking_for_is_made_by_the_next_one() {
    let mut world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    world.trouble("refunds.create", "act_then_timeout", 1_000, 1).await;
    refund(&world, asked(&charge, None)).await.unwrap();
    testkit::until("the provider acting", async || {
        (given_back(&world, &charge.provider_reference).await.1 == 1).then_some(())
    })
    .await;
    world.kill();
    world.restart().await;
    world.servers.advance(TimeDelta::seconds(21)).await;
    world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    assert_eq!(given_back(&world, &charge.provider_reference).await, (COPAY, 1));
}

/// The key of the only refund.
async fn key(world: &World) -> String {
    let key = sqlx::query_scalar("select key from billing.refund_part");
    key.fetch_one(&mut world.servers.admin().await).await.unwrap()
}

#[tokio::test]
async fn a_key_older_than_a_day_is_looked_up_before_another_is_used() {
    let mut world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    world.trouble("refunds.create", "error_500", 0, 10_000).await;
    refund(&world, asked(&charge, None)).await.unwrap();
    testkit::until("the provider being asked", async || {
        (world.number("select count(*) from billing.refund_part where asked_at is not null").await == 1)
            .then_some(())
    })
    .await;
    let first = key(&world).await;
    world.kill();
    world.servers.advance(TimeDelta::hours(25)).await;
    world.end_trouble().await;
    world.restart().await;
    world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    assert_eq!(given_back(&world, &charge.provider_reference).await, (COPAY, 1));
    assert_ne!(key(&world).await, first);
}

#[tokio::test]
async fn what_the_bank_refuses_later_counts_as_never_given_back() {
    let world = World::start().await;
    let (request, charge) = world.captured("pm_card_refundFail").await;
    refund(&world, asked(&charge, None)).await.unwrap();
    world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    world.servers.advance(TimeDelta::hours(2)).await;
    let charge = world.until_charge(&charge.id, "the refusal", settled(RefundState::Failed)).await;
    assert_eq!((charge.state(), &charge.refunded_amount), (ChargeState::Captured, &Some(usd(0))));
    let account = world.account(&request.patient_id).await;
    assert_eq!((account.balance, account.entries.len()), (Some(usd(0)), 6));
    let provider = "select sum(amount)::bigint from billing.posting where account = 'PROVIDER'";
    assert_eq!(world.number(provider).await, COPAY);
    refund(&world, asked(&charge, Some(100))).await.unwrap();
}

#[tokio::test]
async fn a_refund_that_its_bank_takes_time_for_stays_pending_until_it_answers() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_pendingRefund").await;
    refund(&world, asked(&charge, None)).await.unwrap();
    let named = |c: &pb::Charge| !c.refunds[0].provider_reference.is_empty();
    let charge = world.until_charge(&charge.id, "the provider's name", named).await;
    assert_eq!((charge.state(), charge.refunds[0].state()), (ChargeState::Captured, RefundState::Pending));
    assert_eq!(charge.refunded_amount, Some(usd(COPAY)));
    assert_eq!(world.count::<pb::ChargeRefunded>().await, 0);
    world.servers.advance(TimeDelta::hours(2)).await;
    world.until_charge(&charge.id, "the bank", |c| c.state() == ChargeState::Refunded).await;
    assert_eq!(world.told::<pb::ChargeRefunded>(1).await.remove(0).amount, Some(usd(COPAY)));
}

#[tokio::test]
async fn a_fee_taken_by_two_payments_is_given_back_by_both() {
    const LARGE: i64 = 4_000;
    const MOST: i64 = 3_000;
    let world = World::without_fees().await;
    world.set_fees(vec![world.fee(Some(COPAY), Some(LARGE))], "").await.unwrap();
    let request = world.request(world.patient_with("pm_card_visa").await);
    let copay = world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_ne!(fee.provider_reference, copay.provider_reference);

    refund(&world, asked(&fee, Some(MOST))).await.unwrap();
    let fee = world.until_charge(&fee.id, "most of it", settled(RefundState::Succeeded)).await;
    assert_eq!((fee.state(), fee.refunds.len()), (ChargeState::Captured, 1));
    assert_eq!(given_back(&world, &copay.provider_reference).await, (COPAY, 1));
    assert_eq!(given_back(&world, &fee.provider_reference).await, (MOST - COPAY, 1));
    refund(&world, asked(&fee, None)).await.unwrap();
    world.until_charge(&fee.id, "all of it", |c| c.state() == ChargeState::Refunded).await;
    assert_eq!(given_back(&world, &fee.provider_reference).await, (LARGE - COPAY, 2));
    assert_eq!(world.count::<pb::ChargeRefunded>().await, 2);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_refund_made_at_the_provider_is_known_here_once() {
    const PART: i64 = 700;
    let world = World::start().await;
    let (request, charge) = world.captured("pm_card_visa").await;
    world.trouble("refund.*", "duplicate_webhook", 0, 5).await;
    let form = [("payment_intent", charge.provider_reference.as_str()), ("amount", "700")];
    world.at_provider("refunds", &form).await;
    let charge = world.until_charge(&charge.id, "the refund", settled(RefundState::Succeeded)).await;
    assert_eq!((charge.refunds.len(), &charge.refunded_amount), (1, &Some(usd(PART))));
    assert_eq!(charge.refunds[0].cause(), RefundCause::Provider);
    let told = world.told::<pb::ChargeRefunded>(1).await.remove(0);
    assert_eq!((told.amount, told.remaining_amount), (Some(usd(PART)), Some(usd(COPAY - PART))));
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
    assert_eq!(
        reason(&refund(&world, asked(&charge, Some(COPAY))).await.unwrap_err()),
        "REFUND_EXCEEDS_CAPTURE"
    );
}
