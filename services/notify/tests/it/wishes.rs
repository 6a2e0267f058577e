//! What somebody asks to be sent, and the words they set.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Days, TimeDelta, Utc};
use chrono_tz::America::New_York;
use kit::ids::{AppointmentId, MessageId, PatientId};
use notify::ports::Contact;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentCancelled, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1::{
    Channel, GetMessageRequest, Message, MessageKind, MessageState, PreviewTemplateRequest,
    SendMessageRequest, SetTemplateRequest, Template, TextEncoding,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{MockPatients, Suite, Visit, reachable};

async fn with(contact: Option<Contact>) -> Suite {
    let mut patients = MockPatients::new();
    patients.expect_contact().returning(move |_| Ok(contact.clone()));
    let suite = Suite::with(patients).await;
    suite.servers.advance_to(next(&suite, 12)).await;
    suite
}

/// When clocks in New York show `hour` on the next day.
fn next(suite: &Suite, hour: u32) -> DateTime<Utc> {
    let day = suite.servers.clock.now().with_timezone(&New_York).date_naive() + Days::new(1);
    let local = day.and_hms_opt(hour, 0, 0).expect("a time of day");
    local.and_local_timezone(New_York).earliest().expect("no clock changes then").to_utc()
}

/// A visit that notify knows.
async fn booked(suite: &Suite) -> Visit {
    let visit = suite.visit();
    let event =
        AppointmentBooked { appointment: visit.facts(AppointmentState::Booked), ..Default::default() };
    suite.tell(&visit, 1, &event).await;
    suite.reminders_when(&visit, |r| r.len() == 2).await;
    visit
}

fn about(visit: &Visit, kind: MessageKind) -> SendMessageRequest {
    SendMessageRequest {
        patient_id: visit.patient.to_string(),
        appointment_id: visit.id.to_string(),
        kind: kind.into(),
        ..Default::default()
    }
}

fn late(visit: &Visit) -> SendMessageRequest {
    let values = [("delay_minutes".to_owned(), "40".to_owned())].into();
    SendMessageRequest { values, ..about(visit, MessageKind::LateVisit) }
}

async fn refusal(suite: &Suite, request: SendMessageRequest) -> String {
    let status = suite.desk().send_message(request).await.expect_err("refused");
    kit::status::reason(&status)
}

#[tokio::test]
async fn the_desk_has_a_late_visit_told_once_however_often_it_asks() {
    let suite = with(Some(reachable())).await;
    let visit = booked(&suite).await;
    let request = SendMessageRequest {
        request_id: MessageId::new().to_string(),
        message_id: MessageId::new().to_string(),
        ..late(&visit)
    };
    let first = suite.desk().send_message(request.clone()).await.expect("queued").into_inner();
    assert_eq!((first.id.as_str(), first.state()), (request.message_id.as_str(), MessageState::Queued));
    assert!(first.body.starts_with("Harbor Clinic: we run 40 minutes late. Your visit "), "{}", first.body);
    let again = suite.desk().send_message(request.clone()).await.expect("the same").into_inner();
    assert_eq!(again, first);
    let other = SendMessageRequest { language: "es".to_owned(), ..request.clone() };
    assert_eq!(refusal(&suite, other).await, "REQUEST_ID_REUSED");
    let taken = SendMessageRequest { request_id: String::new(), ..request };
    assert_eq!(refusal(&suite, taken).await, "MESSAGE_EXISTS");
    suite
        .when_told(&visit, MessageKind::LateVisit, |told| {
            told.iter().any(|m| m.state() == MessageState::Sent)
        })
        .await;
    let bodies: Vec<_> =
        suite.taken().await.into_iter().filter(|text| text["body"] == first.body.as_str()).collect();
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn what_may_not_be_sent_is_refused_with_its_reason() {
    let suite = with(Some(reachable())).await;
    let visit = booked(&suite).await;
    let unknown = SendMessageRequest { appointment_id: AppointmentId::new().to_string(), ..late(&visit) };
    assert_eq!(refusal(&suite, unknown).await, "APPOINTMENT_NOT_FOUND");
    let anothers = SendMessageRequest { patient_id: PatientId::new().to_string(), ..late(&visit) };
    assert_eq!(refusal(&suite, anothers).await, "APPOINTMENT_NOT_FOUND");
    let code = about(&visit, MessageKind::SignInCode);
    assert_eq!(refusal(&suite, code).await, "INVALID_FIELD");
    let bad = SendMessageRequest {
        message_id: "1".to_owned(),
        appointment_id: String::new(),
        language: "not a tag".to_owned(),
        values: [("amount".to_owned(), "1".to_owned())].into(),
        ..late(&visit)
    };
    let status = suite.desk().send_message(bad).await.expect_err("bad");
    let fields: Vec<_> = status
        .get_details_bad_request()
        .expect("a BadRequest")
        .field_violations
        .into_iter()
        .map(|v| v.field)
        .collect();
    assert_eq!(fields, ["message_id", "language", "appointment_id", "values.amount", "values.delay_minutes"]);

    let cancelled =
        AppointmentCancelled { appointment: visit.facts(AppointmentState::Cancelled), ..Default::default() };
    suite.tell(&visit, 2, &cancelled).await;
    testkit::until("the visit is cancelled", || async {
        let refused = suite.desk().send_message(about(&visit, MessageKind::Booked)).await.err()?;
        (kit::status::reason(&refused) == "WRONG_STATE").then_some(())
    })
    .await;
    suite.servers.advance_to(next(&suite, 22)).await;
    let night =
        SendMessageRequest { appointment_id: String::new(), ..about(&visit, MessageKind::CallClinic) };
    assert_eq!(refusal(&suite, night).await, "QUIET_HOURS");
}

#[tokio::test]
async fn without_consent_number_or_patient_nothing_is_queued() {
    for (contact, reason) in [
        (Some(Contact { consented: false, ..reachable() }), "NO_CONSENT"),
        (Some(Contact { phone: None, ..reachable() }), "NO_CONTACT"),
        (None, "PATIENT_NOT_FOUND"),
    ] {
        let suite = with(contact).await;
        let visit = booked(&suite).await;
        assert_eq!(refusal(&suite, about(&visit, MessageKind::CallClinic)).await, reason);
    }
}

#[tokio::test]
async fn who_cannot_be_texted_is_mailed() {
    let contact = Contact { phone: None, email: Some("ana@mail.example".to_owned()), ..reachable() };
    let suite = with(Some(contact)).await;
    let visit = booked(&suite).await;
    let sent =
        suite.desk().send_message(about(&visit, MessageKind::CallClinic)).await.expect("queued").into_inner();
    assert_eq!((sent.channel(), sent.encoding()), (Channel::Email, TextEncoding::Unspecified));
    suite
        .when_told(&visit, MessageKind::CallClinic, |told| {
            told.iter().any(|m| m.state() == MessageState::Sent)
        })
        .await;
    let texted =
        SendMessageRequest { channel: Channel::Sms.into(), ..about(&visit, MessageKind::CallClinic) };
    assert_eq!(refusal(&suite, texted).await, "NO_CONTACT");
}

#[tokio::test]
async fn a_sign_in_code_needs_no_consent_and_is_shown_to_nobody() {
    let suite = with(Some(Contact { consented: false, ..reachable() })).await;
    let patient = PatientId::new();
    let values = [("code", "481516"), ("expiry_minutes", "10")];
    let request = SendMessageRequest {
        patient_id: patient.to_string(),
        kind: MessageKind::SignInCode.into(),
        values: values.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Default::default()
    };
    let mut portal = suite.call_as(Role::Service, "portal");
    let queued = portal.send_message(request).await.expect("queued").into_inner();
    assert_eq!(queued.body, "");
    testkit::until("the code is texted", || async { (!suite.taken().await.is_empty()).then_some(()) }).await;
    assert!(
        suite.taken().await[0]["body"].as_str().expect("a body").starts_with("481516 is your sign-in code.")
    );
    let get = GetMessageRequest { message_id: queued.id };
    let shown = suite.call_as(Role::Patient, &patient.to_string()).get_message(get).await.expect("its own");
    assert_eq!(shown.into_inner().body, "");
}

#[tokio::test]
async fn the_seventh_text_of_a_day_has_to_wait() {
    let suite = with(Some(reachable())).await;
    let visit = booked(&suite).await;
    for _ in 0..6 {
        suite.desk().send_message(about(&visit, MessageKind::CallClinic)).await.expect("queued");
    }
    let status =
        suite.desk().send_message(about(&visit, MessageKind::CallClinic)).await.expect_err("too many");
    assert_eq!(
        (kit::status::reason(&status).as_str(), status.code()),
        ("CAP_REACHED", Code::ResourceExhausted)
    );
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("when");
    assert!(wait <= TimeDelta::days(1).to_std().expect("positive"));
}

fn template(kind: MessageKind, channel: Channel, language: &str, body: &str) -> Template {
    Template {
        kind: kind.into(),
        channel: channel.into(),
        language: language.to_owned(),
        body: body.to_owned(),
        ..Default::default()
    }
}

fn setting(template: Template) -> SetTemplateRequest {
    SetTemplateRequest { template: Some(template), ..Default::default() }
}

#[tokio::test]
async fn set_words_are_used_until_they_are_taken_back() {
    let suite = with(Some(Contact { language: "es-MX".to_owned(), ..reachable() })).await;
    let mut manager = suite.call_as(Role::Manager, "max");
    let (kind, sms) = (MessageKind::CallClinic, Channel::Sms);
    let words = template(kind, sms, "es-MX", "{clinic_name}: ¡llámenos ya! {clinic_phone}");
    let set = manager.set_template(setting(words.clone())).await.expect("set").into_inner();
    assert_eq!((set.version, set.updated_by.as_str()), (1, "max"));
    let stale = Template { etag: "0".to_owned(), ..words.clone() };
    let status = manager.set_template(setting(stale)).await.expect_err("stale");
    assert_eq!(kit::status::reason(&status), "ETAG_MISMATCH");

    let visit = booked(&suite).await;
    let body = async || -> Message {
        suite.desk().send_message(about(&visit, kind)).await.expect("queued").into_inner()
    };
    let sent = body().await;
    assert_eq!(
        (sent.body.as_str(), sent.language.as_str()),
        ("Harbor Clinic: ¡llamenos ya! +12025550100", "es-MX")
    );
    let back = Template { body: String::new(), etag: set.etag, ..words };
    let back = manager.set_template(setting(back)).await.expect("taken back").into_inner();
    assert_eq!((back.version, back.body.as_str()), (0, ""));
    let sent = body().await;
    assert!(sent.body.starts_with("Harbor Clinic: por favor, llame."), "{}", sent.body);
    assert_eq!(sent.language, "es");
}

#[tokio::test]
async fn words_that_cannot_be_are_refused_field_by_field() {
    let suite = with(Some(reachable())).await;
    let mut manager = suite.call_as(Role::Manager, "max");
    for (bad, field) in [
        (template(MessageKind::Booked, Channel::Sms, "en", "{old_date}"), "template.body"),
        (template(MessageKind::Booked, Channel::Sms, "en", "{nonsense}"), "template.body"),
        (template(MessageKind::Booked, Channel::Sms, "en", "Reply YES"), "template.body"),
        (template(MessageKind::Booked, Channel::Email, "en", "Hello"), "template.subject"),
        (template(MessageKind::Booked, Channel::Unspecified, "en", "Hello"), "template.channel"),
        (template(MessageKind::Inbound, Channel::Sms, "en", "Hello"), "template.kind"),
        (template(MessageKind::Booked, Channel::Sms, "", "Hello"), "template.language"),
    ] {
        let status = manager.set_template(setting(bad)).await.expect_err("refused");
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        let fields: HashSet<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, HashSet::from([field]));
    }
    let desk = suite.desk().set_template(setting(Template::default())).await.expect_err("not the desk's");
    assert_eq!(desk.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_preview_shows_what_a_text_would_cost_and_what_is_wrong_with_it() {
    let suite = with(Some(reachable())).await;
    let preview = async |template: Template, values: BTreeMap<String, String>| {
        let request =
            PreviewTemplateRequest { template: Some(template), values: values.into_iter().collect() };
        suite.desk().preview_template(request).await.expect("shown").into_inner()
    };
    let built_in =
        preview(template(MessageKind::Reminder24h, Channel::Sms, "en-GB", ""), BTreeMap::new()).await;
    let shown = built_in.template.clone().expect("the words in force");
    assert_eq!((shown.language.as_str(), shown.version, shown.etag.as_str()), ("en", 0, "0"));
    assert_eq!((built_in.segments, built_in.encoding()), (1, TextEncoding::Gsm7));
    assert!(built_in.problems.is_empty() && built_in.placeholders.contains(&"confirm_digit".to_owned()));

    let hearts = template(MessageKind::Booked, Channel::Sms, "he", "❤ {clinic_name} ❤ {date}");
    let name = [("clinic_name".to_owned(), "מרפאה".to_owned())].into();
    let hearts = preview(hearts, name).await;
    assert_eq!(hearts.encoding(), TextEncoding::Ucs2);
    assert_eq!(hearts.non_gsm7_characters[0], "❤");
    assert!(hearts.text.starts_with("❤ מרפאה ❤ "), "{}", hearts.text);

    let wrong =
        preview(template(MessageKind::Booked, Channel::Sms, "en", "Reply YES {amount}"), BTreeMap::new())
            .await;
    assert_eq!(wrong.problems.len(), 2, "{:?}", wrong.problems);
    let mail = preview(template(MessageKind::Booked, Channel::Email, "es", ""), BTreeMap::new()).await;
    assert!(mail.subject.starts_with("Su cita del ") && mail.segments == 0, "{mail:?}");
}
