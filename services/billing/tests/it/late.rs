//! Patients who come after their visit was closed as missed.

use chrono::TimeDelta;
use proto::clinic::appointments::v1::{AppointmentState, PatientCheckedIn, VisitCompleted, VisitOutcome};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState, DiscrepancyKind, RefundCause, RefundState};

use crate::visits::{AFTER_BOOKING, completed};
use crate::world::{COPAY, FEE, World, usd};

const CAME: i64 = AFTER_BOOKING + 1;
const CLOSED: i64 = CAME + 1;

fn came(world: &World, request: &pb::AuthorizeCopayRequest) -> PatientCheckedIn {
    PatientCheckedIn {
        appointment_id: request.appointment_id.clone(),
        version: CAME,
        appointment: world.facts(request, AppointmentState::CheckedIn),
        check_in_time: None,
        after_no_show: true,
    }
}

fn attended(world: &World, request: &pb::AuthorizeCopayRequest) -> VisitCompleted {
    VisitCompleted { version: CLOSED, ..completed(world, request, VisitOutcome::Attended) }
}

/// Waits until appointments' newest word is known.
async fn followed(world: &World) {
    testkit::until("the last event", async || {
        (world.number("select coalesce(max(version), 0) from billing.visit").await == CLOSED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_fee_of_a_patient_who_came_after_all_is_given_back_once() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    for _ in 0..2 {
        world.tell(&request, CAME, &came(&world, &request)).await;
    }
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
    assert_eq!((fee.refunds.len(), fee.refunds[0].cause()), (1, RefundCause::FeeReversed));
    assert_eq!(fee.refunded_amount, Some(usd(FEE)));
    world.tell(&request, CLOSED, &attended(&world, &request)).await;
    followed(&world).await;

    // The co-pay is due after all: what the missed visit released or drew is gone, so the card is asked anew.
    let copay = world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!((copay.captured_amount, copay.owed_amount), (Some(usd(COPAY)), Some(usd(0))));
    assert_eq!(world.standings(&request).await, ["succeeded", "succeeded"]);
    assert!(world.told::<pb::CopayAuthorized>(2).await.remove(1).renewal);
    assert_eq!(world.told::<pb::CopayCaptured>(1).await.remove(0).amount, Some(usd(COPAY)));
    let told = world.told::<pb::ChargeRefunded>(1).await.remove(0);
    assert_eq!((&told.amount, &told.forgiven_amount), (&Some(usd(FEE)), &Some(usd(0))));
    assert_eq!((told.kind(), told.cause()), (ChargeKind::NoShowFee, RefundCause::FeeReversed));
    assert_eq!(world.count::<pb::ChargeRefunded>().await, 1);
    assert_eq!(world.provider_lists("refunds").await.len(), 1);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_co_pay_that_no_card_gives_after_all_is_owed_and_told() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_laterDeclined").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    world.tell(&request, CAME, &came(&world, &request)).await;
    world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
    for _ in 0..2 {
        world.tell(&request, CLOSED, &attended(&world, &request)).await;
    }
    let copay = world.until_copay(&request, ChargeState::Declined).await;
    assert_eq!((copay.captured_amount, copay.owed_amount), (Some(usd(0)), Some(usd(COPAY))));
    let owed = world.told::<pb::BalanceOwed>(1).await.remove(0);
    assert_eq!(
        (&owed.amount, &owed.balance, owed.kind()),
        (&Some(usd(COPAY)), &Some(usd(COPAY)), ChargeKind::Copay)
    );
    assert_eq!(world.count::<pb::BalanceOwed>().await, 1);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(COPAY)));
}

#[tokio::test]
async fn a_co_pay_released_while_its_end_is_unknown_is_asked_for_once_the_patient_came() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intents.capture", "act_then_timeout", 1_600, 1).await;
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until_copay(&request, ChargeState::Voiding).await;
    world.tell(&request, CAME, &came(&world, &request)).await;
    world.tell(&request, CLOSED, &attended(&world, &request)).await;
    world.until_copay(&request, ChargeState::Captured).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
    assert_eq!(fee.drawn_from_copay_amount, Some(usd(FEE)));
    // Given back by the payment that it was drawn from.
    let refund = world.provider_lists("refunds").await.remove(0);
    let drawn = world.payments(&request).await.remove(1);
    assert_eq!((&refund["payment_intent"], &refund["amount"]), (&drawn["id"], &FEE.into()));
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
    let report = world.client(Role::Billing, "bo").reconcile(pb::ReconcileRequest::default()).await.unwrap();
    assert_eq!(report.get_ref().discrepancies_found, 0, "{}", report.get_ref().text);
}

#[tokio::test]
async fn what_is_still_owed_of_the_fee_is_owed_no_more() {
    const LARGE: i64 = 4_000;
    let world = World::without_fees().await;
    world.set_fees(vec![world.fee(Some(COPAY), Some(LARGE))], "").await.unwrap();
    let request = world.request(world.patient_with("pm_card_laterDeclined").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!(fee.owed_amount, Some(usd(LARGE - COPAY)));
    world.tell(&request, CAME, &came(&world, &request)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
    assert_eq!((fee.owed_amount, fee.refunded_amount), (Some(usd(0)), Some(usd(COPAY))));
    let told = world.told::<pb::ChargeRefunded>(2).await;
    let parts: Vec<_> = told.into_iter().map(|t| (t.amount.unwrap(), t.forgiven_amount.unwrap())).collect();
    assert_eq!(parts, [(usd(0), usd(LARGE - COPAY)), (usd(COPAY), usd(0))]);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn a_fee_that_the_bank_will_not_take_back_is_owed_to_the_patient_and_named() {
    const MOST_RETURNS: usize = 3;
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_refundFail").await);
    world.authorize(&request).await.unwrap();
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    world.tell(&request, CAME, &came(&world, &request)).await;
    for refused in 1..=MOST_RETURNS {
        world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
        assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
        // This bank takes it at first.
        world.servers.advance(TimeDelta::hours(2)).await;
        let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
        assert!(fee.refunds.iter().all(|refund| refund.state() == RefundState::Failed));
        assert_eq!((fee.refunds.len(), fee.refunded_amount), (refused, Some(usd(0))));
        assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(-FEE)));
        let mut client = world.client(Role::Billing, "bo");
        let report = client.reconcile(pb::ReconcileRequest::default()).await.unwrap().into_inner();
        let named: Vec<_> = report.discrepancies.iter().map(|d| (d.kind(), d.repaired)).collect();
        assert_eq!(named, [(DiscrepancyKind::Refund, false)], "{}", report.text);
        assert!(report.discrepancies[0].remark.contains("owed"));
    }
    assert_eq!(world.provider_lists("refunds").await.len(), MOST_RETURNS);
}

#[tokio::test]
async fn a_fee_of_which_nothing_was_taken_ends_without_a_refund() {
    let world = World::without_fees().await;
    world.set_fees(vec![world.fee(None, Some(FEE))], "").await.unwrap();
    let request = world.request(kit::ids::PatientId::new());
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until(&request, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(FEE)));
    world.tell(&request, CAME, &came(&world, &request)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Voided).await;
    assert!(fee.refunds.is_empty());
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
    assert_eq!(world.told::<pb::ChargeRefunded>(1).await.remove(0).forgiven_amount, Some(usd(FEE)));
}

#[tokio::test]
async fn a_fee_that_is_on_its_way_when_the_patient_comes_is_undone_after() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.authorize(&request).await.unwrap();
    world.trouble("payment_intents.capture", "act_then_timeout", 1_600, 1).await;
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow)).await;
    world.until_copay(&request, ChargeState::Voiding).await;
    world.tell(&request, CAME, &came(&world, &request)).await;
    let fee = world.until(&request, ChargeKind::NoShowFee, ChargeState::Refunded).await;
    assert_eq!(fee.refunds.iter().map(pb::Refund::state).collect::<Vec<_>>(), [RefundState::Succeeded]);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
}

#[tokio::test]
async fn in_whatever_order_a_late_arrival_is_told_the_co_pay_is_taken_and_nothing_of_the_fee_kept() {
    let orders: [&[usize]; 6] =
        [&[1, 0, 2], &[1, 2, 0], &[2, 1, 0], &[0, 2, 1, 1], &[2, 0, 1], &[0, 1, 0, 2, 1]];
    let world = World::start().await;
    for order in orders {
        let request = world.request(world.patient_with("pm_card_visa").await);
        world.authorize(&request).await.unwrap();
        for which in order {
            match which {
                0 => {
                    world
                        .tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::NoShow))
                        .await
                }
                1 => world.tell(&request, CAME, &came(&world, &request)).await,
                _ => world.tell(&request, CLOSED, &attended(&world, &request)).await,
            }
        }
        testkit::until("an end", async || {
            let list =
                pb::ListChargesRequest { appointment_id: request.appointment_id.clone(), ..Default::default() };
            let charges = world.service().list_charges(list).await.ok()?.into_inner().charges;
            let ended = charges.iter().all(|charge| match charge.kind() {
                ChargeKind::Copay => charge.state() == ChargeState::Captured,
                _ => [ChargeState::Refunded, ChargeState::Voided].contains(&charge.state()),
            });
            let known = sqlx::query_scalar::<_, i64>(
                "select count(*) from billing.visit where appointment_id = $1 and fee_reversed and version = $2",
            );
            let known = known.bind(request.appointment_id.parse::<uuid::Uuid>().unwrap()).bind(CLOSED);
            let known = known.fetch_one(&mut world.servers.admin().await).await.unwrap();
            (ended && known == 1).then_some(())
        })
        .await;
        assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)), "{order:?}");
    }
}
