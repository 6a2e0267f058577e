//! What a merged patient had passes to the survivor, or waits where the desk sees it; nothing is lost and no constraint bent.

use appointments::app::{Booking, Expected, List, Target};
use appointments::domain::{Conflict, Reservation, State};
use appointments::store::Filter;
use kit::ids::{PatientId, ProviderId};
use kit::page::Page;
use proto::clinic::appointments::v1::{AppointmentDisplaced, AppointmentReassigned, AppointmentRescheduled};
use tonic::Code;

use crate::harness::{
    World, broken, change, desk, hear_of_merge, minutes, portal, says, ten_o_clock, to, told,
};

/// What the workers do when they look next.
async fn look(world: &World) {
    world.servers.advance(chrono::TimeDelta::seconds(6)).await;
    world.app.look_after().await.unwrap();
}

async fn booked_for(world: &World, patient: PatientId, in_days: i64) -> Reservation {
    let slot = world.slot(ten_o_clock(world, in_days));
    world.take(appointments::app::Slot { patient: Some(patient), ..slot }).await.unwrap()
}

/// All appointments that a patient's id lists, whatever their state.
async fn listed(world: &World, patient: PatientId) -> Vec<Reservation> {
    let filter = Filter { patient: Some(patient), states: State::ALL.to_vec(), ..Filter::default() };
    let page = Page::parse(0, "").unwrap();
    world.app.list(&List { filter, latest_first: false, page }).await.unwrap().0
}

#[tokio::test]
async fn past_and_coming_visits_pass_to_the_survivor_and_both_ids_find_them() {
    let world = World::new(2, None).await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    let gone = booked_for(&world, merged, 0).await;
    world.app.cancel(&desk(), change(gone.id), false).await.unwrap();
    let coming = booked_for(&world, merged, 20).await;
    let own = booked_for(&world, survivor, 40).await;
    hear_of_merge(&world, merged, survivor).await;
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    look(&world).await;

    for (id, version, state) in [(gone.id, 3, State::Cancelled), (coming.id, 2, State::Booked)] {
        let row = world.row(id).await;
        assert_eq!((row.patient_id, row.version, row.state), (survivor, version, state));
    }
    let event: AppointmentReassigned = world.last_event().await;
    let facts = event.appointment.unwrap();
    assert_eq!((event.previous_patient_id, facts.patient_id), (merged.to_string(), survivor.to_string()));
    for id in [merged, survivor] {
        let ids: Vec<_> = listed(&world, id).await.iter().map(|row| row.id).collect();
        assert_eq!(ids, [gone.id, coming.id, own.id]);
        let (_, history) = world.app.get(&portal(id), coming.id, true).await.unwrap();
        let whose: Vec<_> = history.iter().map(|change| change.patient_id).collect();
        assert_eq!(whose, [Some(merged.uuid()), Some(survivor.uuid())]);
    }
    let stranger = world.app.get(&portal(PatientId::new()), coming.id, false).await;
    assert_eq!(told(stranger), says(Code::NotFound, "APPOINTMENT_NOT_FOUND"));
}

#[tokio::test]
async fn a_visit_within_seven_days_of_the_survivors_waits_for_the_desk_and_passes_when_it_may() {
    let world = World::new(2, None).await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    let waiting = booked_for(&world, merged, 3).await;
    let own = booked_for(&world, survivor, 0).await;
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    let row = world.row(waiting.id).await;
    assert_eq!((row.patient_id, row.state), (merged, State::Displaced));
    assert_eq!(row.displaced_reasons, ["WITHIN_7_DAYS"]);
    let event: AppointmentDisplaced = world.last_event().await;
    assert_eq!(event.displacement.unwrap().reasons, ["WITHIN_7_DAYS"]);
    assert_eq!(listed(&world, survivor).await.len(), 2);
    look(&world).await;
    assert_eq!(world.row(waiting.id).await.version, row.version, "it waits in silence");

    world.app.cancel(&desk(), change(own.id), true).await.unwrap();
    look(&world).await;
    let row = world.row(waiting.id).await;
    assert_eq!((row.patient_id, row.state, row.displaced_at), (survivor, State::Booked, None));
    let event: AppointmentRescheduled = world.last_event().await;
    let (now, before) = (event.appointment.unwrap(), event.previous.unwrap());
    assert_eq!((now.patient_id, before.patient_id), (survivor.to_string(), merged.to_string()));
}

#[tokio::test]
async fn a_visit_at_the_survivors_hour_stays_waiting_until_the_desk_moves_it() {
    let world = World::new(2, None).await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    booked_for(&world, survivor, 0).await;
    let elsewhere = appointments::app::Slot {
        patient: Some(merged),
        provider: Some(ProviderId::new()),
        ..world.slot(ten_o_clock(&world, 0))
    };
    let waiting = world.take(elsewhere).await.unwrap();
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    let row = world.row(waiting.id).await;
    assert_eq!((row.state, row.displaced_reasons), (State::Displaced, vec!["PATIENT_BUSY".to_owned()]));

    // Nothing overrides the survivor's own visit.
    let stay = appointments::app::Move {
        override_reason: "same person".to_owned(),
        ..to(waiting.id, ten_o_clock(&world, 0))
    };
    let refused = world.app.reschedule(&desk(), &stay).await.unwrap_err();
    assert_eq!(broken(&refused), [Conflict::Patient]);
    let later = to(waiting.id, ten_o_clock(&world, 0) + minutes(60));
    world.app.reschedule(&desk(), &later).await.unwrap();
    let row = world.row(waiting.id).await;
    assert_eq!((row.patient_id, row.state), (survivor, State::Booked));
}

#[tokio::test]
async fn what_is_booked_under_a_merged_id_is_the_survivors_and_keeps_the_survivors_rules() {
    let world = World::new(2, None).await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    // Held before the merge, booked after it.
    let held = appointments::app::Slot { patient: Some(merged), ..world.slot(ten_o_clock(&world, 0)) };
    let held = world.app.hold(&desk(), &held, None).await.unwrap();
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    let id = held.id.parse().unwrap();
    assert_eq!(world.row(id).await.patient_id, merged, "its booking is under way");
    let target = Target::Hold(id, Expected::default());
    world.app.book(&portal(survivor), Booking { target, payment_method: None, key: None }).await.unwrap();
    look(&world).await;
    assert_eq!(world.row(id).await.patient_id, survivor);

    for own in [portal(merged), desk()] {
        let slot = appointments::app::Slot { patient: Some(merged), ..world.slot(ten_o_clock(&world, 3)) };
        let booking = Booking { target: Target::Slot(slot), payment_method: None, key: None };
        let refused = world.app.book(&own, booking).await.unwrap_err();
        assert_eq!(broken(&refused), [Conflict::SevenDays]);
    }
    assert_eq!(booked_for(&world, merged, 14).await.patient_id, survivor);
}

#[tokio::test]
async fn a_chain_ends_at_its_last_survivor_in_either_order() {
    for first_link_first in [true, false] {
        let world = World::new(2, None).await;
        let [a, b, c] = std::array::from_fn(|_| PatientId::new());
        for (patient, in_days) in [(a, 0), (b, 10), (c, 20)] {
            booked_for(&world, patient, in_days).await;
        }
        let links = if first_link_first { [(a, b), (b, c)] } else { [(b, c), (a, b)] };
        for (merged, survivor) in links {
            hear_of_merge(&world, merged, survivor).await;
            look(&world).await;
        }
        for id in [a, b, c] {
            let rows = listed(&world, id).await;
            assert!(rows.len() == 3 && rows.iter().all(|row| row.patient_id == c), "{rows:?}");
        }
    }
}

#[tokio::test]
async fn bookings_that_race_merges_all_end_with_the_survivor() {
    let world = World::new(2, None).await;
    let [a, b, c] = std::array::from_fn(|_| PatientId::new());
    let bookings = (0..12).map(|n| {
        let (app, patient) = (world.app.clone(), [a, b, c][n % 3]);
        let booking = world.booking_for(patient, ten_o_clock(&world, 10 * n as i64));
        tokio::spawn(async move { app.book(&desk(), booking).await.unwrap() })
    });
    let bookings: Vec<_> = bookings.collect();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let app = world.app.clone();
            tokio::spawn(async move { app.look_after().await.unwrap() })
        })
        .collect();
    tokio::join!(hear_of_merge(&world, a, b), hear_of_merge(&world, b, c));
    for booking in bookings {
        booking.await.unwrap();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    look(&world).await;
    let rows = listed(&world, a).await;
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|row| row.patient_id == c && row.state == State::Booked), "{rows:?}");
    // Once nothing new can name them, they are forgotten.
    world.servers.advance(minutes(10)).await;
    look(&world).await;
    let left: i64 = sqlx::query_scalar("select count(*) from appointments.handover")
        .fetch_one(world.db.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_visit_in_the_survivors_way_has_places_held_that_suit_the_survivor_and_passes_with_the_move() {
    let (world, calendar) = World::scripted(1).await;
    let (merged, survivor) = (PatientId::new(), PatientId::new());
    let visit = booked_for(&world, merged, 0).await;
    booked_for(&world, survivor, 3).await;
    let far = ten_o_clock(&world, 10);
    calendar.script().providers = vec![world.provider];
    calendar.script().free = vec![visit.start + minutes(60), far];
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    assert_eq!(world.row(visit.id).await.displaced_reasons, ["WITHIN_7_DAYS"]);
    let told: AppointmentDisplaced = world.last_event().await;
    let [place] = &told.alternatives[..] else { panic!("the survivor sees the provider too soon: {told:?}") };
    let moved = world.app.accept(&portal(survivor), place.offer_id.parse().unwrap(), None, None).await;
    let moved = moved.unwrap().row;
    assert_eq!((moved.id, moved.patient_id, moved.state), (visit.id, survivor, State::Booked));
    assert_eq!(moved.start, far);
    look(&world).await;
    assert_eq!(world.row(visit.id).await.state, State::Booked);
}
