//! What a text received says.
//!
//! Carrier words stand alone, in any case and with any punctuation (<https://help.twilio.com/articles/223134027>); a withdrawal is also
//! one that says more ("Stop texting me"), for it needs no form. CANCEL, END and QUIT must stand alone: "cancel my visit" is none.

use unicode_normalization::UnicodeNormalization as _;

/// Alone, they end texts.
const STOP: [&str; 11] =
    ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "ALTO", "PARAR", "BAJA"];
/// As the first of several words, too.
const STOP_FIRST: [&str; 4] = ["STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT"];
/// Alone, they begin texts again.
const START: [&str; 3] = ["START", "YES", "UNSTOP"];
/// Alone, they ask for help.
const HELP: [&str; 3] = ["HELP", "INFO", "AYUDA"];
/// Characters of a text that are looked at: carrier words and digits are short.
const LOOKED_AT: usize = 200;

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// No more texts.
    Stop,
    /// Texts again.
    Start,
    /// What is this?
    Help,
    /// A digit, from 1.
    Digit(u8),
    /// Anything else.
    Other,
}

/// Reads a text.
pub fn understand(body: &str) -> Word {
    // Full-width letters and digits are letters and digits; case and marks between letters say nothing.
    let text: String = body.chars().take(LOOKED_AT).nfkc().flat_map(char::to_uppercase).collect();
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect();
    let whole = words.concat();
    let says = |among: &[&str]| among.contains(&whole.as_str());
    let first = words.first().map(String::as_str).unwrap_or_default();
    if says(&STOP) || STOP_FIRST.contains(&first) {
        return Word::Stop;
    }
    if says(&START) {
        return Word::Start;
    }
    if says(&HELP) {
        return Word::Help;
    }
    match whole.parse() {
        Ok(digit @ 1..=9) => Word::Digit(digit),
        Ok(_) | Err(_) => Word::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_words_are_read_in_every_guise() {
        for text in [
            "STOP",
            "stop",
            " Stop. ",
            "StopAll",
            "STOP ALL",
            "unsubscribe",
            "Cancel",
            "end",
            "quit!",
            "REVOKE",
            "opt-out",
            "OPT OUT",
            "Stop texting me",
            "ＳＴＯＰ",
            "\"STOP\"",
            "stop\r\n",
            "🛑 stop",
            "alto",
        ] {
            assert_eq!(understand(text), Word::Stop, "{text}");
        }
        for text in ["START", "yes", "Unstop", "Yes!"] {
            assert_eq!(understand(text), Word::Start, "{text}");
        }
        for text in ["HELP", "help?", "Info", "ayuda"] {
            assert_eq!(understand(text), Word::Help, "{text}");
        }
    }

    #[test]
    fn a_digit_stands_alone() {
        for (text, digit) in
            [("1", 1), (" 2 ", 2), ("1.", 1), ("#2", 2), ("\"1\"", 1), ("２", 2), ("9", 9), ("01", 1)]
        {
            assert_eq!(understand(text), Word::Digit(digit), "{text}");
        }
        for text in ["0", "10", "1 2", "12", "2025550123", "-", "", "  ", "1 please", "٢", "½"] {
            assert_eq!(understand(text), Word::Other, "{text}");
        }
    }

    #[test]
    fn sentences_are_no_carrier_words() {
        for text in [
            "Can I cancel my visit?",
            "cancel my visit",
            "yes I will come",
            "The end",
            "don't stop",
            "מתי התור שלי?",
            "👍",
            "starting",
            "helpful",
            "cancelar",
        ] {
            assert_eq!(understand(text), Word::Other, "{text}");
        }
    }
}
