//! Moves that race: with each other, with bookings, and with the calendar's events. The answers tell what happened, and no deadlock
//! shows.

use appointments::domain::{Conflict, Reservation};
use appointments::error::Error;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use kit::ids::{PatientId, ProviderId};
use proto::clinic::appointments::v1 as pb;

use crate::harness::{World, broken, desk, minutes, ten_o_clock, to};

/// A visit stands where its mover was told: moved to `target`, or kept because the time is taken.
async fn is_as_answered(
    world: &World,
    before: &Reservation,
    target: DateTime<Utc>,
    answer: &Result<pb::Appointment, Error>,
) {
    let row = world.row(before.id).await;
    match answer {
        Ok(_) => assert_eq!((row.start, row.version), (target, before.version + 1)),
        Err(refused) => {
            assert!(
                broken(refused).iter().all(|c| matches!(c, Conflict::Provider | Conflict::Room)),
                "{refused:?}"
            );
            assert_eq!((row.start, row.version), (before.start, before.version));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_moves_that_would_swap_slots_are_both_refused_and_lose_nothing() {
    let (mut world, _) = World::scripted(2).await;
    let (start, caller) = (ten_o_clock(&world, 0), desk());
    let (a, b) = (world.booked(start).await, world.booked(start + minutes(15)).await);
    // And two who would swap their providers at one time.
    let first = std::mem::replace(&mut world.provider, ProviderId::new());
    let c = world.booked(start + minutes(60)).await;
    let mut slot = world.slot(c.start);
    slot.provider = Some(first);
    let d = world.take(slot).await.unwrap();
    for _ in 0..25 {
        let (mut to_d, mut to_c) = (to(c.id, d.start), to(d.id, c.start));
        (to_d.provider, to_c.provider) = (Some(d.provider_id), Some(c.provider_id));
        let moves = [to(a.id, b.start), to(b.id, a.start), to_d, to_c];
        let answers = join_all(moves.iter().map(|m| world.app.reschedule(&caller, m))).await;
        for (before, answer) in [&a, &b, &c, &d].into_iter().zip(&answers) {
            assert!(broken(answer.as_ref().unwrap_err()).contains(&Conflict::Provider));
            let row = world.row(before.id).await;
            assert_eq!((row.start, row.provider_id, row.version), (before.start, before.provider_id, 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_and_bookings_race_for_one_slot_and_one_gets_it() {
    let (world, _) = World::scripted(2).await;
    let (start, caller) = (ten_o_clock(&world, 0), desk());
    for round in 0..25 {
        let home = start + TimeDelta::days(round);
        let target = home + minutes(60);
        let (visit, bookings) = (world.booked(home).await, [world.slot(target), world.slot(target)]);
        let call = to(visit.id, target);
        let (moved, booked) =
            tokio::join!(world.app.reschedule(&caller, &call), join_all(bookings.map(|b| world.take(b))));
        is_as_answered(&world, &visit, target, &moved).await;
        for refused in booked.iter().filter_map(|b| b.as_ref().err()) {
            assert_eq!(broken(refused), [Conflict::Provider]);
        }
        let winners = booked.iter().filter(|b| b.is_ok()).count() + usize::from(moved.is_ok());
        assert_eq!(winners, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_visits_that_all_move_up_one_slot_end_as_answered() {
    let (world, _) = World::scripted(3).await;
    let (start, caller) = (ten_o_clock(&world, 0), desk());
    for round in 0..6 {
        let ring = start + TimeDelta::days(round);
        let target = |i: usize| ring + minutes(15) * i32::try_from((i + 1) % 9).unwrap();
        let mut visits = vec![];
        for i in 0..8 {
            visits.push(world.booked(ring + minutes(15 * i)).await);
        }
        let calls: Vec<_> = visits.iter().enumerate().map(|(i, v)| to(v.id, target(i))).collect();
        let answers = join_all(calls.iter().map(|c| world.app.reschedule(&caller, c))).await;
        for (i, answer) in answers.iter().enumerate() {
            is_as_answered(&world, &visits[i], target(i), answer).await;
        }
        assert!(answers[7].is_ok(), "the last one's target was free all the time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_move_visits_of_one_patient_into_one_week_leave_the_week_with_one() {
    let (world, _) = World::scripted(2).await;
    let (start, caller, patient) = (ten_o_clock(&world, 0), desk(), PatientId::new());
    for round in 0..10 {
        let day = |n: i64| start + TimeDelta::days(round * 40 + n);
        let mut pair = vec![];
        for n in [0, 20] {
            let mut slot = world.slot(day(n));
            slot.patient = Some(patient);
            pair.push(world.take(slot).await.unwrap());
        }
        let (one, other) = (to(pair[0].id, day(8)), to(pair[1].id, day(12)));
        let (one, other) =
            tokio::join!(world.app.reschedule(&caller, &one), world.app.reschedule(&caller, &other));
        assert!(one.is_ok() != other.is_ok(), "round {round}");
        let lost = one.err().or(other.err()).unwrap();
        assert_eq!(broken(&lost), [Conflict::SevenDays]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_meets_its_calendars_event_half_way_neither_kills_it_nor_dies() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let mut event = world.db.begin().await.unwrap();
    calendar.script().version = 2;
    appointments::store::see_calendar(&mut event, world.provider.uuid(), 2).await.unwrap();
    let (app, call) = (world.app.clone(), to(visit.id, start + minutes(60)));
    let moving = tokio::spawn(async move { app.reschedule(&desk(), &call).await });
    world.until_blocked(1).await;
    let day = [(start..start + TimeDelta::days(1)).into()];
    appointments::store::mark_to_judge(&mut event, world.provider.uuid(), 2, &day).await.unwrap();
    event.commit().await.unwrap();
    moving.await.unwrap().unwrap();
    let row = world.row(visit.id).await;
    assert_eq!((row.start, row.calendar_version, row.judge_at), (start + minutes(60), 2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_booked_while_its_calendars_event_is_applied_neither_kills_it_nor_dies() {
    let (world, calendar) = World::scripted(1).await;
    let held = world.app.hold(&desk(), &world.slot(ten_o_clock(&world, 0)), None).await.unwrap();
    let mut event = world.db.begin().await.unwrap();
    calendar.script().version = 2;
    appointments::store::see_calendar(&mut event, world.provider.uuid(), 2).await.unwrap();
    let app = world.app.clone();
    let target = appointments::app::Target::Hold(held.id.parse().unwrap(), Default::default());
    let booking = appointments::app::Booking { target, payment_method: None, key: None };
    let booking = tokio::spawn(async move { app.book(&desk(), booking).await });
    world.until_blocked(1).await;
    let day = [(ten_o_clock(&world, 0)..ten_o_clock(&world, 1)).into()];
    appointments::store::mark_to_judge(&mut event, world.provider.uuid(), 2, &day).await.unwrap();
    event.commit().await.unwrap();
    assert_eq!(booking.await.unwrap().unwrap().row.calendar_version, 2);
}
