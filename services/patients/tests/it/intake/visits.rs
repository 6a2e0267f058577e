//! Visits as appointments tells of them: they open intakes, and close them.

use kit::ids::{AppointmentId, FormId};
use proto::clinic::appointments::v1::{
    AppointmentCancelled, AppointmentRescheduled, AppointmentState, VisitCompleted,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{IntakeState, PublishFormRequest};
use tonic::Code;

use super::{COMPLETE, SCHEMA, booked, by_appointment, draft, facts, form, full, no_form, submit};
use crate::{Suite, refused, someone};

impl Suite {
    async fn cancel(&self, appointment: AppointmentId, patient: &str, form: &str, version: i64) {
        let event = AppointmentCancelled {
            appointment_id: appointment.to_string(),
            version,
            appointment: Some(facts(patient, form, AppointmentState::Cancelled)),
            ..Default::default()
        };
        testkit::publish(&self.servers.broker().await, "appointments", appointment, version, &event).await;
    }

    async fn complete(&self, appointment: AppointmentId, patient: &str, form: &str, state: AppointmentState) {
        let event = VisitCompleted {
            appointment_id: appointment.to_string(),
            version: 3,
            appointment: Some(facts(patient, form, state)),
            ..Default::default()
        };
        testkit::publish(&self.servers.broker().await, "appointments", appointment, 3, &event).await;
    }

    async fn until_intake(&self, id: &str, state: IntakeState) {
        testkit::until("the intake's state", async || {
            let shown = self.intakes(Role::FrontDesk, "ana").get_intake(full(id)).await.ok()?.into_inner();
            (shown.state() == state).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_cancelled_visit_closes_its_intake_and_the_draft_stays_readable() {
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    let (patient, intake) = suite.asked(&form).await;
    let mut own = suite.intakes(Role::Patient, &patient.id);
    let saved = own.save_intake_draft(draft(&intake, COMPLETE)).await.expect("saved").into_inner();
    let appointment = intake.appointment_id.parse().expect("an id");
    suite.cancel(appointment, &patient.id, &form, 2).await;
    suite.until_intake(&intake.id, IntakeState::Closed).await;
    refused(own.submit_intake(submit(&saved, COMPLETE)).await, Code::FailedPrecondition, "WRONG_STATE");
    let shown = own.get_intake(full(&intake.id)).await.expect("shown").into_inner();
    assert!(shown.answers_json.contains("zanthorrhoea") && shown.problems.is_empty());
    // The booking told once more changes nothing.
    suite.tell(&booked(appointment, &patient.id, &form, 1)).await;
    let (_, marker) = suite.asked(&form).await;
    assert_eq!(marker.state(), IntakeState::Open);
    suite.until_intake(&intake.id, IntakeState::Closed).await;
}

#[tokio::test]
async fn a_move_keeps_the_intake_and_news_in_any_order_ends_the_same() {
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    let patient = suite.registered(someone("Ada", "King", "")).await;
    let (moved, called_off) = (AppointmentId::new(), AppointmentId::new());
    let event = AppointmentRescheduled {
        appointment_id: moved.to_string(),
        version: 2,
        appointment: Some(facts(&patient.id, &form, AppointmentState::Booked)),
        ..Default::default()
    };
    testkit::publish(&suite.servers.broker().await, "appointments", moved, 2, &event).await;
    suite.tell(&booked(moved, &patient.id, &form, 1)).await;
    let first = suite.opened(moved).await;
    // Called off before its booking is heard of: nothing is opened.
    suite.cancel(called_off, &patient.id, &form, 2).await;
    suite.tell(&booked(called_off, &patient.id, &form, 1)).await;
    suite.tell(&booked(AppointmentId::new(), &patient.id, "", 1)).await;
    let (_, _marker) = suite.asked(&form).await;
    assert_eq!(suite.opened(moved).await, first);
    let mut desk = suite.intakes(Role::FrontDesk, "ana");
    let none = desk.get_intake(by_appointment(&called_off.to_string())).await;
    refused(none, Code::NotFound, "INTAKE_NOT_FOUND");
}

#[tokio::test]
async fn a_visit_that_is_over_closes_its_intake_and_a_missed_one_does_not() {
    let suite = Suite::start().await;
    let form = suite.published(SCHEMA).await.id;
    let (missed_by, missed) = suite.asked(&form).await;
    let (over_for, over) = suite.asked(&form).await;
    let (done_by, done) = suite.asked(&form).await;
    let submitted = suite.intakes(Role::Patient, &done_by.id).submit_intake(submit(&done, COMPLETE)).await;
    let submitted = submitted.expect("submitted").into_inner();
    let id = |intake: &str| -> AppointmentId { intake.parse().expect("an id") };
    suite.complete(id(&missed.appointment_id), &missed_by.id, &form, AppointmentState::NoShow).await;
    suite.complete(id(&done.appointment_id), &done_by.id, &form, AppointmentState::Completed).await;
    suite.complete(id(&over.appointment_id), &over_for.id, &form, AppointmentState::Completed).await;
    suite.until_intake(&over.id, IntakeState::Closed).await;
    let mut own = suite.intakes(Role::Patient, &missed_by.id);
    own.submit_intake(submit(&missed, COMPLETE)).await.expect("came after all");
    let mut desk = suite.intakes(Role::FrontDesk, "ana");
    let kept = desk.get_intake(by_appointment(&done.appointment_id)).await.expect("shown").into_inner();
    assert_eq!((kept.state(), kept.etag), (IntakeState::Submitted, submitted.etag));
}

#[tokio::test]
async fn visits_that_waited_for_a_form_get_their_intakes_when_it_is_published() {
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "")).await;
    let (waits, called_off) = (AppointmentId::new(), AppointmentId::new());
    let form_id = no_form();
    suite.tell(&booked(waits, &patient.id, &form_id, 1)).await;
    suite.tell(&booked(called_off, &patient.id, &form_id, 1)).await;
    suite.cancel(called_off, &patient.id, &form_id, 2).await;
    let (_, _marker) = suite.asked(&suite.published(SCHEMA).await.id).await;
    let mut desk = suite.intakes(Role::FrontDesk, "ana");
    let early = desk.get_intake(by_appointment(&waits.to_string())).await;
    refused(early, Code::NotFound, "INTAKE_NOT_FOUND");

    let request = PublishFormRequest {
        form_id: form_id.clone(),
        form: Some(form(SCHEMA)),
        ..PublishFormRequest::default()
    };
    suite.intakes(Role::Manager, "max").publish_form(request).await.expect("published");
    let opened = desk.get_intake(by_appointment(&waits.to_string())).await.expect("opened").into_inner();
    assert_eq!((opened.form_id, opened.patient_id), (form_id, patient.id));
    let none = desk.get_intake(by_appointment(&called_off.to_string())).await;
    refused(none, Code::NotFound, "INTAKE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_told_while_its_form_is_published_is_never_forgotten() {
    const ROUNDS: usize = 12;
    let suite = Suite::start().await;
    let patient = suite.registered(someone("Ada", "King", "")).await;
    let mut visits = vec![];
    for _ in 0..ROUNDS {
        let (appointment, form_id) = (AppointmentId::new(), FormId::new().to_string());
        let request = PublishFormRequest {
            form_id: form_id.clone(),
            form: Some(form(r#"{"type": "object"}"#)),
            ..PublishFormRequest::default()
        };
        let told = booked(appointment, &patient.id, &form_id, 1);
        let mut max = suite.intakes(Role::Manager, "max");
        let (published, ()) = tokio::join!(max.publish_form(request), suite.tell(&told));
        published.expect("published");
        visits.push(appointment);
    }
    for appointment in visits {
        assert_eq!(suite.opened(appointment).await.state(), IntakeState::Open);
    }
}
