//! Payments and refunds that one side does not know.

use chrono::TimeDelta;
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeState, DiscrepancyKind, RefundState};
use sqlx::AssertSqlSafe;

use crate::visits::{AFTER_BOOKING, completed};
use crate::world::{COPAY, World, usd};

/// So long what the provider does not know is waited for.
const A_DAY: TimeDelta = TimeDelta::hours(24);

async fn meddle(world: &World, sql: String) {
    sqlx::query(AssertSqlSafe(sql)).execute(&mut world.servers.admin().await).await.unwrap();
}

async fn reconcile(world: &World) -> pb::ReconciliationReport {
    let request = pb::ReconcileRequest::default();
    world.client(Role::Billing, "bo").reconcile(request).await.unwrap().into_inner()
}

/// Reconciles until it has come to what is `wanted`; refused while a scheduled one runs, which does as well.
async fn reconciled(world: &World, what: &str, wanted: impl AsyncFn() -> bool) {
    testkit::until(what, async || {
        let _ = world.client(Role::Billing, "bo").reconcile(pb::ReconcileRequest::default()).await;
        wanted().await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_the_provider_does_not_know_is_named_waited_for_and_replaced() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    let gone = "update billing.charge set provider_reference = 'pi_gone' where id";
    meddle(&world, format!("{gone} = '{}'", charge.id)).await;
    world.tell(&request, AFTER_BOOKING, &completed(&world, &request, VisitOutcome::Attended)).await;
    let missed = "select count(*) from billing.charge where missing_since is not null";
    testkit::until("the provider's word", async || (world.number(missed).await == 1).then_some(())).await;
    let named = reconcile(&world).await;
    assert_eq!(named.discrepancies.len(), 1, "{}", named.text);
    assert_eq!(named.discrepancies[0].kind(), DiscrepancyKind::MissingPayment);
    world.until_copay(&request, ChargeState::Capturing).await;
    assert_eq!(world.standings(&request).await, ["requires_capture"]);

    world.servers.advance(A_DAY + TimeDelta::hours(1)).await;
    let taken = world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!((taken.captured_amount, taken.owed_amount), (Some(usd(COPAY)), Some(usd(0))));
    assert_eq!(world.count::<pb::CopayLapsed>().await, 1);
    // The payment that was lost from our side serves nothing, and is released.
    reconciled(&world, "its release", async || world.standings(&request).await == ["succeeded", "canceled"])
        .await;
}

#[tokio::test]
async fn a_refund_that_the_provider_does_not_know_has_failed_after_a_day() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_pendingRefund").await;
    world.trouble("*", "drop_webhook", 0, 10_000).await;
    let request = pb::RefundChargeRequest {
        request_id: String::new(),
        charge_id: charge.id.clone(),
        amount: None,
        reason: "a complaint".into(),
        etag: charge.etag.clone(),
    };
    world.desk().refund_charge(request).await.unwrap();
    let on_its_way = |c: &pb::Charge| c.refunds.iter().any(|refund| !refund.provider_reference.is_empty());
    world.until_charge(&charge.id, "the provider's refund", on_its_way).await;
    let gone =
        "update billing.refund_part set provider_reference = 're_gone', key = 'gone', due_at = clock.now()";
    meddle(&world, gone.into()).await;
    let missed = "select count(*) from billing.refund_part where missing_since is not null";
    testkit::until("the provider's word", async || (world.number(missed).await == 1).then_some(())).await;
    let named = reconcile(&world).await;
    assert!(named.discrepancies.iter().any(|one| one.kind() == DiscrepancyKind::Refund), "{}", named.text);

    world.servers.advance(A_DAY + TimeDelta::hours(1)).await;
    let failed = |c: &pb::Charge| c.refunds.iter().any(|refund| refund.state() == RefundState::Failed);
    world.until_charge(&charge.id, "its end", failed).await;
    // The provider's own refund is known once there is room for it.
    reconciled(&world, "the provider's refund", async || {
        let get = pb::GetChargeRequest { charge_id: charge.id.clone() };
        world.desk().get_charge(get).await.unwrap().get_ref().state() == ChargeState::Refunded
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_nobody_waited_for_is_cancelled_when_the_provider_tells_of_it() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    let form = |charge: &str| {
        [
            ("amount", "2500"),
            ("currency", "usd"),
            ("payment_method", "pm_card_visa"),
            ("payment_method_types[]", "card"),
            ("capture_method", "manual"),
            ("confirm", "true"),
            ("metadata[appointment_id]", &request.appointment_id),
            ("metadata[charge_id]", charge),
        ]
        .map(|(name, value)| (name, value.to_owned()))
    };
    for made_for in [charge.id.as_str(), "someone-elses"] {
        let form = form(made_for);
        let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
        world.at_provider("payment_intents", &form).await;
    }
    let apart = "select count(*) from billing.webhook_event where stray";
    testkit::until("the webhook", async || (world.number(apart).await == 1).then_some(())).await;
    world.servers.advance(TimeDelta::seconds(31)).await;
    testkit::until("its end", async || {
        (world.standings(&request).await == ["requires_capture", "canceled", "requires_capture"])
            .then_some(())
    })
    .await;
    let copay = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(copay.provider_reference, charge.provider_reference);
}
