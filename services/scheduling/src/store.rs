//! All SQL, by what it is about. Takes an open connection, returns domain types.

pub mod busy;
pub mod calendar;
pub mod catalog;
pub mod link;
mod versions;

pub use versions::{
    Counters, calendar_versions, counters, lock_calendar, lock_catalog, raise_calendars, raise_catalog,
    share_catalog, working,
};

use chrono::{DateTime, Utc};

use crate::domain::span::{Span, minute};

/// A stored pair of instants, which lie on whole minutes.
fn span(start: DateTime<Utc>, end: DateTime<Utc>) -> Span {
    Span::new(minute(start), minute(end))
}

/// A minute of the day as `smallint`, and back; both are bounded by the edge.
fn small(minute: u16) -> i16 {
    i16::try_from(minute).unwrap_or(i16::MAX)
}

fn minute_of_day(stored: i16) -> u16 {
    stored.unsigned_abs()
}
