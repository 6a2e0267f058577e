//! Patients who come after their visit was closed as missed.

use proto::clinic::appointments::v1::{AppointmentState, PatientCheckedIn, VisitCompleted, VisitOutcome};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState, RefundCause, RefundState};

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

    // Voided is final: what the missed visit released is not reserved again.
    world.until_copay(&request, ChargeState::Voided).await;
    let told = world.told::<pb::ChargeRefunded>(1).await.remove(0);
    assert_eq!((&told.amount, &told.forgiven_amount), (&Some(usd(FEE)), &Some(usd(0))));
    assert_eq!((told.kind(), told.cause()), (ChargeKind::NoShowFee, RefundCause::FeeReversed));
    assert_eq!(world.count::<pb::ChargeRefunded>().await, 1);
    assert_eq!(world.provider_lists("refunds").await.len(), 1);
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
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
async fn in_whatever_order_a_late_arrival_is_told_nothing_of_the_fee_is_kept() {
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
                ChargeKind::Copay => [ChargeState::Captured, ChargeState::Voided].contains(&charge.state()),
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
