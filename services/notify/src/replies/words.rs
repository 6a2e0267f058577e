//! The words of answers. One GSM-7 text each where the clinic's name can be written in that alphabet, the name shortened when it is
//! too long.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use proto::clinic::notify::v1::{MessageKind, TextEncoding};

use crate::gsm7::{self, ONE_TEXT};
use crate::ports::Clinic;
use crate::words::{CANCEL_DIGIT, CONFIRM_DIGIT, Language, Text};

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The visit is confirmed.
    Confirmed(DateTime<Utc>, Tz),
    /// The visit is cancelled.
    Cancelled(DateTime<Utc>, Tz),
    /// The visit was moved or ended before.
    Gone,
    /// Something else was noted.
    Noted,
    /// Which of these visits is confirmed, or cancelled?
    Which {
        /// Cancelled, not confirmed.
        cancel: bool,
        /// Their starts and zones, in the order of the digits.
        visits: Vec<(DateTime<Utc>, Tz)>,
    },
    /// What this number is for.
    Help,
    /// Texts come again.
    OptedIn,
}

impl Answer {
    /// The kind of its message.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Confirmed(..) | Self::Cancelled(..) | Self::Gone | Self::Noted => MessageKind::ReplyOutcome,
            Self::Which { .. } => MessageKind::ReplyChoice,
            Self::Help => MessageKind::Help,
            Self::OptedIn => MessageKind::OptIn,
        }
    }

    /// Its words, from a clinic or none.
    pub fn write(&self, language: Language, clinic: Option<&Clinic>) -> Text {
        let name = clinic.map(|clinic| clinic.name.as_str()).unwrap_or_default();
        let phone = clinic.map(|clinic| clinic.phone.as_str()).unwrap_or_default();
        let pattern = self.pattern(language, phone);
        let mut short: Vec<char> = name.chars().collect();
        let mut head = if name.is_empty() { String::new() } else { format!("{name}: ") };
        loop {
            let body = gsm7::simplify(&format!("{head}{pattern}"));
            let measure = gsm7::measure(&body);
            if measure.encoding != TextEncoding::Gsm7 || measure.units <= ONE_TEXT || short.pop().is_none() {
                return Text { subject: String::new(), body, measure };
            }
            let name: String = short.iter().collect();
            head = format!("{}.: ", name.trim_end());
        }
    }

    fn pattern(&self, language: Language, phone: &str) -> String {
        let call = match (language, phone) {
            (_, "") => String::new(),
            (Language::English, phone) => format!(" Questions? {phone}"),
            (Language::Spanish, phone) => format!(" Tel. {phone}"),
        };
        let at = |start: &DateTime<Utc>, zone: &Tz| moment(language, start.with_timezone(zone));
        match (self, language) {
            (Self::Confirmed(start, zone), Language::English) => {
                format!("thank you. We expect you on {}.{call}", at(start, zone))
            }
            (Self::Confirmed(start, zone), Language::Spanish) => {
                format!("gracias. Le esperamos el {}.{call}", at(start, zone))
            }
            (Self::Cancelled(start, zone), Language::English) => {
                format!("your visit on {} is cancelled.{call}", at(start, zone))
            }
            (Self::Cancelled(start, zone), Language::Spanish) => {
                format!("su cita del {} está cancelada.{call}", at(start, zone))
            }
            (Self::Gone, Language::English) => format!("this visit was moved or has ended already.{call}"),
            (Self::Gone, Language::Spanish) => format!("esta cita ya fue cambiada o terminó.{call}"),
            (Self::Noted, Language::English) => format!("thank you, we have noted your answer.{call}"),
            (Self::Noted, Language::Spanish) => format!("gracias, hemos anotado su respuesta.{call}"),
            (Self::Which { cancel, visits }, language) => {
                let question = match (language, cancel) {
                    (Language::English, false) => "which visit do you confirm? Reply",
                    (Language::English, true) => "which visit do you cancel? Reply",
                    (Language::Spanish, false) => "¿qué cita confirma? Responda",
                    (Language::Spanish, true) => "¿qué cita cancela? Responda",
                };
                let visits = visits.iter().enumerate();
                let listed: Vec<_> =
                    visits.map(|(n, (start, zone))| format!("{}: {}", n + 1, at(start, zone))).collect();
                format!("{question} {}", listed.join(", "))
            }
            (Self::Help, Language::English) => format!(
                "this number reminds you of visits. Reply {CONFIRM_DIGIT} to confirm, {CANCEL_DIGIT} to cancel, STOP to get no \
                 texts.{call}"
            ),
            (Self::Help, Language::Spanish) => format!(
                "este número recuerda citas. Responda {CONFIRM_DIGIT} para confirmar, {CANCEL_DIGIT} para cancelar, STOP para \
                 no recibir textos.{call}"
            ),
            (Self::OptedIn, Language::English) => {
                format!("you get texts about your visits again. Reply STOP to end them, HELP for help.{call}")
            }
            (Self::OptedIn, Language::Spanish) => {
                format!(
                    "recibirá de nuevo textos sobre sus citas. Responda STOP para no recibirlos, HELP para ayuda.{call}"
                )
            }
        }
    }
}

/// Day and time, in few letters.
fn moment(language: Language, local: DateTime<Tz>) -> String {
    match language {
        Language::English => local.format("%a, %b %-d, %-I:%M %p").to_string(),
        Language::Spanish => local.format("%d/%m, %-I:%M %p").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clinic(name: &str) -> Clinic {
        Clinic { name: name.to_owned(), phone: "+12025550100".to_owned(), ..Clinic::default() }
    }

    #[test]
    fn answers_fit_one_text_from_whatever_clinic() {
        let start = "2026-09-30T16:30:00Z".parse().expect("an instant");
        let zone = chrono_tz::America::New_York;
        let two = vec![(start, zone); 3];
        for answer in [
            Answer::Confirmed(start, zone),
            Answer::Cancelled(start, zone),
            Answer::Gone,
            Answer::Noted,
            Answer::Which { cancel: true, visits: two.clone() },
            Answer::Which { cancel: false, visits: two },
            Answer::Help,
            Answer::OptedIn,
        ] {
            for language in [Language::English, Language::Spanish] {
                for name in ["Harbor Clinic", "Clínica Núñez", &"Very Long Name ".repeat(9)] {
                    let text = answer.write(language, Some(&clinic(name)));
                    let cost = (text.measure.encoding, text.measure.segments);
                    assert_eq!(cost, (TextEncoding::Gsm7, 1), "{}", text.body);
                }
                let nameless = answer.write(language, None).body;
                assert!(!nameless.contains(": :") && !nameless.is_empty(), "{nameless}");
            }
        }
    }

    #[test]
    fn a_question_offers_a_digit_for_each_visit() {
        let at = |text: &str| (text.parse().expect("an instant"), chrono_tz::America::New_York);
        let visits = vec![at("2026-09-30T16:30:00Z"), at("2026-10-01T13:00:00Z")];
        let text = Answer::Which { cancel: true, visits }.write(Language::English, Some(&clinic("Harbor")));
        let expected =
            "Harbor: which visit do you cancel? Reply 1: Wed, Sep 30, 12:30 PM, 2: Thu, Oct 1, 9:00 AM";
        assert_eq!(text.body, expected);
    }
}
