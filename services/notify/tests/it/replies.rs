//! Texts received: consent, confirmations, cancellations, questions, and exchanges that end.

use chrono::TimeDelta;
use kit::fields::timestamp;
use kit::ids::ProviderId;
use notify::domain::notice::Alternative;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentRescheduled, AppointmentState,
    SlotOption,
};
use proto::clinic::notify::v1::{
    DropReason, Message, MessageKind, MessageState, ReminderState, ReplyMeaning, ReplyReceived,
};
use proto::google::r#type::Interval;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::sending::{booked, due};
use crate::{OWN_NUMBER, PHONE, Suite, Visit, World};

impl Suite {
    /// A person at `phone` writes; answers the provider's id of the text.
    pub(crate) async fn write_from(&self, phone: &str, body: &str) -> String {
        let url = format!("{}/sandbox/messages", self.provider);
        let text = json!({ "from": phone, "to": OWN_NUMBER, "body": body });
        let answer = reqwest::Client::new().post(url).json(&text).send().await.expect("the sandbox answers");
        let text: Value = answer.error_for_status().expect("written").json().await.expect("a message");
        text["sid"].as_str().expect("an id").to_owned()
    }

    async fn write(&self, body: &str) -> String {
        self.write_from(PHONE, body).await
    }

    /// A visit whose patient, at [`PHONE`], has been reminded of it.
    async fn reminded(&self) -> Visit {
        let visit = self.told_of().await;
        due(self, &visit).await;
        self.reminders_when(&visit, |r| r[0].state() == ReminderState::Sent).await;
        visit
    }

    /// Texts about a visit that wait to be told.
    async fn waiting_texts(&self, visit: &Visit) -> i64 {
        let mut sql =
            PgConnection::connect(&self.servers.database_url(notify::NAME)).await.expect("a connection");
        sqlx::query_scalar(
            "select count(*) from notify.notice where appointment_id = $1 and channel = 'CHANNEL_SMS'",
        )
        .bind(visit.id.uuid())
        .fetch_one(&mut sql)
        .await
        .expect("counted")
    }

    async fn told_of(&self) -> Visit {
        let visit = booked(self).await;
        self.others.at_phone(visit.patient);
        visit
    }

    /// Messages of a kind, oldest first, once there are so many.
    pub(crate) async fn of_kind(&self, kind: MessageKind, count: usize) -> Vec<Message> {
        testkit::until("messages of a kind", || async {
            let mut found = self.all_messages().await;
            found.retain(|message| message.kind() == kind && message.state() != MessageState::Sending);
            found.reverse();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    async fn told(&self, count: usize) -> Vec<ReplyReceived> {
        testkit::collect(&self.broker, "notify", count).await
    }
}

#[tokio::test]
async fn one_confirms_and_is_thanked() {
    let suite = Suite::start().await;
    let visit = suite.reminded().await;
    suite.write("1").await;
    let answer = suite.of_kind(MessageKind::ReplyOutcome, 1).await.remove(0);
    assert!(answer.body.starts_with("Thank you. We expect you on "), "{}", answer.body);
    assert!(answer.body.ends_with("\nQuestions: Harbor Clinic, +12025550100"), "{}", answer.body);
    assert_eq!(
        (answer.state(), answer.patient_id.as_str()),
        (MessageState::Sent, visit.patient.to_string().as_str())
    );
    let told = suite.told(1).await.remove(0);
    assert_eq!(
        (told.meaning(), told.appointment_id.as_str()),
        (ReplyMeaning::Confirm, visit.id.to_string().as_str())
    );
    let reminder = suite.reminders(&visit).await.remove(0);
    assert_eq!((told.in_reply_to_id, told.patient_id), (reminder.message_id, visit.patient.to_string()));
    let inbound = suite.of_kind(MessageKind::Inbound, 1).await.remove(0);
    assert_eq!(
        (inbound.id.as_str(), inbound.state(), inbound.body.as_str()),
        (told.message_id.as_str(), MessageState::Received, "1")
    );
    assert_eq!(answer.in_reply_to_id, inbound.id);
}

#[tokio::test]
async fn two_cancels_once_though_an_answer_is_lost() {
    let suite = Suite::start().await;
    let visit = suite.reminded().await;
    suite.others.lose_an_answer();
    suite.write("2.").await;
    let waiting = testkit::until("a cancellation is asked for", || async {
        let asked = suite.others.cancelled();
        (!asked.is_empty()).then_some(asked)
    });
    waiting.await;
    // By the time it is asked again, the visit is known to be over.
    let cancelled =
        AppointmentCancelled { appointment: visit.facts(AppointmentState::Cancelled), ..Default::default() };
    suite.tell(&visit, 2, &cancelled).await;
    suite.reminders_when(&visit, |r| r[1].state() == ReminderState::Dropped).await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    let answer = suite.of_kind(MessageKind::ReplyOutcome, 1).await.remove(0);
    assert!(answer.body.contains("is cancelled. A late cancellation fee applies.\n"), "{}", answer.body);
    let asked = suite.others.cancelled();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0], asked[0].0), (asked[1], visit.id));
    assert_eq!(suite.told(1).await[0].meaning(), ReplyMeaning::Cancel);
}

#[tokio::test]
async fn a_shared_phone_is_asked_which_visit() {
    let suite = Suite::start().await;
    let first = suite.told_of().await;
    let later = suite.visit();
    let later = Visit { start: later.start + TimeDelta::hours(1), ..later };
    let event =
        AppointmentBooked { appointment: later.facts(AppointmentState::Booked), ..Default::default() };
    suite.tell(&later, 1, &event).await;
    suite.reminders_when(&later, |r| r.len() == 2).await;
    suite.others.at_phone(later.patient);
    due(&suite, &later).await;
    for visit in [&first, &later] {
        suite.reminders_when(visit, |r| r[0].state() == ReminderState::Sent).await;
    }
    suite.write("2").await;
    let question = suite.of_kind(MessageKind::ReplyChoice, 1).await.remove(0);
    assert!(question.body.starts_with("Which visit do you mean? Reply 1: "), "{}", question.body);
    assert!(suite.others.cancelled().is_empty());
    suite.write("9").await;
    suite.of_kind(MessageKind::Help, 1).await;
    suite.write("2").await;
    suite.of_kind(MessageKind::ReplyOutcome, 1).await;
    let cancelled: Vec<_> = suite.others.cancelled().into_iter().map(|(visit, _)| visit).collect();
    assert_eq!(cancelled, [later.id]);
    let told = suite.told(3).await;
    let meanings: Vec<_> = told.iter().map(|told| (told.meaning(), told.choice)).collect();
    let expected = [(ReplyMeaning::Cancel, 0), (ReplyMeaning::Unknown, 0), (ReplyMeaning::Cancel, 2)];
    assert_eq!(meanings, expected);
    let about: Vec<_> = told.iter().map(|told| told.appointment_id.as_str()).collect();
    assert_eq!(about, ["", "", later.id.to_string().as_str()]);
}

#[tokio::test]
async fn a_displaced_visit_takes_the_time_chosen_by_digit_and_a_time_that_is_gone_is_said_to_be() {
    let suite = crate::notices::at_noon().await;
    let provider = ProviderId::new();
    for outcome in ["Thank you. Your visit is now on ", "This time is not free any more. "] {
        let visit = suite.told_of().await;
        let slot = |days| SlotOption {
            provider_id: provider.to_string(),
            interval: Some(Interval {
                start_time: Some(timestamp(visit.start + TimeDelta::days(days))),
                ..Default::default()
            }),
            ..Default::default()
        };
        let displaced = AppointmentDisplaced {
            appointment: visit.facts(AppointmentState::Displaced),
            alternatives: vec![slot(1), slot(2)],
            ..Default::default()
        };
        suite.happens(&visit, 2, &displaced).await;
        let sent = |told: &[Message]| told.iter().any(|m| m.state() == MessageState::Sent);
        suite.when_told(&visit, MessageKind::Displaced, sent).await;
        suite.write("2").await;
        let answer = suite.when_told(&visit, MessageKind::ReplyOutcome, sent).await.remove(0);
        assert!(answer.body.starts_with(outcome), "{}", answer.body);
        let chosen = Alternative { provider, start: visit.start + TimeDelta::days(2) };
        assert_eq!(suite.others.moved().pop(), Some((visit.id, chosen)));
        if !answer.body.starts_with("Thank you") {
            return;
        }
        // What the patient has just been answered is no news.
        let later = Visit { start: chosen.start, ..visit.clone() };
        let moved = AppointmentRescheduled {
            appointment: later.facts(AppointmentState::Booked),
            previous: visit.facts(AppointmentState::Displaced),
            ..Default::default()
        };
        suite.happens(&visit, 3, &moved).await;
        suite.reminders_when(&visit, |r| r.len() == 4).await;
        let news = suite.waiting_texts(&visit).await;
        assert_eq!((news, suite.messages(&visit).await.len()), (0, 3));
    }
}

#[tokio::test]
async fn stop_holds_from_its_commit_and_start_ends_it() {
    let suite = Suite::start().await;
    let visit = suite.told_of().await;
    suite.write("Stop!").await;
    testkit::until("patients is told", || async {
        (suite.others.wishes() == [(visit.patient, false, "Stop!".to_owned())]).then_some(())
    })
    .await;
    // Patients still says that texts are welcome: notify's own note is what counts.
    due(&suite, &visit).await;
    let reminders = suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Dropped).await;
    assert_eq!(reminders[0].drop_reason(), DropReason::NoConsent);
    suite.write("START").await;
    let answer = suite.of_kind(MessageKind::OptIn, 1).await.remove(0);
    assert_eq!(answer.state(), MessageState::Sent);
    assert_eq!(suite.others.wishes()[1], (visit.patient, true, "START".to_owned()));
    suite.servers.advance_to(visit.start - TimeDelta::hours(2)).await;
    suite.reminders_when(&visit, |r| r[1].state() == ReminderState::Sent).await;
    let meanings: Vec<_> = suite.told(2).await.iter().map(ReplyReceived::meaning).collect();
    assert_eq!(meanings, [ReplyMeaning::OptOut, ReplyMeaning::OptIn]);
}

#[tokio::test]
async fn a_number_that_has_opted_out_at_the_provider_is_left_alone() {
    let suite = Suite::start().await;
    let (first, second) = (suite.told_of().await, suite.told_of().await);
    // Lower case with a space is a withdrawal to the carrier too, and it does not tell us.
    let url = format!("{}/sandbox/faults", suite.provider);
    let lost = json!({ "route": "message.received", "kind": "drop_webhook" });
    reqwest::Client::new().post(url).json(&lost).send().await.expect("scripted");
    suite.write(" stop ").await;
    due(&suite, &first).await;
    for visit in [&first, &second] {
        suite
            .reminders_when(visit, |r| matches!(r[0].state(), ReminderState::Failed | ReminderState::Dropped))
            .await;
    }
    let taken = suite.taken().await.into_iter().filter(|text| text["direction"] == "outbound-api");
    // The carrier's own confirmation is all that went out.
    assert_eq!(taken.count(), 1);
    let wish = testkit::until("patients is told", async || suite.others.wishes().pop()).await;
    assert!([first.patient, second.patient].contains(&wish.0) && !wish.1, "{wish:?}");
    assert!(wish.2.contains("21610"), "{wish:?}");
    suite.servers.advance_to(first.start - TimeDelta::hours(2)).await;
    for visit in [&first, &second] {
        let reminders = suite.reminders_when(visit, |r| r[1].state() == ReminderState::Dropped).await;
        assert_eq!(reminders[1].drop_reason(), DropReason::NoConsent);
    }
}

#[tokio::test]
async fn what_is_not_understood_is_explained_once() {
    let suite = Suite::start().await;
    let visit = suite.reminded().await;
    let odd =
        ["Thanks! 🙏", "مرحبا، متى موعدي؟", "a\u{202e}b\0c", "", "7", "I am driving and will answer later."];
    for text in odd {
        suite.write(text).await;
    }
    let texts = suite.of_kind(MessageKind::Inbound, odd.len()).await;
    let helps = suite.of_kind(MessageKind::Help, odd.len()).await;
    let sent = helps.iter().filter(|help| help.state() == MessageState::Sent).count();
    let ended = helps.iter().filter(|help| help.drop_reason() == DropReason::Loop).count();
    assert_eq!((sent, ended, texts.len()), (1, odd.len() - 1, odd.len()));
    assert!(
        helps[0].body.contains("Answer with the digit we ask for. Reply STOP to get no more texts."),
        "{}",
        helps[0].body
    );
    let told = suite.told(odd.len()).await;
    let patient = visit.patient.to_string();
    assert!(told.iter().all(|told| told.meaning() == ReplyMeaning::Unknown && told.patient_id == patient));
    // Who asks in so many words is answered again.
    suite.write("HELP").await;
    let helps = suite.of_kind(MessageKind::Help, odd.len() + 1).await;
    assert_eq!(helps.iter().filter(|help| help.state() == MessageState::Sent).count(), 2);
}

#[tokio::test]
async fn an_exchange_with_an_auto_responder_ends() {
    let suite = Suite::of(World { sms_rate: 10_000, ..World::default() }).await;
    suite.reminded().await;
    for answered in 1..=9 {
        suite.write("1").await;
        suite.of_kind(MessageKind::ReplyOutcome, answered).await;
    }
    let answers = suite.of_kind(MessageKind::ReplyOutcome, 9).await;
    let sent = answers.iter().filter(|answer| answer.state() == MessageState::Sent).count();
    assert_eq!((sent, answers[8].drop_reason()), (6, DropReason::Loop));
}

#[tokio::test]
async fn a_text_told_twice_counts_once() {
    let suite = Suite::start().await;
    suite.reminded().await;
    suite.fault(json!({ "route": "message.received", "kind": "duplicate_webhook" })).await;
    let reference = suite.write("1").await;
    suite.of_kind(MessageKind::ReplyOutcome, 1).await;
    let again = [("MessageSid", reference.as_str()), ("From", PHONE), ("Body", "1")];
    assert_eq!(suite.post("/webhooks/sms/inbound", &again).await, StatusCode::OK);
    suite.write("help").await;
    suite.of_kind(MessageKind::Help, 1).await;
    assert_eq!(suite.of_kind(MessageKind::Inbound, 2).await.len(), 2);
    assert_eq!(suite.of_kind(MessageKind::ReplyOutcome, 1).await.len(), 1);
}

#[tokio::test]
async fn an_answer_whose_outcome_is_unknown_is_looked_up_and_not_sent_again() {
    let suite = Suite::start().await;
    suite.reminded().await;
    suite.fail_next_text("act_then_drop").await;
    suite.write("1").await;
    testkit::until("the outcome is unknown", || async {
        suite.all_messages().await.into_iter().find(|message| message.state() == MessageState::Unknown)
    })
    .await;
    suite.servers.advance(TimeDelta::minutes(1)).await;
    let answer = testkit::until("it is found", || async {
        let answers = suite.of_kind(MessageKind::ReplyOutcome, 1).await;
        answers.into_iter().find(|answer| answer.state() == MessageState::Sent)
    })
    .await;
    let to_phone = suite.taken().await.into_iter().filter(|text| text["body"] == answer.body.as_str());
    assert_eq!((to_phone.count(), answer.attempts), (1, 1));
}

#[tokio::test]
async fn strangers_and_senders_that_are_no_numbers_change_nothing() {
    let suite = Suite::start().await;
    suite.write_from("+12025550177", "1").await;
    let help = suite.of_kind(MessageKind::Help, 1).await.remove(0);
    assert_eq!((help.patient_id.as_str(), help.state()), ("", MessageState::Sent));
    assert!(!help.body.contains("Harbor"), "{}", help.body);
    let told = suite.told(1).await.remove(0);
    assert_eq!((told.meaning(), told.patient_id.as_str()), (ReplyMeaning::Unknown, ""));
    for from in ["24273", "CLINIC", "+", "+1 (202) 555-0123", "whatsapp:+12025550123", ""] {
        let form = [("MessageSid", &*format!("SM{:032x}", from.len() + 7)), ("From", from), ("Body", "1")];
        assert_eq!(suite.post("/webhooks/sms/inbound", &form).await, StatusCode::OK, "{from}");
    }
    suite.of_kind(MessageKind::Inbound, 4).await;
}
