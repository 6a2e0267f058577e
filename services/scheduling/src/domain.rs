//! Values and rules of calendars and of free time. No I/O, no clock: instants are minutes, `now` is an argument.

pub mod agenda;
pub mod bits;
pub mod calendar;
pub mod catalog;
pub mod check;
pub mod link;
pub mod network;
#[cfg(test)]
mod oracle_tests;
pub mod rule;
pub mod search;
pub mod span;
pub mod zone;

use std::ops::RangeInclusive;

use chrono::NaiveDate;

/// Clinic-local days, first and last.
pub type Days = RangeInclusive<NaiveDate>;

/// Everything is planned on this grid.
pub const GRID_MINUTES: i32 = 5;

/// The day `by` days after `date`, held at the ends of what chrono can count.
pub fn shift(date: NaiveDate, by: i64) -> NaiveDate {
    let end = if by < 0 { NaiveDate::MIN } else { NaiveDate::MAX };
    chrono::TimeDelta::try_days(by).and_then(|by| date.checked_add_signed(by)).unwrap_or(end)
}
