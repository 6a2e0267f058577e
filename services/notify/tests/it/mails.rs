//! From events to e-mails with invitations, at a relay that speaks SMTP.

use chrono::TimeDelta;
use notify::ports::Contact;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentRescheduled, AppointmentState,
};
use proto::clinic::notify::v1::{
    Channel, FailureReason, Message, MessageKind, MessageSent, MessageState, TextEncoding,
};

use crate::sink::{LOST, NOBODY};
use crate::{MockPatients, Suite, Visit, reachable};

async fn with(email: &str) -> Suite {
    let contact = Contact { phone: None, email: Some(email.to_owned()), ..reachable() };
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |_| Ok(Some(contact.clone())));
    Suite::with(patients).await
}

fn booked(visit: &Visit) -> AppointmentBooked {
    AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() }
}

fn mailed(messages: &[Message]) -> Option<&Message> {
    messages.iter().find(|m| m.channel() == Channel::Email && m.state() == MessageState::Sent)
}

/// The lines of an e-mail, its parts decoded as far as these tests need.
fn has(mail: &str, lines: &[&str]) {
    for line in lines {
        assert!(mail.contains(line), "{line:?} is missing in\n{mail}");
    }
}

#[tokio::test]
async fn booking_moving_and_cancelling_are_mailed_with_one_calendar_entry() {
    let suite = with("ana@mail.example").await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    let told = suite.when_told(&visit, MessageKind::Booked, |told| mailed(told).is_some()).await;
    let message = mailed(&told).expect("mailed");
    assert_eq!((message.encoding(), message.segments), (TextEncoding::Unspecified, 0));
    assert!(message.body.contains(&format!("{}/visits/{}", crate::PORTAL, visit.id)), "{}", message.body);
    let events: Vec<MessageSent> = testkit::collect(&suite.broker, "notify", 1).await;
    assert_eq!((events[0].channel(), events[0].message_id.as_str()), (Channel::Email, message.id.as_str()));

    let later = Visit { start: visit.start + TimeDelta::days(1), ..visit.clone() };
    let moved = AppointmentRescheduled {
        appointment: later.facts(AppointmentState::Booked),
        previous: visit.facts(AppointmentState::Booked),
        ..Default::default()
    };
    suite.happens(&visit, 2, &moved).await;
    suite.when_told(&visit, MessageKind::Rescheduled, |told| mailed(told).is_some()).await;
    let cancelled =
        AppointmentCancelled { appointment: later.facts(AppointmentState::Cancelled), ..Default::default() };
    suite.happens(&visit, 3, &cancelled).await;
    suite.when_told(&visit, MessageKind::Cancelled, |told| mailed(told).is_some()).await;

    let mails = suite.mail.mails();
    assert_eq!(mails.len(), 3);
    let uid = format!("UID:{}@clinic", visit.id);
    let start = later.start.with_timezone(&chrono_tz::America::New_York).format("%Y%m%dT%H%M%S");
    has(&mails[0], &["To: ana@mail.example", "clinic@clinic.example", &uid, "METHOD:REQUEST", "SEQUENCE:1"]);
    has(
        &mails[0],
        &["method=REQUEST", "visit.ics", "BEGIN:VTIMEZONE", &format!("<{}@clinic.example>", message.id)],
    );
    has(
        &mails[1],
        &[&uid, "METHOD:REQUEST", "SEQUENCE:2", &format!("DTSTART;TZID=America/New_York:{start}")],
    );
    has(&mails[2], &[&uid, "METHOD:CANCEL", "SEQUENCE:3", "STATUS:CANCELLED"]);
}

#[tokio::test]
async fn an_address_that_does_not_exist_fails_for_good() {
    let suite = with(&format!("{NOBODY}mail.example")).await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    let failed = |m: &Message| m.channel() == Channel::Email && m.state() == MessageState::Failed;
    let told = suite.when_told(&visit, MessageKind::Booked, |told| told.iter().any(failed)).await;
    let message = told.iter().find(|m| failed(m)).expect("failed");
    assert_eq!(
        (message.failure_reason(), message.provider_error_code.as_str()),
        (FailureReason::InvalidAddress, "550")
    );
}

#[tokio::test]
async fn an_e_mail_whose_answer_was_lost_comes_again_under_the_same_id() {
    let suite = with(&format!("{LOST}mail.example")).await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    testkit::until("the e-mail is taken", || async { (!suite.mail.mails().is_empty()).then_some(()) }).await;
    testkit::until("it is sent", || async {
        suite.servers.advance(TimeDelta::seconds(1)).await;
        mailed(&suite.messages(&visit).await).is_some().then_some(())
    })
    .await;
    let mails = suite.mail.mails();
    let id = |mail: &String| mail.lines().find(|line| line.starts_with("Message-ID")).map(str::to_owned);
    assert_eq!(mails.len(), 2);
    assert_eq!(id(&mails[0]), id(&mails[1]));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_not_repeated() {
    let suite = with("ana at mail").await;
    let visit = suite.visit();
    suite.happens(&visit, 1, &booked(&visit)).await;
    let failed = |m: &Message| m.channel() == Channel::Email && m.state() == MessageState::Failed;
    suite.when_told(&visit, MessageKind::Booked, |told| told.iter().any(failed)).await;
    assert!(suite.mail.mails().is_empty());
}
