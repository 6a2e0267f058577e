//! The co-pay saga: every way an authorization can turn out, and who finishes it.

use std::sync::Arc;

use appointments::app::{Booking, Expected, Target};
use appointments::domain::{Copay, State};
use appointments::error::Error;
use appointments::ports::Authorization;
use chrono::TimeDelta;
use kit::ids::AppointmentId;
use mockall::Sequence;
use testkit::until;
use tokio::sync::Notify;

use crate::harness::{Gate, MockClerk, World, authorized, desk, slow_clerk, ten_o_clock};

async fn state(world: &World, id: AppointmentId) -> (State, Copay) {
    let (row, _) = world.app.get(&desk(), id, false).await.unwrap();
    (row.state, row.copay)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_asked_again_under_the_same_attempt_and_booked() {
    let (mut clerk, mut order) = (MockClerk::new(), Sequence::new());
    let attempts = Arc::new(std::sync::Mutex::new(vec![]));
    for answer in [Authorization::Unknown, authorized()] {
        let attempts = attempts.clone();
        clerk.expect_authorize().times(1).in_sequence(&mut order).returning(move |request| {
            attempts.lock().unwrap().push(request.request_id);
            answer.clone()
        });
    }
    let world = World::new(1, Some(clerk)).await;
    let pending = world.app.book(&desk(), world.booking(ten_o_clock(&world, 0))).await.unwrap().row;
    assert_eq!((pending.state, pending.copay), (State::Held, Copay::Pending));
    tokio::spawn(world.app.clone().work());
    world.servers.advance(TimeDelta::seconds(3)).await;
    until("the recovered booking", async || {
        (state(&world, pending.id).await == (State::Booked, Copay::Authorized)).then_some(())
    })
    .await;
    let attempts = attempts.lock().unwrap();
    assert_eq!(attempts[0], attempts[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_whose_driver_died_is_taken_over_when_its_lease_is_over() {
    // The first driver never hears from billing, as if its process had been killed.
    let (mut clerk, mut order) = (MockClerk::new(), Sequence::new());
    let asked = Arc::new(Notify::new());
    let tell = asked.clone();
    clerk.expect_authorize().times(1).in_sequence(&mut order).returning(move |_| {
        tell.notify_one();
        Authorization::Unknown
    });
    clerk.expect_authorize().times(1).in_sequence(&mut order).returning(|_| authorized());
    let world = World::new(1, Some(clerk)).await;
    let hold = world.app.book(&desk(), world.booking(ten_o_clock(&world, 0))).await.unwrap().row;
    asked.notified().await;
    // What a killed driver leaves behind: a lease of its own, still running.
    sqlx::query("update reservation set driven_until = clock.now() + interval '15 seconds'")
        .execute(world.db.pool())
        .await
        .unwrap();
    tokio::spawn(world.app.clone().work());
    world.servers.advance(TimeDelta::seconds(16)).await;
    until("the recovered booking", async || (state(&world, hold.id).await.0 == State::Booked).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_expires_while_the_authorization_runs_is_told_and_not_booked() {
    let (world, gate) = with_slow_clerk().await;
    let app = world.app.clone();
    let booking = world.booking(ten_o_clock(&world, 0));
    let call = tokio::spawn(async move { app.book(&desk(), booking).await });
    gate.asked.notified().await;
    world.servers.advance(TimeDelta::minutes(5)).await;
    gate.answer.notify_one();
    assert!(matches!(call.await.unwrap(), Err(Error::HoldExpired)));
    // Billing hears that the hold is over and voids what it authorized.
    assert_eq!(world.told().await, ["SlotHeld", "SlotReleased"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_billing_says_of_a_hold_that_has_ended_its_caller_hears_that_it_has() {
    let late = || Authorization::Declined("insufficient_funds".into());
    for outcome in [Authorization::Unknown, late(), Authorization::HoldExpired] {
        let (clerk, gate) = slow_clerk(outcome);
        let world = World::new(1, Some(clerk)).await;
        let (app, booking) = (world.app.clone(), world.booking(ten_o_clock(&world, 0)));
        let call = tokio::spawn(async move { app.book(&desk(), booking).await });
        gate.asked.notified().await;
        world.servers.advance(TimeDelta::minutes(5)).await;
        tokio::spawn(world.app.clone().work());
        until("the end", async || (world.told().await == ["SlotHeld", "SlotReleased"]).then_some(())).await;
        gate.answer.notify_one();
        assert!(matches!(call.await.unwrap(), Err(Error::HoldExpired)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_does_not_stop_the_booking() {
    let (world, gate) = with_slow_clerk().await;
    let app = world.app.clone();
    let booking = world.booking(ten_o_clock(&world, 0));
    let call = tokio::spawn(async move { app.book(&desk(), booking).await });
    gate.asked.notified().await;
    call.abort();
    gate.answer.notify_one();
    until("the booking", async || (world.told().await == ["SlotHeld", "AppointmentBooked"]).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_leaves_the_hold_and_its_end_is_called_declined() {
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().returning(|_| Authorization::Declined("insufficient_funds".into()));
    let world = World::new(1, Some(clerk)).await;
    let refused = world.app.book(&desk(), world.booking(ten_o_clock(&world, 0))).await.unwrap_err();
    let Error::PaymentDeclined { hold, decline_code } = refused else { panic!("{refused:?}") };
    assert_eq!(decline_code, "insufficient_funds");
    assert_eq!(state(&world, hold).await, (State::Held, Copay::Declined));
    tokio::spawn(world.app.clone().work());
    world.servers.advance(TimeDelta::minutes(5)).await;
    until("the end of the hold", async || (state(&world, hold).await.0 == State::Declined).then_some(()))
        .await;
}

#[tokio::test]
async fn a_booking_that_could_not_even_be_tried_gives_its_slot_back() {
    let mut clerk = MockClerk::new();
    let no_card = || tonic::Status::failed_precondition("there is no card");
    clerk.expect_authorize().returning(move |_| Authorization::Refused(Box::new(no_card())));
    let world = World::new(1, Some(clerk)).await;
    let refused = world.app.book(&desk(), world.booking(ten_o_clock(&world, 0))).await;
    assert!(matches!(refused, Err(Error::Remote(_))));
    assert_eq!(world.told().await, ["SlotHeld", "SlotReleased"]);
}

#[tokio::test]
async fn a_hold_whose_calendar_changed_is_judged_again_before_it_is_booked() {
    let world = World::new(1, None).await;
    let Target::Slot(slot) = world.booking(ten_o_clock(&world, 0)).target else { panic!("a slot") };
    let held = world.app.hold(&desk(), &slot, None).await.unwrap();
    let mut conn = world.db.pool().acquire().await.unwrap();
    appointments::store::see_calendar(&mut conn, world.provider.uuid(), 2).await.unwrap();
    drop(conn);
    // Scheduling still answers with version 1: it has not seen the change, so its word does not count.
    let target = Target::Hold(held.id.parse().unwrap(), Expected::default());
    let refused = world.app.book(&desk(), Booking { target, payment_method: None, key: None }).await;
    assert!(matches!(refused, Err(Error::CalendarMoving)));
}

async fn with_slow_clerk() -> (World, Gate) {
    let (clerk, gate) = slow_clerk(authorized());
    (World::new(1, Some(clerk)).await, gate)
}
