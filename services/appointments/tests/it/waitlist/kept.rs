//! Freed time that cannot be offered at the moment is not forgotten.

use appointments::app::Slot;
use appointments::domain::{Span, State};
use kit::ids::{PatientId, ProviderId, RoomId};
use proto::clinic::appointments::v1::WaitlistEntryState;
use proto::clinic::scheduling::v1::BlockCode;

use super::*;
use crate::harness::{hear_of_merge, minutes};

#[tokio::test]
async fn time_that_suits_one_patient_twice_waits_for_the_answer_about_the_other() {
    let (world, _) = world().await;
    let entry = joined(&world, anything(&world)).await;
    let hours: Vec<_> = (0..3).map(|n| ten_o_clock(&world, 0) + minutes(120 * n)).collect();
    let mut visits = vec![];
    for start in &hours {
        visits.push(world.booked(*start).await);
    }
    for visit in visits {
        world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    }
    let mut asked = vec![];
    for _ in 0..3 {
        look(&world).await;
        let offer = the_offer(&world).await;
        assert_eq!(offer.waitlist_entry_id, entry.id);
        asked.push(start_of(&offer));
        world.app.decline(&desk(), id_of(&offer), None).await.unwrap();
    }
    asked.sort_unstable();
    assert_eq!(asked, hours.iter().map(DateTime::timestamp).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_has_had_enough_offers_for_a_day_is_asked_the_next() {
    let (world, _) = world().await;
    let entry = joined(&world, anything(&world)).await;
    let start = ten_o_clock(&world, 3);
    for n in 0..4 {
        freed(&world, start + minutes(120 * n)).await;
    }
    for _ in 0..3 {
        look(&world).await;
        world.app.decline(&desk(), id_of(&the_offer(&world).await), None).await.unwrap();
    }
    look(&world).await;
    assert!(open_offers(&world).await.is_empty());
    world.servers.advance(TimeDelta::hours(24)).await;
    look(&world).await;
    assert_eq!(the_offer(&world).await.waitlist_entry_id, entry.id);
}

#[tokio::test]
async fn while_scheduling_is_too_slow_to_answer_freed_time_is_kept() {
    let (world, calendar) = world().await;
    joined(&world, anything(&world)).await;
    freed(&world, ten_o_clock(&world, 0)).await;
    calendar.script().late = true;
    look(&world).await;
    assert_eq!((open_offers(&world).await, notes(&world).await), (vec![], 1));
    calendar.script().late = false;
    world.servers.advance(TimeDelta::seconds(15)).await;
    look(&world).await;
    the_offer(&world).await;
}

#[tokio::test]
async fn the_one_hour_of_a_long_day_that_the_schedule_allows_is_found() {
    let (world, calendar) = world().await;
    joined(&world, anything(&world)).await;
    let (start, closed) = (ten_o_clock(&world, 0), TimeDelta::hours(20));
    calendar.script().blocks.push((BlockCode::Blackout, Span { start, end: start + closed }));
    let day = Span { start, end: start + closed + TimeDelta::hours(1) };
    let mut conn = world.db.pool().acquire().await.unwrap();
    appointments::store::free_place(&mut conn, world.provider, world.clinic, "UTC", day).await.unwrap();
    drop(conn);
    look(&world).await;
    assert_eq!(start_of(&the_offer(&world).await), (start + closed).timestamp());
}

#[tokio::test]
async fn time_without_a_free_room_is_offered_once_there_is_one() {
    let (world, _) = world().await;
    joined(&world, anything(&world)).await;
    let start = ten_o_clock(&world, 0);
    freed(&world, start).await;
    let elsewhere = Slot { provider: Some(ProviderId::new()), ..world.slot(start) };
    let elsewhere = world.take(elsewhere).await.unwrap();
    look(&world).await;
    let starts: Vec<_> = open_offers(&world).await.iter().map(start_of).collect();
    assert!(!starts.contains(&start.timestamp()), "another provider has the only room");
    world.app.cancel(&desk(), change(elsewhere.id), true).await.unwrap();
    world.servers.advance(minutes(15)).await;
    look(&world).await;
    assert_eq!(start_of(&the_offer(&world).await), start.timestamp());
}

#[tokio::test]
async fn a_merged_patients_offer_is_answered_before_the_entry_is_the_survivors() {
    let (world, _) = world().await;
    let (entry, offer) = offered(&world).await;
    let merged: PatientId = entry.patient_id.parse().unwrap();
    let survivor = PatientId::new();
    hear_of_merge(&world, merged, survivor).await;
    look(&world).await;
    assert_eq!(super::entry(&world, &entry).await.state(), WaitlistEntryState::Offered);
    world.app.decline(&desk(), id_of(&offer), None).await.unwrap();
    world.servers.advance(minutes(1)).await;
    look(&world).await;
    assert_eq!(super::entry(&world, &entry).await.patient_id, survivor.to_string());
}

#[tokio::test]
async fn a_patients_own_hold_that_is_over_does_not_keep_an_offer_from_being_taken() {
    let (world, calendar) = world().await;
    calendar.script().rooms.push(RoomId::new());
    let (entry, offer) = offered(&world).await;
    let own = Slot {
        patient: Some(entry.patient_id.parse().unwrap()),
        provider: Some(ProviderId::new()),
        ..world.slot(ten_o_clock(&world, 0))
    };
    let hold = world.app.hold(&desk(), &own, None).await.unwrap();
    world.servers.advance(minutes(5)).await;
    let booked = accept(&world, &desk(), &offer).await.unwrap();
    assert_eq!(booked.state, State::Booked);
    assert_eq!(world.row(hold.id.parse().unwrap()).await.state, State::Expired);
}
