//! On which days a template's rule falls: RFC 5545 recurrence, in days of the clinic.
//!
//! A rule is parsed and expanded by the `rrule` crate as if days had no time zone; wall-clock times are put on the days
//! afterwards (see [`super::zone`]), so that clock changes cannot lose or double a day. Work is bounded: days are never finer than
//! one, an end (UNTIL or COUNT) is settled once as a last day, and expansion begins at the period before the days asked for
//! however long ago the rule began.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, TimeZone as _};
use chrono_tz::Tz;
use rrule::{Frequency, RRule, RRuleSet, Unvalidated};

use super::{span, zone};

/// Longest rule, in characters.
pub const MAX_LENGTH: usize = 4_000;
/// Years a rule may begin in; also bounds how far it is ever expanded.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;
/// Most occurrences that COUNT may name: more than 13 years of days.
const MAX_COUNT: u32 = 5_000;
/// Most periods between two occurrences.
const MAX_INTERVAL: u16 = 366;
/// The parts of RRULE that choose days. UNTIL and COUNT are settled here and never reach the crate.
const DAY_PARTS: [&str; 9] =
    ["FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYMONTH", "BYSETPOS", "WKST"];

/// A parsed rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    text: String,
    zone: Tz,
    /// Minute of the day of DTSTART.
    minute: u16,
    first: NaiveDate,
    last: Option<NaiveDate>,
    except: BTreeSet<NaiveDate>,
    rrule: RRule,
}

/// What stands in the lines, before it is brought together.
#[derive(Default)]
struct Lines<'a> {
    start: Option<(Tz, NaiveDateTime)>,
    rrule: Option<&'a str>,
    except: Vec<(Tz, NaiveDateTime)>,
}

impl Rule {
    /// Parses content lines: one DTSTART with TZID, one RRULE, any number of EXDATE. The error is a sentence for the caller.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_LENGTH {
            return Err(format!("must have at most {MAX_LENGTH} characters"));
        }
        let mut lines = Lines::default();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            lines.read(line.trim())?;
        }
        let (zone, start) =
            lines.start.ok_or("must have a DTSTART such as DTSTART;TZID=America/Chicago:20260105T090000")?;
        let first = start.date();
        if !YEARS.contains(&first.year()) {
            return Err(format!("DTSTART must lie in the years {} to {}", YEARS.start(), YEARS.end()));
        }
        let minute = minute_of(start)?;
        if lines.except.iter().any(|(z, t)| *z != zone || t.time() != start.time()) {
            return Err("EXDATE must have the time zone and the time of day of DTSTART".to_owned());
        }
        let value = lines.rrule.ok_or("must have an RRULE such as RRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR")?;
        let parts = Parts::read(value)?;
        let rrule = parts.days.parse::<RRule<Unvalidated>>().and_then(|r| r.validate(floating(first)));
        let rrule = rrule.map_err(|e| format!("RRULE cannot be used: {e}"))?;
        let mut rule = Self {
            text: text.trim().to_owned(),
            zone,
            minute,
            first,
            last: None,
            except: lines.except.into_iter().map(|(_, t)| t.date()).collect(),
            rrule,
        };
        rule.check_bounds()?;
        rule.last = match (parts.until, parts.count) {
            (Some(_), Some(_)) => return Err("RRULE must not have both UNTIL and COUNT".to_owned()),
            (Some(until), None) => Some(rule.last_day_until(until)),
            (None, Some(count)) => rule.occurrences(first).take(count as usize).last(),
            (None, None) => None,
        };
        Ok(rule)
    }

    /// The content lines as they were given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone of TZID.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// Minute of the day of DTSTART.
    pub fn minute(&self) -> u16 {
        self.minute
    }

    /// The day of DTSTART.
    pub fn first(&self) -> NaiveDate {
        self.first
    }

    /// No occurrence is later; `None` = it runs on.
    pub fn last(&self) -> Option<NaiveDate> {
        self.last
    }

    /// The rule's days from `from` to `to`, both inclusive.
    pub fn days(&self, from: NaiveDate, to: NaiveDate) -> impl Iterator<Item = NaiveDate> + '_ {
        let to = self.last.map_or(to, |last| last.min(to));
        let from = from.max(self.first);
        let empty = from > to;
        (!empty)
            .then(|| self.occurrences(self.origin(from)))
            .into_iter()
            .flatten()
            .skip_while(move |d| *d < from)
            .take_while(move |d| *d <= to)
            .filter(|d| !self.except.contains(d))
    }

    /// The crate's own answer from `origin` on. `limit` makes it give up on a rule that falls on no day at all.
    fn occurrences(&self, origin: NaiveDate) -> impl Iterator<Item = NaiveDate> + use<> {
        let set = RRuleSet::new(floating(origin)).rrule(self.rrule.clone()).limit();
        set.into_iter().map(|t| t.date_naive()).take_while(|d| d.year() <= *YEARS.end())
    }

    /// A day at or before `from` at which the rule can be started instead of DTSTART with the same days from `from` on: a whole
    /// number of intervals later. What the rule takes from DTSTART's own day was written into it when it was validated.
    fn origin(&self, from: NaiveDate) -> NaiveDate {
        let interval = i64::from(self.rrule.get_interval());
        let days = (from - self.first).num_days();
        let months = |d: NaiveDate| i64::from(d.year()) * 12 + i64::from(d.month0());
        let back = |period: i64, elapsed: i64| elapsed / period * period;
        let jumped = match self.rrule.get_freq() {
            Frequency::Daily => super::shift(self.first, back(interval, days)),
            Frequency::Weekly => super::shift(self.first, back(7 * interval, days)),
            Frequency::Monthly => {
                let month = months(self.first) + back(interval, months(from) - months(self.first));
                NaiveDate::from_ymd_opt((month / 12) as i32, (month % 12) as u32 + 1, 1).unwrap_or(self.first)
            }
            Frequency::Yearly => {
                let year =
                    back(interval, i64::from(from.year() - self.first.year())) as i32 + self.first.year();
                NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or(self.first)
            }
            Frequency::Hourly | Frequency::Minutely | Frequency::Secondly => self.first,
        };
        jumped.max(self.first)
    }

    fn check_bounds(&self) -> Result<(), String> {
        if matches!(self.rrule.get_freq(), Frequency::Hourly | Frequency::Minutely | Frequency::Secondly) {
            return Err("FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY".to_owned());
        }
        if !(1..=MAX_INTERVAL).contains(&self.rrule.get_interval()) {
            return Err(format!("INTERVAL must be 1 to {MAX_INTERVAL}"));
        }
        if self.occurrences(self.first).next().is_none() {
            return Err("the rule falls on no day".to_owned());
        }
        Ok(())
    }

    /// UNTIL names an instant (RFC 5545, 3.3.10); shifts start on days.
    fn last_day_until(&self, until: NaiveDateTime) -> NaiveDate {
        let until = span::minute(until.and_utc());
        let day = zone::date(self.zone, until);
        if zone::at(self.zone, day, self.minute) <= until { day } else { super::shift(day, -1) }
    }
}

impl<'a> Lines<'a> {
    fn read(&mut self, line: &'a str) -> Result<(), String> {
        let (head, value) = line.split_once(':').ok_or_else(|| format!("the line {line:?} has no value"))?;
        let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
        match name.to_ascii_uppercase().as_str() {
            "DTSTART" if self.start.is_none() => self.start = Some((tzid(parameters)?, local(value)?)),
            "RRULE" if self.rrule.is_none() && parameters.is_empty() => self.rrule = Some(value),
            "EXDATE" => {
                let zone = tzid(parameters)?;
                for time in value.split(',') {
                    self.except.push((zone, local(time)?));
                }
            }
            name @ ("DTSTART" | "RRULE") => return Err(format!("must have one plain {name}")),
            name => return Err(format!("{name} is not supported: only DTSTART, RRULE and EXDATE")),
        }
        Ok(())
    }
}

/// The value of RRULE: how it ends, and the parts that choose days, as a line for the crate.
struct Parts {
    until: Option<NaiveDateTime>,
    count: Option<u32>,
    days: String,
}

impl Parts {
    fn read(value: &str) -> Result<Self, String> {
        let (mut until, mut count, mut days) = (None, None, vec![]);
        let mut seen = BTreeSet::new();
        for part in value.split(';') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("RRULE part {part:?} has no value"))?;
            let name = name.to_ascii_uppercase();
            match name.as_str() {
                "UNTIL" => {
                    let parsed = NaiveDateTime::parse_from_str(value, "%Y%m%dT%H%M%SZ");
                    until = Some(parsed.map_err(|_| "UNTIL must be in UTC, such as 20261231T235959Z")?);
                }
                "COUNT" => {
                    let parsed = value.parse().ok().filter(|n| (1..=MAX_COUNT).contains(n));
                    count = Some(parsed.ok_or_else(|| format!("COUNT must be 1 to {MAX_COUNT}"))?);
                }
                known if DAY_PARTS.contains(&known) => days.push(format!("{name}={value}")),
                _ => return Err(format!("{name} is not supported in RRULE")),
            }
            if !seen.insert(name.clone()) {
                return Err(format!("RRULE has {name} twice"));
            }
        }
        let chooses = |name: &String| name.starts_with("BY") && name != "BYSETPOS";
        if seen.contains("BYSETPOS") && !seen.iter().any(chooses) {
            return Err("BYSETPOS needs another BY part to choose from (RFC 5545, 3.3.10)".to_owned());
        }
        Ok(Self { until, count, days: format!("RRULE:{}", days.join(";")) })
    }
}

fn tzid(parameters: &str) -> Result<Tz, String> {
    let name =
        parameters.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case("TZID")).map(|(_, name)| name);
    let name = name.ok_or("DTSTART and EXDATE must have TZID and no other parameter")?;
    name.parse().map_err(|_| format!("TZID must be an IANA time zone; {name:?} is none"))
}

fn local(text: &str) -> Result<NaiveDateTime, String> {
    NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S")
        .map_err(|_| format!("{text:?} must be a local time such as 20260105T090000"))
}

fn minute_of(time: NaiveDateTime) -> Result<u16, String> {
    use chrono::Timelike as _;
    let seconds = time.num_seconds_from_midnight();
    if seconds.is_multiple_of(60) {
        Ok((seconds / 60) as u16)
    } else {
        Err("DTSTART must be a whole minute".to_owned())
    }
}

/// Midnight of a day without time zone, which the crate calls UTC.
fn floating(date: NaiveDate) -> DateTime<rrule::Tz> {
    rrule::Tz::UTC.from_utc_datetime(&date.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn rule(start: &str, rrule: &str) -> Result<Rule, String> {
        Rule::parse(&format!("DTSTART;TZID=America/New_York:{start}T090000\nRRULE:{rrule}"))
    }

    fn days(rule: &Rule, from: &str, to: &str) -> Vec<String> {
        rule.days(day(from), day(to)).map(|d| d.to_string()).collect()
    }

    #[test]
    fn weekdays_every_other_week_without_exceptions() {
        let rule = Rule::parse(
            "DTSTART;TZID=America/New_York:20260105T090000\r\n\
             RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE\r\n\
             EXDATE;TZID=America/New_York:20260121T090000",
        )
        .unwrap();
        assert_eq!(
            days(&rule, "2026-01-01", "2026-02-04"),
            ["2026-01-05", "2026-01-07", "2026-01-19", "2026-02-02", "2026-02-04"]
        );
    }

    #[test]
    fn an_end_is_the_last_day_whose_start_it_includes() {
        let until = |instant: &str| rule("20260105", &format!("FREQ=DAILY;UNTIL={instant}")).unwrap().last();
        assert_eq!(until("20260110T140000Z"), Some(day("2026-01-10")));
        assert_eq!(until("20260110T135900Z"), Some(day("2026-01-09")));
        let counted = rule("20260105", "FREQ=WEEKLY;BYDAY=MO,FR;COUNT=3").unwrap();
        assert_eq!(days(&counted, "2026-01-01", "2027-01-01"), ["2026-01-05", "2026-01-09", "2026-01-12"]);
    }

    #[test]
    fn rules_that_explode_are_refused_in_words() {
        for (rrule, word) in [
            ("FREQ=HOURLY", "FREQ"),
            ("FREQ=SECONDLY;INTERVAL=1", "FREQ"),
            ("FREQ=DAILY;BYHOUR=1,2,3", "BYHOUR"),
            ("FREQ=DAILY;COUNT=4000000000", "COUNT"),
            ("FREQ=DAILY;INTERVAL=0", "INTERVAL"),
            ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "no day"),
            ("FREQ=DAILY;UNTIL=20270101T000000Z;COUNT=3", "both"),
            ("FREQ=DAILY;UNTIL=20270101", "UNTIL"),
            ("FREQ=DAILY;FREQ=WEEKLY", "twice"),
            ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS"),
            ("INTERVAL=2", "RRULE"),
            ("nonsense", "value"),
        ] {
            let error = rule("20260105", rrule).unwrap_err();
            assert!(error.contains(word), "{rrule}: {error}");
        }
        assert!(rule("19000101", "FREQ=DAILY").unwrap_err().contains("DTSTART"));
        assert!(rule("99990101", "FREQ=DAILY").unwrap_err().contains("DTSTART"));
        assert!(Rule::parse(&"EXDATE".repeat(100_000)).unwrap_err().contains("characters"));
        assert!(Rule::parse("DTSTART:20260105T090000\nRRULE:FREQ=DAILY").unwrap_err().contains("TZID"));
    }

    fn rrules() -> impl Strategy<Value = String> {
        prop_oneof![
            (1..40u16).prop_map(|n| format!("FREQ=DAILY;INTERVAL={n}")),
            (1..12u16, 1..13u8).prop_map(|(n, m)| format!("FREQ=DAILY;INTERVAL={n};BYMONTH={m}")),
            (1..9u16, prop::sample::subsequence(vec!["MO", "TU", "TH", "SA", "SU"], 0..4), prop::bool::ANY)
                .prop_map(|(n, days, sunday)| {
                    let by =
                        if days.is_empty() { String::new() } else { format!(";BYDAY={}", days.join(",")) };
                    format!("FREQ=WEEKLY;INTERVAL={n}{by};WKST={}", if sunday { "SU" } else { "MO" })
                }),
            (1..30u16).prop_map(|n| format!("FREQ=MONTHLY;INTERVAL={n}")),
            (1..7u16, -2..3i8).prop_map(|(n, d)| format!(
                "FREQ=MONTHLY;INTERVAL={n};BYDAY={}MO",
                if d == 0 { 1 } else { d }
            )),
            Just("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1".to_owned()),
            (1..6u16).prop_map(|n| format!("FREQ=YEARLY;INTERVAL={n}")),
            (1..6u16, 1..53u8).prop_map(|(n, w)| format!("FREQ=YEARLY;INTERVAL={n};BYWEEKNO={w}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn a_jump_to_the_window_gives_the_days_of_a_walk_from_the_start(
            rrule in rrules(), start in 0..4_000i64, ahead in 0..9_000i64, length in 0..400i64,
        ) {
            let first = super::super::shift(day("2000-01-01"), start);
            let rule = rule(&first.format("%Y%m%d").to_string(), &rrule).unwrap();
            let from = super::super::shift(first, ahead);
            let to = super::super::shift(from, length);
            let walked: Vec<_> = rule.occurrences(first).skip_while(|d| *d < from).take_while(|d| *d <= to).collect();
            prop_assert_eq!(rule.days(from, to).collect::<Vec<_>>(), walked, "{}", rrule);
        }
    }
}
