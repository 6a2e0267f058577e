//! STOP and START by text: from the patient's phone, past the provider, into the patient's record.

use chrono::{DateTime, TimeDelta, Utc};
use proto::clinic::appointments::v1::Appointment;
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{DropReason, ReminderState};
use proto::clinic::patients::v1::{
    AccessAction, GetPatientRequest, ListAccessLogRequest, PatientView, SmsConsent, SmsConsentSource,
    SmsConsentState,
};
use serde_json::{Value, json};
use testkit::network::Network;
use testkit::suite::{Desk, RunningSuite};
use testkit::until;

use crate::booking::{afternoon, consent, reminders};
use crate::changes::sandbox;

/// The number that the network's patients have.
const PHONE: &str = "+13125550142";

/// The patient's decisions about texts, newest first, once there are so many.
async fn decisions(desk: &Desk, patient: &str, count: usize) -> Vec<SmsConsent> {
    let request = GetPatientRequest {
        patient_id: patient.into(),
        view: PatientView::History.into(),
        ..Default::default()
    };
    until("a decision about texts", async || {
        let shown = desk.patients().get_patient(request.clone()).await.ok()?.into_inner();
        (shown.sms_consent_history.len() == count).then_some(shown.sms_consent_history)
    })
    .await
}

/// The patient writes, in answer to the last text.
async fn writes(suite: &RunningSuite, words: &str) {
    sandbox(suite, "POST", "/sandbox/messages", &json!({"from": PHONE, "body": words})).await;
}

/// Reminders that were asked of the provider for the phone.
async fn reminded(suite: &RunningSuite) -> usize {
    let texts =
        sandbox(suite, "GET", &format!("/sandbox/messages?to=%2B{}", &PHONE[1..]), &Value::Null).await;
    let is_reminder = |text: &&Value| text["body"].as_str().is_some_and(|body| body.contains("to confirm"));
    texts.as_array().unwrap().iter().filter(is_reminder).count()
}

async fn booked(desk: &Desk, network: &Network, patient: &str, start: DateTime<Utc>) -> Appointment {
    let request = network.booking(patient, &network.free_visit, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    until("planned reminders", async || (reminders(desk, &booked.id).await.len() == 2).then_some(())).await;
    booked
}

/// Waits until so many reminders of the visit are in a state.
async fn until_reminders(desk: &Desk, visit: &Appointment, state: ReminderState, count: usize) {
    until("reminders", async || {
        let all = reminders(desk, &visit.id).await;
        (all.iter().filter(|r| r.state() == state).count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn stop_by_text_ends_texts_and_start_begins_them_and_the_history_has_the_words() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    consent(&desk, &patient).await;
    let start = afternoon(&suite);
    let visit = booked(&desk, &network, &patient, start).await;
    suite.servers.advance_to(start - TimeDelta::hours(23)).await;
    until_reminders(&desk, &visit, ReminderState::Sent, 1).await;
    assert_eq!(reminded(&suite).await, 1);

    writes(&suite, "Stop texting me").await;
    let said = decisions(&desk, &patient, 2).await;
    let [stop, granted] = &said[..] else { panic!("two decisions: {said:?}") };
    assert_eq!((granted.source(), granted.recorded_by.as_str()), (SmsConsentSource::FrontDesk, "desk"));
    assert_eq!((stop.state(), stop.source()), (SmsConsentState::Revoked, SmsConsentSource::InboundSms));
    assert_eq!((stop.wording.as_str(), stop.recorded_by.as_str()), ("Stop texting me", "notify"));
    assert!(stop.effective && stop.decide_time.is_some() && stop.record_time.is_some());
    suite.servers.advance_to(start - TimeDelta::minutes(110)).await;
    until_reminders(&desk, &visit, ReminderState::Dropped, 1).await;
    let dropped = reminders(&desk, &visit.id).await;
    assert!(dropped.iter().any(|r| r.drop_reason() == DropReason::NoConsent), "{dropped:?}");
    assert_eq!(reminded(&suite).await, 1);

    writes(&suite, "START").await;
    let said = decisions(&desk, &patient, 3).await;
    assert_eq!((said[0].state(), said[0].wording.as_str()), (SmsConsentState::Granted, "START"));
    let start = start + TimeDelta::days(14);
    let visit = booked(&desk, &network, &patient, start).await;
    suite.servers.advance_to(start - TimeDelta::hours(23)).await;
    until_reminders(&desk, &visit, ReminderState::Sent, 1).await;
    assert_eq!(reminded(&suite).await, 2);

    // The patient sees who wrote it down, and that only consent was touched.
    let own = suite.as_role(Role::Patient, &patient);
    let log = ListAccessLogRequest { patient_id: patient.clone(), page_size: 500, ..Default::default() };
    let log = own.patients().list_access_log(log).await.unwrap().into_inner().entries;
    let changes: Vec<_> =
        log.iter().filter(|e| e.actor == "notify" && e.action() == AccessAction::Update).collect();
    assert!(changes.len() == 2 && changes.iter().all(|e| e.fields == ["sms_consent"]), "{changes:?}");
}
