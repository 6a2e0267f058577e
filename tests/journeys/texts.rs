//! A patient and the clinic text each other. The sandbox provider is the phone.

use chrono::TimeDelta;
use proto::clinic::appointments::v1::AppointmentState;
use proto::clinic::auth::v1::Role;
use serde_json::{Value, json};
use testkit::suite::RunningSuite;
use testkit::until;

use crate::booking::{afternoon, consent};
use crate::changes::{sandbox, two_hours_blacked_out, until_state};

/// What the suite texts from.
pub(crate) const OWN_NUMBER: &str = "+12025550199";
/// That of the network's patients.
pub(crate) const PATIENTS_PHONE: &str = "+13125550142";

/// The bodies of all texts to the phone that have `words`, newest first.
async fn texts(suite: &RunningSuite, words: &str) -> Vec<String> {
    let all = sandbox(suite, "GET", "/sandbox/messages", &Value::Null).await;
    let to_phone = all.as_array().unwrap().iter().filter(|text| text["to"] == PATIENTS_PHONE);
    to_phone
        .map(|text| text["body"].as_str().unwrap().to_owned())
        .filter(|body| body.contains(words))
        .collect()
}

async fn text(suite: &RunningSuite, words: &str) -> String {
    until(words, async || texts(suite, words).await.pop()).await
}

async fn write(suite: &RunningSuite, body: &str) {
    let text = json!({"from": PATIENTS_PHONE, "to": OWN_NUMBER, "body": body});
    sandbox(suite, "POST", "/sandbox/messages", &text).await;
}

#[tokio::test]
async fn a_displaced_patient_takes_another_time_by_a_digit_and_is_answered_once() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    consent(&desk, &patient).await;
    // So far ahead that no reminder is near, at an hour at which texts may come.
    let now = afternoon(&suite);
    suite.servers.advance_to(now).await;
    let start = now + TimeDelta::days(5);
    let booking = network.booking(&patient, &network.free_visit, start);
    let booked = desk.booking().book_appointment(booking).await.unwrap().into_inner();
    text(&suite, "is booked for").await;
    let manager = suite.as_role(Role::Manager, "max");
    manager.calendar().add_blackout(two_hours_blacked_out(&network, start)).await.unwrap();
    let offer = text(&suite, "must move. Reply 1: ").await;
    let (_, second) = offer.split_once(", 2: ").unwrap();
    let (second, _) = second.split_once(", 3: ").unwrap();

    write(&suite, "2").await;
    let moved = until_state(&desk, &booked.id, AppointmentState::Booked).await;
    assert_ne!(moved.interval, booked.interval);
    let answer = text(&suite, "Your visit is now on ").await;
    assert!(second.split_whitespace().all(|word| answer.contains(word)), "{offer} {answer}");

    let cancel = proto::clinic::appointments::v1::CancelAppointmentRequest {
        appointment_id: booked.id,
        ..Default::default()
    };
    desk.booking().cancel_appointment(cancel).await.unwrap();
    text(&suite, "is cancelled.").await;
    assert_eq!(texts(&suite, "moved from").await, [] as [&str; 0]);
}
