//! Calendars that change before, during and after a booking.

use std::sync::Arc;

use appointments::app::List;
use appointments::domain::{Reservation, Span, State};
use appointments::store::Filter;
use chrono::{DateTime, TimeDelta, Utc};
use kit::page::Page;
use proto::clinic::appointments::v1::{
    AppointmentCancelled, AppointmentDisplaced, AppointmentRescheduled, AppointmentState, VisitOutcome,
};
use proto::clinic::scheduling::v1::BlockCode;
use testkit::until;
use tonic::Code;

use crate::calendar::Calendar;
use crate::harness::{
    MockClerk, World, authorized, change, desk, minutes, portal, says, slow_clerk, ten_o_clock, to, told,
};

/// A visit whose hour was blacked out after it was booked; some worker must run.
async fn displaced(world: &World, calendar: &Calendar, start: DateTime<Utc>) -> Reservation {
    let visit = world.booked(start).await;
    let hour = calendar.block(BlockCode::Blackout, start);
    let version = calendar.script().version;
    world.calendar_changed(version, hour).await;
    world.until_state(visit.id, State::Displaced).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blackout_after_the_booking_displaces_it_and_its_removal_lets_it_stand() {
    let (world, calendar) = World::scripted(1).await;
    world.serve(&calendar).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let hour = calendar.block(BlockCode::Blackout, start);
    calendar.script().providers = vec![world.provider];
    calendar.script().free = [180, 0, -60, 90, 75].map(|m| start + minutes(m)).to_vec();
    world.publish_change(2, hour).await;
    let row = world.until_state(visit.id, State::Displaced).await;
    assert_eq!((row.displaced_reasons, row.calendar_version), (vec!["BLACKOUT".to_owned()], 2));
    assert_eq!((row.start, row.room_id, row.version), (start, visit.room_id, 2));
    let event: AppointmentDisplaced = world.last_event().await;
    assert_eq!(event.displacement.unwrap().reasons, ["BLACKOUT"]);
    let offered: Vec<_> =
        event.alternatives.iter().map(|slot| slot.interval.unwrap().start_time.unwrap().seconds).collect();
    let nearest = [-60, 75, 90].map(|m| (start + minutes(m)).timestamp());
    assert_eq!(offered, nearest, "the three nearest, and never the slot itself");
    // The front desk finds it, and it still holds its time.
    let displaced = vec![State::Displaced];
    let filter = Filter { clinic: Some(world.clinic), states: displaced, ..Filter::default() };
    let list = List { filter, latest_first: false, page: Page::parse(0, "").unwrap() };
    assert_eq!(world.app.list(&list).await.unwrap().0[0].id, visit.id);
    calendar.unblock();
    assert_eq!(told(world.take(world.slot(start)).await), says(Code::Aborted, "SLOT_TAKEN"));

    world.publish_change(3, hour).await;
    let row = world.until_state(visit.id, State::Booked).await;
    assert!(row.displaced_at.is_none() && row.displaced_reasons.is_empty());
    let event: AppointmentRescheduled = world.last_event().await;
    let (before, after) = (event.previous.unwrap(), event.appointment.unwrap());
    assert_eq!((before.interval, before.room_id.clone()), (after.interval, after.room_id.clone()));
    assert_eq!((before.state(), after.state()), (AppointmentState::Displaced, AppointmentState::Booked));
    let held = ["AppointmentBooked", "SlotHeld", "SlotHeld", "SlotHeld", "AppointmentDisplaced"];
    let given_back = ["SlotReleased", "SlotReleased", "SlotReleased", "AppointmentRescheduled"];
    assert_eq!(world.told().await, [&held[..], &given_back[..]].concat());
}

#[tokio::test]
async fn an_older_event_and_one_for_another_time_change_nothing() {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().version = 5;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let hour = |from: DateTime<Utc>| Span { start: from, end: from + TimeDelta::hours(1) };
    for version in [4, 5] {
        world.calendar_changed(version, hour(start)).await;
        assert_eq!(world.row(visit.id).await.judge_at, None, "judged at {version} or later already");
    }
    world.calendar_changed(6, hour(start - minutes(60))).await;
    world.calendar_changed(7, hour(visit.end)).await;
    assert_eq!(
        world.row(visit.id).await.judge_at,
        None,
        "ranges that end where it starts and start where it ends"
    );
    world.calendar_changed(8, hour(visit.end - minutes(5))).await;
    assert_eq!(world.row(visit.id).await.judge_at, Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_a_change_has_overtaken_is_judged_again_and_refused() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    // The event is here before the replica of scheduling that answers first has followed.
    world.calendar_changed(2, Span { start, end: start + minutes(60) }).await;
    let (app, slot) = (world.app.clone(), world.slot(start));
    let call = tokio::spawn(async move { app.hold(&desk(), &slot, None).await });
    until("the first judgement", async || (calendar.script().asked > 0).then_some(())).await;
    calendar.block(BlockCode::Blackout, start);
    assert_eq!(told(call.await.unwrap()), says(Code::FailedPrecondition, "BLACKOUT"));
    assert!(world.told().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_the_authorization_releases_the_hold_and_tells_why() {
    let (clerk, gate) = slow_clerk(authorized());
    let calendar = Calendar::open(1);
    calendar.script().copay = true;
    let world = World::on(Arc::new(calendar.clone()), clerk).await;
    let start = ten_o_clock(&world, 0);
    let (app, booking) = (world.app.clone(), world.booking(start));
    let call = tokio::spawn(async move { app.book(&desk(), booking).await });
    gate.asked.notified().await;
    tokio::spawn(world.app.clone().work());
    let hour = calendar.block(BlockCode::TimeOff, start);
    world.calendar_changed(2, hour).await;
    until("the end of the hold", async || (world.told().await == ["SlotHeld", "SlotReleased"]).then_some(()))
        .await;
    gate.answer.notify_one();
    assert_eq!(told(call.await.unwrap()), says(Code::FailedPrecondition, "TIME_OFF"));
    // Billing hears of the released slot and voids; nothing was booked.
    assert_eq!(world.told().await, ["SlotHeld", "SlotReleased"]);
    assert_eq!(told(world.take(world.slot(start)).await), says(Code::FailedPrecondition, "TIME_OFF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overridden_rule_does_not_displace_but_another_one_does() {
    let (world, calendar) = World::scripted(1).await;
    tokio::spawn(world.app.clone().work());
    let start = ten_o_clock(&world, 0);
    let hour = calendar.block(BlockCode::OutsideSchedule, start);
    let mut slot = world.slot(start);
    slot.override_reason = "the doctor stays longer".into();
    let visit = world.take(slot).await.unwrap();
    calendar.script().version = 3;
    world.calendar_changed(3, hour).await;
    let judged =
        until("the judgement", async || Some(world.row(visit.id).await).filter(|row| row.judge_at.is_none()))
            .await;
    assert_eq!((judged.state, judged.calendar_version, judged.version), (State::Booked, 3, 1));
    calendar.block(BlockCode::ClinicClosed, start);
    world.calendar_changed(4, hour).await;
    let row = world.until_state(visit.id, State::Displaced).await;
    assert_eq!(row.displaced_reasons, ["CLINIC_CLOSED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_desk_lets_a_displaced_visit_stand_and_a_patient_does_not() {
    let (world, calendar) = World::scripted(1).await;
    tokio::spawn(world.app.clone().work());
    let visit = displaced(&world, &calendar, ten_o_clock(&world, 0)).await;
    let mut stand = to(visit.id, visit.start);
    let refused = world.app.reschedule(&portal(visit.patient_id), &stand).await;
    assert_eq!(told(refused), says(Code::FailedPrecondition, "BLACKOUT"));
    stand.override_reason = "the doctor comes in for it".into();
    let stands = world.app.reschedule(&desk(), &stand).await.unwrap();
    assert_eq!((stands.state(), &stands.displacement), (AppointmentState::Booked, &None));
    let row = world.row(visit.id).await;
    assert_eq!(
        (row.overridden, row.start, row.room_id),
        (vec!["BLACKOUT".to_owned()], visit.start, visit.room_id)
    );
    assert_eq!(world.told().await[2..], ["AppointmentRescheduled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_displaced_visit_costs_nothing_to_cancel_move_or_miss_and_its_patient_is_checked_in() {
    let (world, calendar) = World::scripted(1).await;
    tokio::spawn(world.app.clone().work());
    let start = ten_o_clock(&world, 0);
    let mut visits = vec![];
    for n in 0..4 {
        visits.push(displaced(&world, &calendar, start + TimeDelta::hours(n)).await);
    }
    let [cancelled, moved, missed, came] = &visits[..] else { panic!("four") };
    world.servers.advance_to(start - minutes(30)).await;
    let late = world.app.cancel(&portal(cancelled.patient_id), change(cancelled.id), false).await.unwrap();
    assert!(!late.cancellation.unwrap().fee_due && late.displacement.is_none());
    assert!(!world.last_event::<AppointmentCancelled>().await.cancellation.unwrap().fee_due);
    // Moved half an hour before its start, but by its patient's leave: the new start counts.
    let own = portal(moved.patient_id);
    world.servers.advance_to(moved.start - minutes(30)).await;
    let later = start + TimeDelta::hours(30);
    world.app.reschedule(&own, &to(moved.id, later)).await.unwrap();
    assert_eq!(world.row(moved.id).await.fee_start, later);
    let free = world.app.cancel(&own, change(moved.id), false).await.unwrap();
    assert!(!free.cancellation.unwrap().fee_due);
    world.servers.advance_to(came.start).await;
    let closed = world.app.complete(&desk(), change(missed.id), VisitOutcome::NoShow).await.unwrap();
    assert_eq!(closed.state(), AppointmentState::NoShow);
    assert!(!world.row(missed.id).await.fee_due);
    let here = world.app.check_in(&desk(), change(came.id), "").await.unwrap();
    assert_eq!(here.state(), AppointmentState::CheckedIn);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_scheduling_is_down_or_behind_a_visit_keeps_its_mark_and_is_judged_later() {
    let (world, calendar) = World::scripted(1).await;
    tokio::spawn(world.app.clone().work());
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    calendar.script().down = true;
    let hour = calendar.block(BlockCode::Blackout, start);
    world.calendar_changed(2, hour).await;
    until("a judgement that failed", async || (calendar.script().asked == 2).then_some(())).await;
    let row = world.row(visit.id).await;
    assert_eq!((row.state, row.judge_at), (State::Booked, Some(2)));
    // Up again, but on a replica that has not followed: its word does not count.
    (calendar.script().down, calendar.script().version) = (false, 1);
    world.servers.advance(minutes(1)).await;
    until("a judgement that came too early", async || (calendar.script().asked > 2).then_some(())).await;
    let row = world.row(visit.id).await;
    assert_eq!((row.state, row.judge_at), (State::Booked, Some(2)));
    calendar.script().version = 2;
    // Soon, and without anybody's help.
    world.until_state(visit.id, State::Displaced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_scheduling_is_silent_about_a_visit_holds_still_end_in_time() {
    let (world, calendar) = World::scripted(1).await;
    tokio::spawn(world.app.clone().work());
    let start = ten_o_clock(&world, 0);
    world.booked(start).await;
    let held = world.app.hold(&desk(), &world.slot(start + minutes(30)), None).await.unwrap();
    calendar.script().silent = true;
    let hour = calendar.block(BlockCode::Blackout, start);
    world.calendar_changed(2, hour).await;
    until("a question without an answer", async || (calendar.script().asked > 2).then_some(())).await;
    world.servers.advance(minutes(6)).await;
    world.until_state(held.id.parse().unwrap(), State::Expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_of_three_replicas_displace_each_visit_once() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    for n in 0..40 {
        world.booked(start + minutes(15 * n)).await;
    }
    let long = Span { start, end: start + TimeDelta::days(1) };
    calendar.script().blocks.push((BlockCode::Blackout, long));
    calendar.script().version = 2;
    world.calendar_changed(2, long).await;
    for _ in 0..3 {
        tokio::spawn(world.app.clone().work());
    }
    until("all of them", async || (world.told().await.len() >= 80).then_some(())).await;
    let versions: Vec<i64> =
        sqlx::query_scalar("select version from reservation").fetch_all(world.db.pool()).await.unwrap();
    assert_eq!((versions, world.told().await.len()), (vec![2; 40], 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_visit_is_left_alone_by_its_calendars_change() {
    let calendar = Calendar::open(1);
    let world = World::on(Arc::new(calendar.clone()), MockClerk::new()).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let hour = calendar.block(BlockCode::Blackout, start);
    world.calendar_changed(2, hour).await;
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    tokio::spawn(world.app.clone().work());
    until("no mark left", async || world.row(visit.id).await.judge_at.is_none().then_some(())).await;
    assert_eq!(world.row(visit.id).await.state, State::Cancelled);
    assert_eq!(world.told().await, ["AppointmentBooked", "AppointmentCancelled"]);
}
