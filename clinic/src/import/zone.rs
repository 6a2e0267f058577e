//! Time zones as files name them: by IANA name, by a name of the program that wrote the file, or not at all.
//!
//! A foreign name, such as Outlook's "Eastern Standard Time", is described in the file by a VTIMEZONE (RFC 5545, 3.6.5). Where
//! that says which IANA zone it stands for, that zone is used, else the description itself.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;
use icalendar::{CalendarDateTime, DatePerhapsTime};
use scheduling::domain::{span, zone};

use super::file::{Component, Line};
use super::recurrence::{Recurrence, YEARS};

/// A wall clock.
#[derive(Clone, Debug)]
pub(super) enum Zone {
    /// Of the IANA database.
    Named(Tz),
    /// Described in the file: its changes in order of time, never none.
    Described(Rc<[Change]>),
}

/// One change of a clock.
#[derive(Debug)]
pub(super) struct Change {
    /// When, on the wall clock until then.
    onset: NaiveDateTime,
    /// Ahead of UTC until then.
    before: TimeDelta,
    /// Ahead of UTC from then on.
    after: TimeDelta,
}

impl Zone {
    /// The instant at which clocks show `wall`. A time in the spring gap moves forward by the gap; a repeated autumn time means
    /// its first occurrence (RFC 5545, 3.3.5).
    pub(super) fn instant(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        match self {
            Self::Named(tz) => {
                let minute = (wall.hour() * 60 + wall.minute()) as u16;
                let seconds = TimeDelta::seconds(i64::from(wall.second()));
                span::instant(zone::at(*tz, wall.date(), minute)) + seconds
            }
            Self::Described(changes) => {
                let begun = changes.partition_point(|change| change.onset <= wall);
                let ahead = match begun.checked_sub(1).map(|last| &changes[last]) {
                    None => changes[0].before,
                    Some(last) if wall < last.onset + (last.after - last.before) => last.before,
                    Some(last) => last.after,
                };
                wall.and_utc() - ahead
            }
        }
    }
}

/// The zones of one calendar.
pub(super) struct Zones<'a> {
    floating: Option<Tz>,
    described: HashMap<&'a str, &'a Component>,
    known: HashMap<String, Zone>,
}

impl<'a> Zones<'a> {
    /// Of `calendar`; a time that names no zone is on the clock of `floating`.
    pub(super) fn of(calendar: &'a Component, floating: Option<Tz>) -> Self {
        let zones = calendar.parts.iter().filter(|part| part.name == "VTIMEZONE");
        let described = zones.map(|part| (part.text("TZID"), part)).collect();
        Self { floating, described, known: HashMap::new() }
    }

    /// The clock that a time names, and what it shows.
    pub(super) fn read(&mut self, time: &CalendarDateTime) -> anyhow::Result<(Zone, NaiveDateTime)> {
        Ok(match time {
            CalendarDateTime::Utc(instant) => (Zone::Named(Tz::UTC), instant.naive_utc()),
            CalendarDateTime::Floating(wall) => (Zone::Named(self.floating()?), *wall),
            CalendarDateTime::WithTimezone { date_time, tzid } => (self.zone(tzid.trim())?, *date_time),
        })
    }

    /// The clock of what names none.
    pub(super) fn floating(&self) -> anyhow::Result<Tz> {
        self.floating.context(
            "its days or times name no time zone: say which one is meant, with --time-zone such as America/New_York, or with --clinic",
        )
    }

    fn zone(&mut self, tzid: &str) -> anyhow::Result<Zone> {
        if let Some(known) = self.known.get(tzid) {
            return Ok(known.clone());
        }
        let description = self.described.get(tzid).copied();
        let stands_for = description.and_then(|d| named(d.text("X-LIC-LOCATION")));
        let zone = match (named(tzid).or(stands_for), description) {
            (Some(tz), _) => Zone::Named(tz),
            (None, Some(description)) => Zone::Described(changes(description)?),
            (None, None) => anyhow::bail!(
                "{tzid:?} is no IANA time zone and the file does not describe it (VTIMEZONE): export the calendar again with its \
                 time zones, or put a name such as America/New_York in its place"
            ),
        };
        self.known.insert(tzid.to_owned(), zone.clone());
        Ok(zone)
    }
}

/// An IANA name, also behind a maker's prefix such as "/citadel.org/20260101_1/America/New_York".
fn named(tzid: &str) -> Option<Tz> {
    let ends = tzid.match_indices('/').map(|(at, _)| &tzid[at + 1..]).filter(|_| tzid.starts_with('/'));
    std::iter::once(tzid).chain(ends).find_map(|name| name.parse().ok())
}

/// The changes that a VTIMEZONE describes, to the end of the years that rules reach.
fn changes(description: &Component) -> anyhow::Result<Rc<[Change]>> {
    let horizon = NaiveDate::from_ymd_opt(*YEARS.end(), 12, 31).unwrap_or(NaiveDate::MAX);
    let mut changes = vec![];
    for part in description.parts.iter().filter(|part| matches!(part.name.as_str(), "STANDARD" | "DAYLIGHT"))
    {
        let line = |name: &str| {
            part.first(name).with_context(|| format!("line {}: {} has no {name}", part.line, part.name))
        };
        let (before, after) = (offset(line("TZOFFSETFROM")?)?, offset(line("TZOFFSETTO")?)?);
        let start = onset(line("DTSTART")?.time()?);
        let mut onsets = vec![start];
        for rule in part.all("RRULE") {
            let read = Recurrence::parse(rule.value(), start).map_err(anyhow::Error::msg);
            let read = read.with_context(|| format!("line {}: RRULE", rule.number))?;
            let each = read.days(start.date(), horizon).map(|day| day.and_time(start.time()));
            onsets.extend(each.filter(|wall| read.reaches(*wall, wall.and_utc() - before)));
        }
        for dates in part.all("RDATE") {
            for time in dates.times() {
                onsets.push(onset(time?));
            }
        }
        changes.extend(onsets.into_iter().map(|onset| Change { onset, before, after }));
    }
    ensure!(!changes.is_empty(), "line {}: VTIMEZONE has neither STANDARD nor DAYLIGHT", description.line);
    changes.sort_by_key(|change| change.onset);
    Ok(changes.into())
}

/// Onsets are on the local clock (RFC 5545, 3.6.5), whatever the value says.
fn onset(time: DatePerhapsTime) -> NaiveDateTime {
    match time {
        DatePerhapsTime::Date(date) => date.into(),
        DatePerhapsTime::DateTime(CalendarDateTime::Utc(instant)) => instant.naive_utc(),
        DatePerhapsTime::DateTime(
            CalendarDateTime::Floating(wall) | CalendarDateTime::WithTimezone { date_time: wall, .. },
        ) => wall,
    }
}

/// A UTC offset such as -0500 or +053000.
fn offset(line: &Line) -> anyhow::Result<TimeDelta> {
    let read = |text: &str| {
        let ahead = match text.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let digits =
            text.get(1..).filter(|d| matches!(d.len(), 4 | 6) && d.bytes().all(|b| b.is_ascii_digit()))?;
        let number: i64 = digits.parse().ok()?;
        let number = if digits.len() == 4 { number * 100 } else { number };
        let (hours, minutes, seconds) = (number / 10_000, number / 100 % 100, number % 100);
        (hours < 24 && minutes < 60 && seconds < 60)
            .then(|| TimeDelta::seconds(ahead * (hours * 3600 + minutes * 60 + seconds)))
    };
    read(line.value()).with_context(|| {
        format!("line {}: {} {:?} must be such as -0500", line.number, line.name(), line.value())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::file;

    /// Eastern time as Outlook describes it: rules that begin in 1601.
    const EASTERN: &str = "BEGIN:STANDARD\nDTSTART:16010101T020000\nTZOFFSETFROM:-0400\nTZOFFSETTO:-0500\n\
        RRULE:FREQ=YEARLY;BYDAY=1SU;BYMONTH=11\nEND:STANDARD\n\
        BEGIN:DAYLIGHT\nDTSTART:16010101T020000\nTZOFFSETFROM:-0500\nTZOFFSETTO:-0400\n\
        RRULE:FREQ=YEARLY;BYDAY=2SU;BYMONTH=3\nEND:DAYLIGHT\n";

    fn zone(tzid: &str, description: &str) -> anyhow::Result<Zone> {
        let text =
            format!("BEGIN:VCALENDAR\nBEGIN:VTIMEZONE\nTZID:Ours\n{description}END:VTIMEZONE\nEND:VCALENDAR");
        let calendars = file::read(text.as_bytes())?;
        Zones::of(&calendars[0], None).zone(tzid)
    }

    #[test]
    fn a_described_zone_shows_what_the_named_one_shows_at_every_quarter_of_an_hour() {
        let described = zone("Ours", EASTERN).unwrap();
        assert!(matches!(described, Zone::Described(_)));
        let named = Zone::Named(Tz::America__New_York);
        for first in ["2026-03-01", "2026-10-25", "2032-03-08", "2032-11-01"] {
            let first = NaiveDateTime::from(first.parse::<NaiveDate>().unwrap());
            for quarter in 0..14 * 96 {
                let wall = first + TimeDelta::minutes(15 * quarter);
                assert_eq!(described.instant(wall), named.instant(wall), "{wall}");
            }
        }
    }

    #[test]
    fn a_zone_that_gave_up_changing_its_clocks_stays_where_it_stayed() {
        let istanbul = "BEGIN:DAYLIGHT\nDTSTART:20070325T030000\nTZOFFSETFROM:+0200\nTZOFFSETTO:+0300\n\
            RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU;UNTIL=20160327T010000Z\nEND:DAYLIGHT\n\
            BEGIN:STANDARD\nDTSTART:20071028T040000\nTZOFFSETFROM:+0300\nTZOFFSETTO:+0200\n\
            RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU;UNTIL=20141026T010000Z\nEND:STANDARD\n\
            BEGIN:STANDARD\nDTSTART:20151108T040000\nTZOFFSETFROM:+0300\nTZOFFSETTO:+0200\nEND:STANDARD\n";
        let described = zone("Ours", istanbul).unwrap();
        let wall: NaiveDateTime = "2026-12-01T09:00:00".parse().unwrap();
        assert_eq!(described.instant(wall), Zone::Named(Tz::Europe__Istanbul).instant(wall));
        let before: NaiveDateTime = "2015-12-01T09:00:00".parse().unwrap();
        assert_eq!(described.instant(before), Zone::Named(Tz::Europe__Istanbul).instant(before));
    }

    #[test]
    fn names_are_found_behind_a_prefix_and_in_the_description() {
        let is =
            |tzid, description, tz| matches!(zone(tzid, description), Ok(Zone::Named(found)) if found == tz);
        assert!(is("Asia/Kolkata", "", Tz::Asia__Kolkata));
        assert!(is("/citadel.org/20260101_1/America/Indiana/Knox", "", Tz::America__Indiana__Knox));
        assert!(is("Ours", "X-LIC-LOCATION:Europe/Berlin\n", Tz::Europe__Berlin));
    }

    #[test]
    fn what_cannot_be_known_says_what_to_do() {
        for (tzid, description, word) in [
            ("Eastern Standard Time", "", "America/New_York"),
            ("Ours", "", "neither STANDARD nor DAYLIGHT"),
            ("Ours", "BEGIN:STANDARD\nEND:STANDARD\n", "line 4: STANDARD has no TZOFFSETFROM"),
            ("Ours", "BEGIN:STANDARD\nTZOFFSETFROM:5\nTZOFFSETTO:+0000\nEND:STANDARD\n", "line 5"),
        ] {
            let error = format!("{:#}", zone(tzid, description).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
