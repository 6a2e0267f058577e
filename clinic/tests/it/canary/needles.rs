//! People whose data no chance produces, the ways that data may be spelled, and the search for it.

use std::collections::BTreeMap;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use patients::domain::comparable;
use proto::google::r#type::Date;

/// Shorter spellings could be chance.
const SHORTEST: usize = 7;
/// What is shown of an output around what was found, in bytes.
const AROUND: usize = 80;

/// What of a patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Name,
    BirthDate,
    Phone,
    Email,
    Mrn,
    Answer,
}

pub(super) const GIVEN_NAME: &str = "Zephyrine Ottoline";
pub(super) const FAMILY_NAME: &str = "Quackenbøsh-Vandersloot";
pub(super) const BORN: Date = Date { year: 1931, month: 7, day: 23 };
pub(super) const PHONE: &str = "(202) 555-0147";
pub(super) const EMAIL: &str = "zephyrine.q@canary-mail.example";
pub(super) const MRN: &str = "CNRY-7741-XZ";
/// The same person, registered a second time.
pub(super) const OTHER_FAMILY_NAME: &str = "Quackenbosh";
pub(super) const OTHER_PHONE: &str = "202.555.0158";
pub(super) const OTHER_MRN: &str = "CNRY-8852-YW";
/// Where she moves to.
pub(super) const NEW_PHONE: &str = "+1 202 555 0169";
pub(super) const NEW_EMAIL: &str = "Moved.Xylographer@canary-mail.example";
/// What she answers, and what she drops again.
pub(super) const ANSWER: &str = "hippopotomonstrosity of the left elbow";
pub(super) const DRAFTED: &str = "xylorimbaphobia";
/// A name she gives an answer herself.
pub(super) const ANSWER_KEY: &str = "umbrellabirdcount";
/// Someone whose registration the database refuses.
pub(super) const REFUSED_NAME: &str = "Wilhelmintrude";

const TEXTS: [(Kind, &str); 17] = [
    (Kind::Name, GIVEN_NAME),
    (Kind::Name, FAMILY_NAME),
    (Kind::Name, OTHER_FAMILY_NAME),
    (Kind::Name, REFUSED_NAME),
    (Kind::BirthDate, "1931-07-23"),
    (Kind::BirthDate, "07/23/1931"),
    (Kind::BirthDate, "23.07.1931"),
    (Kind::Phone, "+12025550147"),
    (Kind::Phone, "+12025550158"),
    (Kind::Phone, "+12025550169"),
    (Kind::Email, EMAIL),
    (Kind::Email, NEW_EMAIL),
    (Kind::Mrn, MRN),
    (Kind::Mrn, OTHER_MRN),
    (Kind::Answer, ANSWER),
    (Kind::Answer, DRAFTED),
    (Kind::Answer, ANSWER_KEY),
];

/// The ways people and programs write `text` down, before any encoding.
fn written(kind: Kind, text: &str) -> Vec<String> {
    let joined = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    let mut ways =
        vec![text.to_owned(), text.to_lowercase(), comparable(text), joined(text), joined(&comparable(text))];
    match kind {
        Kind::Name => {
            let words = |text: &str| text.split([' ', '-']).map(str::to_owned).collect::<Vec<_>>();
            ways.extend(words(text).into_iter().chain(words(&comparable(text))));
        }
        Kind::Phone => {
            let digits = joined(text);
            let (area, exchange, line) = (&digits[1..4], &digits[4..7], &digits[7..]);
            ways.push(digits[1..].to_owned());
            ways.extend(["-", ".", " "].map(|by| format!("{area}{by}{exchange}{by}{line}")));
            ways.push(format!("({area}) {exchange}-{line}"));
        }
        Kind::Email => ways.extend(text.split('@').map(str::to_owned)),
        Kind::BirthDate | Kind::Mrn | Kind::Answer => {}
    }
    ways
}

/// What becomes of `text` on its way into a URL, a form, JSON, a debug line, hexadecimal digits or base64 among other bytes.
fn encoded(text: &str) -> Vec<String> {
    let percent = |space: &str| -> String {
        let byte = |b: u8| match b {
            b' ' => space.to_owned(),
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let escaped = |escape: fn(char) -> String| -> String {
        text.chars().map(|c| if c.is_ascii() { c.to_string() } else { escape(c) }).collect()
    };
    let mut ways = vec![
        text.to_owned(),
        percent("%20"),
        percent("+"),
        escaped(|c| format!("\\u{:04x}", u32::from(c))),
        escaped(|c| c.escape_unicode().to_string()),
        hex::encode(text),
    ];
    // Base64 spells a text in three ways, by where in the stream it begins; the digits at its ends belong to its neighbours, too.
    for before in 0..3 {
        let bytes = [vec![0; before], text.as_bytes().to_vec()].concat();
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let digits = alphabet.encode(&bytes);
            ways.push(digits[(before * 8).div_ceil(6)..bytes.len() * 8 / 6].to_owned());
        }
    }
    ways
}

/// Finds everything of a canary.
pub(super) struct Search {
    machine: AhoCorasick,
    kinds: Vec<Kind>,
}

impl Search {
    pub(super) fn new() -> Self {
        let mut needles = BTreeMap::new();
        for (kind, text) in TEXTS {
            for spelling in written(kind, text).iter().flat_map(|way| encoded(way)) {
                if spelling.len() >= SHORTEST {
                    needles.insert(spelling.to_lowercase(), kind);
                }
            }
        }
        let (spellings, kinds): (Vec<_>, Vec<_>) = needles.into_iter().unzip();
        let machine = AhoCorasick::builder().ascii_case_insensitive(true).build(spellings);
        Self { machine: machine.expect("a few thousand short spellings"), kinds }
    }

    /// What of a canary stands in `bytes`, with the surroundings of the first place of each kind.
    pub(super) fn find(&self, bytes: &[u8]) -> BTreeMap<Kind, String> {
        let mut found = BTreeMap::new();
        for place in self.machine.find_overlapping_iter(bytes) {
            found.entry(self.kinds[place.pattern().as_usize()]).or_insert_with(|| {
                let around = place.start().saturating_sub(AROUND)..(place.end() + AROUND).min(bytes.len());
                String::from_utf8_lossy(&bytes[around]).into_owned()
            });
        }
        found
    }
}

/// What leaks have looked like elsewhere: one of each kind and way.
pub(super) const LEAKS: [(Kind, &[u8]); 20] = [
    (Kind::Name, b"patient Zephyrine Ottoline called"),
    (Kind::Name, b"ZEPHYRINE"),
    (Kind::Name, "q=Quackenb\u{f8}sh".as_bytes()),
    (Kind::Name, br#"{"family":"Quackenb\u00f8sh-Vandersloot"}"#),
    (Kind::Name, b"?query=quackenbosh+vandersloot&page=1"),
    (Kind::Name, b"zephyrineottoline.pdf"),
    (Kind::Name, b"?name=Quackenb%C3%B8sh-Vandersloot"),
    (Kind::BirthDate, b"born on 1931-07-23."),
    (Kind::BirthDate, b"dob=07%2F23%2F1931"),
    (Kind::Phone, b"To=%2B12025550147&From=1"),
    (Kind::Phone, b"call 202-555-0158 again"),
    (Kind::Phone, b"2025550169"),
    (Kind::Phone, b"eyJwaG9uZSI6IisxMjAyNTU1MDE0NyJ9"),
    (Kind::Email, b"mailto:ZEPHYRINE.Q%40canary-mail.example"),
    (Kind::Email, b"\\x7a6570687972696e652e71"),
    (Kind::Email, b"bW92ZWQuemVwaHlyaW5lQGNhbmFyeS1tYWlsLmV4YW1wbGU="),
    (Kind::Mrn, b"mrn: cnry-7741-xz"),
    (Kind::Mrn, b"CNRY8852YW"),
    (Kind::Answer, br#"{"allergy":"hippopotomonstrosity of the left elbow"}"#),
    (Kind::Answer, b"/answers/umbrellabirdcount is not asked for"),
];

#[test]
fn the_search_finds_each_kind_however_it_is_spelled_and_nothing_else() {
    let search = Search::new();
    for (kind, leak) in LEAKS {
        let noise = [b"\0\x01 line before\n".as_slice(), leak, b"\n line after \xff"].concat();
        let shown = String::from_utf8_lossy(leak);
        assert!(search.find(&noise).contains_key(&kind), "{kind:?} is not found in {shown}");
    }
    for (kind, text) in TEXTS {
        for before in 0..3 {
            let among = format!("{}{text}, and more", "x".repeat(before));
            assert!(search.find(STANDARD_NO_PAD.encode(&among).as_bytes()).contains_key(&kind), "{text}");
            assert!(search.find(URL_SAFE_NO_PAD.encode(&among).as_bytes()).contains_key(&kind), "{text}");
        }
    }
    let innocent = b"Test Patient +13125550142 test@clinic.example P00000017 1980-02-29 peanuts";
    assert!(search.find(innocent).is_empty());
}
