//! A VEVENT: when it takes place, and whether it counts (RFC 5545, 3.6.1).

use std::collections::{BTreeSet, HashSet};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use icalendar::DatePerhapsTime;
use scheduling::domain::shift;

use super::file::{Component, Line};
use super::recurrence::Recurrence;
use super::zone::{Zone, Zones};

/// Most occurrences of one event within the dates asked for.
const MAX_OCCURRENCES: usize = 5_000;
/// Longest event: a hundred years.
const MAX_DAYS: i64 = 36_600;

/// Why an event takes no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// Shown as free.
    Free,
    /// Called off.
    Cancelled,
}

/// When one occurrence takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// Whole days, first and last.
    Days(NaiveDate, NaiveDate),
    /// From one instant to another; both are one when the event has no length.
    Exact(DateTime<Utc>, DateTime<Utc>),
}

/// One event of a file.
pub(super) struct Event<'a> {
    component: &'a Component,
}

/// How long each occurrence is.
enum Length {
    /// As many seconds as the first.
    Elapsed(TimeDelta),
    /// Days of the wall clock, then seconds.
    Nominal(i64, TimeDelta),
}

impl<'a> Event<'a> {
    /// Of a VEVENT.
    pub(super) fn of(component: &'a Component) -> Self {
        Self { component }
    }

    /// Its name across files; empty when it has none.
    pub(super) fn uid(&self) -> &'a str {
        self.component.text("UID")
    }

    /// What it is called, on one line; empty when it is not.
    pub(super) fn summary(&self) -> String {
        let shown = self.component.text("SUMMARY").split(|c: char| c.is_whitespace() || c.is_control());
        shown.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// How complaints name it.
    pub(super) fn described(&self) -> String {
        format!("line {}, event {:?} (UID {:?})", self.component.line, self.summary(), self.uid())
    }

    /// The line that says which occurrence of a repeating event this one stands for.
    pub(super) fn replaces(&self) -> Option<&'a Line> {
        self.component.first("RECURRENCE-ID")
    }

    /// How many occurrences its rules count out, however long ago.
    pub(super) fn counted(&self) -> usize {
        let parts = self.component.all("RRULE").flat_map(|line| line.value().split(';'));
        let counts = parts.filter_map(|part| part.to_ascii_uppercase().strip_prefix("COUNT=")?.parse().ok());
        counts.fold(0, usize::saturating_add)
    }

    /// Why it takes no time, if it takes none.
    pub(super) fn ignored(&self) -> Option<Ignored> {
        let free = self.component.says("TRANSP", "TRANSPARENT")
            || self.component.says("X-MICROSOFT-CDO-BUSYSTATUS", "FREE");
        let cancelled = self.component.says("STATUS", "CANCELLED");
        cancelled.then_some(Ignored::Cancelled).or(free.then_some(Ignored::Free))
    }

    /// What takes place between two days, and perhaps a little before and after, in order. `replaced` are the lines by which
    /// other events take the place of occurrences of this one.
    pub(super) fn occurrences(
        &self,
        zones: &mut Zones<'_>,
        replaced: &[&Line],
        (from, until): (NaiveDate, NaiveDate),
    ) -> anyhow::Result<BTreeSet<When>> {
        let unsupported = self.replaces().is_some_and(|line| line.parameter("RANGE").is_some());
        ensure!(!unsupported, "RANGE changes all later occurrences too, which cannot be imported");
        ensure!(self.component.first("EXRULE").is_none(), "EXRULE is obsolete and cannot be imported");
        let start = self.component.first("DTSTART").context("it has no DTSTART")?;
        let except = self.component.all("EXDATE").chain(replaced.iter().copied());
        let found: BTreeSet<When> = match start.time()? {
            DatePerhapsTime::Date(first) => {
                let length = self.whole_days(first)?;
                let midnight = first.and_time(NaiveTime::MIN);
                let except = except.flat_map(Line::times).map(|time| Ok(time?.date_naive()));
                let except: HashSet<NaiveDate> = except.collect::<anyhow::Result<_>>()?;
                let days = self.days(midnight, shift(from, -length), until, |wall| Ok(wall.and_utc()))?;
                let days = days.into_iter().map(|wall| wall.date()).filter(|day| !except.contains(day));
                days.map(|day| When::Days(day, shift(day, length - 1))).collect()
            }
            DatePerhapsTime::DateTime(time) => {
                let (zone, wall) = zones.read(&time)?;
                let length = self.length(zones, zone.instant(wall))?;
                let mut instants = HashSet::new();
                let mut dates = HashSet::new();
                for time in except.flat_map(Line::times) {
                    match time? {
                        DatePerhapsTime::Date(date) => _ = dates.insert(date),
                        DatePerhapsTime::DateTime(time) => {
                            let (zone, wall) = zones.read(&time)?;
                            instants.insert(zone.instant(wall));
                        }
                    }
                }
                // A day more on either side: days differ between time zones.
                let (from, until) = (shift(from, -length.whole_days() - 1), shift(until, 1));
                let mut walls = self.days(wall, from, until, |wall| Ok(zone.instant(wall)))?;
                self.add_times(zones, &zone, &mut walls)?;
                walls
                    .into_iter()
                    .filter(|wall| !dates.contains(&wall.date()) && !instants.contains(&zone.instant(*wall)))
                    .map(|wall| When::Exact(zone.instant(wall), length.end(&zone, wall)))
                    .collect()
            }
        };
        ensure!(
            found.len() <= MAX_OCCURRENCES,
            "it takes place more than {MAX_OCCURRENCES} times between the dates asked for: choose them closer with --until"
        );
        Ok(found)
    }

    /// Starts by DTSTART, RRULE and dates of RDATE, within the days given.
    fn days(
        &self,
        start: NaiveDateTime,
        from: NaiveDate,
        until: NaiveDate,
        instant: impl Fn(NaiveDateTime) -> anyhow::Result<DateTime<Utc>>,
    ) -> anyhow::Result<BTreeSet<NaiveDateTime>> {
        let mut found = BTreeSet::from([start]);
        for line in self.component.all("RRULE") {
            let rule = Recurrence::parse(line.value(), start).map_err(anyhow::Error::msg);
            let rule = rule.with_context(|| format!("line {}, RRULE", line.number))?;
            for day in rule.days(from, until).take(MAX_OCCURRENCES + 1) {
                let wall = day.and_time(start.time());
                if rule.reaches(wall, instant(wall)?) {
                    found.insert(wall);
                }
            }
        }
        for time in self.component.all("RDATE").flat_map(Line::times) {
            if let DatePerhapsTime::Date(date) = time? {
                found.insert(date.and_time(start.time()));
            }
        }
        Ok(found)
    }

    /// Starts by times of RDATE, on the clock of `zone`.
    fn add_times(
        &self,
        zones: &mut Zones<'_>,
        zone: &Zone,
        walls: &mut BTreeSet<NaiveDateTime>,
    ) -> anyhow::Result<()> {
        for line in self.component.all("RDATE") {
            for time in line.times() {
                if let DatePerhapsTime::DateTime(time) = time? {
                    let (own, wall) = zones.read(&time)?;
                    ensure!(
                        own.instant(wall) == zone.instant(wall),
                        "line {}: RDATE must be on the clock of DTSTART",
                        line.number
                    );
                    walls.insert(wall);
                }
            }
        }
        Ok(())
    }

    /// How many days a whole-day event lasts, at least one.
    fn whole_days(&self, first: NaiveDate) -> anyhow::Result<i64> {
        let days = match (self.component.first("DTEND"), self.component.first("DURATION")) {
            (Some(end), _) => (end.time()?.date_naive() - first).num_days(),
            (None, Some(line)) => duration(line)?.0,
            (None, None) => 1,
        };
        bounded(days)?;
        Ok(days.max(1))
    }

    fn length(&self, zones: &mut Zones<'_>, start: DateTime<Utc>) -> anyhow::Result<Length> {
        let length = match (self.component.first("DTEND"), self.component.first("DURATION")) {
            (Some(end), _) => match end.time()? {
                DatePerhapsTime::Date(_) => bail!("DTSTART has a time of day and DTEND has none"),
                DatePerhapsTime::DateTime(time) => {
                    let (zone, wall) = zones.read(&time)?;
                    Length::Elapsed(zone.instant(wall) - start)
                }
            },
            (None, Some(line)) => {
                let (days, rest) = duration(line)?;
                Length::Nominal(days, rest)
            }
            (None, None) => Length::Elapsed(TimeDelta::zero()),
        };
        let shortest = match &length {
            Length::Elapsed(time) | Length::Nominal(_, time) => *time,
        };
        ensure!(shortest >= TimeDelta::zero(), "it ends before it starts");
        bounded(length.whole_days())?;
        Ok(length)
    }
}

impl Length {
    /// In days, rounded up.
    fn whole_days(&self) -> i64 {
        match self {
            Self::Elapsed(time) => time.num_days() + 1,
            Self::Nominal(days, time) => days + time.num_days() + 1,
        }
    }

    /// When what starts at `wall` ends.
    fn end(&self, zone: &Zone, wall: NaiveDateTime) -> DateTime<Utc> {
        match self {
            Self::Elapsed(time) => zone.instant(wall) + *time,
            Self::Nominal(days, time) => zone.instant(wall + Days::new(days.unsigned_abs())) + *time,
        }
    }
}

fn bounded(days: i64) -> anyhow::Result<()> {
    ensure!(days >= 0, "it ends before it starts");
    ensure!(days <= MAX_DAYS, "it lasts longer than a hundred years");
    Ok(())
}

/// Days of the wall clock and seconds of a DURATION such as P2D or PT1H30M (RFC 5545, 3.3.6).
fn duration(line: &Line) -> anyhow::Result<(i64, TimeDelta)> {
    let read = |text: &str| {
        let text = text.strip_prefix('+').unwrap_or(text).strip_prefix('P')?;
        let (date, time) = text.split_once('T').unwrap_or((text, ""));
        let mut days = 0_i64;
        for (number, unit) in amounts(date)? {
            days += number * [('W', 7), ('D', 1)].iter().find(|(name, _)| *name == unit)?.1;
        }
        let mut seconds = 0_i64;
        for (number, unit) in amounts(time)? {
            seconds += number * [('H', 3600), ('M', 60), ('S', 1)].iter().find(|(name, _)| *name == unit)?.1;
        }
        (!text.is_empty()).then(|| (days, TimeDelta::seconds(seconds)))
    };
    let read = read(&line.value().to_ascii_uppercase());
    read.with_context(|| {
        format!("line {}: DURATION {:?} must be such as P1D or PT1H30M", line.number, line.value())
    })
}

/// `1H30M` -> 1 H, 30 M.
fn amounts(text: &str) -> Option<Vec<(i64, char)>> {
    let mut rest = text;
    let mut found = vec![];
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        // Nine digits cannot overflow whatever they count.
        let number = rest[..end].parse().ok().filter(|_| end <= 9)?;
        let unit = rest[end..].chars().next()?;
        found.push((number, unit));
        rest = &rest[end + unit.len_utf8()..];
    }
    Some(found)
}
