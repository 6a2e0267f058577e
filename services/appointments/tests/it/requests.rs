//! Request ids: a repeated call is one call.

use appointments::app::Booking;
use appointments::domain::{RequestKey, State};
use appointments::error::Error;
use futures::future::join_all;
use uuid::Uuid;

use crate::harness::{MockClerk, World, authorized, desk, ten_o_clock};

fn named(booking: Booking, request_id: Uuid, body: &str) -> Booking {
    let request = RequestKey { caller: "desk".into(), request_id, fingerprint: body.as_bytes().to_vec() };
    Booking { request: Some(request), ..booking }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_from_eight_callers_at_once_is_one_booking() {
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().times(1).returning(|_| authorized());
    let world = World::new(4, Some(clerk)).await;
    let booking = named(world.booking(ten_o_clock(&world, 0)), Uuid::now_v7(), "body");
    let caller = desk();
    let results = join_all((0..8).map(|_| world.app.book(&caller, booking.clone()))).await;
    let rows: Vec<_> = results.into_iter().map(|r| r.unwrap().row).collect();
    assert!(rows.iter().all(|row| row.id == rows[0].id && row.state == State::Booked), "{rows:?}");
    assert_eq!(world.told().await, ["SlotHeld", "AppointmentBooked"]);
}

#[tokio::test]
async fn the_same_request_id_with_another_body_is_refused() {
    let world = World::new(1, None).await;
    let (caller, request_id) = (desk(), Uuid::now_v7());
    let first = named(world.booking(ten_o_clock(&world, 0)), request_id, "one body");
    world.app.book(&caller, first).await.unwrap();
    let second = named(world.booking(ten_o_clock(&world, 1)), request_id, "another body");
    let refused = world.app.book(&caller, second).await;
    assert!(matches!(refused, Err(Error::Kit(kit::status::Error::RequestIdReused { .. }))));
}
