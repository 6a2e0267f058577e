//! Parsing a request's fields once, at the edge, into domain types, and collecting **every** bad field on the way.
//!
//! ```
//! # use kit::{fields::Fields, ids::PatientId};
//! let mut fields = Fields::new();
//! let patient = fields.id::<PatientId>("patient_id", "not-an-id");
//! let reason = fields.text("reason", "", 1..=200);
//! let error = fields.check().unwrap_err(); // names both
//! # let _ = (patient, reason, error);
//! ```
//!
//! A parser returns a placeholder after recording a violation, so that the next field is looked at too; [`Fields::check`]
//! stands before any use of the values.

use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use proto::google::r#type::{Date, TimeOfDay};
use uuid::Uuid;

use crate::ids::{Id, RequestId};
use crate::status::{Error, Violation};

/// The bad fields seen so far.
#[derive(Debug, Default)]
pub struct Fields {
    bad: Vec<Violation>,
}

impl Fields {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a violation found by the caller's own rule.
    pub fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.bad.push(Violation { field: field.into(), description: description.into() });
    }

    /// Records a violation unless `good`.
    pub fn ensure(&mut self, good: bool, field: &str, description: &str) {
        if !good {
            self.refuse(field, description);
        }
    }

    /// All fields were good, or the error that names each that was not.
    pub fn check(self) -> Result<(), Error> {
        if self.bad.is_empty() { Ok(()) } else { Err(Error::Invalid(self.bad)) }
    }

    /// A required id.
    pub fn id<I: Id>(&mut self, field: &str, text: &str) -> I {
        text.parse().unwrap_or_else(|_| {
            let hint = if text.is_empty() { "is required: " } else { "must be " };
            self.refuse(field, format!("{hint}the UUID of a {}", I::KIND));
            I::from(Uuid::nil())
        })
    }

    /// An id that may be left empty.
    pub fn optional_id<I: Id>(&mut self, field: &str, text: &str) -> Option<I> {
        (!text.is_empty()).then(|| self.id(field, text))
    }

    /// The caller's name for this attempt (AIP-155); empty = no deduplication.
    pub fn request_id(&mut self, text: &str) -> Option<RequestId> {
        self.optional_id("request_id", text)
    }

    /// Ids of a repeated field.
    pub fn ids<I: Id>(&mut self, field: &str, texts: &[String]) -> Vec<I> {
        texts.iter().enumerate().map(|(i, text)| self.id(&format!("{field}[{i}]"), text)).collect()
    }

    /// Text whose length in characters, without surrounding white space, lies in `bounds`.
    pub fn text(&mut self, field: &str, text: &str, bounds: RangeInclusive<usize>) -> String {
        let trimmed = text.trim();
        let length = trimmed.chars().count();
        if !bounds.contains(&length) {
            let (least, most) = bounds.into_inner();
            self.refuse(field, format!("must have {least} to {most} characters; it has {length}"));
        } else if trimmed.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            self.refuse(field, "must not contain control characters");
        }
        trimmed.to_owned()
    }

    /// A whole number within bounds.
    pub fn number(&mut self, field: &str, value: i32, bounds: RangeInclusive<i32>) -> i32 {
        if !bounds.contains(&value) {
            self.refuse(field, format!("must be {} to {}; it is {value}", bounds.start(), bounds.end()));
        }
        value
    }

    /// A required instant, of microsecond precision (finer digits are cut, as PostgreSQL would).
    pub fn instant(&mut self, field: &str, value: Option<prost_types::Timestamp>) -> DateTime<Utc> {
        let parsed = value.and_then(|t| {
            let nanos = u32::try_from(t.nanos).ok()?;
            DateTime::from_timestamp(t.seconds, nanos / 1_000 * 1_000)
        });
        match parsed {
            Some(instant) if (1900..=9999).contains(&chrono::Datelike::year(&instant)) => instant,
            _ => {
                let hint = if value.is_none() { "is required: " } else { "must be " };
                self.refuse(field, format!("{hint}an instant such as 2026-03-09T14:00:00Z"));
                DateTime::UNIX_EPOCH
            }
        }
    }

    /// A required calendar date.
    pub fn date(&mut self, field: &str, value: Option<&Date>) -> NaiveDate {
        let parsed = value.filter(|d| (1900..=9999).contains(&d.year)).and_then(|d| {
            NaiveDate::from_ymd_opt(d.year, u32::try_from(d.month).ok()?, u32::try_from(d.day).ok()?)
        });
        parsed.unwrap_or_else(|| {
            let hint = if value.is_none() { "is required: " } else { "must be " };
            self.refuse(field, format!("{hint}a date with year 1900 to 9999, month and day"));
            NaiveDate::default()
        })
    }

    /// A wall-clock time in minutes after midnight, 0 to 1440 (24:00 = the day's end).
    pub fn minute_of_day(&mut self, field: &str, value: Option<&TimeOfDay>) -> u16 {
        const DAY: i32 = 24 * 60;
        let parsed = value.and_then(|t| {
            let whole = t.seconds == 0 && t.nanos == 0 && (0..60).contains(&t.minutes);
            let minute = t.hours.checked_mul(60)?.checked_add(t.minutes)?;
            (whole && (0..=DAY).contains(&minute)).then_some(minute as u16)
        });
        parsed.unwrap_or_else(|| {
            let hint = if value.is_none() { "is required: " } else { "must be " };
            self.refuse(field, format!("{hint}a wall-clock time 00:00 to 24:00 in whole minutes"));
            0
        })
    }

    /// An IANA time zone name.
    pub fn time_zone(&mut self, field: &str, name: &str) -> Tz {
        name.parse().unwrap_or_else(|_| {
            self.refuse(field, "must be an IANA time zone such as America/New_York");
            Tz::UTC
        })
    }
}

/// An instant as the wire has it.
pub fn timestamp(instant: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: instant.timestamp(), nanos: instant.timestamp_subsec_nanos() as i32 }
}

/// A date as the wire has it.
pub fn date(date: NaiveDate) -> Date {
    use chrono::Datelike as _;
    Date { year: date.year(), month: date.month() as i32, day: date.day() as i32 }
}

/// A wall-clock time as the wire has it, from minutes after midnight.
pub fn time_of_day(minute: u16) -> TimeOfDay {
    TimeOfDay { hours: i32::from(minute / 60), minutes: i32::from(minute % 60), seconds: 0, nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClinicId, PatientId};

    #[test]
    fn all_bad_fields_are_collected_before_the_error() {
        let mut fields = Fields::new();
        fields.id::<PatientId>("patient_id", "");
        fields.id::<ClinicId>("clinic_id", "42");
        fields.text("name", "  ", 1..=5);
        fields.number("size", 9, 1..=5);
        fields.instant("start", None);
        fields.date("day", Some(&Date { year: 2026, month: 2, day: 30 }));
        fields.minute_of_day("open", Some(&TimeOfDay { hours: 24, minutes: 1, seconds: 0, nanos: 0 }));
        fields.time_zone("time_zone", "Mars/Olympus");
        let Err(Error::Invalid(bad)) = fields.check() else { panic!("must be refused") };
        let names: Vec<_> = bad.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(names, ["patient_id", "clinic_id", "name", "size", "start", "day", "open", "time_zone"]);
    }

    #[test]
    fn instants_out_of_any_calendar_are_refused_without_a_panic() {
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, i32::MAX)] {
            let mut fields = Fields::new();
            fields.instant("start", Some(prost_types::Timestamp { seconds, nanos }));
            assert!(fields.check().is_err());
        }
    }

    #[test]
    fn values_survive_the_wire_and_back() {
        let mut fields = Fields::new();
        let instant = DateTime::from_timestamp(1_773_064_800, 0).expect("in range");
        assert_eq!(fields.instant("t", Some(timestamp(instant))), instant);
        let day = NaiveDate::from_ymd_opt(2026, 3, 9).expect("a date");
        assert_eq!(fields.date("d", Some(&date(day))), day);
        assert_eq!(fields.minute_of_day("m", Some(&time_of_day(1440))), 1440);
        assert!(fields.check().is_ok());
    }
}
