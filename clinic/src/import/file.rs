//! An iCalendar file as lines and components (RFC 5545, 3.1 and 3.4).
//!
//! Lines are joined and nested here, because every complaint must name the line of the file and a hostile nesting must not cost
//! a stack; what stands in a line is read by the `icalendar` crate.

use anyhow::{Context as _, bail, ensure};
use icalendar::DatePerhapsTime;
use icalendar::parser::{Parameter, Property};

/// Largest file, in bytes.
pub(super) const MAX_BYTES: usize = 10 * 1024 * 1024;
/// Most events of a file.
const MAX_EVENTS: usize = 20_000;
/// An alarm in an event in a calendar lies three deep.
const MAX_DEPTH: usize = 8;
/// Characters of a bad line that a complaint shows.
const SHOWN: usize = 60;

/// A component, such as VEVENT, with what it holds.
#[derive(Debug)]
pub(super) struct Component {
    /// In capitals.
    pub(super) name: String,
    /// Line of its BEGIN.
    pub(super) line: usize,
    /// Its own properties, in the order of the file.
    pub(super) properties: Vec<Line>,
    /// The components in it.
    pub(super) parts: Vec<Component>,
}

/// A property, and where it stands. Names of properties and parameters are in capitals.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    property: Property<'static>,
}

impl Component {
    /// The first property of that name.
    pub(super) fn first(&self, name: &str) -> Option<&Line> {
        self.all(name).next()
    }

    /// All properties of that name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Line> {
        self.properties.iter().filter(move |line| line.name() == name)
    }

    /// The value of the first property of that name, without surrounding white space; empty when there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.first(name).map_or("", Line::value)
    }

    /// Whether the first property of that name has that value.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        self.text(name).eq_ignore_ascii_case(value)
    }
}

impl Line {
    fn read(number: usize, text: &str) -> anyhow::Result<Self> {
        let bad = || {
            let shown: String = text.chars().take(SHOWN).collect();
            format!("line {number}: {shown:?} is no line of a calendar, such as SUMMARY:Dentist")
        };
        let read = Property::try_from(text).ok().filter(|p| {
            // A line that the crate gives up on becomes a name without a value.
            text.contains(':') && (!p.val.as_str().is_empty() || text.ends_with(':'))
        });
        let read = read.with_context(bad)?;
        let parameter = |p: Parameter<'_>| Parameter {
            key: p.key.as_str().to_ascii_uppercase().into(),
            val: p.val.map(icalendar::parser::ParseString::into_owned),
        };
        let property = Property {
            name: read.name.as_str().to_ascii_uppercase().into(),
            val: read.val.into_owned(),
            params: read.params.into_iter().map(parameter).collect(),
        };
        Ok(Self { number, property })
    }

    /// Name of the property.
    pub(super) fn name(&self) -> &str {
        self.property.name.as_str()
    }

    /// Its value, without surrounding white space.
    pub(super) fn value(&self) -> &str {
        self.property.val.as_str().trim()
    }

    /// The value of a parameter.
    pub(super) fn parameter(&self, key: &str) -> Option<&str> {
        let found = self.property.params.iter().find(|p| p.key == key)?;
        found.val.as_ref().map(icalendar::parser::ParseString::as_str)
    }

    /// The one date or time.
    pub(super) fn time(&self) -> anyhow::Result<DatePerhapsTime> {
        self.time_of(self.value())
    }

    /// The dates or times of a list.
    pub(super) fn times(&self) -> impl Iterator<Item = anyhow::Result<DatePerhapsTime>> {
        self.value().split(',').map(|one| self.time_of(one.trim()))
    }

    fn time_of(&self, text: &str) -> anyhow::Result<DatePerhapsTime> {
        let (name, params) = (self.property.name.clone(), self.property.params.clone());
        let one = Property { name, val: text.to_owned().into(), params };
        DatePerhapsTime::try_from(&one).map_err(|_| {
            let hint = "is no date or time, such as 20261126, 20261126T090000 or 20261126T140000Z";
            anyhow::anyhow!("line {}: {} {text:?} {hint}", self.number, self.name())
        })
    }
}

/// The calendars of a file.
pub(super) fn read(bytes: &[u8]) -> anyhow::Result<Vec<Component>> {
    ensure!(bytes.len() <= MAX_BYTES, "the file is larger than {} MB", MAX_BYTES / 1024 / 1024);
    let mut calendars: Vec<Component> = vec![];
    let mut open: Vec<Component> = vec![];
    let mut events = 0;
    for (number, text) in lines(bytes)? {
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.trim().to_ascii_uppercase();
        if name.eq_ignore_ascii_case("BEGIN") {
            ensure!(!open.is_empty() || value == "VCALENDAR", not_a_calendar(number));
            ensure!(open.len() < MAX_DEPTH, "line {number}: {value} is nested too deep");
            events += usize::from(value == "VEVENT");
            ensure!(events <= MAX_EVENTS, "line {number}: the file has more than {MAX_EVENTS} events");
            open.push(Component { name: value, line: number, properties: vec![], parts: vec![] });
        } else if name.eq_ignore_ascii_case("END") {
            let Some(closed) = open.pop_if(|last| last.name == value) else {
                let expected =
                    open.last().map_or("BEGIN:VCALENDAR".to_owned(), |c| format!("END:{}", c.name));
                bail!("line {number}: END:{value} stands where {expected} is expected");
            };
            match open.last_mut() {
                Some(parent) => parent.parts.push(closed),
                None => calendars.push(closed),
            }
        } else {
            let component = open.last_mut().with_context(|| not_a_calendar(number))?;
            component.properties.push(Line::read(number, &text)?);
        }
    }
    if let Some(left) = open.last() {
        bail!("line {}: {} has no end: the file is cut short", left.line, left.name);
    }
    ensure!(!calendars.is_empty(), not_a_calendar(1));
    Ok(calendars)
}

fn not_a_calendar(number: usize) -> String {
    format!("line {number}: an iCalendar file has all of it between BEGIN:VCALENDAR and END:VCALENDAR")
}

/// The lines as they were before they were folded, each with the number of its first. Unfolds bytes, because a fold may lie
/// within a character.
fn lines(bytes: &[u8]) -> anyhow::Result<Vec<(usize, String)>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut whole: Vec<(usize, Vec<u8>)> = vec![];
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), whole.last_mut()) {
            (None, _) => {}
            (Some(b' ' | b'\t'), Some((_, before))) => before.extend_from_slice(&line[1..]),
            (Some(_), _) => whole.push((index + 1, line.to_vec())),
        }
    }
    let text = |(number, line): (usize, Vec<u8>)| {
        let line = String::from_utf8(line).ok();
        let line = line.with_context(|| format!("line {number} is not UTF-8: export the file as UTF-8"))?;
        Ok((number, line))
    };
    whole.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &[u8]) -> String {
        format!("{:#}", read(text).unwrap_err())
    }

    #[test]
    fn folds_line_ends_and_a_byte_order_mark_change_nothing() {
        let unix =
            "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Caf\u{e9}\\, upstairs\nEND:VEVENT\nEND:VCALENDAR\n"
                .as_bytes();
        let mut folded = b"\xef\xbb\xbf".to_vec();
        for byte in unix {
            match byte {
                b'\n' => folded.extend_from_slice(b"\r\n"),
                // The fold lies between the two bytes of a letter.
                0xa9 => folded.extend_from_slice(b"\r\n \xa9"),
                b'u' => folded.extend_from_slice(b"\r\n\tu"),
                other => folded.push(*other),
            }
        }
        for text in [unix.to_vec(), folded] {
            let calendars = read(&text).unwrap();
            assert_eq!(calendars[0].parts[0].text("SUMMARY"), "Caf\u{e9}, upstairs");
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_quoted_parameters_whole() {
        let text = "begin:vcalendar\nbegin:vevent\ndtstart;tzid=\"(UTC-05:00) Eastern; US\":20261126T090000\n\
                    end:vevent\nend:vcalendar";
        let calendars = read(text.as_bytes()).unwrap();
        let start = calendars[0].parts[0].first("DTSTART").unwrap();
        assert_eq!(
            (start.number, start.parameter("TZID"), start.value()),
            (3, Some("(UTC-05:00) Eastern; US"), "20261126T090000")
        );
    }

    #[test]
    fn what_is_malformed_is_named_by_its_line() {
        let calendar = |inside: &str| format!("BEGIN:VCALENDAR\r\n{inside}END:VCALENDAR\r\n").into_bytes();
        for (text, line, word) in [
            (b"".to_vec(), "line 1:", "BEGIN:VCALENDAR"),
            (b"PK\x03\x04".to_vec(), "line 1:", "BEGIN:VCALENDAR"),
            (b"BEGIN:VEVENT\nEND:VEVENT\n".to_vec(), "line 1:", "BEGIN:VCALENDAR"),
            (
                calendar("BEGIN:VEVENT\r\nSUMMARY:a\r\n b\r\nno colon here\r\nEND:VEVENT\r\n"),
                "line 5:",
                "no colon",
            ),
            (calendar("BEGIN:VEVENT\r\nA B:c\r\nEND:VEVENT\r\n"), "line 3:", "A B:c"),
            (calendar("BEGIN:VEVENT\r\n"), "line 3:", "END:VEVENT"),
            (calendar("END:VEVENT\r\n"), "line 2:", "END:VCALENDAR"),
            (b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:a\n".to_vec(), "line 2:", "cut short"),
            (b"BEGIN:VCALENDAR\nX-A:b\nSUMMARY:Caf\xe9\nEND:VCALENDAR\n".to_vec(), "line 3 ", "UTF-8"),
            (b"BEGIN:VCALENDAR\n".repeat(MAX_DEPTH + 1), "line 9:", "deep"),
        ] {
            let said = complaint(&text);
            assert!(said.contains(line) && said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_file_too_large_is_refused() {
        assert!(complaint(&vec![b'a'; MAX_BYTES + 1]).contains("10 MB"));
        let many = "BEGIN:VEVENT\nEND:VEVENT\n".repeat(MAX_EVENTS + 1);
        assert!(
            complaint(format!("BEGIN:VCALENDAR\n{many}END:VCALENDAR").as_bytes()).contains("20000 events")
        );
    }
}
