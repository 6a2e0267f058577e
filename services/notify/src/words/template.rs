//! Patterns: texts with `{placeholders}`, read and checked before anybody is written to.
//!
//! A sentence ends with a line, or with a full stop, exclamation or question mark before a space. One that has a placeholder without
//! a value is left out: "Questions: {clinic_phone}" is not said where the clinic has no phone.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use proto::clinic::notify::v1::{Channel, MessageKind};

use crate::gsm7;

/// Calls `$each!` with every placeholder and the longest value it is checked with.
macro_rules! placeholders {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $longest:literal;)*) => {
        /// What a pattern leaves room for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Placeholder {
            $($(#[$doc])* $name,)*
        }

        impl Placeholder {
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As it is written between braces.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// A value as long as they get: what a text that may not grow too long is measured with, and the sample of previews.
            pub fn longest(self) -> &'static str {
                match self { $(Self::$name => $longest,)* }
            }
        }
    };
}

placeholders! {
    /// The clinic, as patients know it. Texts shorten it, so no clinic's is longer here.
    ClinicName = "clinic_name", "Harbor Street Clinic";
    /// Its phone, E.164.
    ClinicPhone = "clinic_phone", "+12025550123";
    /// Day of the visit, at the clinic.
    Date = "date", "miércoles 30 de septiembre";
    /// Its time of day.
    Time = "time", "12:30 PM";
    /// Reply that confirms the visit.
    ConfirmDigit = "confirm_digit", "1";
    /// Reply that cancels it.
    CancelDigit = "cancel_digit", "2";
    /// Reply that takes an offered time.
    AcceptDigit = "accept_digit", "1";
    /// Reply that passes it on.
    DeclineDigit = "decline_digit", "2";
    /// That the intake form waits. No value when none is open.
    Form = "form", "Please fill in your form.";
    /// Where it waits. No value when none is open.
    IntakeLink = "intake_link", "https://portal.clinic.example/intake/01890a5d-ac96-774b-bcce-b302099a8057";
    /// The visit in the portal. No value without a portal.
    Link = "link", "https://portal.clinic.example/visits/01890a5d-ac96-774b-bcce-b302099a8057";
    /// The day it was on.
    OldDate = "old_date", "miércoles 23 de septiembre";
    /// The time it was at.
    OldTime = "old_time", "12:30 PM";
    /// That a fee is due. No value when none is.
    Fee = "fee", "Se aplica un cargo por cancelación tardía.";
    /// Times to be had instead, each with its digit. No value when there are none.
    Alternatives = "alternatives", "1: mié 30 sep 12:30 PM, 2: jue 1 oct 12:30 PM, 3: vie 2 oct 12:30 PM";
    /// Money, with its currency.
    Amount = "amount", "$1,000.00";
    /// When an offer ends.
    ExpiryTime = "expiry_time", "12:30 PM";
    /// How late the clinic is.
    DelayMinutes = "delay_minutes", "120";
    /// A one-time code.
    Code = "code", "12345678";
    /// How long it holds.
    ExpiryMinutes = "expiry_minutes", "10";
    /// What became of a reply.
    Outcome = "outcome",
        "Su cita del miércoles 30 de septiembre, 12:30 PM queda cancelada. Se aplica un cargo por cancelación tardía.";
    /// Visits that a reply may have meant, each with its digit.
    Choices = "choices", "1: mié 30 sep 12:30 PM, 2: jue 1 oct 12:30 PM, 3: vie 2 oct 12:30 PM";
}

impl Placeholder {
    /// The placeholder of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }

    /// Whether a message may have no value for it.
    fn may_lack(self, kind: MessageKind) -> bool {
        match self {
            Self::ClinicPhone
            | Self::Form
            | Self::IntakeLink
            | Self::Link
            | Self::Fee
            | Self::Alternatives => true,
            Self::ClinicName => {
                !about_a_visit(kind) && !matches!(kind, MessageKind::PaymentProblem | MessageKind::CallClinic)
            }
            Self::Date | Self::Time => !about_a_visit(kind),
            _ => false,
        }
    }
}

/// Values by placeholder. What has none, or an empty one, is left out with its sentence.
pub type Values = BTreeMap<Placeholder, String>;

/// Whether a kind of message is always about one visit or offer.
pub fn about_a_visit(kind: MessageKind) -> bool {
    use MessageKind as K;
    match kind {
        K::Reminder24h | K::Reminder2h | K::Booked | K::Rescheduled | K::Cancelled | K::Displaced => true,
        K::IntakeOpen | K::WaitlistOffer | K::LateVisit => true,
        K::PaymentProblem | K::CallClinic | K::SignInCode | K::ReplyOutcome | K::ReplyChoice => false,
        K::Help | K::OptIn | K::OptOut | K::Inbound | K::Unspecified => false,
    }
}

/// The placeholders that words of a kind may use.
pub fn allowed(kind: MessageKind) -> BTreeSet<Placeholder> {
    use MessageKind as K;
    use Placeholder as P;
    let own: &[P] = match kind {
        K::Reminder24h | K::Reminder2h => {
            &[P::Date, P::Time, P::ConfirmDigit, P::CancelDigit, P::Form, P::IntakeLink]
        }
        K::Booked => &[P::Date, P::Time, P::IntakeLink, P::Link],
        K::Rescheduled => &[P::Date, P::Time, P::OldDate, P::OldTime, P::Link],
        K::Cancelled => &[P::Date, P::Time, P::Fee],
        K::Displaced => &[P::Date, P::Time, P::Alternatives, P::Link],
        K::PaymentProblem => &[P::Date, P::Time, P::Amount, P::Link],
        K::IntakeOpen => &[P::Date, P::Time, P::IntakeLink],
        K::WaitlistOffer => &[P::Date, P::Time, P::AcceptDigit, P::DeclineDigit, P::ExpiryTime, P::Link],
        K::LateVisit => &[P::Date, P::Time, P::DelayMinutes],
        K::CallClinic => &[P::Date, P::Time],
        K::SignInCode => &[P::Code, P::ExpiryMinutes],
        K::ReplyOutcome => &[P::Outcome],
        K::ReplyChoice => &[P::Choices],
        K::Help | K::OptIn | K::OptOut => &[],
        K::Inbound | K::Unspecified => return BTreeSet::new(),
    };
    own.iter().copied().chain([P::ClinicName, P::ClinicPhone]).collect()
}

/// A text with room for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// To be said as it is.
    Text(String),
    /// To be filled in.
    Value(Placeholder),
    /// A sentence ends here.
    End,
}

impl Pattern {
    /// Reads a text in which `{name}` is a placeholder, `{{` and `}}` are braces; otherwise says, in English, what is wrong.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut pieces, mut faults, mut said) = (vec![], vec![], String::new());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, rest.peek()) {
                ('{', Some('{')) | ('}', Some('}')) => said.extend(rest.next()),
                ('}', _) => faults.push("a closing brace stands alone; write }} for a brace".to_owned()),
                ('{', _) => {
                    let name: String = iter::from_fn(|| rest.next_if(|c| !"{}\n".contains(*c))).collect();
                    if rest.next_if_eq(&'}').is_none() {
                        faults.push("an opening brace is not closed; write {{ for a brace".to_owned());
                        continue;
                    }
                    match Placeholder::of(&name) {
                        Some(known) => {
                            pieces.push(Piece::Text(std::mem::take(&mut said)));
                            pieces.push(Piece::Value(known));
                        }
                        None => faults.push(format!("{{{name}}} is no placeholder")),
                    }
                }
                ('\n', _) => {
                    said.push(c);
                    pieces.extend([Piece::Text(std::mem::take(&mut said)), Piece::End]);
                }
                ('.' | '!' | '?', Some(' ')) => {
                    said.extend([c, ' ']);
                    rest.next();
                    pieces.extend([Piece::Text(std::mem::take(&mut said)), Piece::End]);
                }
                (c, _) => said.push(c),
            }
        }
        pieces.push(Piece::Text(said));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        if faults.is_empty() { Ok(Self(pieces)) } else { Err(faults) }
    }

    /// The placeholders it uses.
    pub fn placeholders(&self) -> BTreeSet<Placeholder> {
        self.0
            .iter()
            .filter_map(|piece| if let Piece::Value(name) = piece { Some(*name) } else { None })
            .collect()
    }

    /// The text with its values, without the sentences that lack one.
    pub fn fill(&self, values: &Values) -> String {
        let mut filled = String::new();
        for sentence in self.0.split(|piece| *piece == Piece::End) {
            let said: Option<String> = sentence
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => Some(text.as_str()),
                    Piece::Value(name) => {
                        values.get(name).map(String::as_str).filter(|value| !value.is_empty())
                    }
                    Piece::End => None,
                })
                .collect();
            filled.extend(said);
        }
        filled.truncate(filled.trim_end().len());
        filled
    }
}

/// Segments of a text message at most, filled with the longest values.
const MOST_SEGMENTS: usize = 3;
/// Characters of an e-mail at most.
const MOST_CHARACTERS: usize = 10_000;
/// Characters of its subject at most.
const MOST_SUBJECT: usize = 200;
/// Words that carriers take for themselves when they come as a reply: nobody may be asked for them. STOP, START and HELP mean to us
/// what they mean to carriers.
const CARRIERS_OWN: [&str; 10] =
    ["YES", "CANCEL", "END", "QUIT", "UNSUBSCRIBE", "STOPALL", "REVOKE", "OPTOUT", "UNSTOP", "INFO"];

/// What is wrong with words that somebody wants to set, by field: an English sentence each.
pub fn problems(
    kind: MessageKind,
    channel: Channel,
    subject: &str,
    body: &str,
) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    let mut refuse = |field, sentence: String| found.push((field, sentence));
    let parts = [("body", body), ("subject", subject)];
    for (field, text) in parts {
        let pattern = match Pattern::parse(text) {
            Ok(pattern) => pattern,
            Err(faults) => {
                faults.into_iter().for_each(|fault| refuse(field, fault));
                continue;
            }
        };
        for foreign in pattern.placeholders().difference(&allowed(kind)) {
            refuse(field, format!("{{{}}} has no value in this kind of message", foreign.name()));
        }
        if channel == Channel::Sms && field == "body" {
            let longest = gsm7::measure(&gsm7::simplify(&pattern.fill(&longest_values(&pattern))));
            if longest.segments > MOST_SEGMENTS {
                refuse(
                    field,
                    format!(
                        "takes {} segments with the longest values, and at most {MOST_SEGMENTS} may be sent",
                        longest.segments
                    ),
                );
            }
            let taken = |word: &&str| CARRIERS_OWN.contains(word);
            if let Some(word) = text.split(|c: char| !c.is_alphanumeric()).find(taken) {
                refuse(
                    field,
                    format!("asks for {word}, which carriers take for themselves; replies are digits"),
                );
            }
        }
        let bare: Values =
            longest_values(&pattern).into_iter().filter(|(name, _)| !name.may_lack(kind)).collect();
        if !text.is_empty() && pattern.fill(&bare).is_empty() {
            refuse(field, "says nothing when a placeholder has no value".to_owned());
        }
        if text.chars().any(|c| c.is_control() && c != '\n' || is_bidi_control(c)) {
            refuse(field, "has characters that cannot be seen".to_owned());
        }
    }
    if channel == Channel::Email {
        if subject.is_empty() || subject.chars().count() > MOST_SUBJECT || subject.contains('\n') {
            refuse("subject", format!("must be one line of 1 to {MOST_SUBJECT} characters"));
        }
        if body.chars().count() > MOST_CHARACTERS {
            refuse("body", format!("must be at most {MOST_CHARACTERS} characters long"));
        }
    } else if !subject.is_empty() {
        refuse("subject", "must be empty: a text message has none".to_owned());
    }
    found
}

/// The longest value of each placeholder that a pattern uses.
pub fn longest_values(pattern: &Pattern) -> Values {
    pattern.placeholders().into_iter().map(|name| (name, name.longest().to_owned())).collect()
}

/// A value without what could break a line or turn the text around it: control characters become spaces.
pub fn clean(value: &str) -> String {
    value.chars().filter(|c| !is_bidi_control(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether a character overrides the direction of those that follow it (Unicode, UAX #9).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(pairs: &[(Placeholder, &str)]) -> Values {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    fn filled(text: &str, pairs: &[(Placeholder, &str)]) -> String {
        Pattern::parse(text).expect("a pattern").fill(&values(pairs))
    }

    #[test]
    fn sentences_without_a_value_are_left_out() {
        let text = "{clinic_name}: cancelled. {fee} Bye!\nCall {clinic_phone}";
        let name = (Placeholder::ClinicName, "Harbor");
        let (fee, phone) = ((Placeholder::Fee, "A fee."), (Placeholder::ClinicPhone, "+1"));
        assert_eq!(filled(text, &[name, fee, phone]), "Harbor: cancelled. A fee. Bye!\nCall +1");
        assert_eq!(filled(text, &[name, phone]), "Harbor: cancelled. Call +1");
        assert_eq!(filled(text, &[name, (Placeholder::ClinicPhone, "")]), "Harbor: cancelled.");
    }

    #[test]
    fn doubled_braces_are_braces_and_values_are_never_read_as_patterns() {
        assert_eq!(
            filled("{{date}} {clinic_name}", &[(Placeholder::ClinicName, "{time}. x")]),
            "{date} {time}. x"
        );
    }

    #[test]
    fn what_cannot_be_a_pattern_is_said_at_once() {
        let faults = Pattern::parse("{when} } {open").expect_err("three faults");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    fn refused(kind: MessageKind, channel: Channel, subject: &str, body: &str) -> Vec<&'static str> {
        problems(kind, channel, subject, body).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn words_are_checked_before_they_are_set() {
        let (booked, sms, email) = (MessageKind::Booked, Channel::Sms, Channel::Email);
        assert!(refused(booked, sms, "", "{clinic_name}: {date}, {time}. See {intake_link}").is_empty());
        assert!(refused(booked, email, "On {date}", "See you.").is_empty());
        assert_eq!(refused(booked, sms, "", "{old_date}"), ["body"]);
        assert_eq!(refused(booked, sms, "", "Reply YES to confirm"), ["body"]);
        assert_eq!(refused(MessageKind::Help, sms, "", "Reply STOP to end these."), [] as [&str; 0]);
        assert_eq!(refused(booked, sms, "Hello", "Hello"), ["subject"]);
        assert_eq!(refused(booked, email, "", "Hello"), ["subject"]);
        assert_eq!(refused(booked, sms, "", "{intake_link}"), ["body"]);
        assert_eq!(refused(booked, sms, "", "a\u{202e}b"), ["body"]);
        // Four hundred characters of one alphabet, then of the other.
        assert!(refused(booked, sms, "", &"a".repeat(400)).is_empty());
        assert_eq!(refused(booked, sms, "", &"ж".repeat(400)), ["body"]);
    }

    #[test]
    fn values_lose_what_would_turn_or_break_the_text() {
        assert_eq!(clean("Clinic\u{202e}\r\n🙂 مرحبا"), "Clinic  🙂 مرحبا");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}a-z_. \\n!?🙂ב]{0,60}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.fill(&longest_values(&pattern));
            }
        }

        #[test]
        fn a_text_without_braces_is_said_as_it_is(text in "[a-zA-Z0-9 .!?\\n,:é🙂ב]{0,80}") {
            prop_assert_eq!(Pattern::parse(&text).expect("a pattern").fill(&Values::new()), text.trim_end());
        }
    }
}
