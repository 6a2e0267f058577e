//! Check-in and the intake form: refused without it, unless the desk says why.

use appointments::domain::{Reservation, State};
use chrono::TimeDelta;
use kit::ids::{FormId, IntakeId, RequestId};
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::{AppointmentState, AppointmentView, VisitOutcome};
use proto::clinic::patients::v1::IntakeCompleted;
use tonic::Code;

use crate::harness::{World, change, desk, portal, says, ten_o_clock, to, told};

/// A visit that asks for a form, on its day.
async fn asked() -> (World, crate::calendar::Calendar, Reservation) {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().intake_form = Some(FormId::new());
    let visit = world.booked(ten_o_clock(&world, 0)).await;
    world.servers.advance_to(visit.start - TimeDelta::minutes(10)).await;
    (world, calendar, visit)
}

fn completed(visit: &Reservation) -> IntakeCompleted {
    IntakeCompleted {
        intake_id: IntakeId::new().to_string(),
        version: 1,
        appointment_id: visit.id.to_string(),
        patient_id: visit.patient_id.to_string(),
        form_id: visit.intake_form_id.map(|form| form.to_string()).unwrap_or_default(),
        form_version: 1,
        submit_time: None,
    }
}

async fn tell(world: &World, event: &IntakeCompleted) {
    let id: IntakeId = event.intake_id.parse().unwrap();
    testkit::publish(&world.servers.broker().await, "patients", id, event.version, event).await;
}

#[tokio::test]
async fn check_in_waits_for_the_form_and_the_event_of_this_visit_opens_it() {
    let (world, calendar, visit) = asked().await;
    let url = world.serve(&calendar).await;
    let other = world.booked(visit.start + TimeDelta::hours(1)).await;
    assert_eq!(
        told(world.app.check_in(&desk(), change(visit.id), "").await),
        says(Code::FailedPrecondition, "INTAKE_INCOMPLETE")
    );
    let unchanged = world.row(visit.id).await;
    assert_eq!((unchanged.state, unchanged.version), (State::Booked, visit.version));
    tell(&world, &completed(&visit)).await;
    // Told twice, and over gRPC.
    tell(&world, &completed(&visit)).await;
    let mut client = world.client(&url, &desk());
    let request = pb::CheckInRequest { appointment_id: visit.id.to_string(), ..Default::default() };
    let came = testkit::until("check-in", async || client.clone().check_in(request.clone()).await.ok()).await;
    assert_eq!(came.into_inner().state(), AppointmentState::CheckedIn);
    let request = pb::CheckInRequest { appointment_id: other.id.to_string(), ..Default::default() };
    let refused = client.check_in(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), kit::status::reason(&refused).as_str()),
        (Code::FailedPrecondition, "INTAKE_INCOMPLETE")
    );
}

#[tokio::test]
async fn the_desk_goes_without_the_form_for_a_reason_that_the_history_keeps() {
    let (world, calendar, visit) = asked().await;
    let mut client = world.client(&world.serve(&calendar).await, &desk());
    let mut request = pb::CheckInRequest {
        request_id: RequestId::new().to_string(),
        appointment_id: visit.id.to_string(),
        ..Default::default()
    };
    let refused = client.check_in(request.clone()).await.unwrap_err();
    assert_eq!(kit::status::reason(&refused), "INTAKE_INCOMPLETE");
    request.override_reason = "no pen in the house".into();
    let came = client.check_in(request).await.unwrap().into_inner();
    assert_eq!(came.state(), AppointmentState::CheckedIn);
    let request = pb::GetAppointmentRequest {
        appointment_id: visit.id.to_string(),
        view: AppointmentView::Full.into(),
    };
    let shown = client.get_appointment(request).await.unwrap().into_inner();
    assert_eq!(shown.history.last().unwrap().override_reason, "no pen in the house");
}

#[tokio::test]
async fn a_submitted_form_stays_submitted_when_the_visit_moves() {
    let (world, _, visit) = asked().await;
    let mut tx = world.db.begin().await.unwrap();
    appointments::store::complete_intake(&mut tx, visit.id).await.unwrap();
    tx.commit().await.unwrap();
    let later = visit.start + TimeDelta::hours(1);
    world.app.reschedule(&portal(visit.patient_id), &to(visit.id, later)).await.unwrap();
    let came = world.app.check_in(&desk(), change(visit.id), "").await.unwrap();
    assert_eq!(came.state(), AppointmentState::CheckedIn);
}

#[tokio::test]
async fn who_comes_after_a_no_show_needs_the_form_too() {
    let (world, _, visit) = asked().await;
    world.servers.advance_to(visit.start + TimeDelta::minutes(5)).await;
    world.app.complete(&desk(), change(visit.id), VisitOutcome::NoShow).await.unwrap();
    let refused = world.app.check_in(&desk(), change(visit.id), "").await;
    assert_eq!(told(refused), says(Code::FailedPrecondition, "INTAKE_INCOMPLETE"));
    assert_eq!(world.row(visit.id).await.state, State::NoShow);
    world.app.check_in(&desk(), change(visit.id), "the form was down").await.unwrap();
}

#[tokio::test]
async fn a_wrong_day_or_state_is_told_before_the_form() {
    let (world, calendar) = World::scripted(1).await;
    calendar.script().intake_form = Some(FormId::new());
    let visit = world.booked(ten_o_clock(&world, 0)).await;
    let early = world.app.check_in(&desk(), change(visit.id), "").await;
    assert_eq!(told(early), says(Code::FailedPrecondition, "NOT_VISIT_DAY"));
    world.app.cancel(&desk(), change(visit.id), true).await.unwrap();
    let gone = world.app.check_in(&desk(), change(visit.id), "").await;
    assert_eq!(told(gone), says(Code::FailedPrecondition, "WRONG_STATE"));
}
