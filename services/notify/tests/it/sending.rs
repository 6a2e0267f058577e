//! From a due reminder to one text, whatever goes wrong on the way.

use chrono::TimeDelta;
use kit::fields::timestamp;
use kit::ids::FormId;
use notify::ports::Contact;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentFacts, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{
    DropReason, FailureReason, GetMessageRequest, MessageFailed, MessageKind, MessageSent, MessageState,
    ReminderState, TextEncoding,
};

use crate::{MockPatients, PHONE, Suite, Visit, reachable, states};

/// Books a visit and waits until its reminders are planned.
pub(crate) async fn booked(suite: &Suite) -> Visit {
    let visit = suite.visit();
    let event =
        AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
    suite.tell(&visit, 1, &event).await;
    suite.reminders_when(&visit, |r| r.len() == 2).await;
    visit
}

/// A visit booked that asks for a form.
pub(crate) fn booked_with_form(visit: &Visit) -> AppointmentBooked {
    let intake_form_id = FormId::new().to_string();
    let facts = visit.facts(AppointmentState::Booked);
    let appointment = facts.map(|facts| AppointmentFacts { intake_form_id, ..facts });
    AppointmentBooked { appointment, ..Default::default() }
}

/// Moves time to the visit's first reminder.
pub(crate) async fn due(suite: &Suite, visit: &Visit) {
    suite.servers.advance_to(visit.start - TimeDelta::hours(24)).await;
}

/// A patients service at which everyone is reached like this.
pub(crate) fn everyone(contact: Contact) -> MockPatients {
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |_| Ok(Some(contact.clone())));
    patients
}

#[tokio::test]
async fn each_reminder_becomes_one_text_when_its_time_comes() {
    let suite = Suite::start().await;
    let visit = booked(&suite).await;
    assert!(suite.taken().await.is_empty());
    due(&suite, &visit).await;
    suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
    suite.servers.advance_to(visit.start - TimeDelta::hours(2)).await;
    let reminders = suite.reminders_when(&visit, |r| states(r) == [ReminderState::Sent; 2]).await;

    let messages = suite.messages(&visit).await;
    let kinds: Vec<_> = messages.iter().map(|m| (m.kind(), m.state(), m.attempts)).collect();
    let sent = MessageState::Sent;
    assert_eq!(kinds, [(MessageKind::Reminder2h, sent, 1), (MessageKind::Reminder24h, sent, 1)]);
    let first = &messages[1];
    assert!(
        first.body.starts_with("Harbor Clinic: reminder of your visit, ")
            && first.body.contains("at 2:00 PM")
    );
    assert_eq!((first.encoding(), first.segments), (TextEncoding::Gsm7, 1));
    assert_eq!(first.id, reminders[0].message_id);

    let taken = suite.taken().await;
    assert_eq!(taken.len(), 2);
    assert_eq!((&taken[1]["to"], &taken[1]["body"]), (&PHONE.into(), &first.body.as_str().into()));
    assert_eq!(taken[1]["sid"], first.provider_reference.as_str());
    let events: Vec<MessageSent> = testkit::collect(&suite.broker, "notify", 2).await;
    assert_eq!((events[0].message_id.as_str(), events[0].version), (first.id.as_str(), 1));
    assert_eq!((events[0].reminder_id.as_str(), events[0].segments), (reminders[0].id.as_str(), 1));

    let get = GetMessageRequest { message_id: first.id.clone() };
    let mut patient = suite.call_as(Role::Patient, &visit.patient.to_string());
    assert_eq!(&patient.get_message(get.clone()).await.expect("its own").into_inner(), first);
    let manager =
        suite.call_as(Role::Manager, "max").get_message(get.clone()).await.expect("read").into_inner();
    assert_eq!(manager.body, "");
    let stranger = kit::ids::PatientId::new().to_string();
    let foreign = suite.call_as(Role::Patient, &stranger).get_message(get).await.expect_err("another's");
    assert_eq!(kit::status::reason(&foreign), "MESSAGE_NOT_FOUND");
}

#[tokio::test]
async fn a_reminder_mentions_a_form_that_waits_and_no_other() {
    for open in [true, false] {
        let mut patients = everyone(reachable());
        patients.expect_has_open_intake().returning(move |_| Ok(open));
        let suite = Suite::with(patients).await;
        let visit = suite.visit();
        suite.tell(&visit, 1, &booked_with_form(&visit)).await;
        suite.reminders_when(&visit, |r| r.len() == 2).await;
        due(&suite, &visit).await;
        suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
        let kind = MessageKind::Reminder24h;
        let text = suite.when_told(&visit, kind, |told| told.len() == 1).await.remove(0);
        assert_eq!((text.body.contains("fill in your form"), text.segments), (open, 1), "{}", text.body);
    }
}

#[tokio::test]
async fn nobody_is_texted_without_consent_or_number() {
    for (contact, reason) in [
        (Contact { consented: false, ..reachable() }, DropReason::NoConsent),
        (Contact { phone: None, ..reachable() }, DropReason::NoContact),
    ] {
        let suite = Suite::with(everyone(contact)).await;
        let visit = booked(&suite).await;
        due(&suite, &visit).await;
        let reminders = suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Dropped).await;
        assert_eq!(reminders[0].drop_reason(), reason);
        assert!(suite.taken().await.is_empty() && suite.messages(&visit).await.is_empty());
    }
}

#[tokio::test]
async fn a_recipient_asleep_in_another_zone_is_texted_the_evening_before() {
    // A day before the visit it is 14:00 in New York and long after nine in the evening in Kabul: at eight there it was ten or eleven in
    // the morning in New York.
    let kabul = chrono_tz::Asia::Kabul;
    let suite = Suite::with(everyone(Contact { zone: Some(kabul), ..reachable() })).await;
    let visit = booked(&suite).await;
    let moment = visit.start - TimeDelta::hours(24);
    suite.servers.advance_to(moment - TimeDelta::hours(15)).await;
    let reminders = suite.reminders_when(&visit, |r| r[0].due_time != Some(timestamp(moment))).await;
    let evening = reminders[0].due_time.expect("due");
    let evening = chrono::DateTime::from_timestamp(evening.seconds, 0).expect("an instant");
    assert!(evening < moment);
    assert_eq!(evening.with_timezone(&kabul).format("%H:%M").to_string(), "20:00");
    assert!(suite.taken().await.is_empty());
    suite.servers.advance_to(evening).await;
    suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
}

#[tokio::test]
async fn a_number_the_provider_refuses_fails_for_good() {
    // The provider's own test number of someone who opted out.
    let suite =
        Suite::with(everyone(Contact { phone: Some("+15005550004".to_owned()), ..reachable() })).await;
    let visit = booked(&suite).await;
    due(&suite, &visit).await;
    suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Failed).await;
    let messages = suite.messages(&visit).await;
    assert_eq!(
        (messages[0].state(), messages[0].failure_reason()),
        (MessageState::Failed, FailureReason::OptedOut)
    );
    assert_eq!(messages[0].provider_error_code, "21610");
    let wish = testkit::until("patients is told", async || suite.others.wishes().pop()).await;
    let wording = "The SMS provider refused a text: 21610, the number has opted out.";
    assert_eq!(wish, (visit.patient, false, wording.to_owned()));
    let events: Vec<MessageFailed> = testkit::collect(&suite.broker, "notify", 1).await;
    assert_eq!(
        (events[0].reason(), events[0].message_id.as_str()),
        (FailureReason::OptedOut, messages[0].id.as_str())
    );
}

#[tokio::test]
async fn a_text_whose_answer_was_lost_is_found_at_the_provider_and_not_sent_again() {
    let suite = Suite::start().await;
    let visit = booked(&suite).await;
    suite.fail_next_text("act_then_drop").await;
    due(&suite, &visit).await;
    testkit::until("the outcome is unknown", || async {
        suite.messages(&visit).await.into_iter().find(|m| m.state() == MessageState::Unknown)
    })
    .await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
    let (messages, taken) = (suite.messages(&visit).await, suite.taken().await);
    assert_eq!((messages.len(), messages[0].attempts, taken.len()), (1, 1, 1));
    assert_eq!(taken[0]["sid"], messages[0].provider_reference.as_str());
}

#[tokio::test]
async fn a_text_that_surely_never_arrived_is_sent_again() {
    for fault in ["drop", "error_500"] {
        let suite = Suite::start().await;
        let visit = booked(&suite).await;
        suite.fail_next_text(fault).await;
        due(&suite, &visit).await;
        testkit::until("the outcome is unknown", || async {
            suite.messages(&visit).await.into_iter().find(|m| m.state() == MessageState::Unknown)
        })
        .await;
        suite.servers.advance(TimeDelta::minutes(1)).await;
        suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
        let messages = suite.messages(&visit).await;
        assert_eq!((messages.len(), messages[0].attempts, suite.taken().await.len()), (1, 2, 1), "{fault}");
    }
}

#[tokio::test]
async fn a_lost_text_to_a_number_that_is_gone_is_dropped_with_its_reminder() {
    let mut patients = MockPatients::new();
    patients.expect_contact().times(1).returning(|_| Ok(Some(reachable())));
    patients.expect_contact().returning(|_| Ok(Some(Contact { phone: None, ..reachable() })));
    let suite = Suite::with(patients).await;
    let visit = booked(&suite).await;
    suite.fail_next_text("drop").await;
    due(&suite, &visit).await;
    testkit::until("the outcome is unknown", || async {
        suite.messages(&visit).await.into_iter().find(|m| m.state() == MessageState::Unknown)
    })
    .await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    let reminders = suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Dropped).await;
    let messages = suite.messages(&visit).await;
    assert_eq!(reminders[0].drop_reason(), DropReason::NoContact);
    assert_eq!(
        (messages[0].state(), messages[0].drop_reason()),
        (MessageState::Dropped, DropReason::NoContact)
    );
}

#[tokio::test]
async fn two_patients_at_one_phone_get_a_text_each_though_one_answer_was_lost() {
    let suite = Suite::start().await;
    let (first, second) = (booked(&suite).await, booked(&suite).await);
    suite.fail_next_text("drop").await;
    due(&suite, &first).await;
    testkit::until("one text is taken and the other unknown", || async {
        let messages = [suite.messages(&first).await, suite.messages(&second).await].concat();
        let mut states: Vec<_> = messages.iter().map(|m| m.state()).collect();
        states.sort();
        (states == [MessageState::Unknown, MessageState::Sent]).then_some(())
    })
    .await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    for visit in [&first, &second] {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    assert_eq!(suite.taken().await.len(), 2);
}

#[tokio::test]
async fn while_the_patients_service_is_down_reminders_wait() {
    let mut patients = MockPatients::new();
    patients.expect_contact().times(2).returning(|_| Err(anyhow::anyhow!("down")));
    patients.expect_contact().returning(|_| Ok(Some(reachable())));
    let suite = Suite::with(patients).await;
    let visit = booked(&suite).await;
    due(&suite, &visit).await;
    suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
    assert_eq!(suite.taken().await.len(), 1);
}

#[tokio::test]
async fn a_reminder_held_up_for_too_long_is_dropped() {
    let suite = Suite::start().await;
    let visit = booked(&suite).await;
    suite.servers.advance_to(visit.start - TimeDelta::minutes(20)).await;
    let reminders = suite.reminders_when(&visit, |r| states(r) == [ReminderState::Dropped; 2]).await;
    assert!(reminders.iter().all(|r| r.drop_reason() == DropReason::TooLate));
    assert!(suite.taken().await.is_empty());
}
