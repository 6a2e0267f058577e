//! Moving a booking: onto itself, refused, by whom, and what it does to the fee.

use std::sync::Arc;

use appointments::app::{Change, Expected, Target};
use appointments::domain::{Conflict, Copay, State};
use chrono::TimeDelta;
use kit::idempotency::Key;
use kit::ids::{ClinicId, PatientId, ProviderId, RequestId};
use proto::clinic::appointments::v1::{self as pb, AppointmentState, VisitOutcome};
use proto::clinic::scheduling::v1::BlockCode;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::calendar::Calendar;
use crate::harness::{
    MockClerk, World, authorized, broken, change, desk, minutes, portal, says, ten_o_clock, to, told,
};

#[tokio::test]
async fn a_visit_moves_onto_its_own_time_next_to_it_and_into_its_own_buffer() {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().buffers = (minutes(5), minutes(10));
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    for (version, later) in (2..).zip([5, 20, 30, 30, 15]) {
        let moved = world.app.reschedule(&desk(), &to(visit.id, start + minutes(later))).await.unwrap();
        assert_eq!((moved.version, moved.state()), (version, AppointmentState::Booked));
        let row = world.row(visit.id).await;
        assert_eq!((row.start, row.end), (start + minutes(later), start + minutes(later + 15)));
        assert_eq!((row.occupied_start, row.occupied_end), (row.start - minutes(5), row.end + minutes(10)));
        assert_eq!((row.fee_start, row.room_id), (row.start, visit.room_id));
    }
    assert_eq!(world.told().await[1..], ["AppointmentRescheduled"; 5]);
    // What it left is free: its last time is 10:15, so 10:40 is the first after its buffer and the other's own.
    assert_eq!(told(world.take(world.slot(start + minutes(40))).await), says(Code::Aborted, "SLOT_TAKEN"));
    world.booked(start + minutes(45)).await;
}

#[tokio::test]
async fn a_refused_move_keeps_slot_version_history_and_silence() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let rival = world.booked(start + minutes(30)).await;
    let (events, asked) = (world.told().await, calendar.script().asked);
    let refused = world.app.reschedule(&desk(), &to(visit.id, start + minutes(20))).await.unwrap_err();
    // With one room, the rival has that, too.
    assert_eq!(broken(&refused), [Conflict::Provider, Conflict::Room]);
    assert_eq!(calendar.script().asked, asked + 1, "refused at once");
    calendar.block(BlockCode::Blackout, start + minutes(30));
    calendar.block(BlockCode::TimeOff, start + minutes(30));
    let status = Status::from(world.app.reschedule(&desk(), &to(visit.id, rival.start)).await.unwrap_err());
    let all = status.get_details_precondition_failure().unwrap().violations;
    let rules: Vec<_> = all.iter().map(|v| v.r#type.as_str()).collect();
    assert_eq!(rules, ["BLACKOUT", "TIME_OFF", "SLOT_TAKEN"], "every rule at once");
    assert_eq!(all[2].subject, format!("Appointment/{}", rival.id));
    let own = portal(visit.patient_id);
    let status = Status::from(world.app.reschedule(&own, &to(visit.id, rival.start)).await.unwrap_err());
    let all = status.get_details_precondition_failure().unwrap().violations;
    assert!(all.iter().all(|v| v.subject == "slot"), "no patient learns of another: {all:?}");
    calendar.unblock();

    // Another provider, but the only room is the rival's.
    let mut elsewhere = to(visit.id, rival.start);
    elsewhere.provider = Some(ProviderId::new());
    assert_eq!(told(world.app.reschedule(&desk(), &elsewhere).await), says(Code::Aborted, "ROOM_TAKEN"));

    let (row, history) = world.app.get(&desk(), visit.id, true).await.unwrap();
    assert_eq!((row.start, row.version, row.state), (start, 1, State::Booked));
    assert_eq!((history.len(), world.told().await), (1, events));
}

#[tokio::test]
async fn a_moved_visit_keeps_its_authorization_and_billing_is_not_asked_again() {
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().times(1).returning(|_| authorized());
    let calendar = Calendar::open(1);
    calendar.script().copay = true;
    let world = World::on(Arc::new(calendar), clerk).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    world.app.reschedule(&desk(), &to(visit.id, start + minutes(60))).await.unwrap();
    let row = world.row(visit.id).await;
    assert_eq!((row.copay, row.charge_id), (Copay::Authorized, visit.charge_id));
    assert!(row.charge_id.is_some());
}

#[tokio::test]
async fn a_visit_stays_in_its_room_where_it_can_and_goes_to_another_provider_clinic_and_room_when_told() {
    let (mut world, calendar) = World::scripted(3).await;
    let rooms = calendar.script().rooms.clone();
    let start = ten_o_clock(&world, 0);
    let mut slot = world.slot(start);
    slot.room = Some(rooms[1]);
    let visit = world.take(slot).await.unwrap();
    world.app.reschedule(&desk(), &to(visit.id, start + minutes(60))).await.unwrap();
    assert_eq!(world.row(visit.id).await.room_id, rooms[1], "not the first that is free");

    // Someone else's visit has the room at the next time.
    let first = std::mem::replace(&mut world.provider, ProviderId::new());
    let mut slot = world.slot(start);
    slot.room = Some(rooms[1]);
    world.take(slot).await.unwrap();
    world.app.reschedule(&desk(), &to(visit.id, start)).await.unwrap();
    assert_eq!(world.row(visit.id).await.room_id, rooms[0]);

    let mut away = to(visit.id, start + minutes(120));
    (away.clinic, away.provider, away.room) =
        (Some(ClinicId::new()), Some(ProviderId::new()), Some(rooms[2]));
    let own = portal(visit.patient_id);
    let refused = world.app.reschedule(&own, &away).await;
    assert_eq!(told(refused), says(Code::PermissionDenied, "ROLE_REQUIRED"), "a patient chooses no room");
    world.app.reschedule(&desk(), &away).await.unwrap();
    let row = world.row(visit.id).await;
    assert_eq!(
        (Some(row.clinic_id), Some(row.provider_id), Some(row.room_id)),
        (away.clinic, away.provider, away.room)
    );
    world.provider = first;
    world.booked(start + minutes(60)).await;
}

#[tokio::test]
async fn a_repeated_move_is_one_move_and_a_stale_etag_or_another_body_is_refused() {
    let (world, _) = World::scripted(2).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let id = RequestId::new();
    let key = |body: &str| {
        let request = pb::RescheduleAppointmentRequest { override_reason: body.into(), ..Default::default() };
        Key::new(&desk(), "RescheduleAppointment", Some(id), &request)
    };
    let call = |body: &str, hours: i64| {
        let mut call = to(visit.id, start + TimeDelta::hours(hours));
        call.change = Change { id: visit.id, etag: visit.etag(), key: key(body) };
        call
    };
    let caller = desk();
    let same = call("one", 1);
    let answers = futures::future::join_all((0..8).map(|_| world.app.reschedule(&caller, &same))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert_eq!(world.told().await, ["AppointmentBooked", "AppointmentRescheduled"]);
    let another = world.app.reschedule(&caller, &call("another", 2)).await;
    assert_eq!(told(another), says(Code::AlreadyExists, "REQUEST_ID_REUSED"));
    let mut stale = to(visit.id, start);
    stale.change.etag = visit.etag();
    assert_eq!(told(world.app.reschedule(&caller, &stale).await), says(Code::Aborted, "ETAG_MISMATCH"));
}

#[tokio::test]
async fn a_move_within_two_hours_of_the_start_does_not_dodge_the_fee_and_an_early_one_is_free() {
    let (world, _) = World::scripted(2).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let own = portal(visit.patient_id);
    // In time: the new start counts.
    world.app.reschedule(&own, &to(visit.id, start + minutes(60))).await.unwrap();
    assert_eq!(world.row(visit.id).await.fee_start, start + minutes(60));
    world.servers.advance_to(start - minutes(59)).await;
    // Too late: the old start counts, however often the visit is moved on.
    for days in [1, 5] {
        world.app.reschedule(&own, &to(visit.id, start + TimeDelta::days(days))).await.unwrap();
        assert_eq!(world.row(visit.id).await.fee_start, start + minutes(60));
    }
    let cancelled = world.app.cancel(&own, change(visit.id), false).await.unwrap().cancellation.unwrap();
    assert!(cancelled.fee_due);
    // Moved nearer, the nearer start counts.
    let visit = world.booked(start + minutes(90)).await;
    world.app.reschedule(&desk(), &to(visit.id, start + minutes(30))).await.unwrap();
    assert_eq!(world.row(visit.id).await.fee_start, start + minutes(30));
}

#[tokio::test]
async fn only_a_booked_or_displaced_visit_moves_and_only_by_its_own_patient_or_staff() {
    let (world, _) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let stranger = portal(PatientId::new());
    let refused = world.app.reschedule(&stranger, &to(visit.id, start + minutes(30))).await;
    assert_eq!(told(refused), says(Code::NotFound, "APPOINTMENT_NOT_FOUND"));
    for state in State::ALL.into_iter().filter(|s| !matches!(s, State::Booked | State::Displaced)) {
        sqlx::query("update reservation set state = $1, hold_expires_at = clock.now() + interval '1 hour'")
            .bind(state)
            .execute(world.db.pool())
            .await
            .unwrap();
        let refused = world.app.reschedule(&desk(), &to(visit.id, start + minutes(30))).await;
        assert_eq!(told(refused), says(Code::FailedPrecondition, "WRONG_STATE"), "{state:?}");
    }
    assert_eq!(world.told().await, ["AppointmentBooked"]);
}

#[tokio::test]
async fn the_front_desk_overrides_the_schedule_with_a_reason_and_a_patient_does_not() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    calendar.block(BlockCode::OutsideSchedule, start + minutes(60));
    let mut call = to(visit.id, start + minutes(60));
    let refused = world.app.reschedule(&desk(), &call).await;
    assert_eq!(told(refused), says(Code::FailedPrecondition, "OUTSIDE_SCHEDULE"));
    call.override_reason = "the doctor stays longer".into();
    let refused = world.app.reschedule(&portal(visit.patient_id), &call).await;
    assert_eq!(told(refused), says(Code::PermissionDenied, "ROLE_REQUIRED"));
    world.app.reschedule(&desk(), &call).await.unwrap();
    let (row, history) = world.app.get(&desk(), visit.id, true).await.unwrap();
    assert_eq!(row.overridden, ["OUTSIDE_SCHEDULE"]);
    let last = history.last().unwrap();
    assert_eq!(last.override_reason.as_deref(), Some("the doctor stays longer"));
    assert_eq!((&last.overridden, last.actor.as_deref()), (&row.overridden, Some("desk")));
    // Moved to where no rule is broken, nothing is overridden any more.
    world.app.reschedule(&desk(), &to(visit.id, start)).await.unwrap();
    assert!(world.row(visit.id).await.overridden.is_empty());
}

#[tokio::test]
async fn a_hold_made_against_a_rule_is_booked_although_the_calendar_changed_elsewhere() {
    let (world, calendar) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let evening = calendar.block(BlockCode::OutsideSchedule, start);
    let mut slot = world.slot(start);
    slot.override_reason = "the doctor stays longer".into();
    let held = world.app.hold(&desk(), &slot, None).await.unwrap();
    calendar.block(BlockCode::Blackout, evening.end + TimeDelta::days(1));
    let mut tx = world.db.begin().await.unwrap();
    appointments::store::see_calendar(&mut tx, world.provider.uuid(), 3).await.unwrap();
    tx.commit().await.unwrap();
    let target = Target::Hold(held.id.parse().unwrap(), Expected::default());
    let booking = appointments::app::Booking { target, payment_method: None, key: None };
    let booked = world.app.book(&desk(), booking).await.unwrap().row;
    assert_eq!((booked.state, booked.overridden), (State::Booked, vec!["OUTSIDE_SCHEDULE".to_owned()]));
    let closing = world.app.complete(&desk(), change(booked.id), VisitOutcome::NoShow).await;
    assert_eq!(told(closing), says(Code::FailedPrecondition, "NOT_STARTED"));
}
