//! Two records of one person, with visits, a card and reminders of both, become one.

use chrono::TimeDelta;
use proto::clinic::appointments::v1::{
    Appointment, AppointmentState, CheckInRequest, CompleteVisitRequest, CopayState, ListAppointmentsRequest,
    VisitOutcome,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{GetPatientAccountRequest, PatientAccount, StatementEntryKind};
use proto::clinic::notify::v1::{ListMessagesRequest, MessageKind, ReminderState};
use proto::clinic::patients::v1::{
    GetPatientRequest, MergePatientsRequest, Patient, RegisterPatientRequest, SmsConsentState,
};
use serde_json::{Value, json};
use testkit::network::COPAY_CENTS;
use testkit::suite::{Desk, RunningSuite};
use testkit::until;

use crate::booking::{afternoon, consent, reminders};
use crate::changes::sandbox;
use crate::texts::{OWN_NUMBER, PATIENTS_PHONE};

const SURVIVORS_PHONE: &str = "+13125550177";

async fn registered(desk: &Desk, phone: &str) -> String {
    let patient = Patient {
        given_name: "Test".into(),
        family_name: "Patient".into(),
        birth_date: Some(proto::google::r#type::Date { year: 1980, month: 2, day: 29 }),
        phone: phone.into(),
        language: "en".into(),
        time_zone: testkit::network::ZONE.name().into(),
        ..Default::default()
    };
    let request = RegisterPatientRequest { patient: Some(patient), ..Default::default() };
    desk.patients().register_patient(request).await.unwrap().into_inner().patient.unwrap().id
}

async fn read(desk: &Desk, id: &str) -> Patient {
    let request = GetPatientRequest { patient_id: id.into(), ..Default::default() };
    desk.patients().get_patient(request).await.unwrap().into_inner()
}

async fn visits(caller: &Desk, id: &str) -> Vec<Appointment> {
    let request = ListAppointmentsRequest { patient_id: id.into(), ..Default::default() };
    caller.booking().list_appointments(request).await.unwrap().into_inner().appointments
}

async fn account(caller: &Desk, id: &str) -> PatientAccount {
    let request = GetPatientAccountRequest { patient_id: id.into(), ..Default::default() };
    caller.billing().get_patient_account(request).await.unwrap().into_inner()
}

async fn merge(suite: &RunningSuite, survivor: &str, merged: &str) {
    let desk = suite.desk();
    let request = MergePatientsRequest {
        surviving_patient_id: survivor.into(),
        merged_patient_id: merged.into(),
        surviving_etag: read(&desk, survivor).await.etag,
        merged_etag: read(&desk, merged).await.etag,
        reason: "same person, seen with passport".into(),
        ..Default::default()
    };
    suite.as_role(Role::Manager, "max").patients().merge_patients(request).await.unwrap();
}

#[tokio::test]
async fn after_a_merge_visits_statement_card_and_reminders_are_the_survivors_by_either_id() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let merged = network.patient(&desk, "pm_card_visa").await;
    let survivor = registered(&desk, SURVIVORS_PHONE).await;
    consent(&desk, &survivor).await;
    let start = afternoon(&suite);
    let book = async |patient: &str, service_type: &str, days: i64| {
        let request = network.booking(patient, service_type, start + TimeDelta::days(days));
        desk.booking().book_appointment(request).await.unwrap().into_inner()
    };
    let paid = book(&merged, &network.paid_visit, 0).await;
    let own = book(&survivor, &network.free_visit, 10).await;
    merge(&suite, &survivor, &merged).await;

    // Both ids answer, and list the visits of both.
    let (as_merged, as_survivor) =
        (suite.as_role(Role::Patient, &merged), suite.as_role(Role::Patient, &survivor));
    assert_eq!(read(&as_survivor, &merged).await.id, survivor);
    until("the visits at the survivor", async || {
        visits(&desk, &merged).await.iter().all(|visit| visit.patient_id == survivor).then_some(())
    })
    .await;
    for (caller, id) in
        [(&desk, &merged), (&desk, &survivor), (&as_merged, &survivor), (&as_survivor, &merged)]
    {
        let ids: Vec<_> = visits(caller, id).await.into_iter().map(|visit| visit.id).collect();
        assert_eq!(ids, [paid.id.as_str(), own.id.as_str()]);
    }

    // The reminder of what the merged patient booked goes to the survivor's phone.
    until("reminders at the survivor", async || {
        let planned = reminders(&desk, &paid.id).await;
        (planned.len() == 2 && planned.iter().all(|r| r.patient_id == survivor)).then_some(())
    })
    .await;
    // Who has the merged patient's phone by now wants no texts there: that is no word of the survivor's.
    let stop = json!({"from": PATIENTS_PHONE, "to": OWN_NUMBER, "body": "STOP"});
    sandbox(&suite, "POST", "/sandbox/messages", &stop).await;
    until("the text is heard", async || {
        let request = ListMessagesRequest {
            kinds: vec![MessageKind::Inbound.into()],
            ..ListMessagesRequest::default()
        };
        desk.notify().list_messages(request).await.unwrap().into_inner().messages.pop()
    })
    .await;
    suite.servers.advance_to(start - TimeDelta::hours(23)).await;
    until("the 24 h text", async || {
        reminders(&desk, &paid.id).await.iter().any(|r| r.state() == ReminderState::Sent).then_some(())
    })
    .await;
    let texts = sandbox(&suite, "GET", "/sandbox/messages", &Value::Null).await;
    let reminds = |text: &&Value| text["body"].as_str().unwrap().contains("reminder of your visit");
    let to: Vec<_> = texts.as_array().unwrap().iter().filter(reminds).map(|text| &text["to"]).collect();
    assert_eq!(to, [SURVIVORS_PHONE]);
    let consent = read(&desk, &survivor).await.sms_consent.unwrap();
    assert_eq!(consent.state(), SmsConsentState::Granted);

    // The visit takes place, and is paid: the one statement has it.
    suite.servers.advance_to(start).await;
    let check_in = CheckInRequest { appointment_id: paid.id.clone(), ..Default::default() };
    desk.booking().check_in(check_in).await.unwrap();
    let complete = CompleteVisitRequest {
        appointment_id: paid.id.clone(),
        outcome: VisitOutcome::Attended as i32,
        ..Default::default()
    };
    desk.booking().complete_visit(complete).await.unwrap();
    let statement = until("the payment on the statement", async || {
        Some(account(&desk, &survivor).await).filter(|account| account.entries.len() == 2)
    })
    .await;
    let lines: Vec<_> =
        statement.entries.iter().map(|line| (line.kind(), line.amount.as_ref().unwrap().units)).collect();
    let dollars = COPAY_CENTS / 100;
    assert_eq!(lines, [(StatementEntryKind::Payment, -dollars), (StatementEntryKind::Copay, dollars)]);
    for (caller, id) in [(&desk, &merged), (&as_merged, &survivor), (&as_survivor, &merged)] {
        assert_eq!(account(caller, id).await, statement);
    }
    assert_eq!(statement.patient_id, survivor);
    assert!(statement.payment_methods.len() == 1 && statement.payment_methods[0].patient_id == survivor);

    // Booked under the merged id, with its card: the survivor's.
    let next = book(&merged, &network.paid_visit, 20).await;
    assert_eq!((next.patient_id.as_str(), next.state()), (survivor.as_str(), AppointmentState::Booked));
    assert_eq!(next.copay.unwrap().state(), CopayState::Authorized);
}
