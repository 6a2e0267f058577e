//! What is logged names messages by id: never a number, an address, a name or a word of a text.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use kit::ids::PatientId;
use notify::ports::Contact;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{
    Channel, GetMessageRequest, ListMessagesRequest, Message, MessageKind, MessageState, ReminderState,
    SendMessageRequest, SetTemplateRequest, Template,
};
use reqwest::StatusCode;
use tracing_subscriber::EnvFilter;

use crate::sending::due;
use crate::{MockPatients, PHONE, Suite, reachable};

/// What the patients are reached at: one who is, one who opted out at the provider, one with no number, one by e-mail alone, where nobody is.
const REACHED: [(&str, &str); 4] =
    [(PHONE, ""), ("+15005550004", ""), ("tel:+12025550155", ""), ("", "nobody@zephyrine.example")];
/// Nobody's number.
const STRANGER: &str = "+12025550177";
/// What no line may have.
const NEEDLES: [&str; 7] =
    ["2025550123", "5005550004", "2025550155", "2025550177", "5550188", "zephyrine", "quill"];
/// What a text says that came in.
const WORDS: &str = "Zephyrine Quill here, call me at 555-0188 or 5550188";

/// Lines as they are written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("held").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn suite() -> Suite {
    let seen: Mutex<Vec<PatientId>> = Mutex::default();
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |patient| {
        let mut seen = seen.lock().expect("held");
        let place = seen.iter().position(|known| *known == patient).unwrap_or_else(|| {
            seen.push(patient);
            seen.len() - 1
        });
        let (phone, email) = REACHED[place];
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Some(Contact { phone: some(phone), email: some(email), ..reachable() }))
    });
    let suite = Suite::with(patients).await;
    crate::notices::to_noon(&suite).await;
    suite
}

#[tokio::test]
async fn no_line_has_a_number_an_address_a_name_or_a_word() {
    let log = Log::default();
    let writer = log.clone();
    // The sandbox is the provider: its log is its own.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("debug,sandbox=off"))
        .with_writer(move || writer.clone())
        .finish();
    let _logged_here = tracing::subscriber::set_default(subscriber);
    let suite = suite().await;

    // Sent, refused, malformed; an e-mail to an address that does not exist; an answer that is lost.
    let ends = [MessageState::Sent, MessageState::Failed, MessageState::Failed, MessageState::Failed];
    for end in ends {
        let visit = suite.visit();
        let booked =
            AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
        suite.happens(&visit, 1, &booked).await;
        let told = |told: &[Message]| told.iter().any(|m| m.state() == end);
        suite.when_told(&visit, MessageKind::Booked, told).await;
        if end == MessageState::Sent {
            suite.others.at_phone(visit.patient);
            suite.fail_next_text("act_then_drop").await;
            due(&suite, &visit).await;
            suite.reminders_when(&visit, |r| r[0].state() == ReminderState::Sending).await;
        }
    }

    // Texts that come in: with her name, from strangers, from what is no number; callbacks that are forged, cut or senseless.
    suite.write_from(PHONE, WORDS).await;
    suite.write_from(STRANGER, WORDS).await;
    suite.write_from(STRANGER, "STOP").await;
    let inbound = "/webhooks/sms/inbound";
    for from in [STRANGER, "whatsapp:+12025550177", "Zephyrine", ""] {
        let form = [("MessageSid", &*format!("SM{:032x}", from.len() + 7)), ("From", from), ("Body", WORDS)];
        assert_eq!(suite.post(inbound, &form).await, StatusCode::OK);
        let unsigned = reqwest::Client::new().post(format!("{}{inbound}?From={STRANGER}", suite.url));
        assert_eq!(unsigned.form(&form).send().await.expect("told").status(), StatusCode::FORBIDDEN);
        let nameless = [("MessageSid", from), ("From", STRANGER), ("Body", WORDS)];
        assert_eq!(suite.post(inbound, &nameless).await.is_success(), from == "Zephyrine");
    }
    let status = [("MessageSid", "SM1"), ("MessageStatus", WORDS), ("To", STRANGER)];
    assert_eq!(suite.post("/webhooks/sms/status", &status).await, StatusCode::BAD_REQUEST);
    let status = [("MessageSid", "SM1"), ("MessageStatus", "sent"), ("To", STRANGER)];
    assert_eq!(suite.post("/webhooks/sms/status", &status).await, StatusCode::NOT_FOUND);
    suite.of_kind(MessageKind::Inbound, 8).await;

    // Calls in which it stands where it should not.
    let (mut desk, mut manager) = (suite.desk(), suite.call_as(Role::Manager, "max"));
    for text in [STRANGER, WORDS] {
        let text = text.to_owned();
        let list = ListMessagesRequest {
            patient_id: text.clone(),
            page_token: text.clone(),
            ..ListMessagesRequest::default()
        };
        desk.list_messages(list).await.expect_err("no id");
        desk.get_message(GetMessageRequest { message_id: text.clone() }).await.expect_err("no id");
        let send = SendMessageRequest {
            request_id: text.clone(),
            patient_id: text.clone(),
            language: text.clone(),
            values: [(text.clone(), text.clone())].into(),
            ..SendMessageRequest::default()
        };
        desk.send_message(send).await.expect_err("nothing fits");
        let template = Template {
            kind: MessageKind::Booked.into(),
            channel: Channel::Sms.into(),
            language: text.clone(),
            body: format!("{{{text}}}"),
            ..Template::default()
        };
        let set = SetTemplateRequest { template: Some(template), ..SetTemplateRequest::default() };
        manager.set_template(set).await.expect_err("nothing fits");
    }

    let logged = String::from_utf8(log.0.lock().expect("held").clone()).expect("text").to_lowercase();
    for line in ["debug", "a text came in", "a text was not clearly taken", "an sms webhook was refused"] {
        assert!(logged.contains(line), "nothing says {line:?}");
    }
    let told: Vec<_> =
        logged.lines().filter(|line| NEEDLES.iter().any(|needle| line.contains(needle))).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
