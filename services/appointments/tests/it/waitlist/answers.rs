//! Accepting, declining, letting an offer run out; with and without a co-pay, and by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use appointments::app::{Join, Slot};
use appointments::domain::waitlist::OfferState;
use appointments::domain::{Conflict, Copay, State};
use appointments::ports::Authorization;
use kit::idempotency::Key;
use kit::ids::{OfferId, PatientId, PaymentMethodId, ProviderId, RequestId};
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::WaitlistEntryState;
use testkit::until;
use tonic::Code;

use super::*;
use crate::harness::{MockClerk, authorized, broken, minutes, portal, says, slow_clerk, told};

#[tokio::test]
async fn an_accepted_offer_is_a_booking_and_whoever_answers_later_is_too_late() {
    let (world, _) = world().await;
    let (entry, offer) = offered(&world).await;
    let event: pb::WaitlistOffered = world.last_event().await;
    assert_eq!((event.version, event.waitlist_entry_id.as_str()), (1, entry.id.as_str()));
    assert_eq!(event.appointment.unwrap().state(), pb::AppointmentState::Offered);
    let stranger = portal(PatientId::new());
    assert_eq!(told(accept(&world, &stranger, &offer).await), says(Code::NotFound, "OFFER_NOT_FOUND"));
    let key = Key::new(&desk(), "AcceptOffer", Some(RequestId::new()), &pb::AcceptOfferRequest::default());
    let booked = world.app.accept(&of_portal(&offer), id_of(&offer), None, key.clone()).await.unwrap().row;
    assert_eq!((booked.state, booked.id.to_string(), booked.version), (State::Booked, offer.id.clone(), 3));
    let again = world.app.accept(&of_portal(&offer), id_of(&offer), None, key).await.unwrap().row;
    assert_eq!((again.id, again.version), (booked.id, 3), "the same call is answered the same");

    let too_late = says(Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(told(accept(&world, &desk(), &offer).await), too_late);
    assert_eq!(told(world.app.decline(&desk(), id_of(&offer), None).await), too_late);
    let entry = super::entry(&world, &entry).await;
    assert_eq!((entry.state(), entry.appointment_id), (WaitlistEntryState::Fulfilled, offer.id.clone()));
    let told = world.told().await;
    assert_eq!(told[2..], ["WaitlistOffered", "WaitlistOfferClosed", "AppointmentBooked"]);
    let closed: pb::WaitlistOfferClosed = world.last_event().await;
    assert_eq!((closed.version, closed.outcome()), (2, pb::OfferState::Accepted));
    assert_eq!(
        (closed.appointment_id, closed.appointment.unwrap().state()),
        (offer.id, pb::AppointmentState::Booked)
    );
    let event: pb::AppointmentBooked = world.last_event().await;
    assert_eq!((event.version, event.waitlist_entry_id), (3, entry.id));
}

#[tokio::test]
async fn an_answer_by_text_is_the_patients() {
    let (world, _) = world().await;
    let (_, offer) = offered(&world).await;
    accept(&world, &by_text(), &offer).await.unwrap();
    let (_, history) = world.app.get(&desk(), offer.id.parse().unwrap(), true).await.unwrap();
    let actors: Vec<_> = history.iter().map(|change| (change.actor.clone(), change.actor_role)).collect();
    let patient = (Some(offer.patient_id.clone()), Some(Role::Service as i32));
    assert_eq!(actors, [(None, None), patient.clone(), patient]);
}

#[tokio::test]
async fn declined_or_run_out_it_passes_to_the_next_and_never_twice_to_one() {
    let (world, _) = world().await;
    let first = joined(&world, anything(&world)).await;
    let second = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    let offer = the_offer(&world).await;
    assert_eq!(offer.waitlist_entry_id, first.id);
    let declined = world.app.decline(&of_portal(&offer), id_of(&offer), None).await.unwrap();
    assert_eq!(declined.state(), pb::OfferState::Declined);
    assert_eq!(entry(&world, &first).await.state(), WaitlistEntryState::Waiting);
    look(&world).await;
    let offer = the_offer(&world).await;
    assert_eq!(offer.waitlist_entry_id, second.id);
    world.servers.advance(minutes(15)).await;
    let late = told(accept(&world, &desk(), &offer).await);
    assert_eq!(late, says(Code::FailedPrecondition, "OFFER_EXPIRED"));
    // The late answer may still be giving its lock back.
    until("its end", async || {
        look(&world).await;
        open_offers(&world).await.is_empty().then_some(())
    })
    .await;
    let closed: pb::WaitlistOfferClosed = world.last_event().await;
    assert_eq!(
        (closed.outcome(), closed.appointment.unwrap().state()),
        (pb::OfferState::Expired, pb::AppointmentState::Expired)
    );
    let late = told(world.app.decline(&desk(), id_of(&offer), None).await);
    assert_eq!(late, says(Code::FailedPrecondition, "OFFER_EXPIRED"));
    look(&world).await;
    assert!(open_offers(&world).await.is_empty(), "both have had it");
    world.booked(ten_o_clock(&world, 0)).await;
    world.servers.advance(minutes(15)).await;
    look(&world).await;
    assert_eq!(notes(&world).await, 0, "it is taken");
}

#[tokio::test]
async fn an_entry_that_replaces_a_visit_moves_it_and_its_old_time_finds_the_next() {
    let (world, _) = world().await;
    let visit = world.booked(ten_o_clock(&world, 20)).await;
    let replacing = Join { replaces: Some(visit.id), patient: Some(visit.patient_id), ..anything(&world) };
    let replacing = joined(&world, replacing).await;
    // Later than what it would replace.
    freed(&world, ten_o_clock(&world, 21)).await;
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    // Within seven days of the visit that is given up for it.
    freed(&world, ten_o_clock(&world, 18)).await;
    look(&world).await;
    let offer = the_offer(&world).await;
    let next = joined(&world, anything(&world)).await;
    let moved = accept(&world, &of_portal(&offer), &offer).await.unwrap();
    assert_eq!((moved.id, moved.state, moved.start), (visit.id, State::Booked, ten_o_clock(&world, 18)));
    assert_eq!(world.row(offer.id.parse().unwrap()).await.state, State::Released);
    let event: pb::AppointmentRescheduled = world.last_event().await;
    assert_eq!(event.offer_id, offer.id);
    let closed: pb::WaitlistOfferClosed = world.last_event().await;
    assert_eq!((closed.outcome(), closed.appointment_id), (pb::OfferState::Accepted, visit.id.to_string()));
    let entry = super::entry(&world, &replacing).await;
    assert_eq!((entry.state(), entry.appointment_id), (WaitlistEntryState::Fulfilled, visit.id.to_string()));
    look(&world).await;
    let offer = the_offer(&world).await;
    assert_eq!(
        (offer.waitlist_entry_id.as_str(), start_of(&offer)),
        (next.id.as_str(), visit.start.timestamp())
    );
}

#[tokio::test]
async fn the_patients_own_visits_are_judged_when_it_accepts() {
    let (world, _) = world().await;
    let (entry, offer) = offered(&world).await;
    let patient = entry.patient_id.parse().unwrap();
    let elsewhere = Slot {
        patient: Some(patient),
        provider: Some(ProviderId::new()),
        ..world.slot(ten_o_clock(&world, 0) + minutes(15))
    };
    world.take(elsewhere).await.unwrap();
    let near = Slot { patient: Some(patient), ..world.slot(ten_o_clock(&world, 3)) };
    let near = world.take(near).await.unwrap();
    let refused = accept(&world, &of_portal(&offer), &offer).await.unwrap_err();
    assert_eq!(broken(&refused), [Conflict::SevenDays]);
    assert_eq!(the_offer(&world).await.id, offer.id, "it stays open");
    world.app.cancel(&desk(), change(near.id), true).await.unwrap();
    accept(&world, &of_portal(&offer), &offer).await.unwrap();
}

/// Billing that says no to the first `declines` cards, and then yes.
fn fussy_clerk(declines: usize) -> (MockClerk, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut clerk = MockClerk::new();
    let count = asked.clone();
    clerk.expect_has_card().returning(|_, _| Ok(true));
    clerk.expect_authorize().returning(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < declines {
            Authorization::Declined("insufficient_funds".into())
        } else {
            authorized()
        }
    });
    (clerk, asked)
}

async fn with_copay(clerk: MockClerk) -> (World, Calendar) {
    let calendar = Calendar::open(1);
    let world = World::on(Arc::new(calendar.clone()), clerk).await;
    morning(&world).await;
    (world, calendar)
}

#[tokio::test]
async fn a_declined_card_leaves_the_offer_open_for_another() {
    let (clerk, _) = fussy_clerk(1);
    let (world, calendar) = with_copay(clerk).await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    calendar.script().copay = true;
    look(&world).await;
    let offer = the_offer(&world).await;
    let refused = told(accept(&world, &of_portal(&offer), &offer).await);
    assert_eq!(refused, says(Code::FailedPrecondition, "PAYMENT_DECLINED"));
    assert_eq!(the_offer(&world).await.id, offer.id);
    let card = Some(PaymentMethodId::new());
    let booked = world.app.accept(&of_portal(&offer), id_of(&offer), card, None).await.unwrap().row;
    assert_eq!(
        (booked.state, booked.copay, booked.payment_method_id),
        (State::Booked, Copay::Authorized, card)
    );
    let answered: (Option<String>,) =
        sqlx::query_as("select answered_by from offer where state = 'accepted'")
            .fetch_one(world.db.pool())
            .await
            .unwrap();
    assert_eq!(answered.0, Some(offer.patient_id.clone()));
    let (_, history) = world.app.get(&desk(), booked.id, true).await.unwrap();
    assert_eq!(
        history.last().unwrap().actor,
        Some(offer.patient_id.clone()),
        "the history names who accepted"
    );
    assert_eq!(super::entry(&world, &entry).await.state(), WaitlistEntryState::Fulfilled);
    assert_eq!(world.told().await[2..], ["WaitlistOffered", "WaitlistOfferClosed", "AppointmentBooked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_runs_out_during_the_authorization_is_told_and_not_booked() {
    let (clerk, gate) = slow_clerk(authorized());
    let (world, calendar) = with_copay(clerk).await;
    joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    calendar.script().copay = true;
    look(&world).await;
    let offer = the_offer(&world).await;
    let (app, id) = (world.app.clone(), id_of(&offer));
    let call = tokio::spawn(async move { app.accept(&desk(), id, None, None).await });
    gate.asked.notified().await;
    world.servers.advance(minutes(15)).await;
    gate.answer.notify_one();
    assert_eq!(told(call.await.unwrap()), says(Code::FailedPrecondition, "OFFER_EXPIRED"));
    assert_eq!(world.told().await[2..], ["WaitlistOffered", "WaitlistOfferClosed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_taken_in_the_way_during_the_authorization_withdraws_the_offer() {
    let (clerk, gate) = slow_clerk(authorized());
    let (world, calendar) = with_copay(clerk).await;
    let entry = joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    calendar.script().copay = true;
    look(&world).await;
    let offer = the_offer(&world).await;
    let (app, id) = (world.app.clone(), id_of(&offer));
    let call = tokio::spawn(async move { app.accept(&desk(), id, None, None).await });
    gate.asked.notified().await;
    calendar.script().copay = false;
    let patient = entry.patient_id.parse().unwrap();
    let near = Slot { patient: Some(patient), ..world.slot(ten_o_clock(&world, 2)) };
    world.take(near).await.unwrap();
    gate.answer.notify_one();
    assert_eq!(broken(&call.await.unwrap().unwrap_err()), [Conflict::SevenDays]);
    let closed: pb::WaitlistOfferClosed = world.last_event().await;
    assert_eq!((closed.outcome(), closed.version), (pb::OfferState::Withdrawn, 2));
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
}

#[tokio::test]
async fn whoever_books_by_itself_is_booked_at_once_and_told_so() {
    let (world, _) = world().await;
    let entry = joined(&world, Join { auto_book: true, ..anything(&world) }).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    look(&world).await;
    let entry = until("the booking", async || {
        Some(super::entry(&world, &entry).await).filter(|e| e.state() == WaitlistEntryState::Fulfilled)
    })
    .await;
    let booked = world.row(entry.appointment_id.parse().unwrap()).await;
    assert_eq!((booked.state, booked.start), (State::Booked, ten_o_clock(&world, 0)));
    let event: pb::WaitlistOffered = world.last_event().await;
    assert!(event.auto_book, "so that no text asks for an answer");
    assert_eq!(world.told().await[2..], ["WaitlistOffered", "WaitlistOfferClosed", "AppointmentBooked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_declined_in_its_patients_absence_passes_the_time_on() {
    let (clerk, _) = fussy_clerk(1);
    let (world, calendar) = with_copay(clerk).await;
    calendar.script().copay = false;
    let first = joined(&world, Join { auto_book: true, ..anything(&world) }).await;
    let second = joined(&world, Join { auto_book: true, ..anything(&world) }).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    calendar.script().copay = true;
    until("the second's booking", async || {
        look(&world).await;
        Some(entry(&world, &second).await).filter(|e| e.state() == WaitlistEntryState::Fulfilled)
    })
    .await;
    assert_eq!(entry(&world, &first).await.state(), WaitlistEntryState::Waiting);
    let declined = offers(&world, vec![OfferState::Declined]).await;
    assert_eq!((declined.len(), declined[0].waitlist_entry_id.as_str()), (1, first.id.as_str()));
    assert_eq!(world.row(declined[0].id.parse().unwrap()).await.state, State::Declined);
}

#[tokio::test]
async fn nobody_answers_an_offer_that_is_not_there() {
    let (world, _) = world().await;
    let nothing = OfferId::new();
    assert_eq!(
        told(world.app.accept(&desk(), nothing, None, None).await),
        says(Code::NotFound, "OFFER_NOT_FOUND")
    );
    assert_eq!(
        told(world.app.decline(&desk(), nothing, None).await),
        says(Code::NotFound, "OFFER_NOT_FOUND")
    );
}
