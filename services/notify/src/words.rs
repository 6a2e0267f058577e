//! The words of each message: patterns from [`templates`](crate::templates), else built in, filled with what is known of a visit.
//!
//! Dates and times are the clinic's own wall clock. Texts carry neither provider nor reason. Replies are digits; carriers take words
//! such as YES and CANCEL for themselves.

mod builtin;
pub mod template;

use chrono::{DateTime, Datelike as _, Utc};
use chrono_tz::Tz;
use proto::clinic::notify::v1::{Channel, MessageKind, ReminderKind, TextEncoding};

use crate::domain::notice::{Answer, Facts};
use crate::gsm7::{self, Measure, ONE_TEXT};
use crate::store::Message;
use template::{Pattern, Placeholder, Values, clean};

/// The digit that confirms a visit.
pub const CONFIRM_DIGIT: &str = "1";
/// The digit that cancels it.
pub const CANCEL_DIGIT: &str = "2";
/// The digit that takes an offered time.
pub const ACCEPT_DIGIT: &str = "1";
/// The digit that passes it on.
pub const DECLINE_DIGIT: &str = "2";

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
/// Letters that a short weekday or month has in Spanish.
const SHORT: usize = 3;

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
        match base(tag).as_str() {
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

    /// The words of a kind that are in force unless others were set: subject (empty for texts) and body. `None` = there are none.
    pub fn builtin(self, kind: MessageKind, channel: Channel) -> Option<(&'static str, &'static str)> {
        match channel {
            Channel::Sms => builtin::text(kind, self).map(|body| ("", body)),
            Channel::Email => builtin::email(kind, self),
            Channel::Unspecified => None,
        }
    }

    fn late_fee(self) -> &'static str {
        match self {
            Self::English => "A late cancellation fee applies.",
            Self::Spanish => "Se aplica un cargo por cancelación tardía.",
        }
    }

    /// The sentence about an intake form that waits.
    fn form(self) -> &'static str {
        match self {
            Self::English => "Please fill in your form.",
            Self::Spanish => "Complete su formulario.",
        }
    }
}

/// The language of a BCP 47 tag without its region, in lower case.
pub fn base(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

/// How days and times are told in a language; in one that we know nothing of, as ISO 8601 has them.
#[derive(Clone, Copy, Debug)]
struct Style(Option<Language>);

impl Style {
    fn date(self, local: &DateTime<Tz>) -> String {
        match self.0 {
            Some(Language::English) => local.format("%a, %b %-d").to_string(),
            Some(Language::Spanish) => {
                format!("{} {} de {}", weekday(local), local.day(), MONTHS[local.month0() as usize])
            }
            None => local.format("%Y-%m-%d").to_string(),
        }
    }

    fn time(self, local: &DateTime<Tz>) -> String {
        let format = if self.0.is_some() { "%-I:%M %p" } else { "%H:%M" };
        local.format(format).to_string()
    }

    /// Day and time, for lists of them.
    fn moment(self, local: &DateTime<Tz>) -> String {
        let short = |word: &str| word.chars().take(SHORT).collect::<String>();
        let day = match self.0 {
            Some(Language::Spanish) => {
                let month = short(MONTHS[local.month0() as usize]);
                format!("{} {} {month}", short(weekday(local)), local.day())
            }
            Some(Language::English) | None => self.date(local),
        };
        format!("{day} {}", self.time(local))
    }
}

fn weekday(local: &DateTime<Tz>) -> &'static str {
    WEEKDAYS[local.weekday().num_days_from_monday() as usize]
}

/// Times to choose from, each after the digit that takes it: "1: Mon, Jun 8 9:30 AM, 2: …".
fn choices(style: Style, times: impl Iterator<Item = DateTime<Tz>>) -> String {
    let told = times.zip(1..).map(|(time, digit)| format!("{digit}: {}", style.moment(&time)));
    told.collect::<Vec<_>>().join(", ")
}

/// What a message speaks of.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The clinic, as patients know it; empty = none.
    pub clinic_name: &'a str,
    /// Its phone, E.164; empty = none.
    pub clinic_phone: &'a str,
    /// When the visit starts; `None` = it is about no visit.
    pub start: Option<DateTime<Utc>>,
    /// The clinic's time zone.
    pub zone: Tz,
    /// The visit in the portal; empty = there is no portal.
    pub link: &'a str,
    /// Its intake form waits to be submitted.
    pub form_open: bool,
    /// Where it waits; empty = none is open, or there is no portal.
    pub intake_link: &'a str,
    /// What else it says.
    pub facts: &'a Facts,
}

impl About<'_> {
    /// The value of every placeholder, told in the language `tag`.
    pub fn values(&self, tag: &str, default: Language) -> Values {
        let language = Language::of(tag);
        let style = Style(language);
        let date = |at: DateTime<Utc>| style.date(&at.with_timezone(&self.zone));
        let time = |at: DateTime<Utc>| style.time(&at.with_timezone(&self.zone));
        let spoken = language.unwrap_or(default);
        let fee = if self.facts.late_fee { spoken.late_fee() } else { "" };
        let form = if self.form_open { spoken.form() } else { "" };
        let (day, hour) =
            (self.start.map(date).unwrap_or_default(), self.start.map(time).unwrap_or_default());
        let answer = self.facts.answer.as_ref();
        let outcome = answer.and_then(|answer| builtin::outcome(answer, spoken, (&day, &hour), self.link));
        let outcome = outcome.map(|told| match answer {
            Some(Answer::Cancelled) => format!("{told} {fee}").trim_end().to_owned(),
            _ => told,
        });
        let which = if let Some(Answer::Which(visits)) = answer { visits.as_slice() } else { &[] };
        let which = which.iter().map(|(start, zone)| start.with_timezone(zone));
        let instead = self.facts.alternatives.iter().map(|other| other.start.with_timezone(&self.zone));
        let mut values: Values = [
            (Placeholder::ClinicName, clean(self.clinic_name)),
            (Placeholder::ClinicPhone, clean(self.clinic_phone)),
            (Placeholder::Date, day),
            (Placeholder::Time, hour),
            (Placeholder::ConfirmDigit, CONFIRM_DIGIT.to_owned()),
            (Placeholder::CancelDigit, CANCEL_DIGIT.to_owned()),
            (Placeholder::AcceptDigit, ACCEPT_DIGIT.to_owned()),
            (Placeholder::DeclineDigit, DECLINE_DIGIT.to_owned()),
            (Placeholder::Form, form.to_owned()),
            (Placeholder::IntakeLink, self.intake_link.to_owned()),
            (Placeholder::Link, self.link.to_owned()),
            (Placeholder::OldDate, self.facts.old_start.map(date).unwrap_or_default()),
            (Placeholder::OldTime, self.facts.old_start.map(time).unwrap_or_default()),
            (Placeholder::Fee, fee.to_owned()),
            (Placeholder::Alternatives, choices(style, instead)),
            (Placeholder::ExpiryTime, self.facts.offer_ends.map(time).unwrap_or_default()),
            (Placeholder::Outcome, outcome.unwrap_or_default()),
            (Placeholder::Choices, choices(style, which)),
        ]
        .into();
        let given = self.facts.given.iter();
        values.extend(given.filter_map(|(name, value)| Some((Placeholder::of(name)?, clean(value)))));
        values
    }
}

/// A message ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Subject of an e-mail; empty for texts.
    pub subject: String,
    /// Its words.
    pub body: String,
    /// What a text costs; no encoding and no segments for an e-mail.
    pub measure: Measure,
}

impl Text {
    /// The text of a message that was written before.
    pub fn of(message: &Message) -> Self {
        Self { subject: String::new(), measure: gsm7::measure(&message.body), body: message.body.clone() }
    }
}

/// A text message: one of GSM-7 where the clinic's name can be written in that alphabet and the rest leaves room for it. One that is too
/// long goes without the phone if it has a link, and a name that is too long is shortened.
pub fn sms(pattern: &Pattern, mut values: Values) -> Text {
    let whole = written(pattern, &values);
    let fits = |text: &Text| text.measure.encoding != TextEncoding::Gsm7 || text.measure.units <= ONE_TEXT;
    let mut name: Vec<char> =
        values.get(&Placeholder::ClinicName).map(|name| name.chars().collect()).unwrap_or_default();
    let mut text = whole.clone();
    if !fits(&text)
        && pattern.placeholders().contains(&Placeholder::Link)
        && is_said(&values, Placeholder::Link)
    {
        values.remove(&Placeholder::ClinicPhone);
        text = written(pattern, &values);
    }
    while !fits(&text) {
        if name.pop().is_none() {
            // Nothing is won without the name: two texts that say who writes are better.
            return whole;
        }
        let short: String = name.iter().collect();
        values.insert(Placeholder::ClinicName, format!("{}.", short.trim_end()));
        text = written(pattern, &values);
    }
    text
}

fn is_said(values: &Values, placeholder: Placeholder) -> bool {
    values.get(&placeholder).is_some_and(|value| !value.is_empty())
}

fn written(pattern: &Pattern, values: &Values) -> Text {
    let body = gsm7::simplify(&pattern.fill(values));
    Text { subject: String::new(), measure: gsm7::measure(&body), body }
}

/// An e-mail.
pub fn email(subject: &Pattern, body: &Pattern, values: &Values) -> Text {
    let body = body.fill(values);
    let measure = Measure { encoding: TextEncoding::Unspecified, units: body.chars().count(), segments: 0 };
    Text { subject: subject.fill(values), body, measure }
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
mod tests;
