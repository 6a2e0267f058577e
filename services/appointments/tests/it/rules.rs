//! The rules that the database keeps: seven days on the clinic's own calendar, one open hold, whose time a buffer is.

use appointments::app::{Booking, Expected, Target};
use appointments::domain::{Conflict, State};
use chrono::{DateTime, NaiveDate, TimeDelta, TimeZone as _, Utc};
use chrono_tz::America::Chicago;
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId};
use tonic::Code;

use crate::harness::{World, broken, change, desk, minutes, portal, says, ten_o_clock, to, told};

/// A wall-clock time in Chicago.
fn local(year: i32, month: u32, day: u32, hour: u32, minute: u32) -> DateTime<Utc> {
    let wall = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, minute, 0).unwrap();
    Chicago.from_local_datetime(&wall).earliest().unwrap().to_utc()
}

#[tokio::test]
async fn seven_days_are_counted_on_the_clinics_calendar_across_dst_and_the_months_end() {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().zone = Chicago;
    // Clocks go forward on 2031-03-09 and back on 2031-11-02; (first visit, six dates later, seven dates later).
    let cases = [
        // Late on a day and early on another: less than seven times 24 hours, and seven dates.
        (local(2031, 3, 5, 23, 30), local(2031, 3, 11, 23, 45), local(2031, 3, 12, 0, 0)),
        // Early and late, the other way round.
        (local(2031, 10, 29, 0, 0), local(2031, 11, 4, 23, 45), local(2031, 11, 5, 0, 0)),
        // A date in Chicago that is another one in UTC, across the end of February.
        (local(2031, 2, 26, 20, 0), local(2031, 3, 4, 20, 0), local(2031, 3, 5, 8, 0)),
        (local(2032, 2, 27, 20, 0), local(2032, 3, 4, 8, 0), local(2032, 3, 5, 8, 0)),
    ];
    for (first, sixth, seventh) in cases {
        let patient = PatientId::new();
        let take = async |at| {
            let mut slot = world.slot(at);
            slot.patient = Some(patient);
            world.take(slot).await
        };
        take(first).await.unwrap();
        assert_eq!(broken(&take(sixth).await.unwrap_err()), [Conflict::SevenDays], "{sixth}");
        let later = take(seventh).await.unwrap();
        // The same by a move: the visit before it stays where it is.
        let moved = world.app.reschedule(&desk(), &to(later.id, sixth)).await;
        assert_eq!(told(moved), says(Code::FailedPrecondition, "WITHIN_7_DAYS"));
        world.app.cancel(&desk(), change(later.id), true).await.unwrap();
        // And before it.
        let early = first - TimeDelta::days(6);
        assert_eq!(broken(&take(early).await.unwrap_err()), [Conflict::SevenDays], "{early}");
        let mut elsewhere = world.slot(sixth);
        (elsewhere.patient, elsewhere.provider) = (Some(patient), Some(ProviderId::new()));
        world.take(elsewhere).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_book_one_patient_twice_in_a_week_get_one_visit() {
    let (world, _) = World::scripted(2).await;
    let start = ten_o_clock(&world, 0);
    for round in 0..15 {
        let patient = PatientId::new();
        let slot = |days: i64| {
            let mut slot = world.slot(start + TimeDelta::days(days) + minutes(15 * round));
            slot.patient = Some(patient);
            slot
        };
        let (one, other) = tokio::join!(world.take(slot(0)), world.take(slot(3)));
        assert!(one.is_ok() != other.is_ok(), "round {round}");
        assert_eq!(broken(&one.err().or(other.err()).unwrap()), [Conflict::SevenDays]);
    }
}

#[tokio::test]
async fn a_provider_is_in_one_clinic_at_a_time_and_a_patient_with_one_provider() {
    let (world, _) = World::scripted(2).await;
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    let mut elsewhere = world.slot(start + minutes(10));
    elsewhere.clinic = ClinicId::new();
    assert_eq!(broken(&world.take(elsewhere).await.unwrap_err()), [Conflict::Provider]);
    let mut other = world.slot(start + minutes(10));
    (other.patient, other.provider) = (Some(visit.patient_id), Some(ProviderId::new()));
    assert_eq!(told(world.take(other).await), says(Code::FailedPrecondition, "PATIENT_BUSY"));
}

#[tokio::test]
async fn buffers_are_the_providers_time_not_the_rooms_or_the_patients() {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().buffers = (minutes(10), minutes(10));
    let start = ten_o_clock(&world, 0);
    let visit = world.booked(start).await;
    // The next visit of the same patient in the same room, with another provider, begins where this one ends.
    let mut next = world.slot(visit.end);
    (next.patient, next.provider) = (Some(visit.patient_id), Some(ProviderId::new()));
    let next = world.take(next).await.unwrap();
    assert_eq!((next.room_id, next.start), (visit.room_id, visit.end));
    for early in [0, 15] {
        let refused = world.take(world.slot(next.end + minutes(early - 15))).await;
        assert!(broken(&refused.unwrap_err()).contains(&Conflict::Provider));
    }
    // Two buffers do not share time: 10 after the one, 10 before the other.
    assert_eq!(
        broken(&world.take(world.slot(visit.end + minutes(15))).await.unwrap_err()),
        [Conflict::Provider]
    );
    world.booked(visit.end + minutes(20)).await;
}

#[tokio::test]
async fn a_patient_has_one_open_hold_and_one_that_ends_frees_its_time_at_once() {
    let (world, _) = World::scripted(1).await;
    let start = ten_o_clock(&world, 0);
    let patient = PatientId::new();
    let own = portal(patient);
    let slot = |days: i64| {
        let mut slot = world.slot(start + TimeDelta::days(days));
        slot.patient = None;
        slot
    };
    let id =
        |held: &proto::clinic::appointments::v1::Appointment| -> AppointmentId { held.id.parse().unwrap() };
    let held = world.app.hold(&own, &slot(0), None).await.unwrap();
    let refused = world.app.hold(&own, &slot(10), None).await;
    assert_eq!(told(refused), says(Code::ResourceExhausted, "TOO_MANY_HOLDS"));
    let stranger = portal(PatientId::new());
    let refused = world.app.release(&stranger, change(id(&held))).await;
    assert_eq!(told(refused), says(Code::NotFound, "APPOINTMENT_NOT_FOUND"));
    world.app.release(&own, change(id(&held))).await.unwrap();
    let again = world.app.hold(&own, &slot(0), None).await.unwrap();
    // Nobody's worker runs: whoever comes next ends what has run out.
    world.servers.advance(minutes(5)).await;
    let late =
        Booking { target: Target::Hold(id(&again), Expected::default()), payment_method: None, key: None };
    assert_eq!(told(world.app.book(&own, late).await), says(Code::FailedPrecondition, "HOLD_EXPIRED"));
    world.app.hold(&own, &slot(10), None).await.unwrap();
    world.booked(start).await;
    assert_eq!(world.row(id(&again)).await.state, State::Expired);
    let refused = world.app.release(&own, change(id(&again))).await;
    assert_eq!(told(refused), says(Code::FailedPrecondition, "WRONG_STATE"));
    let told = world.told().await;
    assert_eq!(told.iter().filter(|t| *t == "SlotReleased").count(), 2, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_holds_of_one_patient_at_once_leave_one() {
    let (world, _) = World::scripted(8).await;
    let start = ten_o_clock(&world, 0);
    let own = portal(PatientId::new());
    let slots: Vec<_> = (0..8)
        .map(|n| {
            let mut slot = world.slot(start + TimeDelta::days(8 * n));
            slot.patient = None;
            slot
        })
        .collect();
    let answers = futures::future::join_all(slots.iter().map(|slot| world.app.hold(&own, slot, None))).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(broken(&refused), [Conflict::OpenHold]);
    }
}
