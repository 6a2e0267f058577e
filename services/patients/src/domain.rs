//! Values and rules of patients. No I/O, no clock.

pub mod answers;
pub mod form;
pub mod intake;

use std::fmt;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kit::ids::PatientId;
use phonenumber::country;
use proto::clinic::patients::v1::{SmsConsentSource, SmsConsentState};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Characters of an MRN at most.
pub const MAX_MRN: usize = 32;
/// Characters of a given or family name at most.
pub const MAX_NAME: usize = 100;
/// Characters of an e-mail address at most (RFC 5321, 4.5.3.1.3, without its brackets).
pub const MAX_EMAIL: usize = 254;
/// Characters of a language tag that every program must take (RFC 5646, 4.4.1).
const MAX_LANGUAGE: usize = 35;
/// How far the first time zone of the day is ahead of UTC: no date is today anywhere before it is there.
const FIRST_ZONE: TimeDelta = TimeDelta::hours(14);

/// A telephone number in E.164 (ITU-T), such as `+12025550123`. Not printed by `Debug`: it would end in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct E164(String);

impl E164 {
    /// Reads any notation with a country code, or the national one of `region`.
    pub fn parse(text: &str, region: country::Id) -> Option<Self> {
        /// Longer input is no telephone number in any notation.
        const MAX_NOTATION: usize = 64;
        if text.len() > MAX_NOTATION {
            return None;
        }
        let number = phonenumber::parse(Some(region), text).ok()?;
        let reachable = number.is_valid() && number.extension().is_none();
        reachable.then(|| Self(number.format().mode(phonenumber::Mode::E164).to_string()))
    }

    /// A number that was stored by us.
    pub(crate) fn stored(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// The number's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E164(…)")
    }
}

/// Who someone is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Medical record number, see [`is_mrn`].
    pub mrn: String,
    /// Given names, 1 to [`MAX_NAME`] characters.
    pub given_name: String,
    /// Family names, at most [`MAX_NAME`] characters; empty = none.
    pub family_name: String,
    /// Day of birth.
    pub birth_date: NaiveDate,
}

impl Identity {
    /// Both names as they are compared.
    pub fn search_name(&self) -> String {
        comparable(&format!("{} {}", self.given_name, self.family_name))
    }
}

/// How to reach someone.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// Number for texts.
    pub phone: Option<E164>,
    /// E-mail address; empty = none.
    pub email: String,
    /// BCP 47; empty = the network's default.
    pub language: String,
    /// IANA time zone; empty = that of the visit's clinic.
    pub time_zone: String,
}

/// A registered patient.
#[derive(Clone)]
pub struct Patient {
    /// Its id.
    pub id: PatientId,
    /// Who.
    pub identity: Identity,
    /// How to reach them.
    pub contact: Contact,
    /// The decision about texts in force; `None` = nobody was asked yet.
    pub consent: Option<Consent>,
    /// Counts the changes, from 1.
    pub version: i64,
    /// When registered.
    pub create_time: DateTime<Utc>,
    /// When last changed.
    pub update_time: DateTime<Utc>,
    /// The survivor this one was merged into.
    pub merged_into: Option<PatientId>,
}

impl Patient {
    /// Takes over what this one lacks and its duplicate has, and names the fields.
    pub fn take_over(&mut self, duplicate: &Self) -> Vec<&'static str> {
        fn fill(name: &'static str, place: &mut String, value: &str) -> Option<&'static str> {
            let lacking = place.is_empty() && !value.is_empty();
            lacking.then(|| {
                value.clone_into(place);
                name
            })
        }
        let (contact, theirs) = (&mut self.contact, &duplicate.contact);
        let phone = contact.phone.is_none() && theirs.phone.is_some();
        if phone {
            contact.phone.clone_from(&theirs.phone);
        }
        [
            fill("family_name", &mut self.identity.family_name, &duplicate.identity.family_name),
            phone.then_some("phone"),
            fill("email", &mut contact.email, &theirs.email),
            fill("language", &mut contact.language, &theirs.language),
            fill("time_zone", &mut contact.time_zone, &theirs.time_zone),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The duplicate's decision about texts that counts for this one from now on: a younger one about the same number.
    pub fn consent_of(&self, duplicate: &Self) -> Option<Consent> {
        let same_number = self.contact.phone.is_some() && self.contact.phone == duplicate.contact.phone;
        let theirs = duplicate.consent.as_ref().filter(|c| c.state != SmsConsentState::NotAsked)?;
        let newer = self.consent.as_ref().is_none_or(|own| own.yields_to(theirs.decide_time));
        (same_number && newer).then(|| theirs.clone())
    }
}

/// One merge in a survivor's history.
#[derive(Clone)]
pub struct Merge {
    /// Who was merged away.
    pub merged: PatientId,
    /// Its MRN.
    pub mrn: String,
    /// Why, 10 to 500 characters.
    pub reason: String,
    /// By whom: the token's subject.
    pub merged_by: String,
    /// When.
    pub merge_time: DateTime<Utc>,
}

/// One decision about texts, or its end by a new phone number.
#[derive(Clone)]
pub struct Consent {
    /// What was decided.
    pub state: SmsConsentState,
    /// How it reached us.
    pub source: SmsConsentSource,
    /// Words shown, told or sent, at most 1,000 characters.
    pub wording: String,
    /// BCP 47 tag of the wording; empty = not known.
    pub wording_language: String,
    /// When the patient decided.
    pub decide_time: DateTime<Utc>,
    /// When it was recorded.
    pub record_time: DateTime<Utc>,
    /// Who recorded it: the token's subject.
    pub recorded_by: String,
    /// Whether it ever came into force.
    pub effective: bool,
}

impl Consent {
    /// What a new phone number puts in force: nobody asked for that number yet.
    pub fn not_asked(now: DateTime<Utc>, recorded_by: &str) -> Self {
        Self {
            state: SmsConsentState::NotAsked,
            source: SmsConsentSource::Unspecified,
            wording: String::new(),
            wording_language: String::new(),
            decide_time: now,
            record_time: now,
            recorded_by: recorded_by.to_owned(),
            effective: true,
        }
    }

    /// Whether a decision made at `decide_time` replaces this one.
    pub fn yields_to(&self, decide_time: DateTime<Utc>) -> bool {
        self.decide_time <= decide_time
    }
}

/// A patient found, and how well it fits.
#[derive(Clone)]
pub struct Match {
    /// The patient.
    pub patient: Patient,
    /// Thousandths, 0 to 1000.
    pub score: i32,
    /// What fitted, in the contract's words.
    pub matched_fields: Vec<&'static str>,
}

/// Text as it is compared: words of lower-case letters and digits without accents, one space between. An apostrophe joins what
/// stands around it, any other sign parts it.
pub fn comparable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match without_stroke(c) {
            Some(letters) => plain.push_str(letters),
            None if c.is_alphanumeric() => plain.push(c),
            None if matches!(c, '\'' | '’' | 'ʼ' | '`') => {}
            None => plain.push(' '),
        }
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Letters that Unicode does not take apart, as they are written without their strokes and ligatures.
fn without_stroke(c: char) -> Option<&'static str> {
    Some(match c {
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ı' => "i",
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        _ => return None,
    })
}

/// How many slips make `word` of `meant`, if they are few enough for a typo: a letter missing, added, another, or two exchanged; two
/// slips in longer words.
pub fn slips(word: &str, meant: &str) -> Option<usize> {
    /// From this length on two slips still leave enough.
    const LONG: usize = 6;
    let allowed = if word.chars().count() < LONG { 1 } else { 2 };
    Some(strsim::osa_distance(word, meant)).filter(|slips| *slips <= allowed)
}

/// 1 to [`MAX_MRN`] upper-case letters, digits or hyphens.
pub fn is_mrn(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_MRN).contains(&text.len()) && text.bytes().all(good)
}

/// An address that mail could be sent to: one `@` between a local part and a domain with a dot, no spaces. Whether it exists only
/// a sent message tells.
pub fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    text.chars().count() <= MAX_EMAIL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && parts.is_some_and(|(local, domain)| {
            let labels: Vec<_> = domain.split('.').collect();
            !local.is_empty()
                && !domain.contains('@')
                && labels.len() > 1
                && labels.iter().all(|l| !l.is_empty())
        })
}

/// A well-formed language tag (RFC 5646, 2.1): a language of two or three letters, then subtags of one to eight letters or
/// digits.
pub fn is_language(text: &str) -> bool {
    let mut subtags = text.split('-');
    let language = subtags.next().unwrap_or_default();
    text.len() <= MAX_LANGUAGE
        && (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && subtags.all(|s| (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether someone can have been born on `day`, as seen at `now`: it has begun somewhere.
pub fn is_born(day: NaiveDate, now: DateTime<Utc>) -> bool {
    day <= (now + FIRST_ZONE).date_naive()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(text: &str) -> Option<String> {
        E164::parse(text, country::Id::US).map(|p| p.as_str().to_owned())
    }

    #[test]
    fn one_number_has_one_spelling_whatever_its_notation() {
        for text in ["(202) 555-0123", "202-555-0123", "+1 202 555 0123", "+1-202-555-0123", "1 202.555.0123"]
        {
            assert_eq!(phone(text).as_deref(), Some("+12025550123"), "{text}");
        }
        assert_eq!(phone("+49 30 901820").as_deref(), Some("+4930901820"));
        assert_eq!(phone("+52 55 5555 1234").as_deref(), Some("+525555551234"));
    }

    #[test]
    fn what_nobody_can_be_called_at_is_no_number() {
        for text in [
            "",
            "911",
            "+1 202 555",
            "+999 123456789",
            "phone",
            "202-555-0123 ext. 4",
            "🙂",
            &"1".repeat(500),
        ] {
            assert_eq!(phone(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_never_printed_for_debugging() {
        let number = E164::parse("202-555-0123", country::Id::US).expect("a number");
        assert!(!format!("{number:?}").contains("202"));
    }

    #[test]
    fn names_compare_without_accents_case_and_spaces() {
        assert_eq!(comparable("  José  María\tNÚÑEZ "), "jose maria nunez");
        assert_eq!(comparable("ＬＩ Ⅳ"), "li iv");
        assert_eq!(comparable("Łukasz O’Brien-Sørensen, Jr."), "lukasz obrien sorensen jr");
    }

    #[test]
    fn a_slip_or_two_in_a_long_word_is_a_typo_and_more_is_another_word() {
        for (word, meant) in
            [("nunes", "nunez"), ("smiht", "smith"), ("kathrin", "katherine"), ("jonson", "johnson")]
        {
            assert!(slips(word, meant).is_some(), "{word}");
        }
        for (word, other) in [("king", "knight"), ("maria", "marcos"), ("johnson", "jensen")] {
            assert_eq!(slips(word, other), None, "{word}");
        }
    }

    #[test]
    fn shapes_are_checked() {
        for (good, bad) in [("M-0001", "m1"), ("A", ""), ("9", "A B")] {
            assert!(is_mrn(good) && !is_mrn(bad));
        }
        for (good, bad) in
            [("a@b.org", "a@b"), ("a.b+c@d.e.org", "a@@b.org"), ("ü@ü.de", "a b@c.org"), ("a@b.c", "@b.c")]
        {
            assert!(is_email(good) && !is_email(bad), "{good} {bad}");
        }
        for (good, bad) in [("es", "e"), ("en-US", "en_US"), ("zh-Hant-TW", "english"), ("es-419", "es-")] {
            assert!(is_language(good) && !is_language(bad), "{good} {bad}");
        }
    }

    #[test]
    fn today_somewhere_is_a_birth_date_and_the_day_after_is_not() {
        let now: DateTime<Utc> = "2026-03-09T12:00:00Z".parse().expect("an instant");
        assert!(is_born(NaiveDate::from_ymd_opt(2026, 3, 10).expect("a date"), now));
        assert!(!is_born(NaiveDate::from_ymd_opt(2026, 3, 11).expect("a date"), now));
    }
}
