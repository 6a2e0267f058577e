//! Joining, leaving, places in the queue, lists.

use appointments::app::{Join, ListEntries, ListOffers};
use appointments::domain::waitlist::EntryState;
use appointments::store::{EntryFilter, OfferFilter};
use kit::idempotency::Key;
use kit::ids::{ClinicId, PatientId, RequestId, ServiceTypeId, WaitlistEntryId};
use kit::page::Page;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::waitlist_service_client::WaitlistServiceClient;
use proto::clinic::appointments::v1::{OfferState, WaitlistEntryState};
use proto::google::r#type::{Date, TimeOfDay};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::harness::{MockClerk, World, minutes, portal, says, told};

fn any_clinic(join: Join) -> Join {
    Join { clinics: vec![], ..join }
}

#[tokio::test]
async fn places_follow_priority_then_age_among_those_with_a_clinic_in_common() {
    let (world, _) = world().await;
    let first = joined(&world, anything(&world)).await;
    let second = joined(&world, anything(&world)).await;
    assert_eq!((first.position, second.position), (1, 2));
    let third = joined(&world, urgent(anything(&world), 3)).await;
    assert_eq!((third.position, third.priority_reason.as_str()), (1, "in pain"));
    let elsewhere = Join { clinics: vec![ClinicId::new().uuid()], ..anything(&world) };
    assert_eq!(joined(&world, elsewhere).await.position, 1);
    let another = Join { service_type: ServiceTypeId::new(), ..anything(&world) };
    assert_eq!(joined(&world, another).await.position, 1);
    assert_eq!(
        joined(&world, any_clinic(anything(&world))).await.position,
        5,
        "behind both clinics' three and one"
    );
    let second = entry(&world, &second).await;
    assert_eq!((second.position, second.expected_days, second.chance_percent), (3, None, None));
    world.app.leave(&portal(first.patient_id.parse().unwrap()), entry_id(&first), None).await.unwrap();
    let left = entry(&world, &first).await;
    assert_eq!((left.state(), left.position), (WaitlistEntryState::Left, 0));
    assert_eq!(entry(&world, &second).await.position, 2);
}

#[tokio::test]
async fn what_to_expect_follows_the_offers_of_four_weeks() {
    let (world, _) = world().await;
    let (_, offer) = offered(&world).await;
    world.app.decline(&desk(), id_of(&offer), None).await.unwrap();
    let entry = joined(&world, anything(&world)).await;
    // Second in line, one offer in 28 days, 90 days to go: P(at least 2 of 3.2 on average).
    assert_eq!((entry.position, entry.expected_days, entry.chance_percent), (2, Some(56), Some(83)));
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_refused_with_its_reason() {
    let (world, calendar) = world().await;
    let patient = PatientId::new();
    let own = |join: Join| Join { patient: Some(patient), ..join };
    let mine = portal(patient);
    let refused = async |caller: &kit::auth::Caller, join| told(world.app.join(caller, join).await);
    assert_eq!(
        refused(&mine, own(urgent(anything(&world), 1))).await,
        says(Code::PermissionDenied, "ROLE_REQUIRED")
    );
    assert_eq!(refused(&mine, anything(&world)).await, says(Code::NotFound, "PATIENT_NOT_FOUND"));
    let first = world.app.join(&mine, own(anything(&world))).await.unwrap();
    assert_eq!(refused(&mine, own(anything(&world))).await, says(Code::AlreadyExists, "ALREADY_WAITING"));
    let id = Some(entry_id(&first));
    assert_eq!(
        refused(&desk(), Join { id, ..anything(&world) }).await,
        says(Code::AlreadyExists, "WAITLIST_ENTRY_EXISTS")
    );
    for _ in 0..9 {
        joined(&world, own(Join { service_type: ServiceTypeId::new(), ..anything(&world) })).await;
    }
    let eleventh = own(Join { service_type: ServiceTypeId::new(), ..anything(&world) });
    assert_eq!(refused(&mine, eleventh).await, says(Code::ResourceExhausted, "TOO_MANY_ENTRIES"));

    let visit = world.booked(ten_o_clock(&world, 3)).await;
    let replacing = |visit| Join { replaces: Some(visit), ..anything(&world) };
    assert_eq!(refused(&desk(), replacing(visit.id)).await, says(Code::InvalidArgument, "INVALID_FIELD"));
    let theirs = Join { patient: Some(visit.patient_id), ..replacing(visit.id) };
    let other_kind = Join { service_type: ServiceTypeId::new(), ..theirs.clone() };
    assert_eq!(refused(&desk(), other_kind).await, says(Code::InvalidArgument, "INVALID_FIELD"));
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    assert_eq!(refused(&desk(), theirs).await, says(Code::FailedPrecondition, "WRONG_STATE"));

    let late = Join { last_date: Some(ten_o_clock(&world, 400).date_naive()), ..anything(&world) };
    assert_eq!(refused(&desk(), late).await, says(Code::InvalidArgument, "INVALID_FIELD"));
    let past = Join { last_date: Some(ten_o_clock(&world, -40).date_naive()), ..anything(&world) };
    assert_eq!(refused(&desk(), past).await, says(Code::InvalidArgument, "INVALID_FIELD"));
    drop(calendar);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_of_a_wish_is_named() {
    let (world, calendar) = world().await;
    let url = world.serve(&calendar).await;
    let hour = |hours| Some(TimeOfDay { hours, ..TimeOfDay::default() });
    let wish = pb::WaitlistEntry {
        patient_id: "x".into(),
        clinic_ids: vec!["x".into()],
        first_date: Some(Date { year: 2026, month: 2, day: 30 }),
        start_from: hour(10),
        start_before: hour(9),
        days_of_week: vec![0],
        priority: 10,
        ..Default::default()
    };
    let mut calls = WaitlistServiceClient::new(world.servers.client(&url, Role::FrontDesk, "desk"));
    let request = pb::JoinWaitlistRequest { waitlist_entry: Some(wish), ..Default::default() };
    let details = calls.join_waitlist(request).await.unwrap_err().get_error_details();
    let mut bad: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
    bad.sort_unstable();
    let expected = [
        "clinic_ids[0]",
        "days_of_week[0]",
        "first_date",
        "patient_id",
        "priority",
        "priority_reason",
        "service_type_id",
        "start_before",
    ];
    assert_eq!(bad, expected.map(|field| format!("waitlist_entry.{field}")));
    let none = calls.join_waitlist(pb::JoinWaitlistRequest::default()).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn booking_without_asking_takes_a_card_where_there_is_a_copay() {
    let mut clerk = MockClerk::new();
    clerk.expect_has_card().times(2).returning(|_, card| Ok(card.is_some()));
    let world = World::new(1, Some(clerk)).await;
    let auto = Join { auto_book: true, ..anything(&world) };
    let refused = world.app.join(&desk(), auto.clone()).await;
    assert_eq!(told(refused), says(Code::FailedPrecondition, "PAYMENT_METHOD_REQUIRED"));
    joined(&world, Join { payment_method: Some(kit::ids::PaymentMethodId::new()), ..auto }).await;
}

#[tokio::test]
async fn the_same_call_joins_once() {
    let (world, _) = world().await;
    let request = pb::JoinWaitlistRequest::default();
    let key = Key::new(&desk(), "JoinWaitlist", Some(RequestId::new()), &request);
    let join = Join { key, ..anything(&world) };
    let first = joined(&world, join.clone()).await;
    assert_eq!(joined(&world, join).await, first);
}

#[tokio::test]
async fn lists_are_in_the_order_of_service_page_by_page_and_each_patient_sees_its_own() {
    let (world, _) = world().await;
    let mut expected = vec![];
    for priority in [0, 5, 0, 9, 5] {
        let join = if priority > 0 { urgent(anything(&world), priority) } else { anything(&world) };
        expected.push((-priority, joined(&world, join).await));
    }
    expected.sort_by_key(|(priority, _)| *priority);
    let (mut token, mut seen) = (String::new(), vec![]);
    loop {
        let filter = EntryFilter {
            clinic: Some(world.clinic),
            service_type: Some(world.service_type),
            states: vec![EntryState::Waiting],
            ..EntryFilter::default()
        };
        let list = ListEntries { filter, page: Page::parse(2, &token).unwrap() };
        let (page, next) = world.app.list_entries(&desk(), &list).await.unwrap();
        seen.extend(page.into_iter().map(|entry| entry.id));
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, expected.iter().map(|(_, entry)| entry.id.clone()).collect::<Vec<_>>());

    let patient: PatientId = expected[0].1.patient_id.parse().unwrap();
    let filter =
        EntryFilter { patient: Some(patient), states: vec![EntryState::Waiting], ..EntryFilter::default() };
    let list = ListEntries { filter, page: Page::parse(0, "").unwrap() };
    let (own, _) = world.app.list_entries(&portal(patient), &list).await.unwrap();
    assert_eq!((own.len(), own[0].priority_reason.as_str()), (1, ""), "why it goes first is not told");
    let stranger = portal(PatientId::new());
    let refused = world.app.list_entries(&stranger, &list).await;
    assert_eq!(told(refused), says(Code::NotFound, "PATIENT_NOT_FOUND"));
    let refused = world.app.leave(&stranger, entry_id(&own[0]), None).await;
    assert_eq!(told(refused), says(Code::NotFound, "WAITLIST_ENTRY_NOT_FOUND"));
    let nobody = world.app.leave(&desk(), WaitlistEntryId::new(), None).await;
    assert_eq!(told(nobody), says(Code::NotFound, "WAITLIST_ENTRY_NOT_FOUND"));
}

#[tokio::test]
async fn leaving_withdraws_the_offer_which_passes_on() {
    let (world, _) = world().await;
    let (first, offer) = offered(&world).await;
    let second = joined(&world, anything(&world)).await;
    let left = world.app.leave(&desk(), entry_id(&first), None).await.unwrap();
    assert_eq!(left.state(), WaitlistEntryState::Left);
    let again = world.app.leave(&desk(), entry_id(&first), None).await;
    assert_eq!(told(again), says(Code::FailedPrecondition, "WRONG_STATE"));
    let closed: pb::WaitlistOfferClosed = world.last_event().await;
    assert_eq!((closed.outcome(), closed.offer_id), (OfferState::Withdrawn, offer.id.clone()));
    assert_eq!(told(accept(&world, &desk(), &offer).await), says(Code::FailedPrecondition, "WRONG_STATE"));
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, second.id);
}

#[tokio::test]
async fn an_entry_ends_with_its_last_day_and_with_the_visit_it_would_replace() {
    let (world, _) = world().await;
    let today = world.servers.clock.now().date_naive();
    let short = joined(&world, Join { last_date: Some(today), ..anything(&world) }).await;
    let visit = world.booked(ten_o_clock(&world, 20)).await;
    let replacing = Join { replaces: Some(visit.id), patient: Some(visit.patient_id), ..anything(&world) };
    let replacing = joined(&world, replacing).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.replaces_appointment_id, visit.id.to_string());
    world.app.cancel(&desk(), change(visit.id), false).await.unwrap();
    look(&world).await;
    assert_eq!(entry(&world, &replacing).await.state(), WaitlistEntryState::Expired);
    assert!(open_offers(&world).await.is_empty());
    assert_eq!(entry(&world, &short).await.state(), WaitlistEntryState::Waiting);
    world.servers.advance(minutes(48 * 60)).await;
    look(&world).await;
    assert_eq!(entry(&world, &short).await.state(), WaitlistEntryState::Expired);
}

#[tokio::test]
async fn offers_are_listed_latest_first_for_whom_they_were_made() {
    let (world, _) = world().await;
    let first = joined(&world, anything(&world)).await;
    let second = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    world.app.decline(&desk(), id_of(&the_offer(&world).await), None).await.unwrap();
    look(&world).await;
    let all = offers(&world, appointments::domain::waitlist::OfferState::ALL.to_vec()).await;
    let told: Vec<_> = all.iter().map(|offer| (offer.waitlist_entry_id.as_str(), offer.state())).collect();
    assert_eq!(told, [(second.id.as_str(), OfferState::Open), (first.id.as_str(), OfferState::Declined)]);
    let patient: PatientId = first.patient_id.parse().unwrap();
    let filter = OfferFilter {
        patient: Some(patient),
        states: appointments::domain::waitlist::OfferState::ALL.to_vec(),
        ..OfferFilter::default()
    };
    let list = ListOffers { filter, page: Page::parse(0, "").unwrap() };
    let (own, _) = world.app.list_offers(&portal(patient), &list).await.unwrap();
    assert_eq!(own.len(), 1);
    let other = portal(second.patient_id.parse().unwrap());
    assert!(world.app.list_offers(&other, &list).await.is_err());
    assert_eq!(own[0].provider_id, world.provider.to_string());
}
