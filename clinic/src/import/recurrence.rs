//! RRULE of a file's events and time zones, on the days that scheduling's own rules give.
//!
//! [`Rule`] expands days without a time zone, from the window asked for however old the rule is, and refuses what would explode.
//! Files say a little more than templates may: an end as a date or a local time, the time of day a second time, a start long ago.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike as _, Utc};
use scheduling::domain::rule::Rule;
use scheduling::domain::shift;

/// Years in which a rule of ours may begin; no occurrence is later.
pub(super) const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;
/// Weekdays and leap years come round again after so many years.
const CYCLE_YEARS: i32 = 28;

/// A rule, and the last moment at which an occurrence may start.
#[derive(Debug)]
pub(super) struct Recurrence {
    rule: Rule,
    until: Option<Until>,
}

#[derive(Debug)]
enum Until {
    Instant(DateTime<Utc>),
    Wall(NaiveDateTime),
}

impl Recurrence {
    /// Parses the value of RRULE for something that starts at `start` on its own wall clock. The error is a sentence.
    pub(super) fn parse(value: &str, start: NaiveDateTime) -> Result<Self, String> {
        let (mut parts, mut until) = (vec![], None);
        for part in value.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let same = |of_start: u32| value.parse() == Ok(of_start);
            match name.to_ascii_uppercase().as_str() {
                "BYHOUR" if same(start.hour()) => {}
                "BYMINUTE" if same(start.minute()) => {}
                "BYSECOND" if same(start.second()) => {}
                "UNTIL" => {
                    let end = Until::parse(value)?;
                    parts.push(format!("UNTIL={}T000000Z", end.last_day().format("%Y%m%d")));
                    until = Some(end);
                }
                _ => parts.push(part.to_ascii_uppercase()),
            }
        }
        let counts = |part: &String| {
            part.starts_with("COUNT=") || part.starts_with("INTERVAL=") && part != "INTERVAL=1"
        };
        let first = match start.date() {
            recent if recent.year() >= *YEARS.start() => recent,
            old if !parts.iter().any(counts) => alike(old),
            _ => return Err("a rule that begins before 1970 can have neither COUNT nor INTERVAL".to_owned()),
        };
        let text = format!("DTSTART;TZID=UTC:{}T000000\nRRULE:{}", first.format("%Y%m%d"), parts.join(";"));
        Ok(Self { rule: Rule::parse(&text)?, until })
    }

    /// The days from `from` to `to`, both inclusive; see [`Self::reaches`].
    pub(super) fn days(&self, from: NaiveDate, to: NaiveDate) -> impl Iterator<Item = NaiveDate> {
        self.rule.days(from, to)
    }

    /// Whether an occurrence that starts then is not beyond the rule's end.
    pub(super) fn reaches(&self, wall: NaiveDateTime, instant: DateTime<Utc>) -> bool {
        match &self.until {
            None => true,
            Some(Until::Instant(end)) => instant <= *end,
            Some(Until::Wall(end)) => wall <= *end,
        }
    }
}

impl Until {
    fn parse(text: &str) -> Result<Self, String> {
        let day =
            |d: NaiveDate| Self::Wall(d.and_time(NaiveTime::MIN) + TimeDelta::seconds(24 * 60 * 60 - 1));
        let parsed = match (text.strip_suffix(['Z', 'z']), text.len()) {
            (Some(utc), _) => wall(utc).map(|t| Self::Instant(t.and_utc())),
            (None, 8) => NaiveDate::parse_from_str(text, "%Y%m%d").ok().map(day),
            (None, _) => wall(text).map(Self::Wall),
        };
        parsed.ok_or_else(|| format!("UNTIL must be a date or time such as 20261231T235959Z; it is {text:?}"))
    }

    /// No occurrence starts on a later day, in whatever time zone.
    fn last_day(&self) -> NaiveDate {
        let day = match self {
            Self::Instant(end) => shift(end.date_naive(), 1),
            Self::Wall(end) => end.date(),
        };
        day.min(NaiveDate::from_ymd_opt(*YEARS.end(), 12, 31).unwrap_or(day))
    }
}

fn wall(text: &str) -> Option<NaiveDateTime> {
    NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").ok()
}

/// The same day of the month in a year, not before 1970, whose days fall on the same weekdays. A rule without COUNT and INTERVAL
/// that begins there has the same days from there on.
fn alike(old: NaiveDate) -> NaiveDate {
    let first = *YEARS.start();
    (first..first + CYCLE_YEARS)
        .filter_map(|year| old.with_year(year))
        .find(|day| day.weekday() == old.weekday() && day.leap_year() == old.leap_year())
        .unwrap_or(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn days(start: &str, rule: &str, from: &str, to: &str) -> Vec<String> {
        let rule = Recurrence::parse(rule, start.parse().unwrap()).unwrap();
        rule.days(day(from), day(to)).map(|d| d.to_string()).collect()
    }

    #[test]
    fn a_holiday_that_began_long_ago_falls_where_it_falls() {
        let rule = "FREQ=YEARLY;INTERVAL=1;BYMONTH=11;BYDAY=4TH";
        for start in ["1970-11-26T00:00:00", "1942-11-26T00:00:00", "1601-11-22T00:00:00"] {
            assert_eq!(
                days(start, rule, "2026-01-01", "2027-12-31"),
                ["2026-11-26", "2027-11-25"],
                "{start}"
            );
        }
        assert_eq!(days("1904-02-29T00:00:00", "FREQ=YEARLY", "2026-01-01", "2030-12-31"), ["2028-02-29"]);
    }

    #[test]
    fn an_end_may_be_a_date_a_local_time_or_an_instant() {
        let start: NaiveDateTime = "2026-01-05T22:00:00".parse().unwrap();
        let rule = |until: &str| Recurrence::parse(&format!("FREQ=DAILY;UNTIL={until}"), start).unwrap();
        // 22:00 in New York is 03:00 of the next day in UTC.
        let reaches = |until: &str, day: &str| {
            let wall: NaiveDateTime = format!("{day}T22:00:00").parse().unwrap();
            let utc = wall.and_utc() + TimeDelta::hours(5);
            let rule = rule(until);
            rule.days(wall.date(), wall.date()).next().is_some() && rule.reaches(wall, utc)
        };
        for until in ["20260110", "20260110T220000", "20260111T030000Z"] {
            assert!(reaches(until, "2026-01-10") && !reaches(until, "2026-01-11"), "{until}");
        }
        assert!(!reaches("20260111T025959Z", "2026-01-10"));
        let midnight: NaiveDateTime = "2026-01-11T00:00:00".parse().unwrap();
        assert!(!rule("20260110").reaches(midnight, midnight.and_utc()), "a whole day after the last");
        assert!(!reaches("20260110T215959", "2026-01-10"));
        assert!(rule("99991231T235959Z").days(day("2099-01-01"), day("2099-01-01")).next().is_some());
    }

    #[test]
    fn a_time_of_day_said_twice_is_read_and_another_one_refused() {
        let start: NaiveDateTime = "2026-01-05T09:30:00".parse().unwrap();
        let parse = |rule: &str| Recurrence::parse(rule, start).map(drop);
        assert_eq!(parse("FREQ=DAILY;BYHOUR=9;BYMINUTE=30;BYSECOND=0;"), Ok(()));
        for (rule, word) in [
            ("FREQ=DAILY;BYHOUR=9,15", "BYHOUR"),
            ("FREQ=HOURLY", "FREQ"),
            ("FREQ=DAILY;COUNT=5001", "COUNT"),
            ("FREQ=DAILY;UNTIL=tomorrow", "UNTIL"),
        ] {
            assert!(parse(rule).unwrap_err().contains(word), "{rule}");
        }
        let old = Recurrence::parse("FREQ=WEEKLY;INTERVAL=2", "1960-01-04T09:00:00".parse().unwrap());
        assert!(old.unwrap_err().contains("before 1970"));
    }
}
