//! A merged patient's charges, entries and cards are the survivor's; nothing of the ledger is rewritten.

use kit::ids::PatientId;
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::ChargeState;
use proto::clinic::patients::v1::{PatientChange, PatientChanged};
use tonic::Code;

use crate::visits::{AFTER_BOOKING, completed};
use crate::world::{World, reason, usd};

/// Tells a merge as patients would, and waits until billing has heard of it.
async fn merge(world: &World, merged: PatientId, survivor: PatientId) {
    let event = PatientChanged {
        patient_id: merged.to_string(),
        version: 2,
        change: PatientChange::Merged.into(),
        merged_into_id: survivor.to_string(),
        ..Default::default()
    };
    testkit::publish(&world.servers.broker().await, "patients", merged, 2, &event).await;
    testkit::until("the merge", async || {
        (world.account(&merged.to_string()).await.patient_id != merged.to_string()).then_some(())
    })
    .await;
}

async fn attended(world: &World, patient: PatientId) -> pb::AuthorizeCopayRequest {
    let request = world.request(patient);
    world.authorize(&request).await.unwrap();
    end(world, &request).await;
    request
}

async fn end(world: &World, request: &pb::AuthorizeCopayRequest) {
    world.tell(request, AFTER_BOOKING, &completed(world, request, VisitOutcome::Attended)).await;
    world.until_copay(request, ChargeState::Captured).await;
}

#[tokio::test]
async fn the_survivors_statement_has_the_entries_of_all_its_ids_and_the_ledger_stays() {
    let world = World::start().await;
    let [a, b, c] = [
        world.patient_with("pm_card_visa").await,
        world.patient_with("pm_card_visa").await,
        world.patient_with("pm_card_visa").await,
    ];
    attended(&world, a).await;
    attended(&world, b).await;
    // Authorized before the merges, closed after them, and told with the id it was booked under.
    let open = world.request(a);
    world.authorize(&open).await.unwrap();
    const POSTED: &str = "select count(*) from billing.journal";
    let posted = world.number(POSTED).await;
    // The second link of the chain comes first.
    merge(&world, b, c).await;
    merge(&world, a, b).await;
    assert_eq!(world.number(POSTED).await, posted);
    end(&world, &open).await;
    // Held under the merged id, told nobody knows when.
    attended(&world, a).await;

    let account = world.account(&c.to_string()).await;
    assert_eq!((&account.patient_id, &account.balance), (&c.to_string(), &Some(usd(0))));
    assert_eq!(account.entries.len(), 8);
    for (own, id) in [(a, c), (c, a), (b, b)] {
        let request = pb::GetPatientAccountRequest { patient_id: id.to_string(), ..Default::default() };
        let same = world.patient(own).get_patient_account(request).await.unwrap().into_inner();
        assert_eq!(same, account);
        let request = pb::ListChargesRequest { patient_id: id.to_string(), ..Default::default() };
        let charges = world.patient(own).list_charges(request).await.unwrap().into_inner().charges;
        assert!(charges.len() == 4 && charges.iter().all(|charge| charge.patient_id == c.to_string()));
        let get = pb::GetChargeRequest { charge_id: charges[0].id.clone() };
        world.patient(own).get_charge(get.clone()).await.unwrap();
        let foreign = world.patient(PatientId::new()).get_charge(get).await.unwrap_err();
        assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::NotFound, "CHARGE_NOT_FOUND"));
    }
}

#[tokio::test]
async fn cards_of_both_ids_are_charged_and_one_of_the_defaults_counts() {
    let world = World::start().await;
    let (merged, survivor) = (world.patient_with("pm_card_visa").await, PatientId::new());
    let visa = world.account(&merged.to_string()).await.payment_methods.remove(0);
    merge(&world, merged, survivor).await;
    let shown = async || {
        let cards = world.account(&merged.to_string()).await.payment_methods;
        assert!(cards.iter().all(|card| card.patient_id == survivor.to_string()));
        cards.into_iter().map(|card| (card.brand, card.is_default)).collect::<Vec<_>>()
    };
    let card = |brand: &str, is_default| (brand.to_owned(), is_default);
    assert_eq!(shown().await, [card("visa", true)], "the only default there is");

    // The survivor's first card does not push it aside; a default that is asked for does.
    world.save_card(merged, "pm_card_mastercard").await.unwrap();
    assert_eq!(shown().await, [card("visa", true), card("mastercard", false)]);
    let request = pb::SavePaymentMethodRequest {
        patient_id: survivor.to_string(),
        provider_token: "pm_card_amex".to_owned(),
        make_default: true,
        ..Default::default()
    };
    world.desk().save_payment_method(request).await.unwrap();
    assert_eq!(shown().await, [card("amex", true), card("mastercard", false), card("visa", false)]);

    for patient in [merged, survivor] {
        world.authorize(&world.request(patient)).await.unwrap();
        let named =
            pb::AuthorizeCopayRequest { payment_method_id: visa.id.clone(), ..world.request(patient) };
        assert_eq!(world.authorize(&named).await.unwrap().payment_method_id, visa.id);
    }
}

#[tokio::test]
async fn of_two_defaults_the_survivors_own_counts() {
    let world = World::without_fees().await;
    let survivor = world.patient_with("pm_card_mastercard").await;
    let merged = world.patient_with("pm_card_visa").await;
    merge(&world, merged, survivor).await;
    let cards = world.account(&merged.to_string()).await.payment_methods;
    let shown: Vec<_> = cards.iter().map(|card| (card.brand.as_str(), card.is_default)).collect();
    assert_eq!(shown, [("mastercard", true), ("visa", false)]);
}
