//! The words of each reminder in each language, and how they are filled in.
//!
//! A text carries clinic, date, time and phone, in the clinic's own wall clock: neither provider nor reason. Replies are digits;
//! carriers take words such as YES and CANCEL for themselves.

use chrono::{DateTime, Datelike as _, Utc};
use chrono_tz::Tz;
use proto::clinic::notify::v1::{MessageKind, ReminderKind, TextEncoding};

use crate::gsm7::{self, Measure, ONE_TEXT};

/// The digit that confirms a visit.
pub const CONFIRM_DIGIT: &str = "1";
/// The digit that cancels it.
pub const CANCEL_DIGIT: &str = "2";

const WEEKDAYS: [&str; 7] = ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"];
const MONTHS: [&str; 12] = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
];

/// A language that there are words in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// English.
    #[value(name = "en")]
    English,
    /// Spanish.
    #[value(name = "es")]
    Spanish,
}

impl Language {
    /// The language of a BCP 47 tag, whatever its region; `None` = there are no words in it.
    pub fn of(tag: &str) -> Option<Self> {
        match tag.split('-').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "en" => Some(Self::English),
            "es" => Some(Self::Spanish),
            _ => None,
        }
    }

    /// Its BCP 47 tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Spanish => "es",
        }
    }

    /// A reminder, and the sentence that follows it when the clinic has a phone.
    fn reminder(self, kind: ReminderKind) -> (&'static str, &'static str) {
        match (self, kind) {
            (Self::English, ReminderKind::Hours2) => (
                "{clinic_name}: see you soon, {date} at {time}. Reply {confirm_digit} to confirm, {cancel_digit} to \
                 cancel.",
                " Questions? {clinic_phone}",
            ),
            (Self::English, ReminderKind::Hours24 | ReminderKind::Unspecified) => (
                "{clinic_name}: reminder of your visit, {date} at {time}. Reply {confirm_digit} to confirm, \
                 {cancel_digit} to cancel.",
                " Questions? {clinic_phone}",
            ),
            (Self::Spanish, ReminderKind::Hours2) => (
                "{clinic_name}: le esperamos pronto, {date}, {time}. Responda {confirm_digit} para confirmar, \
                 {cancel_digit} para cancelar.",
                " Tel. {clinic_phone}",
            ),
            (Self::Spanish, ReminderKind::Hours24 | ReminderKind::Unspecified) => (
                "{clinic_name}: recuerde su cita, {date}, {time}. Responda {confirm_digit} para confirmar, \
                 {cancel_digit} para cancelar.",
                " Tel. {clinic_phone}",
            ),
        }
    }

    /// The sentence about an intake form that waits.
    fn intake(self) -> &'static str {
        match self {
            Self::English => " Please fill in your form.",
            Self::Spanish => " Complete su formulario.",
        }
    }

    fn date(self, local: &DateTime<Tz>) -> String {
        match self {
            Self::English => local.format("%a, %b %-d").to_string(),
            Self::Spanish => {
                let weekday = WEEKDAYS[local.weekday().num_days_from_monday() as usize];
                format!("{weekday} {} de {}", local.day(), MONTHS[local.month0() as usize])
            }
        }
    }

    fn time(local: &DateTime<Tz>) -> String {
        local.format("%-I:%M %p").to_string()
    }
}

/// What a reminder speaks of.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The clinic, as patients know it.
    pub clinic_name: &'a str,
    /// Its phone, E.164; empty = none.
    pub clinic_phone: &'a str,
    /// When the visit starts.
    pub start: DateTime<Utc>,
    /// The clinic's time zone.
    pub zone: Tz,
    /// Its intake form waits to be submitted.
    pub open_intake: bool,
}

/// A text ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its words.
    pub body: String,
    /// What it costs.
    pub measure: Measure,
}

/// The words of one reminder: one GSM-7 text where the clinic's name can be written in that alphabet, the name shortened when it is
/// too long.
pub fn reminder(kind: ReminderKind, language: Language, about: About<'_>) -> Text {
    let (sentence, call) = language.reminder(kind);
    let mut pattern = sentence.to_owned();
    if about.open_intake {
        pattern.push_str(language.intake());
    }
    if !about.clinic_phone.is_empty() {
        pattern.push_str(call);
    }
    let local = about.start.with_timezone(&about.zone);
    let fill = |name: &str| {
        gsm7::simplify(
            &pattern
                .replace("{date}", &language.date(&local))
                .replace("{time}", &Language::time(&local))
                .replace("{confirm_digit}", CONFIRM_DIGIT)
                .replace("{cancel_digit}", CANCEL_DIGIT)
                .replace("{clinic_phone}", about.clinic_phone)
                // Last: a name may look like a placeholder.
                .replace("{clinic_name}", name),
        )
    };
    let mut name: Vec<char> = about.clinic_name.chars().collect();
    let mut body = fill(about.clinic_name);
    loop {
        let measure = gsm7::measure(&body);
        if measure.encoding != TextEncoding::Gsm7 || measure.units <= ONE_TEXT || name.pop().is_none() {
            return Text { body, measure };
        }
        let short: String = name.iter().collect();
        body = fill(&format!("{}.", short.trim_end()));
    }
}

/// The kind of message that a reminder becomes.
pub fn message_kind(kind: ReminderKind) -> MessageKind {
    match kind {
        ReminderKind::Unspecified => MessageKind::Unspecified,
        ReminderKind::Hours24 => MessageKind::Reminder24h,
        ReminderKind::Hours2 => MessageKind::Reminder2h,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::KINDS;

    fn about(clinic_name: &str) -> About<'_> {
        // A Wednesday in September, at a time of two digits: the longest words.
        let start = "2026-09-30T16:30:00Z".parse().expect("an instant");
        let (clinic_phone, zone) = ("+12025550100", chrono_tz::America::New_York);
        About { clinic_name, clinic_phone, start, zone, open_intake: false }
    }

    #[test]
    fn a_reminder_tells_the_clinics_own_time() {
        let text = reminder(ReminderKind::Hours24, Language::English, about("Harbor Clinic"));
        let expected = "Harbor Clinic: reminder of your visit, Wed, Sep 30 at 12:30 PM. Reply 1 to confirm, 2 to cancel. \
                        Questions? +12025550100";
        assert_eq!(text.body, expected);
        let text = reminder(ReminderKind::Hours2, Language::Spanish, about("Clínica del Puerto"));
        let expected = "Clinica del Puerto: le esperamos pronto, miércoles 30 de septiembre, 12:30 PM. Responda 1 para \
                        confirmar, 2 para cancelar. Tel. +12025550100";
        assert_eq!(text.body, expected);
    }

    #[test]
    fn every_reminder_fits_one_text_whatever_the_clinic_is_called() {
        let names =
            ["A", "Clínica Núñez", &"Very Long Name ".repeat(6), &"{date}".repeat(16), &"€".repeat(100)];
        for kind in KINDS {
            for language in [Language::English, Language::Spanish] {
                for (name, open_intake) in names.iter().flat_map(|name| [(name, false), (name, true)]) {
                    let text = reminder(kind, language, About { open_intake, ..about(name) });
                    let one = Measure { segments: 1, encoding: TextEncoding::Gsm7, ..text.measure };
                    assert_eq!(text.measure, one, "{}", text.body);
                    assert_eq!(text.body.contains("form"), open_intake, "{}", text.body);
                }
                let text = reminder(kind, language, about("诊所")).measure;
                assert!(text.encoding == TextEncoding::Ucs2 && text.segments <= 3, "{text:?}");
            }
        }
    }

    #[test]
    fn a_clinic_without_a_phone_leaves_no_gap() {
        let about = About { clinic_phone: "", ..about("Harbor") };
        for language in [Language::English, Language::Spanish] {
            let body = reminder(ReminderKind::Hours24, language, about).body;
            assert!(body.ends_with('.') && !body.contains('{'), "{body}");
        }
    }

    #[test]
    fn regions_speak_their_language() {
        assert_eq!(Language::of("es-MX"), Some(Language::Spanish));
        assert_eq!(Language::of("EN"), Some(Language::English));
        assert_eq!(Language::of("vi"), None);
        assert_eq!(Language::of(""), None);
    }
}
