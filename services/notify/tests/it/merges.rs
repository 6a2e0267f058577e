//! What a merged patient had is the survivor's, whichever event comes first.

use chrono::TimeDelta;
use kit::ids::PatientId;
use notify::ports::Contact;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{
    ListMessagesRequest, ListRemindersRequest, Message, MessageKind, MessageState, ReminderState,
};
use proto::clinic::patients::v1::{PatientChange, PatientChanged};

use crate::{MockPatients, Suite, Visit, reachable};

/// The survivor's number.
const OTHER_PHONE: &str = "+12025550177";

async fn tell_merge(suite: &Suite, merged: PatientId, survivor: PatientId) {
    let event = PatientChanged {
        patient_id: merged.to_string(),
        version: 2,
        change: PatientChange::Merged.into(),
        merged_into_id: survivor.to_string(),
        ..Default::default()
    };
    testkit::publish(&suite.broker, "patients", merged, 2, &event).await;
}

async fn tell_booking(suite: &Suite, visit: &Visit) {
    let event =
        AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
    suite.tell(visit, 1, &event).await;
    suite.reminders_when(visit, |r| r.len() == 2).await;
}

/// How many reminders a patient sees who asks by `asked`.
async fn listed(suite: &Suite, own: PatientId, asked: PatientId) -> usize {
    let request = ListRemindersRequest { patient_id: asked.to_string(), ..Default::default() };
    let mut client = suite.call_as(Role::Patient, &own.to_string());
    client.list_reminders(request).await.map_or(0, |answer| answer.into_inner().reminders.len())
}

#[tokio::test]
async fn news_that_wait_for_the_morning_reach_the_survivor_of_a_merge_in_the_night() {
    let survivor = PatientId::new();
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |asked| {
        let phone = if asked == survivor { OTHER_PHONE } else { crate::PHONE };
        Ok(Some(Contact { phone: Some(phone.to_owned()), ..reachable() }))
    });
    let suite = Suite::with(patients).await;
    suite.servers.advance_to(crate::notices::next(&suite, 22)).await;
    let visit = suite.visit();
    let event =
        AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
    suite.happens(&visit, 1, &event).await;
    suite.reminders_when(&visit, |r| r.len() == 2).await;
    tell_merge(&suite, visit.patient, survivor).await;
    suite.reminders_when(&visit, |r| r.iter().all(|r| r.patient_id == survivor.to_string())).await;
    suite.servers.advance_to(crate::notices::next(&suite, 8)).await;
    let sent = |told: &[Message]| told.iter().any(|message| message.state() == MessageState::Sent);
    let told = suite.when_told(&visit, MessageKind::Booked, sent).await;
    assert_eq!(told[0].patient_id, survivor.to_string());
    let texts = suite.taken().await;
    assert!(texts.len() == 1 && texts[0]["to"] == OTHER_PHONE, "{texts:?}");
}

#[tokio::test]
async fn reminders_of_a_merged_patient_go_to_the_survivor_and_both_ids_list_them() {
    let survivor = PatientId::new();
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |asked| {
        let phone = if asked == survivor { OTHER_PHONE } else { crate::PHONE };
        Ok(Some(Contact { phone: Some(phone.to_owned()), ..reachable() }))
    });
    let suite = Suite::with(patients).await;
    let before = suite.visit();
    // Booked at the same desk, told after the merge.
    let after = Visit { patient: before.patient, ..suite.visit() };
    tell_booking(&suite, &before).await;
    tell_merge(&suite, before.patient, survivor).await;
    let is_survivors =
        |r: &[proto::clinic::notify::v1::Reminder]| r.iter().all(|r| r.patient_id == survivor.to_string());
    suite.reminders_when(&before, is_survivors).await;
    tell_merge(&suite, before.patient, survivor).await;
    tell_booking(&suite, &after).await;
    for (own, asked) in [(before.patient, survivor), (survivor, before.patient), (survivor, survivor)] {
        assert_eq!(listed(&suite, own, asked).await, 4);
    }
    assert_eq!(listed(&suite, PatientId::new(), survivor).await, 0);

    suite.servers.advance_to(before.start - TimeDelta::hours(24)).await;
    for visit in [&before, &after] {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    assert!(suite.taken().await.iter().all(|text| text["to"] == OTHER_PHONE));
    let request = ListMessagesRequest { patient_id: before.patient.to_string(), ..Default::default() };
    let messages = suite.desk().list_messages(request).await.expect("listed").into_inner().messages;
    assert!(messages.len() == 2 && messages.iter().all(|m| m.patient_id == survivor.to_string()));
}
