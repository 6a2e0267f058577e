//! What patients get to read.

use chrono::TimeDelta;
use kit::ids::ProviderId;

use super::template::problems;
use super::*;
use crate::domain::notice::Alternative;

const LANGUAGES: [Language; 2] = [Language::English, Language::Spanish];

fn kinds() -> impl Iterator<Item = MessageKind> {
    (1..).map_while(|number| MessageKind::try_from(number).ok()).filter(|kind| *kind != MessageKind::Inbound)
}

fn facts() -> Facts {
    let start: DateTime<Utc> = "2026-09-30T16:30:00Z".parse().expect("an instant");
    let given =
        [("amount", "$1,000.00"), ("delay_minutes", "120"), ("code", "123456"), ("expiry_minutes", "10")];
    Facts {
        old_start: Some(start - TimeDelta::days(7)),
        alternatives: [1, 2, 8].map(|days| start + TimeDelta::days(days)).map(alternative).to_vec(),
        offer_ends: Some(start),
        late_fee: true,
        given: given.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Facts::default()
    }
}

fn alternative(start: DateTime<Utc>) -> Alternative {
    Alternative { provider: ProviderId::new(), start }
}

/// Every answer, to two visits where it names some.
fn answers() -> [Answer; 12] {
    let at = |text: &str| (text.parse().expect("an instant"), chrono_tz::America::New_York);
    let visits = vec![at("2026-09-30T16:30:00Z"), at("2026-10-01T13:00:00Z")];
    [
        Answer::Confirmed,
        Answer::Cancelled,
        Answer::Moved,
        Answer::Taken,
        Answer::Gone,
        Answer::Noted,
        Answer::Missed,
        Answer::Unpaid,
        Answer::Clashes,
        Answer::Which(visits),
        Answer::Help,
        Answer::OptedIn,
    ]
}

/// About a Wednesday in September, at a time of two digits: the longest words.
fn about<'a>(clinic_name: &'a str, facts: &'a Facts) -> About<'a> {
    About {
        clinic_name,
        clinic_phone: "+12025550100",
        start: Some("2026-09-30T16:30:00Z".parse().expect("an instant")),
        zone: chrono_tz::America::New_York,
        link: "https://clinic.example/visits/01890a5d-ac96-774b-bcce-b302099a8057",
        form_open: false,
        intake_link: "https://clinic.example/intake/01890a5d-ac96-774b-bcce-b302099a8057",
        facts,
    }
}

fn text(kind: MessageKind, language: Language, about: About<'_>) -> Text {
    let (_, body) = language.builtin(kind, Channel::Sms).expect("words");
    sms(&Pattern::parse(body).expect("a pattern"), about.values(language.tag(), language))
}

#[test]
fn a_reminder_tells_the_clinics_own_time() {
    let facts = Facts::default();
    let body = text(MessageKind::Reminder24h, Language::English, about("Harbor Clinic", &facts)).body;
    let expected = "Harbor Clinic: reminder of your visit, Wed, Sep 30 at 12:30 PM. Reply 1 to confirm, 2 to cancel.\n\
                    Questions: +12025550100";
    assert_eq!(body, expected);
    let body = text(MessageKind::Reminder2h, Language::Spanish, about("Clínica del Puerto", &facts)).body;
    let expected = "Clinica del Puerto: le esperamos pronto, miércoles 30 de septiembre, 12:30 PM. Responda 1 para \
                    confirmar, 2 para cancelar.\nTel: +12025550100";
    assert_eq!(body, expected);
}

#[test]
fn every_text_fits_one_segment_whatever_the_clinic_is_called() {
    let facts = facts();
    let names = ["A", "Clínica Núñez", &"Very Long Name ".repeat(6), &"{date}".repeat(16), &"€".repeat(100)];
    let told = kinds().map(|kind| (kind, facts.clone()));
    let answered = answers().map(|answer| (answer.kind(), Facts { answer: Some(answer), ..facts.clone() }));
    for (kind, facts) in told.chain(answered) {
        for language in LANGUAGES {
            for (name, form_open) in names.iter().flat_map(|name| [(name, false), (name, true)]) {
                let text = text(kind, language, About { form_open, ..about(name, &facts) });
                let one = Measure { segments: 1, encoding: TextEncoding::Gsm7, ..text.measure };
                assert_eq!(text.measure, one, "{}", text.body);
                let reminds = matches!(kind, MessageKind::Reminder24h | MessageKind::Reminder2h);
                assert!(!reminds || text.body.contains("form") == form_open, "{}", text.body);
            }
            let text = text(kind, language, about("诊所", &facts));
            assert!(text.measure.segments <= 3, "{text:?}");
        }
    }
}

#[test]
fn all_built_in_words_pass_the_check_that_set_ones_must() {
    for (kind, language) in kinds().flat_map(|kind| LANGUAGES.map(|language| (kind, language))) {
        for channel in [Channel::Sms, Channel::Email] {
            let Some((subject, body)) = language.builtin(kind, channel) else { continue };
            let problems = problems(kind, channel, subject, body);
            assert!(problems.is_empty(), "{kind:?} {language:?} {channel:?}: {problems:?}");
        }
    }
}

#[test]
fn what_has_no_value_leaves_no_gap() {
    let facts = Facts::default();
    let about = About { clinic_phone: "", link: "", intake_link: "", ..about("Harbor", &facts) };
    for kind in
        [MessageKind::Reminder24h, MessageKind::Cancelled, MessageKind::Displaced, MessageKind::IntakeOpen]
    {
        for language in LANGUAGES {
            let body = text(kind, language, about).body;
            assert!(body.ends_with('.') && !body.contains('{') && !body.contains("  "), "{body}");
        }
    }
}

#[test]
fn a_late_cancellation_names_the_fee_and_a_timely_one_does_not() {
    let late = Facts { late_fee: true, ..Facts::default() };
    let body = |facts| text(MessageKind::Cancelled, Language::English, about("Harbor", facts)).body;
    let expected = "Harbor: your visit on Wed, Sep 30 at 12:30 PM is cancelled. A late cancellation fee applies.\n\
                    Questions: +12025550100";
    assert_eq!(body(&late), expected);
    assert!(!body(&Facts::default()).contains("fee"));
}

#[test]
fn a_displaced_visit_offers_times_by_digits() {
    let body = text(MessageKind::Displaced, Language::English, about("Harbor", &facts())).body;
    let expected = "Harbor: your visit Wed, Sep 30, 12:30 PM must move. Reply 1: Thu, Oct 1 12:30 PM, 2: Fri, Oct 2 12:30 PM, \
                    3: Thu, Oct 8 12:30 PM\nOr call +12025550100";
    assert_eq!(body, expected);
}

#[test]
fn an_offer_says_how_long_it_stands_and_how_to_take_it() {
    let ends =
        Facts { offer_ends: Some("2026-09-29T14:15:00Z".parse().expect("an instant")), ..Facts::default() };
    let offer = |language, about| text(MessageKind::WaitlistOffer, language, about).body;
    let harbor = about("Harbor", &ends);
    assert_eq!(
        offer(Language::English, harbor),
        "Harbor: free Wed, Sep 30, 12:30 PM. Reply 1 to take it, 2 to pass, before 10:15 AM.\n\
         https://clinic.example/visits/01890a5d-ac96-774b-bcce-b302099a8057"
    );
    assert_eq!(
        offer(Language::Spanish, About { link: "", ..harbor }),
        "Harbor: libre miércoles 30 de septiembre, 12:30 PM. Responda 1 (si) o 2 (no) antes de 10:15 AM.\n\
         Tel: +12025550100"
    );
}

#[test]
fn a_copay_that_fails_leads_to_the_portal_where_there_is_one() {
    let facts = Facts { answer: Some(Answer::Unpaid), ..Facts::default() };
    let body = |about| text(MessageKind::ReplyOutcome, Language::English, about).body;
    let harbor = about("Harbor", &facts);
    assert!(
        body(harbor)
            .starts_with("Your co-pay failed. To take this time, call us or use https://clinic.example/")
    );
    let without = body(About { link: "", ..harbor });
    assert_eq!(without, "Your co-pay failed. To take this time, call us.\nQuestions: Harbor, +12025550100");
}

#[test]
fn an_answer_says_what_was_done_and_a_question_offers_a_digit_for_each_visit() {
    let body = |answer: Answer| {
        let (kind, facts) = (answer.kind(), Facts { answer: Some(answer), ..Facts::default() });
        text(kind, Language::English, about("Harbor", &facts)).body
    };
    let questions = "\nQuestions: Harbor, +12025550100";
    assert_eq!(
        body(Answer::Cancelled),
        format!("Your visit on Wed, Sep 30 at 12:30 PM is cancelled.{questions}")
    );
    let [.., which, _, _] = answers();
    assert_eq!(
        body(which),
        "Which visit do you mean? Reply 1: Wed, Sep 30 12:30 PM, 2: Thu, Oct 1 9:00 AM\nQuestions: +12025550100"
    );
}

#[test]
fn names_with_emoji_or_from_right_to_left_are_carried_whole() {
    let facts = Facts::default();
    for name in ["Harbor 🙂", "מרפאת הנמל", "عيادة الميناء"] {
        let text = text(MessageKind::Booked, Language::English, about(name, &facts));
        assert_eq!(text.measure.encoding, TextEncoding::Ucs2);
        assert!(text.body.starts_with(name) && text.measure.segments <= 2, "{text:?}");
    }
    let turned = text(MessageKind::Booked, Language::English, about("Harbor\u{202e}\n", &facts));
    assert!(turned.body.starts_with("Harbor : your visit"), "{}", turned.body);
}

#[test]
fn a_language_without_words_of_its_own_tells_time_as_iso_does() {
    let values = about("Harbor", &Facts::default()).values("vi", Language::English);
    assert_eq!(
        (values[&Placeholder::Date].as_str(), values[&Placeholder::Time].as_str()),
        ("2026-09-30", "12:30")
    );
}

#[test]
fn regions_speak_their_language() {
    assert_eq!(Language::of("es-MX"), Some(Language::Spanish));
    assert_eq!(Language::of("EN"), Some(Language::English));
    assert_eq!(Language::of("vi"), None);
    assert_eq!(Language::of(""), None);
}
