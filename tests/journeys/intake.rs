//! A visit that asks for a form: booked, answered by the patient, checked in.

use chrono::TimeDelta;
use kit::status::reason;
use proto::clinic::appointments::v1::{AppointmentState, CancelAppointmentRequest, CheckInRequest};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{ListMessagesRequest, MessageKind};
use proto::clinic::patients::v1::{
    Form, GetFormRequest, GetIntakeRequest, Intake, IntakeState, PublishFormRequest, SubmitIntakeRequest,
    get_intake_request::Key,
};
use proto::clinic::scheduling::v1::{CreateServiceTypeRequest, ServiceType};
use testkit::network::in_days;
use testkit::suite::{Desk, RunningSuite};
use testkit::until;
use tonic::Code;

use crate::booking::{afternoon, consent, reminders};

const SCHEMA: &str =
    r#"{"type": "object", "required": ["smokes"], "properties": {"smokes": {"type": "boolean"}}}"#;

/// A kind of visit that asks for a form.
async fn service_type(suite: &RunningSuite) -> String {
    let form = Form {
        name: "Before your visit".into(),
        schema_json: SCHEMA.into(),
        language: "en".into(),
        ..Default::default()
    };
    let request = PublishFormRequest { form: Some(form), ..Default::default() };
    let form = suite.admin().intakes().publish_form(request).await.unwrap().into_inner();
    let service_type = ServiceType {
        name: "First visit".into(),
        duration_minutes: 30,
        intake_form_id: form.id,
        ..Default::default()
    };
    let request = CreateServiceTypeRequest { service_type: Some(service_type), ..Default::default() };
    suite.admin().catalog().create_service_type(request).await.unwrap().into_inner().id
}

async fn intake(caller: &Desk, appointment: &str, state: IntakeState) -> Intake {
    let key = Some(Key::AppointmentId(appointment.into()));
    let request = GetIntakeRequest { key, ..Default::default() };
    until("the intake", async || {
        let found = caller.intakes().get_intake(request.clone()).await.ok()?.into_inner();
        (found.state() == state).then_some(found)
    })
    .await
}

#[tokio::test]
async fn a_visit_with_a_form_is_checked_in_once_the_patient_has_submitted_it() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let service_type = service_type(&suite).await;
    let patient = network.patient(&desk, "").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &service_type, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    let portal = suite.as_role(Role::Patient, &patient);
    let opened = intake(&portal, &booked.id, IntakeState::Open).await;
    let form = GetFormRequest { form_id: opened.form_id.clone(), version: opened.form_version };
    assert_eq!(portal.intakes().get_form(form).await.unwrap().into_inner().schema_json, SCHEMA);

    suite.servers.advance_to(start - TimeDelta::minutes(10)).await;
    let check_in = CheckInRequest { appointment_id: booked.id.clone(), ..Default::default() };
    let refused = desk.booking().check_in(check_in.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "INTAKE_INCOMPLETE"));

    let submit = SubmitIntakeRequest {
        intake_id: opened.id.clone(),
        answers_json: r#"{"smokes": false}"#.into(),
        etag: opened.etag,
        ..Default::default()
    };
    portal.intakes().submit_intake(submit).await.unwrap();
    let came = until("check-in", async || desk.booking().check_in(check_in.clone()).await.ok()).await;
    assert_eq!(came.into_inner().state(), AppointmentState::CheckedIn);
}

#[tokio::test]
async fn a_cancelled_visit_takes_no_answers_any_more() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let service_type = service_type(&suite).await;
    let patient = network.patient(&desk, "").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &service_type, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    let portal = suite.as_role(Role::Patient, &patient);
    intake(&portal, &booked.id, IntakeState::Open).await;
    let cancel = CancelAppointmentRequest { appointment_id: booked.id.clone(), ..Default::default() };
    portal.booking().cancel_appointment(cancel).await.unwrap();
    let closed = intake(&portal, &booked.id, IntakeState::Closed).await;
    let submit = SubmitIntakeRequest {
        intake_id: closed.id,
        answers_json: r#"{"smokes": false}"#.into(),
        etag: closed.etag,
        ..Default::default()
    };
    let refused = portal.intakes().submit_intake(submit).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "WRONG_STATE"));
}

#[tokio::test]
async fn a_reminder_mentions_the_form_until_it_is_submitted() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let service_type = service_type(&suite).await;
    let patient = network.patient(&desk, "").await;
    consent(&desk, &patient).await;
    let start = afternoon(&suite);
    let request = network.booking(&patient, &service_type, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    let portal = suite.as_role(Role::Patient, &patient);
    let opened = intake(&portal, &booked.id, IntakeState::Open).await;
    until("planned reminders", async || (reminders(&desk, &booked.id).await.len() == 2).then_some(())).await;
    let texts = async |count: usize| {
        let request =
            ListMessagesRequest { appointment_id: booked.id.clone(), show_body: true, ..Default::default() };
        until("the text", async || {
            let messages = desk.notify().list_messages(request.clone()).await.ok()?.into_inner().messages;
            let reminders = [MessageKind::Reminder24h, MessageKind::Reminder2h];
            let texts: Vec<_> = messages.iter().filter(|m| reminders.contains(&m.kind())).collect();
            (texts.len() == count).then(|| texts[0].body.contains("form"))
        })
        .await
    };
    suite.servers.advance_to(start - TimeDelta::hours(23)).await;
    assert!(texts(1).await, "a form waits");
    let submit = SubmitIntakeRequest {
        intake_id: opened.id,
        answers_json: r#"{"smokes": false}"#.into(),
        etag: opened.etag,
        ..Default::default()
    };
    portal.intakes().submit_intake(submit).await.unwrap();
    suite.servers.advance_to(start - TimeDelta::minutes(110)).await;
    assert!(!texts(2).await, "none waits any more");
}
