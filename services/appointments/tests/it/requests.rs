//! Request ids: a repeated call is one call, and is answered as the first was.

use appointments::app::{Booking, Change, Expected, Slot, Target};
use appointments::domain::State;
use appointments::error::Error;
use appointments::ports::Authorization;
use futures::future::join_all;
use kit::idempotency::Key;
use kit::ids::RequestId;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::AppointmentState;

use crate::harness::{MockClerk, World, authorized, change, desk, ten_o_clock};

/// The key of a call whose body is told apart by `body`.
fn key(request_id: RequestId, body: &str) -> Option<Key> {
    let request = pb::HoldSlotRequest { override_reason: body.into(), ..Default::default() };
    Key::new(&desk(), "test", Some(request_id), &request)
}

fn slot(booking: &Booking) -> Slot {
    let Target::Slot(slot) = &booking.target else { panic!("a slot") };
    slot.clone()
}

fn reused(error: &Error) -> bool {
    matches!(error, Error::Kit(kit::status::Error::RequestIdReused { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_from_eight_callers_at_once_is_one_booking() {
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().times(1).returning(|_| authorized());
    let world = World::new(4, Some(clerk)).await;
    let booking = Booking { key: key(RequestId::new(), "body"), ..world.booking(ten_o_clock(&world, 0)) };
    let caller = desk();
    let results = join_all((0..8).map(|_| world.app.book(&caller, booking.clone()))).await;
    let rows: Vec<_> = results.into_iter().map(|r| r.unwrap().row).collect();
    assert!(rows.iter().all(|row| row.id == rows[0].id && row.state == State::Booked), "{rows:?}");
    assert_eq!(world.told().await, ["SlotHeld", "AppointmentBooked"]);
}

#[tokio::test]
async fn the_same_request_id_with_another_body_is_refused() {
    let world = World::new(1, None).await;
    let (caller, id) = (desk(), RequestId::new());
    let first = Booking { key: key(id, "one body"), ..world.booking(ten_o_clock(&world, 0)) };
    world.app.book(&caller, first).await.unwrap();
    let second = Booking { key: key(id, "another body"), ..world.booking(ten_o_clock(&world, 1)) };
    assert!(reused(&world.app.book(&caller, second).await.unwrap_err()));
}

#[tokio::test]
async fn a_late_copy_of_a_call_books_nothing_though_its_visit_was_cancelled_and_the_time_is_free() {
    let world = World::new(1, None).await;
    let booking = Booking { key: key(RequestId::new(), "body"), ..world.booking(ten_o_clock(&world, 0)) };
    let booked = world.app.book(&desk(), booking.clone()).await.unwrap().row;
    world.app.cancel(&desk(), change(booked.id), true).await.unwrap();
    let again = world.app.book(&desk(), booking.clone()).await.unwrap().row;
    assert_eq!((again.id, again.state), (booked.id, State::Cancelled));
    let other = Booking { key: key(RequestId::new(), "body"), ..booking };
    assert_ne!(world.app.book(&desk(), other).await.unwrap().row.id, booked.id, "the time was free");
    assert_eq!(world.told().await, ["AppointmentBooked", "AppointmentCancelled", "AppointmentBooked"]);
}

#[tokio::test]
async fn a_hold_and_its_booking_have_request_ids_of_their_own() {
    let world = World::new(1, None).await;
    let (caller, hold_id, book_id) = (desk(), RequestId::new(), RequestId::new());
    let wanted = slot(&world.booking(ten_o_clock(&world, 0)));
    let held = world.app.hold(&caller, &wanted, key(hold_id, "hold")).await.unwrap();
    let booking = Booking {
        target: Target::Hold(held.id.parse().unwrap(), Expected::default()),
        payment_method: None,
        key: key(book_id, "book"),
    };
    let booked = world.app.book(&caller, booking.clone()).await.unwrap();
    assert_eq!(booked.row.state, State::Booked);
    // A late copy of the first call is answered with the first answer, and takes nothing.
    assert_eq!(world.app.hold(&caller, &wanted, key(hold_id, "hold")).await.unwrap(), held);
    assert_eq!(world.app.book(&caller, booking).await.unwrap().row.version, booked.row.version);
    assert_eq!(world.told().await, ["SlotHeld", "AppointmentBooked"]);
}

#[tokio::test]
async fn a_repeated_decline_is_a_decline_and_asks_no_card_again() {
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().times(1).returning(|_| Authorization::Declined("expired_card".into()));
    let world = World::new(1, Some(clerk)).await;
    let booking = Booking { key: key(RequestId::new(), "body"), ..world.booking(ten_o_clock(&world, 0)) };
    for _ in 0..2 {
        let refused = world.app.book(&desk(), booking.clone()).await.unwrap_err();
        assert!(
            matches!(refused, Error::PaymentDeclined { decline_code, .. } if decline_code == "expired_card")
        );
    }
}

#[tokio::test]
async fn a_repeated_cancellation_is_answered_with_the_first_answer() {
    let world = World::new(1, None).await;
    let (caller, id) = (desk(), RequestId::new());
    let booked = world.app.book(&caller, world.booking(ten_o_clock(&world, 0))).await.unwrap().row;
    let change = || Change { id: booked.id, etag: booked.etag(), key: key(id, "cancel") };
    let first = world.app.cancel(&caller, change(), false).await.unwrap();
    assert_eq!(first.state(), AppointmentState::Cancelled);
    assert_eq!(world.app.cancel(&caller, change(), false).await.unwrap(), first);
    let other = Change { key: key(id, "another body"), ..change() };
    assert!(reused(&world.app.cancel(&caller, other, false).await.unwrap_err()));
    let stale = Change { key: None, ..change() };
    let stale = world.app.cancel(&caller, stale, false).await.unwrap_err();
    assert!(matches!(stale, Error::Kit(kit::status::Error::EtagMismatch { .. })), "{stale:?}");
}

#[tokio::test]
async fn what_is_said_of_a_hold_must_be_so() {
    let world = World::new(1, None).await;
    let wanted = slot(&world.booking(ten_o_clock(&world, 0)));
    let held = world.app.hold(&desk(), &wanted, None).await.unwrap();
    let expected = Expected {
        clinic: Some(wanted.clinic),
        start: Some(ten_o_clock(&world, 1)),
        provider: Some(kit::ids::ProviderId::new()),
        ..Default::default()
    };
    let target = Target::Hold(held.id.parse().unwrap(), expected);
    let refused =
        world.app.book(&desk(), Booking { target, payment_method: None, key: None }).await.unwrap_err();
    let Error::Kit(kit::status::Error::Invalid(bad)) = refused else { panic!("{refused:?}") };
    let fields: Vec<_> = bad.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["provider_id", "start_time"]);
}
