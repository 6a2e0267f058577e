//! What iCalendar files are written with (RFC 5545): content lines (section 3.1) and the values in them.

use std::fmt::Display;

use chrono::{DateTime, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;

/// Octets of a line at most, its break not counted.
const WIDTH: usize = 75;

/// The UID of what `id` names: the same in every file, so that one visit is one entry (RFC 7986, section 5.3: it should say nothing about
/// whom it concerns).
pub fn uid(id: impl Display) -> String {
    format!("{id}@clinic")
}

/// An instant.
pub fn utc(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// What clocks show.
pub fn local(at: NaiveDateTime) -> String {
    at.format("%Y%m%dT%H%M%S").to_string()
}

/// What the clocks of `zone` show, unless they have shown it before.
pub fn wall_clock(zone: Tz, at: DateTime<Utc>) -> Option<NaiveDateTime> {
    let shown = at.with_timezone(&zone).naive_local();
    let first = zone.from_local_datetime(&shown).earliest()?;
    (first == at).then_some(shown)
}

/// Minutes ahead of UTC, such as `-0330`.
pub fn offset(minutes: i64) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// A file being written.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    /// A line whose value means what it says. `name` may carry parameters.
    pub fn put(&mut self, name: &str, value: &str) {
        let mut width = 0;
        for c in name.chars().chain([':']).chain(value.chars()) {
            if width + c.len_utf8() > WIDTH {
                self.0.push_str("\r\n ");
                width = 1;
            }
            self.0.push(c);
            width += c.len_utf8();
        }
        self.0.push_str("\r\n");
    }

    /// A line whose value is TEXT (section 3.3.11): control characters other than breaks and tabs have no place in it.
    pub fn text(&mut self, name: &str, value: &str) {
        let mut escaped = String::with_capacity(value.len());
        for c in value.chars() {
            match c {
                '\n' => escaped.push_str("\\n"),
                '\\' | ';' | ',' => escaped.extend(['\\', c]),
                c if c.is_control() && c != '\t' => {}
                c => escaped.push(c),
            }
        }
        self.put(name, &escaped);
    }

    /// The whole file.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(write: impl FnOnce(&mut Lines)) -> String {
        let mut lines = Lines::default();
        write(&mut lines);
        lines.finish()
    }

    #[test]
    fn separators_and_breaks_are_escaped_and_other_control_characters_dropped() {
        let text = lines(|l| l.text("LOCATION", "1, Lake\\Side;\r\nOslo\u{7}"));
        assert_eq!(text, "LOCATION:1\\, Lake\\\\Side\\;\\nOslo\r\n");
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_75_octets_or_breaks_a_character(value in "[a-zä-ö老-虎 ,😀]{0,300}") {
            let folded = lines(|l| l.put("SUMMARY", &value));
            prop_assert!(folded.ends_with("\r\n"));
            prop_assert!(folded.trim_end_matches("\r\n").split("\r\n").all(|line| line.len() <= WIDTH));
            prop_assert_eq!(folded.replace("\r\n ", ""), format!("SUMMARY:{value}\r\n"));
        }
    }
}
