//! Freed time offered by text, and answered by a digit. The sandbox provider is the phone, which all patients share.

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::date;
use proto::clinic::appointments::v1::{
    Appointment, AppointmentState, CancelAppointmentRequest, JoinWaitlistRequest, ListAppointmentsRequest,
    WaitlistEntry,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::SavePaymentMethodRequest;
use serde_json::{Value, json};
use testkit::network::{Network, ZONE};
use testkit::suite::RunningSuite;
use testkit::until;

use crate::booking::{afternoon, consent};
use crate::changes::sandbox;
use crate::texts::{OWN_NUMBER, PATIENTS_PHONE};

/// The bodies of the texts to the phone that have `words`, once there are so many; newest first.
async fn texts(suite: &RunningSuite, words: &str, count: usize) -> Vec<String> {
    until(words, async || {
        let all = sandbox(suite, "GET", "/sandbox/messages", &Value::Null).await;
        let to_phone = all.as_array().unwrap().iter().filter(|text| text["to"] == PATIENTS_PHONE);
        let bodies = to_phone.map(|text| text["body"].as_str().unwrap().to_owned());
        let found: Vec<_> = bodies.filter(|body| body.contains(words)).collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

async fn write(suite: &RunningSuite, body: &str) {
    let text = json!({"from": PATIENTS_PHONE, "to": OWN_NUMBER, "body": body});
    sandbox(suite, "POST", "/sandbox/messages", &text).await;
}

/// A suite in the afternoon, and a visit in it, five days ahead, that its patient will call off.
async fn booked_out(kind: fn(&Network) -> &String) -> (RunningSuite, Network, Appointment, DateTime<Utc>) {
    let (suite, network) = super::start().await;
    let now = afternoon(&suite);
    suite.servers.advance_to(now).await;
    let start = now + TimeDelta::days(5);
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    let booking = network.booking(&patient, kind(&network), start);
    let visit = desk.booking().book_appointment(booking).await.unwrap().into_inner();
    (suite, network, visit, start)
}

/// Someone without a card who waits for that day.
async fn waits(suite: &RunningSuite, network: &Network, kind: &str, start: DateTime<Utc>) -> String {
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    consent(&desk, &patient).await;
    let day = Some(date(start.with_timezone(&ZONE).date_naive()));
    let entry = WaitlistEntry {
        patient_id: patient.clone(),
        service_type_id: kind.into(),
        clinic_ids: vec![network.clinic.clone()],
        first_date: day,
        last_date: day,
        ..Default::default()
    };
    let request = JoinWaitlistRequest { waitlist_entry: Some(entry), ..Default::default() };
    desk.waitlist().join_waitlist(request).await.unwrap();
    patient
}

async fn calls_off(suite: &RunningSuite, visit: &Appointment) {
    let cancel = CancelAppointmentRequest { appointment_id: visit.id.clone(), ..Default::default() };
    suite.desk().booking().cancel_appointment(cancel).await.unwrap();
}

async fn visits_of(suite: &RunningSuite, patient: &str) -> Vec<Appointment> {
    let request = ListAppointmentsRequest { patient_id: patient.into(), ..Default::default() };
    let own = suite.as_role(Role::Patient, patient).booking().list_appointments(request).await.unwrap();
    own.into_inner().appointments
}

#[tokio::test]
async fn freed_time_passes_by_digits_from_who_declines_to_who_takes_it() {
    let (suite, network, visit, start) = booked_out(|network| &network.free_visit).await;
    let first = waits(&suite, &network, &network.free_visit, start).await;
    let second = waits(&suite, &network, &network.free_visit, start).await;
    calls_off(&suite, &visit).await;
    texts(&suite, "Reply 1 to take it, 2 to pass, before ", 1).await;
    write(&suite, "2").await;
    texts(&suite, "we have noted your answer", 1).await;
    texts(&suite, "Reply 1 to take it, 2 to pass, before ", 2).await;
    write(&suite, "1").await;
    texts(&suite, "is booked for", 1).await;
    let taken = visits_of(&suite, &second).await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((taken[0].state(), &taken[0].interval), (AppointmentState::Booked, &visit.interval));
    assert!(visits_of(&suite, &first).await.is_empty());

    write(&suite, "1").await;
    texts(&suite, "Thank you. We expect you on ", 1).await;
    assert_eq!(texts(&suite, "is booked for", 1).await.len(), 1);
}

#[tokio::test]
async fn an_offer_with_a_copay_that_cannot_be_had_says_so_and_stands() {
    let (suite, network, visit, start) = booked_out(|network| &network.paid_visit).await;
    let patient = waits(&suite, &network, &network.paid_visit, start).await;
    calls_off(&suite, &visit).await;
    texts(&suite, "Reply 1 to take it, 2 to pass, before ", 1).await;
    write(&suite, "1").await;
    texts(&suite, "Your co-pay failed. To take this time, call us or use http", 1).await;
    let card = SavePaymentMethodRequest {
        patient_id: patient.clone(),
        provider_token: "pm_card_visa".into(),
        make_default: true,
        ..Default::default()
    };
    suite.desk().billing().save_payment_method(card).await.unwrap();
    write(&suite, "1").await;
    texts(&suite, "is booked for", 1).await;
    assert_eq!(visits_of(&suite, &patient).await.len(), 1);
}

#[tokio::test]
async fn a_digit_after_an_offer_has_ended_is_told_so() {
    let (suite, network, visit, start) = booked_out(|network| &network.free_visit).await;
    let patient = waits(&suite, &network, &network.free_visit, start).await;
    calls_off(&suite, &visit).await;
    texts(&suite, "Reply 1 to take it, 2 to pass, before ", 1).await;
    suite.servers.advance(TimeDelta::minutes(15)).await;
    write(&suite, "1").await;
    texts(&suite, "This time is not free any more.", 1).await;
    assert!(visits_of(&suite, &patient).await.is_empty());
}
