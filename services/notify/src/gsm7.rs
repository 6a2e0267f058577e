//! How texts are counted: GSM 03.38 where every character is in it, UCS-2 otherwise.
//!
//! Source: 3GPP TS 23.038, 6.2.1 (alphabet and extension table) and TS 23.040, 9.2.3.24.1 (parts of a longer text lose room to
//! their header).

use proto::clinic::notify::v1::TextEncoding;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Septets that fit one text.
pub const ONE_TEXT: usize = 160;
/// Septets of each part of a longer one.
const GSM7_PART: usize = 153;
/// UTF-16 units that fit one text, and each part of a longer one.
const UCS2: (usize, usize) = (70, 67);

const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡\
                     ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Characters that take an escape septet before their own.
const EXTENDED: &str = "\u{c}^{}\\[~]|€";

/// What a text costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// How it is encoded.
    pub encoding: TextEncoding,
    /// Its length in septets or UTF-16 units.
    pub units: usize,
    /// Parts it is sent in, at least 1.
    pub segments: usize,
}

/// Septets of one character; `None` = it is not in the alphabet.
fn septets(c: char) -> Option<usize> {
    match c {
        c if BASIC.contains(c) => Some(1),
        c if EXTENDED.contains(c) => Some(2),
        _ => None,
    }
}

/// Measures a text.
pub fn measure(text: &str) -> Measure {
    let gsm7: Option<Vec<usize>> = text.chars().map(septets).collect();
    let (encoding, lengths, one, part) = match gsm7 {
        Some(lengths) => (TextEncoding::Gsm7, lengths, ONE_TEXT, GSM7_PART),
        None => (TextEncoding::Ucs2, text.chars().map(char::len_utf16).collect(), UCS2.0, UCS2.1),
    };
    let units = lengths.iter().sum();
    let segments = if units <= one { 1 } else { parts(&lengths, part) };
    Measure { encoding, units, segments }
}

/// The characters that keep a text from being GSM-7, each once, in their order.
pub fn foreign(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for c in text.chars().filter(|c| septets(*c).is_none()).map(String::from) {
        if !found.contains(&c) {
            found.push(c);
        }
    }
    found
}

/// Parts of `room` units that hold characters of these lengths; a character is never split.
fn parts(lengths: &[usize], room: usize) -> usize {
    let (mut parts, mut used) = (1, 0);
    for length in lengths {
        if used + length > room {
            (parts, used) = (parts + 1, 0);
        }
        used += length;
    }
    parts
}

/// The text with accents dropped where the alphabet lacks them ("clínica" becomes "clinica"); what has no plain form stays.
pub fn simplify(text: &str) -> String {
    let plain = |c: char| -> String {
        let bare: String = c.nfkd().filter(|c| !is_combining_mark(*c)).collect();
        let known = septets(c).is_some() || bare.is_empty() || !bare.chars().all(|c| septets(c).is_some());
        if known { c.to_string() } else { bare }
    };
    // Composed first, so that a letter and its loose accent are looked at together.
    text.nfc()
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' => "'".to_owned(),
            '\u{201c}' | '\u{201d}' => "\"".to_owned(),
            '\u{2013}' | '\u{2014}' => "-".to_owned(),
            c => plain(c),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (TextEncoding, usize, usize) {
        let Measure { encoding, units, segments } = measure(text);
        (encoding, units, segments)
    }

    #[test]
    fn texts_are_counted_in_the_alphabet_they_need() {
        for (text, expected) in [
            (String::new(), (TextEncoding::Gsm7, 0, 1)),
            ("a".repeat(160), (TextEncoding::Gsm7, 160, 1)),
            ("a".repeat(161), (TextEncoding::Gsm7, 161, 2)),
            ("a".repeat(306), (TextEncoding::Gsm7, 306, 2)),
            ("a".repeat(307), (TextEncoding::Gsm7, 307, 3)),
            ("€".repeat(80), (TextEncoding::Gsm7, 160, 1)),
            ("€".repeat(81), (TextEncoding::Gsm7, 162, 2)),
            ("í".repeat(70), (TextEncoding::Ucs2, 70, 1)),
            ("í".repeat(71), (TextEncoding::Ucs2, 71, 2)),
            ("🙂".repeat(35), (TextEncoding::Ucs2, 70, 1)),
        ] {
            assert_eq!(of(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_character_is_never_split_between_parts() {
        // 152 septets and then pairs: one septet of every part stays empty.
        assert_eq!(of(&"€".repeat(76 * 2 + 1)).2, 3);
        // 67 units hold 33 pairs.
        assert_eq!(of(&"🙂".repeat(67)).2, 3);
    }

    #[test]
    fn the_alphabet_has_its_128_places() {
        // Without the escape itself.
        assert_eq!(BASIC.chars().count(), 127);
        assert_eq!(EXTENDED.chars().count(), 10);
    }

    #[test]
    fn accents_are_dropped_only_where_the_alphabet_lacks_them() {
        assert_eq!(
            simplify("Clínica Núñez – sábado, ¿dudas? «así»"),
            "Clinica Nuñez - sabado, ¿dudas? «asi»"
        );
        assert_eq!(simplify("Ünal è à ç"), "Ünal è à c");
        assert_eq!(simplify("n\u{303}"), "ñ");
        assert_eq!(simplify("诊所"), "诊所");
    }
}
