//! Recurrence rules that a child could follow: which text they have, and whether they fall on a day.

use std::collections::BTreeSet;

use chrono::{Datelike as _, NaiveDate};
use chrono_tz::Tz;

use super::oracle::{WallClock, date, number};
use crate::domain::span::{Minute, instant};

/// The names of weekdays, Monday first.
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

/// A rule and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Recurrence {
    /// Of DTSTART.
    pub(super) zone: Tz,
    /// Of DTSTART.
    pub(super) start: NaiveDate,
    /// Of DTSTART.
    pub(super) minute: u16,
    /// Which days.
    pub(super) pattern: Pattern,
    /// How long.
    pub(super) end: End,
    /// EXDATE.
    pub(super) except: BTreeSet<NaiveDate>,
}

/// Which days a rule falls on.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Every so many days.
    Daily(i64),
    /// Every so many weeks (they begin on Monday), on these days, 0 = Monday; without any on that of DTSTART.
    Weekly(i64, Vec<usize>),
    /// Every so many months, on this day: negative ones count from the month's end.
    Monthly(i64, i64),
}

/// How long a rule falls on days.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// For ever.
    Never,
    /// While shifts start by this instant.
    Until(Minute),
    /// So many times, days taken out by EXDATE included.
    Count(usize),
}

impl Recurrence {
    /// As RFC 5545 writes it.
    pub(super) fn text(&self) -> String {
        let time = format!("T{:02}{:02}00", self.minute / 60, self.minute % 60);
        let wall = |date: NaiveDate| format!("{}:{}{time}", self.zone.name(), date.format("%Y%m%d"));
        let rule = match &self.pattern {
            Pattern::Daily(every) => format!("FREQ=DAILY;INTERVAL={every}"),
            Pattern::Weekly(every, days) if days.is_empty() => format!("FREQ=WEEKLY;INTERVAL={every}"),
            Pattern::Weekly(every, days) => {
                let days: Vec<&str> = days.iter().map(|day| WEEKDAYS[*day]).collect();
                format!("FREQ=WEEKLY;INTERVAL={every};BYDAY={}", days.join(","))
            }
            Pattern::Monthly(every, day) => format!("FREQ=MONTHLY;INTERVAL={every};BYMONTHDAY={day}"),
        };
        let end = match self.end {
            End::Never => String::new(),
            End::Until(minute) => format!(";UNTIL={}", instant(minute).format("%Y%m%dT%H%M%SZ")),
            End::Count(times) => format!(";COUNT={times}"),
        };
        let except = self.except.iter().map(|date| format!("\nEXDATE;TZID={}", wall(*date)));
        format!("DTSTART;TZID={}\nRRULE:{rule}{end}{}", wall(self.start), except.collect::<String>())
    }

    /// Whether it falls on the day with this number, which `clock` knows.
    pub(super) fn falls_on(&self, day: i64, clock: &WallClock) -> bool {
        let goes_on = || match self.end {
            End::Never => true,
            End::Until(minute) => clock.at(day, self.minute) <= minute,
            End::Count(times) => (number(self.start)..=day).filter(|day| self.matches(*day)).count() <= times,
        };
        self.matches(day) && !self.except.contains(&date(day)) && goes_on()
    }

    fn matches(&self, day: i64) -> bool {
        let (start, on) = (self.start, date(day));
        on >= start
            && match &self.pattern {
                Pattern::Daily(every) => (day - number(start)) % every == 0,
                Pattern::Weekly(every, days) => {
                    let weekday = |date: NaiveDate| date.weekday().num_days_from_monday();
                    let monday = |date: NaiveDate| number(date) - i64::from(weekday(date));
                    let own = if days.is_empty() {
                        weekday(on) == weekday(start)
                    } else {
                        days.contains(&(weekday(on) as usize))
                    };
                    own && (monday(on) - monday(start)) / 7 % every == 0
                }
                Pattern::Monthly(every, of_month) => {
                    let month = |date: NaiveDate| i64::from(date.year()) * 12 + i64::from(date.month());
                    let length = i64::from(on.num_days_in_month());
                    let named = if *of_month < 0 { length + 1 + of_month } else { *of_month };
                    (month(on) - month(start)) % every == 0 && i64::from(on.day()) == named
                }
            }
    }
}
