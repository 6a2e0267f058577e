//! The provider's records against ours.

use chrono::TimeDelta;
use kit::ids::RequestId;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeState, DiscrepancyKind, RefundCause};
use proto::google::r#type::Interval;
use sqlx::AssertSqlSafe;
use tonic::{Code, Status};

use crate::visits::{AFTER_BOOKING, cancelled};
use crate::world::{COPAY, RECONCILE_EVERY_SECS, World, bad_fields, reason, usd};

async fn compare(world: &World, dry_run: bool) -> Result<pb::ReconciliationReport, Status> {
    let request = pb::ReconcileRequest { dry_run, ..Default::default() };
    Ok(world.client(Role::Billing, "bo").reconcile(request).await?.into_inner())
}

fn kinds(report: &pb::ReconciliationReport) -> Vec<(DiscrepancyKind, bool)> {
    report.discrepancies.iter().map(|one| (one.kind(), one.repaired)).collect()
}

/// What happened behind this service's back.
async fn meddle(world: &World, sql: String) {
    sqlx::query(AssertSqlSafe(sql)).execute(&mut world.servers.admin().await).await.unwrap();
}

#[tokio::test]
async fn books_that_agree_give_an_empty_report_that_is_kept() {
    let world = World::start().await;
    world.captured("pm_card_visa").await;
    world.authorize(&world.request(world.patient_with("pm_card_visa").await)).await.unwrap();
    let report = compare(&world, false).await.unwrap();
    assert_eq!((report.discrepancies_found, report.charges_checked), (0, 2), "{}", report.text);
    assert_eq!(report.provider_records_checked, 2);
    assert!(report.text.contains("0 differences"), "{}", report.text);
    let kept: String = sqlx::query_scalar("select text from billing.reconciliation")
        .fetch_one(&mut world.servers.admin().await)
        .await
        .unwrap();
    assert_eq!(kept, report.text);
}

#[tokio::test]
async fn what_the_provider_knows_better_is_taken_over_and_a_dry_run_only_tells() {
    let world = World::start().await;
    world.trouble("*", "drop_webhook", 0, 10_000).await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    world.at_provider(&format!("payment_intents/{}/capture", charge.provider_reference), &[]).await;

    let dry = compare(&world, true).await.unwrap();
    assert_eq!(kinds(&dry), [(DiscrepancyKind::State, false)], "{}", dry.text);
    world.until_copay(&request, ChargeState::Authorized).await;
    let report = compare(&world, false).await.unwrap();
    assert_eq!(kinds(&report), [(DiscrepancyKind::State, true)], "{}", report.text);
    let one = &report.discrepancies[0];
    assert_eq!(
        (one.charge_id.as_str(), one.provider_reference.as_str()),
        (charge.id.as_str(), charge.provider_reference.as_str())
    );
    world.until_copay(&request, ChargeState::Captured).await;
    assert_eq!(compare(&world, false).await.unwrap().discrepancies_found, 0);
}

#[tokio::test]
async fn a_reservation_without_a_visit_is_released() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    meddle(&world, format!("update billing.charge set state = 'VOIDED', authorized_amount = 0, due_at = null where id = '{}'", charge.id)).await;
    assert_eq!(kinds(&compare(&world, true).await.unwrap()), [(DiscrepancyKind::OrphanAuthorization, false)]);
    assert_eq!(world.standings(&request).await, ["requires_capture"]);
    let report = compare(&world, false).await.unwrap();
    assert_eq!(kinds(&report), [(DiscrepancyKind::OrphanAuthorization, true)], "{}", report.text);
    assert_eq!(world.standings(&request).await, ["canceled"]);
}

#[tokio::test]
async fn money_taken_for_a_visit_that_was_called_off_is_given_back() {
    use proto::clinic::appointments::v1::CancelTimeliness::Timely;
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&request).await.unwrap();
    world.at_provider(&format!("payment_intents/{}/capture", charge.provider_reference), &[]).await;
    world.tell(&request, AFTER_BOOKING, &cancelled(&world, &request, Timely)).await;
    world.until_copay(&request, ChargeState::Captured).await;
    testkit::until("the cancellation", async || {
        (world.number("select count(*) from billing.visit where ending = 'CANCELLED'").await == 1)
            .then_some(())
    })
    .await;
    let report = compare(&world, false).await.unwrap();
    assert_eq!(kinds(&report), [(DiscrepancyKind::Amount, true)], "{}", report.text);
    let charge = world.until_copay(&request, ChargeState::Refunded).await;
    assert_eq!(charge.refunds[0].cause(), RefundCause::Reconciliation);
}

#[tokio::test]
async fn each_thing_that_nobody_can_be_certain_of_is_told() {
    let world = World::start().await;
    let (_, amount) = world.captured("pm_card_visa").await;
    let (_, missing) = world.captured("pm_card_visa").await;
    let (_, disputed) = world.captured("pm_card_visa").await;
    world.dispute(&disputed.provider_reference).await;
    let withdrawn = "select count(*) from billing.dispute";
    testkit::until("the dispute", async || (world.number(withdrawn).await == 1).then_some(())).await;
    meddle(&world, format!("update billing.charge set captured_amount = 1700 where id = '{}'", amount.id))
        .await;
    let gone = "pi_gone";
    meddle(
        &world,
        format!("update billing.charge set provider_reference = '{gone}' where id = '{}'", missing.id),
    )
    .await;
    let form = [
        ("amount", "900"),
        ("currency", "usd"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
        ("payment_method_types[]", "card"),
    ];
    let foreign = world.at_provider("payment_intents", &form).await;

    let report = compare(&world, false).await.unwrap();
    let mut found: Vec<_> = report
        .discrepancies
        .iter()
        .map(|one| {
            assert!(!one.repaired && !one.remark.is_empty(), "{one:?}");
            (
                one.kind(),
                one.provider_reference.clone(),
                one.ledger_amount.clone(),
                one.provider_amount.clone(),
            )
        })
        .collect();
    found.sort_by_key(|one| one.0 as i32);
    let dispute = world.provider_lists("disputes").await.remove(0)["id"].as_str().unwrap().to_owned();
    let mut expected = vec![
        (DiscrepancyKind::Amount, amount.provider_reference, Some(usd(1_700)), Some(usd(COPAY))),
        (DiscrepancyKind::UnknownPayment, foreign["id"].as_str().unwrap().to_owned(), None, Some(usd(900))),
        (DiscrepancyKind::UnknownPayment, missing.provider_reference, None, Some(usd(COPAY))),
        (DiscrepancyKind::MissingPayment, gone.to_owned(), Some(usd(COPAY)), None),
        (DiscrepancyKind::Dispute, dispute, Some(usd(COPAY)), Some(usd(COPAY))),
    ];
    expected.sort_by_key(|one| one.0 as i32);
    found.sort_by(|a, b| (a.0 as i32, &a.1).cmp(&(b.0 as i32, &b.1)));
    expected.sort_by(|a, b| (a.0 as i32, &a.1).cmp(&(b.0 as i32, &b.1)));
    assert_eq!(found, expected, "{}", report.text);
    assert_eq!((report.discrepancies_found, report.discrepancies_repaired), (5, 0));
}

#[tokio::test]
async fn a_refund_that_only_the_provider_knows_is_taken_over() {
    let world = World::start().await;
    let (_, charge) = world.captured("pm_card_visa").await;
    world.trouble("*", "drop_webhook", 0, 10_000).await;
    world.at_provider("refunds", &[("payment_intent", charge.provider_reference.as_str())]).await;
    assert_eq!(kinds(&compare(&world, true).await.unwrap()), [(DiscrepancyKind::Refund, false)]);
    assert_eq!(world.number("select count(*) from billing.refund").await, 0);
    let report = compare(&world, false).await.unwrap();
    assert_eq!(kinds(&report), [(DiscrepancyKind::Refund, true)], "{}", report.text);
    let charge = world.until_charge(&charge.id, "the refund", |c| c.state() == ChargeState::Refunded).await;
    assert_eq!(charge.refunds[0].cause(), RefundCause::Provider);
    assert_eq!(compare(&world, false).await.unwrap().discrepancies_found, 0);
}

#[tokio::test]
async fn lists_of_many_pages_are_read_to_their_end() {
    const MANY: usize = 130;
    let world = World::start().await;
    let form = [
        ("amount", "900"),
        ("currency", "usd"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
        ("payment_method_types[]", "card"),
    ];
    for _ in 0..MANY {
        world.at_provider("payment_intents", &form).await;
    }
    let report = compare(&world, true).await.unwrap();
    assert_eq!((report.discrepancies_found, report.provider_records_checked), (MANY as i64, MANY as i64));
    assert_eq!(report.discrepancies.len(), MANY);
    assert_eq!(world.number("select count(*) from billing.reconciliation_seen").await, 0);
}

#[tokio::test]
async fn only_one_runs_at_a_time_and_a_killed_one_holds_nobody_up() {
    let mut world = World::start().await;
    world.trouble("payment_intents.list", "latency", 1_000, 1).await;
    let running = tokio::spawn({
        let mut client = world.client(Role::Billing, "bo");
        async move { client.reconcile(pb::ReconcileRequest::default()).await }
    });
    testkit::until("the lock", async || {
        (world
            .number("select count(*) from pg_locks where locktype = 'advisory' and objid = 1701735523")
            .await
            + world
                .number("select count(*) from pg_locks where locktype = 'advisory' and classid = 29285")
                .await
            > 0)
        .then_some(())
    })
    .await;
    let second = compare(&world, false).await.unwrap_err();
    assert_eq!(
        (second.code(), reason(&second).as_str()),
        (Code::FailedPrecondition, "RECONCILIATION_RUNNING")
    );
    world.kill();
    assert!(running.await.unwrap().is_err());
    world.restart().await;
    testkit::until("another one", async || compare(&world, false).await.ok()).await;
}

#[tokio::test]
async fn a_repeat_answers_the_first_report() {
    let world = World::start().await;
    let request = pb::ReconcileRequest { request_id: RequestId::new().to_string(), ..Default::default() };
    let mut client = world.client(Role::Billing, "bo");
    let first = client.reconcile(request.clone()).await.unwrap().into_inner();
    assert_eq!(client.reconcile(request.clone()).await.unwrap().into_inner(), first);
    let other = pb::ReconcileRequest { dry_run: true, ..request };
    assert_eq!(reason(&client.reconcile(other).await.unwrap_err()), "REQUEST_ID_REUSED");
    let denied = world.desk().reconcile(pb::ReconcileRequest::default()).await.unwrap_err();
    assert_eq!(reason(&denied), "ROLE_REQUIRED");
}

#[tokio::test]
async fn a_time_that_is_no_time_or_too_long_is_refused() {
    let world = World::without_fees().await;
    let now = world.today();
    let at = |days| Some(kit::fields::timestamp(now + TimeDelta::days(days)));
    for (from, until) in [(-32, 0), (0, 0), (1, 0)] {
        let interval = Some(Interval { start_time: at(from), end_time: at(until) });
        let request = pb::ReconcileRequest { interval, ..Default::default() };
        let refused = world.client(Role::Billing, "bo").reconcile(request).await.unwrap_err();
        assert_eq!(bad_fields(&refused), ["interval"]);
    }
    let month = Some(Interval { start_time: at(-31), end_time: at(0) });
    let request = pb::ReconcileRequest { interval: month, ..Default::default() };
    assert!(world.client(Role::Admin, "root").reconcile(request).await.is_ok());
}

#[tokio::test]
async fn once_a_day_it_runs_by_itself() {
    let world = World::start().await;
    world.captured("pm_card_visa").await;
    let runs = "select count(*) from billing.reconciliation where scheduled";
    assert_eq!(world.number(runs).await, 0);
    world.servers.advance(TimeDelta::seconds(RECONCILE_EVERY_SECS as i64 + 1)).await;
    testkit::until("a scheduled run", async || (world.number(runs).await == 1).then_some(())).await;
    assert_eq!(world.number("select max(found) from billing.reconciliation").await, 0);
}
