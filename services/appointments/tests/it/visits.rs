//! The day of the visit: late cancellations, no-shows, and patients who come after all.

use appointments::domain::{Conflict, State};
use chrono::TimeDelta;
use kit::ids::ProviderId;
use proto::clinic::appointments::v1::{AppointmentState, CancelTimeliness, PatientCheckedIn, VisitOutcome};
use tonic::Code;

use crate::harness::{World, broken, change, desk, minutes, portal, says, ten_o_clock, told};

#[tokio::test]
async fn a_cancellation_at_exactly_two_hours_is_timely_and_a_microsecond_later_is_late() {
    let (world, _) = World::scripted(1).await;
    let visit = world.booked(ten_o_clock(&world, 0)).await;
    let limit = visit.start - TimeDelta::hours(2);
    assert!(visit.timely(limit));
    assert!(!visit.timely(limit + TimeDelta::microseconds(1)));
    world.servers.advance_to(limit + TimeDelta::seconds(1)).await;
    let late = world.app.cancel(&portal(visit.patient_id), change(visit.id), false).await.unwrap();
    let late = late.cancellation.unwrap();
    assert_eq!((late.timeliness(), late.fee_due), (CancelTimeliness::Late, true));
    // The clinic's own cancellation costs nobody anything.
    let visit = world.booked(visit.start).await;
    let by_clinic = world.app.cancel(&desk(), change(visit.id), true).await.unwrap().cancellation.unwrap();
    assert!(!by_clinic.fee_due);
    let by_clinic = world.app.cancel(&portal(visit.patient_id), change(visit.id), true).await;
    assert_eq!(told(by_clinic), says(Code::PermissionDenied, "ROLE_REQUIRED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_had_to_wait_is_judged_by_when_it_came() {
    let (world, _) = World::scripted(1).await;
    let visit = world.booked(ten_o_clock(&world, 0)).await;
    world.servers.advance_to(visit.start - TimeDelta::hours(2) - TimeDelta::minutes(1)).await;
    let mut busy = world.db.begin().await.unwrap();
    appointments::store::lock(&mut busy, visit.id).await.unwrap();
    let (app, own) = (world.app.clone(), portal(visit.patient_id));
    let call = tokio::spawn(async move { app.cancel(&own, change(visit.id), false).await });
    world.until_blocked(1).await;
    world.servers.advance(TimeDelta::minutes(10)).await;
    busy.rollback().await.unwrap();
    let cancelled = call.await.unwrap().unwrap().cancellation.unwrap();
    assert_eq!((cancelled.timeliness(), cancelled.fee_due), (CancelTimeliness::Timely, false));
}

/// A visit whose patient did not come, a quarter of an hour after its start.
async fn missed(world: &World) -> appointments::domain::Reservation {
    let visit = world.booked(ten_o_clock(world, 0)).await;
    world.servers.advance_to(visit.start + minutes(5)).await;
    let closed = world.app.complete(&desk(), change(visit.id), VisitOutcome::NoShow).await.unwrap();
    assert_eq!(closed.state(), AppointmentState::NoShow);
    let row = world.row(visit.id).await;
    assert!(row.fee_due);
    row
}

#[tokio::test]
async fn who_comes_after_a_no_show_is_checked_in_while_the_time_is_free_and_owes_no_fee() {
    let (world, _) = World::scripted(1).await;
    let visit = missed(&world).await;
    let came = world.app.check_in(&desk(), change(visit.id), "").await.unwrap();
    assert_eq!((came.state(), came.close_time), (AppointmentState::CheckedIn, None));
    assert!(!world.row(visit.id).await.fee_due);
    assert!(world.last_event::<PatientCheckedIn>().await.after_no_show);
    // The time is taken again.
    assert_eq!(told(world.take(world.slot(visit.start)).await), says(Code::Aborted, "SLOT_TAKEN"));
    let closed = world.app.complete(&desk(), change(visit.id), VisitOutcome::Attended).await.unwrap();
    assert_eq!(closed.state(), AppointmentState::Completed);
}

#[tokio::test]
async fn who_comes_after_the_time_was_given_away_stays_a_no_show() {
    let (mut world, _) = World::scripted(1).await;
    let visit = missed(&world).await;
    let rival = world.booked(visit.start).await;
    let events = world.told().await;
    let refused = world.app.check_in(&desk(), change(visit.id), "").await.unwrap_err();
    assert_eq!(broken(&refused), [Conflict::Provider, Conflict::Room]);
    assert_eq!(
        world.app.cancel(&desk(), change(rival.id), true).await.unwrap().state(),
        AppointmentState::Cancelled
    );
    // Another provider's visit in the only room.
    world.provider = ProviderId::new();
    world.booked(visit.start).await;
    let refused = world.app.check_in(&desk(), change(visit.id), "").await;
    assert_eq!(told(refused), says(Code::Aborted, "ROOM_TAKEN"));
    let row = world.row(visit.id).await;
    assert_eq!((row.state, row.fee_due, row.version), (State::NoShow, true, visit.version));
    assert_eq!(world.told().await.len(), events.len() + 2);
}

#[tokio::test]
async fn a_hold_whose_time_is_up_does_not_keep_a_late_patient_out() {
    let (world, _) = World::scripted(1).await;
    let visit = missed(&world).await;
    world.app.hold(&desk(), &world.slot(visit.start), None).await.unwrap();
    assert_eq!(
        told(world.app.check_in(&desk(), change(visit.id), "").await),
        says(Code::Aborted, "SLOT_TAKEN")
    );
    // No worker has ended the hold yet.
    world.servers.advance(minutes(5)).await;
    world.app.check_in(&desk(), change(visit.id), "").await.unwrap();
    assert_eq!(world.told().await[2..], ["SlotHeld", "SlotReleased", "PatientCheckedIn"]);
}

#[tokio::test]
async fn a_hold_that_is_over_before_it_can_be_seen_does_not_keep_a_late_patient_out() {
    let (world, _) = World::scripted(1).await;
    let visit = missed(&world).await;
    // Nobody sees a rival's hold until it is committed, and then its time is up.
    let mut rival = world.db.pool().begin().await.unwrap();
    sqlx::query(
        "insert into reservation
         select (jsonb_populate_record(missed, jsonb_build_object('id', gen_random_uuid(), 'patient_id', gen_random_uuid(),
             'state', 'held', 'hold_expires_at', clock.now()))).*
         from reservation missed where id = $1",
    )
    .bind(visit.id.uuid())
    .execute(&mut *rival)
    .await
    .unwrap();
    let caller = desk();
    let (came, ()) = tokio::join!(world.app.check_in(&caller, change(visit.id), ""), async {
        world.until_blocked(1).await;
        rival.commit().await.unwrap();
    });
    assert_eq!(came.unwrap().state(), AppointmentState::CheckedIn);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_late_patients_and_a_booking_race_for_one_time_and_one_has_it() {
    let (world, _) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    world.servers.advance_to(start).await;
    let caller = desk();
    for round in 0..15 {
        let mut missed = vec![];
        for _ in 0..2 {
            let visit = world.booked(start).await;
            sqlx::query("update reservation set state = 'no_show' where id = $1")
                .bind(visit.id.uuid())
                .execute(world.db.pool())
                .await
                .unwrap();
            missed.push(visit.id);
        }
        let (one, other, booked) = tokio::join!(
            world.app.check_in(&caller, change(missed[0]), ""),
            world.app.check_in(&caller, change(missed[1]), ""),
            world.take(world.slot(start))
        );
        let winners = [one.is_ok(), other.is_ok(), booked.is_ok()];
        assert_eq!(winners.iter().filter(|w| **w).count(), 1, "round {round}: {one:?} {other:?} {booked:?}");
        for refused in [one.err(), other.err(), booked.err()].into_iter().flatten() {
            assert!(broken(&refused).contains(&Conflict::Provider), "round {round}: {refused:?}");
        }
        sqlx::query("update reservation set state = 'cancelled'").execute(world.db.pool()).await.unwrap();
    }
}
