//! Who gets the slot: the database decides, once.

use appointments::domain::{Conflict, State};
use chrono::TimeDelta;
use futures::future::join_all;
use kit::ids::{PatientId, RoomId};
use std::sync::atomic::{AtomicI64, Ordering};

use crate::harness::{MockClerk, Open, World, broken, desk, ten_o_clock};

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_rivals_for_one_slot_leave_one_winner() {
    let world = World::new(2, None).await;
    let start = ten_o_clock(&world, 0);
    let caller = desk();
    let results = join_all((0..16).map(|_| world.app.book(&caller, world.booking(start)))).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    for lost in results.into_iter().filter_map(Result::err) {
        assert!(broken(&lost) == [Conflict::Provider], "{lost:?}");
    }
    assert_eq!(world.told().await, ["AppointmentBooked"], "losers leave nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_with_different_providers_share_out_the_rooms() {
    let mut world = World::new(3, None).await;
    let (start, caller) = (ten_o_clock(&world, 0), desk());
    let mut bookings = vec![];
    for _ in 0..8 {
        world.provider = kit::ids::ProviderId::new();
        bookings.push(world.booking(start));
    }
    let results = join_all(bookings.into_iter().map(|b| world.app.book(&caller, b))).await;
    let mut rooms: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).map(|b| b.row.room_id).collect();
    rooms.sort();
    rooms.dedup();
    assert_eq!(rooms.len(), 3, "every room went to one of them");
    for lost in results.into_iter().filter_map(Result::err) {
        assert!(broken(&lost) == [Conflict::Room], "{lost:?}");
    }
}

#[tokio::test]
async fn adjacent_visits_do_not_overlap_but_buffers_do() {
    let open =
        |buffer| Open { rooms: vec![RoomId::new()], copay: false, buffer, calendar_version: Box::new(|| 1) };
    let world = World::with(open(TimeDelta::zero()), MockClerk::new()).await;
    let (start, caller) = (ten_o_clock(&world, 0), desk());
    for minutes in [0, 15, 30] {
        world.app.book(&caller, world.booking(start + TimeDelta::minutes(minutes))).await.unwrap();
    }
    let world = World::with(open(TimeDelta::minutes(10)), MockClerk::new()).await;
    world.app.book(&caller, world.booking(start)).await.unwrap();
    let in_the_buffer = world.app.book(&caller, world.booking(start + TimeDelta::minutes(15))).await;
    assert!(broken(&in_the_buffer.unwrap_err()) == [Conflict::Provider]);
    world.app.book(&caller, world.booking(start + TimeDelta::minutes(25))).await.unwrap();
}

#[tokio::test]
async fn a_patient_sees_one_provider_once_in_seven_days_and_hears_every_rule_broken() {
    let world = World::new(2, None).await;
    let (start, caller, patient) = (ten_o_clock(&world, 0), desk(), PatientId::new());
    world.app.book(&caller, world.booking_for(patient, start)).await.unwrap();
    let again = world.app.book(&caller, world.booking_for(patient, start)).await;
    let expected = [Conflict::Provider, Conflict::Patient, Conflict::SevenDays];
    assert!(broken(&again.unwrap_err()) == expected);
    let sixth_day = world.app.book(&caller, world.booking_for(patient, start + TimeDelta::days(6))).await;
    assert!(broken(&sixth_day.unwrap_err()) == [Conflict::SevenDays]);
    world.app.book(&caller, world.booking_for(patient, start + TimeDelta::days(7))).await.unwrap();
}

#[tokio::test]
async fn a_slot_judged_at_an_old_calendar_is_judged_again() {
    // Scheduling answers with version 1 first, and with 2 when asked again.
    let version = AtomicI64::new(1);
    let open = Open {
        rooms: vec![RoomId::new()],
        copay: false,
        buffer: TimeDelta::zero(),
        calendar_version: Box::new(move || version.fetch_add(1, Ordering::SeqCst)),
    };
    let world = World::with(open, MockClerk::new()).await;
    let mut conn = world.db.pool().acquire().await.unwrap();
    appointments::store::see_calendar(&mut conn, world.provider.uuid(), 2).await.unwrap();
    let booked = world.app.book(&desk(), world.booking(ten_o_clock(&world, 0))).await.unwrap();
    assert_eq!((booked.row.state, booked.row.calendar_version), (State::Booked, 2));
}
