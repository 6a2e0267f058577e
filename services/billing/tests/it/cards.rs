//! Cards on file, and who sees what.

use kit::ids::{PatientId, RequestId};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::PaymentMethodState;
use tonic::Code;

use crate::world::{World, bad_fields, reason};

#[tokio::test]
async fn the_first_card_is_the_default_until_another_is_made_so() {
    let world = World::without_fees().await;
    let patient = PatientId::new();
    let first = world.save_card(patient, "pm_card_visa").await.unwrap();
    assert!(first.is_default);
    assert_eq!((first.brand.as_str(), first.last4.as_str()), ("visa", "4242"));
    assert_eq!((first.state(), first.client_secret.as_str()), (PaymentMethodState::Active, ""));
    let second = world.save_card(patient, "pm_card_mastercard").await.unwrap();
    assert!(!second.is_default);

    let request = pb::SavePaymentMethodRequest {
        request_id: RequestId::new().to_string(),
        patient_id: patient.to_string(),
        provider_token: "pm_card_amex".into(),
        make_default: true,
    };
    let third = world.patient(patient).save_payment_method(request.clone()).await.unwrap().into_inner();
    let again = world.patient(patient).save_payment_method(request).await.unwrap().into_inner();
    assert_eq!(third, again);
    let cards = world.account(&patient.to_string()).await.payment_methods;
    let ids: Vec<_> = cards.iter().map(|card| (card.id.as_str(), card.is_default)).collect();
    assert_eq!(ids, [(third.id.as_str(), true), (second.id.as_str(), false), (first.id.as_str(), false)]);
}

#[tokio::test]
async fn a_card_the_bank_refuses_is_not_kept() {
    let world = World::without_fees().await;
    let patient = PatientId::new();
    let declined = world.save_card(patient, "pm_card_chargeDeclinedInsufficientFunds").await.unwrap_err();
    assert_eq!(reason(&declined), "PAYMENT_DECLINED");
    assert_eq!(kit::status::meta(&declined, "decline_code").as_deref(), Some("insufficient_funds"));
    for token in ["4242424242424242", "pm_4242424242424242", "", "pm_unknown"] {
        let refused = world.save_card(patient, token).await.unwrap_err();
        assert_eq!(bad_fields(&refused), ["provider_token"], "{token}");
    }
    assert!(world.account(&patient.to_string()).await.payment_methods.is_empty());
}

#[tokio::test]
async fn saving_a_card_whose_answer_was_lost_can_be_repeated() {
    let world = World::without_fees().await;
    let request = pb::SavePaymentMethodRequest {
        request_id: RequestId::new().to_string(),
        patient_id: PatientId::new().to_string(),
        provider_token: "pm_card_visa".into(),
        make_default: false,
    };
    world.trouble("setup_intents.create", "act_then_drop", 0, 1).await;
    let lost = world.desk().save_payment_method(request.clone()).await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    world.desk().save_payment_method(request.clone()).await.unwrap();
    let customer: String = sqlx::query_scalar("select provider_id from billing.customer")
        .fetch_one(&mut world.servers.admin().await)
        .await
        .unwrap();
    let cards = world.provider_lists(&format!("payment_methods?customer={customer}")).await;
    assert_eq!(cards.len(), 1);
}

#[tokio::test]
async fn trouble_that_the_provider_remembers_keeps_no_card_from_being_saved() {
    let world = World::without_fees().await;
    let request = pb::SavePaymentMethodRequest {
        request_id: RequestId::new().to_string(),
        patient_id: PatientId::new().to_string(),
        provider_token: "pm_card_visa".into(),
        make_default: false,
    };
    for route in ["customers.create", "setup_intents.create"] {
        world.trouble(route, "error_500_remembered", 0, 1).await;
        let broken = world.desk().save_payment_method(request.clone()).await.unwrap_err();
        assert_eq!((broken.code(), reason(&broken).as_str()), (Code::Unavailable, "DEPENDENCY_DOWN"));
    }
    let saved = world.desk().save_payment_method(request.clone()).await.unwrap().into_inner();
    assert_eq!(world.desk().save_payment_method(request.clone()).await.unwrap().into_inner(), saved);
    assert_eq!(world.provider_lists("setup_intents").await.len(), 1);
    let cards = world.account(&request.patient_id).await.payment_methods;
    assert_eq!(cards.iter().map(|card| &card.id).collect::<Vec<_>>(), [&saved.id]);
}

#[tokio::test]
async fn a_patient_has_at_most_twenty_cards() {
    const MOST: usize = billing::domain::card::MOST_PER_PATIENT;
    let world = World::without_fees().await;
    let patient = PatientId::new();
    for _ in 0..MOST {
        world.save_card(patient, "pm_card_visa").await.unwrap();
    }
    assert_eq!(
        reason(&world.save_card(patient, "pm_card_visa").await.unwrap_err()),
        "TOO_MANY_PAYMENT_METHODS"
    );
}

#[tokio::test]
async fn a_patient_sees_its_own_only() {
    let world = World::start().await;
    let (own, other) = (world.patient_with("pm_card_visa").await, world.patient_with("pm_card_visa").await);
    let charge = world.authorize(&world.request(own)).await.unwrap();
    let foreign = world.authorize(&world.request(other)).await.unwrap();
    let mut patient = world.patient(own);

    let get = |id: &str| pb::GetChargeRequest { charge_id: id.to_owned() };
    assert_eq!(patient.get_charge(get(&charge.id)).await.unwrap().into_inner().id, charge.id);
    let hidden = patient.get_charge(get(&foreign.id)).await.unwrap_err();
    assert_eq!((hidden.code(), reason(&hidden).as_str()), (Code::NotFound, "CHARGE_NOT_FOUND"));

    let list = |patient_id: String, appointment_id: String| pb::ListChargesRequest {
        patient_id,
        appointment_id,
        ..Default::default()
    };
    let listed =
        patient.list_charges(list(own.to_string(), String::new())).await.unwrap().into_inner().charges;
    assert_eq!(listed.iter().map(|c| &c.id).collect::<Vec<_>>(), [&charge.id]);
    let none = patient.list_charges(list(String::new(), foreign.appointment_id.clone())).await.unwrap();
    assert!(none.into_inner().charges.is_empty());
    let hidden = patient.list_charges(list(other.to_string(), String::new())).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    let all = patient.list_charges(list(String::new(), String::new())).await.unwrap_err();
    assert_eq!(bad_fields(&all), ["patient_id"]);

    let account =
        |id: PatientId| pb::GetPatientAccountRequest { patient_id: id.to_string(), ..Default::default() };
    assert!(patient.get_patient_account(account(own)).await.is_ok());
    let hidden = patient.get_patient_account(account(other)).await.unwrap_err();
    assert_eq!(reason(&hidden), "PATIENT_NOT_FOUND");
    let save = pb::SavePaymentMethodRequest {
        patient_id: other.to_string(),
        provider_token: "pm_card_visa".into(),
        ..Default::default()
    };
    assert_eq!(patient.save_payment_method(save).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn charges_are_listed_newest_first_page_by_page() {
    const ALL: usize = 5;
    let world = World::start().await;
    let patient = world.patient_with("pm_card_visa").await;
    let mut made = vec![];
    for _ in 0..ALL {
        made.insert(0, world.authorize(&world.request(patient)).await.unwrap().id);
    }
    let mut request =
        pb::ListChargesRequest { patient_id: patient.to_string(), page_size: 2, ..Default::default() };
    let mut seen = vec![];
    loop {
        let page = world.desk().list_charges(request.clone()).await.unwrap().into_inner();
        seen.extend(page.charges.into_iter().map(|charge| charge.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, made);
    let bad = pb::ListChargesRequest { kinds: vec![0, 9], states: vec![0], ..Default::default() };
    let refused = world.desk().list_charges(bad).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["kinds[0]", "kinds[1]", "states[0]"]);
}
