//! Money that banks take back.

use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::DiscrepancyKind;

use crate::world::{COPAY, World, usd};

/// What the ledger has at the provider, and what banks have withdrawn from there.
async fn funds(world: &World) -> (i64, i64) {
    let at_provider = world
        .number("select coalesce(sum(amount), 0)::bigint from billing.posting where account = 'PROVIDER'");
    let disputed = world
        .number("select coalesce(sum(amount), 0)::bigint from billing.posting where account = 'DISPUTED'");
    (at_provider.await, disputed.await)
}

async fn until_funds(world: &World, wanted: (i64, i64)) {
    testkit::until("the ledger", async || (funds(world).await == wanted).then_some(())).await;
}

/// The dispute about a payment.
async fn dispute_of(world: &World, payment: &str) -> String {
    let disputes = world.provider_lists("disputes").await;
    let dispute = disputes.iter().find(|dispute| dispute["payment_intent"] == payment).unwrap();
    dispute["id"].as_str().unwrap().to_owned()
}

async fn reconcile(world: &World, dry_run: bool) -> Vec<(DiscrepancyKind, bool)> {
    let request = pb::ReconcileRequest { dry_run, ..Default::default() };
    let report = world.client(Role::Billing, "bo").reconcile(request).await.unwrap().into_inner();
    report.discrepancies.iter().map(|one| (one.kind(), one.repaired)).collect()
}

#[tokio::test]
async fn what_banks_withdraw_and_reinstate_is_in_the_ledger_and_on_nobodys_account() {
    let world = World::start().await;
    let (_, won) = world.captured("pm_card_visa").await;
    let (request, lost) = world.captured("pm_card_mastercard").await;
    for charge in [&won, &lost] {
        world.dispute(&charge.provider_reference).await;
    }
    until_funds(&world, (0, 2 * COPAY)).await;
    for (charge, keeps) in [(&won, true), (&lost, false)] {
        world.decide(&dispute_of(&world, &charge.provider_reference).await, keeps).await;
    }
    until_funds(&world, (COPAY, COPAY)).await;

    // Told again, the newest first, they change nothing.
    for event in world.all_provider_lists("events").await {
        if event["type"].as_str().unwrap().starts_with("charge.dispute") {
            let mut again = event.clone();
            again["id"] = format!("{}_again", event["id"].as_str().unwrap()).into();
            assert!(world.deliver(&again).await.is_success());
        }
    }
    let waiting = "select count(*) from billing.webhook_event where due_at is not null";
    testkit::until("all being applied", async || (world.number(waiting).await == 0).then_some(())).await;
    assert_eq!(funds(&world).await, (COPAY, COPAY));
    assert_eq!(world.account(&request.patient_id).await.balance, Some(usd(0)));
    assert_eq!(world.account(&request.patient_id).await.entries.len(), 2);
    // What was lost is for people to settle.
    assert_eq!(reconcile(&world, false).await, [(DiscrepancyKind::Dispute, false)]);
}

#[tokio::test]
async fn what_no_webhook_told_of_a_dispute_is_posted_by_reconciliation() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    world.trouble("*", "drop_webhook", 0, 10_000).await;
    world.dispute(&charge.provider_reference).await;
    let open = (DiscrepancyKind::Dispute, false);
    assert_eq!(reconcile(&world, true).await, [open, open]);
    assert_eq!(funds(&world).await, (COPAY, 0));
    assert_eq!(reconcile(&world, false).await, [open, (DiscrepancyKind::Dispute, true)]);
    assert_eq!(funds(&world).await, (0, COPAY));
    world.decide(&dispute_of(&world, &charge.provider_reference).await, true).await;
    assert_eq!(reconcile(&world, false).await, [(DiscrepancyKind::Dispute, true)]);
    assert_eq!(funds(&world).await, (COPAY, 0));
    assert_eq!(reconcile(&world, false).await, []);
}
