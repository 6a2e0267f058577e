//! One offer, and everybody who has a hand in it at once: the patient on two devices, who accepts, declines and leaves, the desk that
//! calls off or moves the visit it would replace, a calendar that changes, the clock, and workers. Whoever is first decides, and the
//! rest is told so.

use appointments::app::Join;
use appointments::domain::waitlist::OfferState;
use appointments::domain::{Copay, State};
use appointments::error::Error;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use kit::ids::{ClinicId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::scheduling::v1::BlockCode;
use tonic::Code;

use super::*;
use crate::harness::{MockClerk, authorized, minutes, to};

/// Rounds of each mixture.
const ROUNDS: usize = 2;

/// What must not be answered, whoever is first: our own bugs.
fn expected<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(error) => {
            let words = format!("{error:?}");
            let code = tonic::Status::from(error).code();
            assert!(matches!(code, Code::FailedPrecondition | Code::Aborted), "{words}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_first_decides_about_a_visit_and_the_offer_that_would_move_it() {
    let (mut world, calendar) = world().await;
    // Bit 0: accept twice; 1: call the visit off; 2: leave; 3: move it elsewhere; 4: the offer runs out.
    for mixture in 1..32_u32 {
        for _ in 0..ROUNDS {
            (world.provider, world.clinic, world.service_type) =
                (ProviderId::new(), ClinicId::new(), ServiceTypeId::new());
            calendar.script().rooms = vec![RoomId::new(), RoomId::new()];
            morning(&world).await;
            round(&world, mixture).await;
        }
    }
}

async fn round(world: &World, mixture: u32) {
    let visit = world.booked(ten_o_clock(world, 20)).await;
    let replacing = Join { replaces: Some(visit.id), patient: Some(visit.patient_id), ..anything(world) };
    let replacing = joined(world, replacing).await;
    freed(world, ten_o_clock(world, 10)).await;
    look(world).await;
    let offer = the_offer(world).await;
    if mixture & 16 != 0 {
        world.servers.advance(minutes(15)).await;
    }
    let elsewhere = to(visit.id, ten_o_clock(world, 21));
    let mut at_once: Vec<BoxFuture<'_, ()>> = vec![async { look(world).await }.boxed()];
    if mixture & 1 != 0 {
        for caller in [of_portal(&offer), by_text()] {
            let offer = &offer;
            at_once.push(
                async move {
                    expected(accept(world, &caller, offer).await);
                }
                .boxed(),
            );
        }
    }
    if mixture & 2 != 0 {
        let off = async { expected(world.app.cancel(&desk(), change(visit.id), true).await).map(drop) };
        at_once.push(off.map(drop).boxed());
    }
    if mixture & 4 != 0 {
        let leave = async { expected(world.app.leave(&desk(), entry_id(&replacing), None).await).map(drop) };
        at_once.push(leave.map(drop).boxed());
    }
    if mixture & 8 != 0 {
        let moved = async { expected(world.app.reschedule(&desk(), &elsewhere).await).map(drop) };
        at_once.push(moved.map(drop).boxed());
    }
    join_all(at_once).await;
    // What was refused may still be giving its locks back; what is over ends with the next looks.
    let ended = testkit::until("quiet", async || {
        look(world).await;
        let open = open_offers(world).await;
        let entry = entry(world, &replacing).await;
        let waits = entry.state() == pb::WaitlistEntryState::Offered;
        (open.len() == usize::from(waits)).then_some((open, entry))
    })
    .await;
    let (open, entry) = ended;
    let (row, held) = (world.row(visit.id).await, world.row(offer.id.parse().unwrap()).await);
    let accepted = offers(world, vec![OfferState::Accepted]).await;
    let accepted = accepted.iter().any(|known| known.id == offer.id);
    assert_eq!(accepted, entry.state() == pb::WaitlistEntryState::Fulfilled, "{mixture:05b}: {entry:?}");
    assert_eq!(held.state == State::Offered, open.iter().any(|known| known.id == offer.id));
    if accepted {
        assert_eq!(held.state, State::Released);
        let places = [ten_o_clock(world, 10), ten_o_clock(world, 21)];
        assert!(row.state == State::Cancelled || places.contains(&row.start), "{mixture:05b}: {row:?}");
    }
    if row.state == State::Cancelled && !accepted {
        assert!(!matches!(entry.state(), pb::WaitlistEntryState::Waiting), "{mixture:05b}: {entry:?}");
    }
    for left in open {
        world.app.decline(&desk(), id_of(&left), None).await.unwrap();
    }
    if row.state == State::Booked {
        world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_first_decides_about_an_offer_with_a_copay() {
    let calendar = Calendar::open(1);
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().returning(|_| authorized());
    let mut world = World::on(std::sync::Arc::new(calendar.clone()), clerk).await;
    // Bit 0: accept twice; 1: decline; 2: leave; 3: the calendar changes; 4: the offer runs out.
    for mixture in 1..32_u32 {
        for _ in 0..ROUNDS {
            (world.provider, world.clinic, world.service_type) =
                (ProviderId::new(), ClinicId::new(), ServiceTypeId::new());
            calendar.script().rooms = vec![RoomId::new()];
            morning(&world).await;
            paid_round(&world, &calendar, mixture).await;
        }
    }
}

async fn paid_round(world: &World, calendar: &Calendar, mixture: u32) {
    let start = ten_o_clock(world, 10);
    calendar.script().copay = false;
    let entry = joined(world, anything(world)).await;
    freed(world, start).await;
    calendar.script().copay = true;
    look(world).await;
    let offer = the_offer(world).await;
    if mixture & 16 != 0 {
        world.servers.advance(minutes(15)).await;
    }
    let mut at_once: Vec<BoxFuture<'_, ()>> = vec![async { look(world).await }.boxed()];
    if mixture & 1 != 0 {
        for caller in [of_portal(&offer), by_text()] {
            let offer = &offer;
            at_once.push(async move { drop(expected(accept(world, &caller, offer).await)) }.boxed());
        }
    }
    if mixture & 2 != 0 {
        let decline = async { drop(expected(world.app.decline(&desk(), id_of(&offer), None).await)) };
        at_once.push(decline.boxed());
    }
    if mixture & 4 != 0 {
        let leave = async { drop(expected(world.app.leave(&desk(), entry_id(&entry), None).await)) };
        at_once.push(leave.boxed());
    }
    if mixture & 8 != 0 {
        let hour = calendar.block(BlockCode::Blackout, start);
        let version = calendar.script().version;
        at_once.push(async move { world.calendar_changed(version, hour).await }.boxed());
    }
    join_all(at_once).await;
    let answered = |entry: &pb::WaitlistEntry| entry.state() != pb::WaitlistEntryState::Offered;
    let entry = testkit::until("quiet", async || {
        look(world).await;
        let (open, entry) = (open_offers(world).await, super::entry(world, &entry).await);
        // Those of rounds before are asked again.
        let asked = open.iter().any(|offer| offer.waitlist_entry_id == entry.id);
        (asked != answered(&entry)).then_some(entry)
    })
    .await;
    let row = world.row(offer.id.parse().unwrap()).await;
    let booked = matches!(row.state, State::Booked | State::Displaced);
    assert_eq!(
        booked,
        entry.state() == pb::WaitlistEntryState::Fulfilled,
        "{mixture:05b}: {entry:?} {row:?}"
    );
    assert_eq!(row.state == State::Offered, !answered(&entry), "{mixture:05b}: {entry:?} {row:?}");
    assert!(!booked || row.copay == Copay::Authorized, "{mixture:05b}: {row:?}");
    for left in open_offers(world).await {
        world.app.decline(&desk(), id_of(&left), None).await.unwrap();
    }
    calendar.unblock();
}
