//! Reserving a co-pay.

use chrono::TimeDelta;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, PatientId, RequestId};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::ChargeState;
use tonic::Code;

use crate::world::{COPAY, World, bad_fields, reason, usd};

#[tokio::test]
async fn a_co_pay_is_reserved_once_however_often_it_is_asked_for() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);

    let charge = world.authorize(&request).await.unwrap();
    assert_eq!(charge.state(), ChargeState::Authorized);
    assert_eq!((&charge.amount, &charge.authorized_amount), (&Some(usd(COPAY)), &Some(usd(COPAY))));
    assert!(charge.capture_before.is_some() && charge.provider_reference.starts_with("pi_"));

    let again = world.authorize(&request).await.unwrap();
    assert_eq!(again, charge);
    let later = pb::AuthorizeCopayRequest { authorize_by: Some(timestamp(world.today())), ..request.clone() };
    assert_eq!(world.authorize(&later).await.unwrap(), charge);
    assert_eq!(world.payments(&request).await.len(), 1);

    let told = world.told::<pb::CopayAuthorized>(1).await.remove(0);
    assert_eq!((told.charge_id, told.version, told.amount), (charge.id, 1, Some(usd(COPAY))));
    assert_eq!(world.count::<pb::CopayAuthorized>().await, 1);
}

#[tokio::test]
async fn racing_calls_reserve_once() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.trouble("payment_intents.create", "latency", 200, 1).await;
    let (a, b, c) =
        tokio::join!(world.authorize(&request), world.authorize(&request), world.authorize(&request));
    for racer in [a, b, c] {
        match racer {
            Ok(charge) => assert_eq!(charge.state(), ChargeState::Authorized),
            // The provider says that the first call is still under way.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
    world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(world.payments(&request).await.len(), 1);
    assert_eq!(world.count::<pb::CopayAuthorized>().await, 1);
}

#[tokio::test]
async fn after_a_decline_another_card_may_do() {
    let world = World::start().await;
    let patient = world.patient_with("pm_card_chargeCustomerFail").await;
    let request =
        pb::AuthorizeCopayRequest { request_id: RequestId::new().to_string(), ..world.request(patient) };

    let declined = world.authorize(&request).await.unwrap_err();
    assert_eq!((declined.code(), reason(&declined).as_str()), (Code::FailedPrecondition, "PAYMENT_DECLINED"));
    assert_eq!(kit::status::meta(&declined, "decline_code").as_deref(), Some("generic_decline"));
    let told = world.told::<pb::CopayAuthorizationFailed>(1).await.remove(0);
    assert_eq!((told.state(), told.decline_code.as_str()), (ChargeState::Declined, "generic_decline"));

    // The same attempt again is the same decline, not another attempt.
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "PAYMENT_DECLINED");
    assert_eq!(world.payments(&request).await.len(), 1);

    let card = world.save_card(patient, "pm_card_visa").await.unwrap();
    let other = pb::AuthorizeCopayRequest {
        request_id: RequestId::new().to_string(),
        payment_method_id: card.id.clone(),
        ..request.clone()
    };
    let charge = world.authorize(&other).await.unwrap();
    assert_eq!((charge.state(), charge.payment_method_id), (ChargeState::Authorized, card.id));
    assert_eq!(charge.decline_code, "");
    // What the first attempt left behind cannot be confirmed any more.
    assert_eq!(world.standings(&request).await, ["requires_capture", "canceled"]);
    // The first attempt still answers what it came to.
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "PAYMENT_DECLINED");
}

#[tokio::test]
async fn a_declined_payment_that_is_authorized_after_all_is_no_decline_any_more() {
    let world = World::start().await;
    let patient = world.patient_with("pm_card_chargeCustomerFail").await;
    let request =
        pb::AuthorizeCopayRequest { request_id: RequestId::new().to_string(), ..world.request(patient) };
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "PAYMENT_DECLINED");

    let payment = world.payments(&request).await.remove(0);
    world.pay_in_browser(payment["id"].as_str().unwrap(), "pm_card_visa").await;
    let charge = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(charge.decline_code, "");
    assert_eq!(world.authorize(&request).await.unwrap(), charge);
}

#[tokio::test]
async fn an_order_that_the_provider_remembers_as_its_own_trouble_is_made_under_the_next_key() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.trouble("payment_intents.create", "error_500_remembered", 0, 2).await;
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "DEPENDENCY_DOWN");
    let charge = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(world.authorize(&request).await.unwrap(), charge);
    assert_eq!(world.standings(&request).await, ["requires_capture"]);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again() {
    let world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.trouble("payment_intents.create", "act_then_timeout", 1_600, 1).await;

    let lost = world.authorize(&request).await.unwrap_err();
    assert_eq!((lost.code(), reason(&lost).as_str()), (Code::Unavailable, "DEPENDENCY_DOWN"));
    let charge = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(world.payments(&request).await.len(), 1);
    assert_eq!(world.authorize(&request).await.unwrap().id, charge.id);
    assert_eq!(world.count::<pb::CopayAuthorized>().await, 1);
}

#[tokio::test]
async fn what_a_killed_process_was_asking_is_settled_by_the_next_one() {
    let mut world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.trouble("payment_intents.create", "act_then_timeout", 1_000, 1).await;
    let asking = tokio::spawn({
        let (mut client, request) = (world.service(), request.clone());
        async move { client.authorize_copay(request).await }
    });
    testkit::until("the provider acting", async || world.payments(&request).await.pop()).await;
    world.kill();
    assert!(asking.await.unwrap().is_err());

    world.restart().await;
    world.servers.advance(TimeDelta::seconds(21)).await;
    world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(world.payments(&request).await.len(), 1);
}

#[tokio::test]
async fn a_patient_whose_bank_asks_confirms_and_is_authorized() {
    let world = World::start().await;
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    assert_eq!(card.state(), pb::PaymentMethodState::RequiresAction);
    let setup = card.client_secret.split("_secret").next().unwrap().to_owned();
    let request = world.request(patient);
    assert_eq!(reason(&world.authorize(&request).await.unwrap_err()), "PAYMENT_METHOD_REQUIRED");
    world.confirm(&setup, true).await;

    let charge = world.authorize(&request).await.unwrap();
    assert_eq!(charge.state(), ChargeState::RequiresAction);
    assert!(!charge.client_secret.is_empty());
    let get = pb::GetChargeRequest { charge_id: charge.id.clone() };
    let seen = async |role, subject: &str| {
        world.client(role, subject).get_charge(get.clone()).await.unwrap().into_inner().client_secret
    };
    assert_eq!(seen(Role::Patient, &patient.to_string()).await, charge.client_secret);
    assert_eq!(seen(Role::Billing, "bo").await, "");

    world.confirm(&charge.provider_reference, true).await;
    let charge = world.until_copay(&request, ChargeState::Authorized).await;
    assert_eq!(charge.client_secret, "");
    assert_eq!(world.authorize(&request).await.unwrap().id, charge.id);
    world.told::<pb::CopayAuthorized>(1).await;
}

#[tokio::test]
async fn a_bank_that_asks_while_the_patient_is_away_declines() {
    let world = World::start().await;
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    world.confirm(card.client_secret.split("_secret").next().unwrap(), true).await;
    let request = pb::AuthorizeCopayRequest { off_session: true, ..world.request(patient) };
    let declined = world.authorize(&request).await.unwrap_err();
    assert_eq!(kit::status::meta(&declined, "decline_code").as_deref(), Some("authentication_required"));
}

#[tokio::test]
async fn naming_another_card_instead_of_confirming_ends_the_first_attempt() {
    let world = World::start().await;
    let patient = PatientId::new();
    let card = world.save_card(patient, "pm_card_authenticationRequired").await.unwrap();
    world.confirm(card.client_secret.split("_secret").next().unwrap(), true).await;
    let request = world.request(patient);
    assert_eq!(world.authorize(&request).await.unwrap().state(), ChargeState::RequiresAction);

    let payment_method_id = world.save_card(patient, "pm_card_visa").await.unwrap().id;
    let other = pb::AuthorizeCopayRequest { payment_method_id, ..request.clone() };
    assert_eq!(world.authorize(&other).await.unwrap().state(), ChargeState::Authorized);
    assert_eq!(world.standings(&request).await, ["requires_capture", "canceled"]);
}

#[tokio::test]
async fn each_rule_that_says_no_names_itself() {
    let world = World::start().await;
    let patient = world.patient_with("pm_card_visa").await;
    let refused = async |change: &dyn Fn(&mut pb::AuthorizeCopayRequest)| {
        let mut request = world.request(patient);
        change(&mut request);
        reason(&world.authorize(&request).await.unwrap_err())
    };
    assert_eq!(refused(&|r| r.patient_id = PatientId::new().to_string()).await, "PAYMENT_METHOD_REQUIRED");
    assert_eq!(
        refused(&|r| r.payment_method_id = r.appointment_id.clone()).await,
        "PAYMENT_METHOD_NOT_FOUND"
    );
    assert_eq!(refused(&|r| r.clinic_id = r.appointment_id.clone()).await, "FEE_NOT_SET");
    let past = timestamp(world.today() - TimeDelta::seconds(1));
    assert_eq!(refused(&|r| r.authorize_by = Some(past)).await, "HOLD_EXPIRED");

    let schedule = world.set_fees(vec![world.fee(None, None)], "1").await.unwrap();
    assert_eq!(schedule.etag, "2");
    assert_eq!(refused(&|_| ()).await, "COPAY_NOT_DUE");

    let bad =
        world.authorize(&pb::AuthorizeCopayRequest { request_id: "x".into(), ..Default::default() }).await;
    let bad = bad.unwrap_err();
    assert_eq!(
        bad_fields(&bad),
        [
            "request_id",
            "appointment_id",
            "patient_id",
            "clinic_id",
            "service_type_id",
            "visit_start_time",
            "visit_date",
            "authorize_by",
        ]
    );
    let denied = world.desk().authorize_copay(world.request(patient)).await.unwrap_err();
    assert_eq!(reason(&denied), "ROLE_REQUIRED");
}

#[tokio::test]
async fn a_request_id_belongs_to_one_request() {
    let world = World::start().await;
    let patient = world.patient_with("pm_card_visa").await;
    let request =
        pb::AuthorizeCopayRequest { request_id: RequestId::new().to_string(), ..world.request(patient) };
    let charge = world.authorize(&request).await.unwrap();
    assert_eq!(world.authorize(&request).await.unwrap(), charge);
    let other = pb::AuthorizeCopayRequest { appointment_id: AppointmentId::new().to_string(), ..request };
    let reused = world.authorize(&other).await.unwrap_err();
    assert_eq!((reused.code(), reason(&reused).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
}

#[tokio::test]
async fn without_its_database_billing_says_so_and_recovers() {
    let mut world = World::start().await;
    let request = world.request(world.patient_with("pm_card_visa").await);
    world.servers.postgres.stop().await;
    let down = world.authorize(&request).await.unwrap_err();
    assert_eq!((down.code(), reason(&down).as_str()), (Code::Unavailable, "DEPENDENCY_DOWN"));
    world.servers.postgres.start_again().await.unwrap();
    let charge = testkit::until("an authorization", async || world.authorize(&request).await.ok()).await;
    assert_eq!(charge.state(), ChargeState::Authorized);
}
