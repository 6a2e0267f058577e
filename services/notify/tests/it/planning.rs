//! From appointments' events to reminders, in whatever order they come.

use chrono::TimeDelta;
use kit::fields::timestamp;
use kit::ids::PatientId;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentRescheduled, AppointmentState,
    PatientCheckedIn, VisitCompleted,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{
    DropReason, GetMessageRequest, ListRemindersRequest, ReminderKind, ReminderState,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{Suite, Visit, states};

fn booked(visit: &Visit) -> AppointmentBooked {
    AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() }
}

fn cancelled(visit: &Visit) -> AppointmentCancelled {
    AppointmentCancelled { appointment: visit.facts(AppointmentState::Cancelled), ..Default::default() }
}

#[tokio::test]
async fn a_booked_visit_gets_two_reminders_and_a_cancelled_one_none() {
    let suite = Suite::start().await;
    let visit = suite.visit();
    suite.tell(&visit, 2, &booked(&visit)).await;
    let planned = suite.reminders_when(&visit, |r| r.len() == 2).await;
    let expected = [
        (ReminderKind::Hours24, ReminderState::Planned, Some(timestamp(visit.start - TimeDelta::hours(24)))),
        (ReminderKind::Hours2, ReminderState::Planned, Some(timestamp(visit.start - TimeDelta::hours(2)))),
    ];
    let told: Vec<_> = planned.iter().map(|r| (r.kind(), r.state(), r.due_time)).collect();
    assert_eq!(told, expected);
    assert!(planned.iter().all(|r| r.appointment_version == 2 && r.patient_id == visit.patient.to_string()));

    suite.tell(&visit, 3, &cancelled(&visit)).await;
    let dropped = suite.reminders_when(&visit, |r| states(r) == [ReminderState::Dropped; 2]).await;
    assert!(dropped.iter().all(|r| r.drop_reason() == DropReason::VisitEnded));
}

#[tokio::test]
async fn a_moved_visit_has_reminders_for_its_new_time_alone() {
    let suite = Suite::start().await;
    let visit = suite.visit();
    suite.tell(&visit, 2, &booked(&visit)).await;
    suite.reminders_when(&visit, |r| r.len() == 2).await;
    let later = Visit { start: visit.start + TimeDelta::days(2), ..visit.clone() };
    let moved = AppointmentRescheduled {
        appointment: later.facts(AppointmentState::Booked),
        previous: visit.facts(AppointmentState::Booked),
        ..Default::default()
    };
    suite.tell(&visit, 3, &moved).await;
    let reminders = suite.reminders_when(&visit, |r| r.len() == 4).await;
    let told: Vec<_> =
        reminders.iter().map(|r| (r.appointment_version, r.state(), r.drop_reason())).collect();
    let old = (2, ReminderState::Dropped, DropReason::Superseded);
    let new = (3, ReminderState::Planned, DropReason::Unspecified);
    assert_eq!(told, [old, old, new, new]);
    assert_eq!(reminders[3].due_time, Some(timestamp(later.start - TimeDelta::hours(2))));
}

#[tokio::test]
async fn late_news_of_an_older_version_changes_nothing() {
    let suite = Suite::start().await;
    let (ended, standing) = (suite.visit(), suite.visit());
    suite.tell(&ended, 3, &cancelled(&ended)).await;
    suite.tell(&ended, 2, &booked(&ended)).await;
    // Booked, displaced, and booked again by moving it: told backwards.
    let again = AppointmentRescheduled {
        appointment: standing.facts(AppointmentState::Booked),
        ..Default::default()
    };
    suite.tell(&standing, 4, &again).await;
    let displaced = AppointmentDisplaced {
        appointment: standing.facts(AppointmentState::Displaced),
        ..Default::default()
    };
    suite.tell(&standing, 3, &displaced).await;
    suite.tell(&standing, 2, &booked(&standing)).await;
    // One consumer applies the stream in order: when this visit is known, the others are settled.
    let last = suite.visit();
    suite.tell(&last, 1, &booked(&last)).await;
    suite.reminders_when(&last, |r| r.len() == 2).await;
    assert!(suite.reminders(&ended).await.is_empty());
    let kept = suite.reminders(&standing).await;
    assert_eq!(states(&kept), [ReminderState::Planned; 2]);
    assert!(kept.iter().all(|r| r.appointment_version == 4));
}

#[tokio::test]
async fn a_visit_that_begins_or_ends_needs_no_reminder() {
    let suite = Suite::start().await;
    let (begun, over, displaced) = (suite.visit(), suite.visit(), suite.visit());
    for visit in [&begun, &over, &displaced] {
        suite.tell(visit, 1, &booked(visit)).await;
        suite.reminders_when(visit, |r| r.len() == 2).await;
    }
    let checked_in =
        PatientCheckedIn { appointment: begun.facts(AppointmentState::CheckedIn), ..Default::default() };
    suite.tell(&begun, 2, &checked_in).await;
    let completed =
        VisitCompleted { appointment: over.facts(AppointmentState::NoShow), ..Default::default() };
    suite.tell(&over, 2, &completed).await;
    let left = AppointmentDisplaced {
        appointment: displaced.facts(AppointmentState::Displaced),
        ..Default::default()
    };
    suite.tell(&displaced, 2, &left).await;
    for visit in [&begun, &over, &displaced] {
        suite.reminders_when(visit, |r| states(r) == [ReminderState::Dropped; 2]).await;
    }
}

#[tokio::test]
async fn a_visit_in_twenty_minutes_gets_no_reminder_and_says_why() {
    let suite = Suite::start().await;
    let visit = suite.visit_in(TimeDelta::minutes(20));
    suite.tell(&visit, 1, &booked(&visit)).await;
    let reminders = suite.reminders_when(&visit, |r| r.len() == 2).await;
    assert_eq!(states(&reminders), [ReminderState::Dropped; 2]);
    assert!(reminders.iter().all(|r| r.drop_reason() == DropReason::TooLate));
}

#[tokio::test]
async fn patients_list_their_own_reminders_page_by_page() {
    let suite = Suite::start().await;
    let visit = suite.visit();
    suite.tell(&visit, 1, &booked(&visit)).await;
    suite.reminders_when(&visit, |r| r.len() == 2).await;
    let own = visit.patient.to_string();
    let of =
        |patient_id: &str| ListRemindersRequest { patient_id: patient_id.to_owned(), ..Default::default() };
    let mut patient = suite.call_as(Role::Patient, &own);
    let mut request = ListRemindersRequest { page_size: 1, ..of(&own) };
    let first = patient.list_reminders(request.clone()).await.expect("a page").into_inner();
    request.page_token = first.next_page_token;
    let second = patient.list_reminders(request).await.expect("a page").into_inner();
    let kinds = [first.reminders[0].kind(), second.reminders[0].kind()];
    assert_eq!((kinds, second.next_page_token.as_str()), ([ReminderKind::Hours24, ReminderKind::Hours2], ""));

    let stranger = PatientId::new().to_string();
    let foreign = patient.list_reminders(of(&stranger)).await.expect_err("another's");
    assert_eq!(kit::status::reason(&foreign), "PATIENT_NOT_FOUND");
    let by_visit = ListRemindersRequest { appointment_id: visit.id.to_string(), ..Default::default() };
    let nothing = suite.call_as(Role::Patient, &stranger).list_reminders(by_visit).await;
    assert!(nothing.expect("an empty list").into_inner().reminders.is_empty());
    let everyone = patient.list_reminders(ListRemindersRequest::default()).await.expect_err("whose?");
    assert_eq!(everyone.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let suite = Suite::start().await;
    let bad = ListRemindersRequest {
        appointment_id: "1".to_owned(),
        patient_id: "2".to_owned(),
        kinds: vec![ReminderKind::Hours2.into(), 0, 99],
        page_size: -1,
        ..Default::default()
    };
    let status = suite.desk().list_reminders(bad).await.expect_err("bad");
    let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
    let fields: Vec<_> = violations.into_iter().map(|v| v.field).collect();
    assert_eq!(fields, ["appointment_id", "patient_id", "kinds[1]", "kinds[2]", "page_size"]);
    let missing = GetMessageRequest { message_id: PatientId::new().to_string() };
    let missing = suite.desk().get_message(missing).await.expect_err("no such message");
    assert_eq!(kit::status::reason(&missing), "MESSAGE_NOT_FOUND");
}
