//! The judge: what may be booked, straight from the definitions. Slow on purpose: one flag for every minute around the days asked
//! for, and what the wall clock shows in each. From the code that it judges it takes stored values and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, NaiveDate, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, ProviderId};

use super::worlds::World;
use crate::domain::calendar::{Blackout, BlackoutSpan, ExceptionKind, WeeklyTemplate};
use crate::domain::catalog::{Clinic, Provider, ServiceType};
use crate::domain::search::Slot;
use crate::domain::span::{Minute, Span, instant};

/// Minutes of a day on paper.
pub(super) const DAY: Minute = 1440;
/// Clocks change when UTC shows a whole quarter of an hour, so they are read that often.
pub(super) const QUARTER: Minute = 15;
/// No clock is further ahead of UTC, in minutes; none is further behind than 12 hours.
const FURTHEST_AHEAD: Minute = 14 * 60;

/// One for each minute of a [`WallClock`].
type Flags = Vec<bool>;

/// Days since 1970-01-01.
pub(super) fn number(date: NaiveDate) -> i64 {
    (date - NaiveDate::default()).num_days()
}

/// The date of a day's number.
pub(super) fn date(number: i64) -> NaiveDate {
    NaiveDate::default() + TimeDelta::days(number)
}

/// How far a clock in `zone` is ahead of UTC at a minute.
pub(super) fn ahead(zone: Tz, minute: Minute) -> Minute {
    let instant = DateTime::from_timestamp(minute * 60, 0).unwrap().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&instant).fix().local_minus_utc() / 60)
}

/// What a clock in `zone` shows at a minute: the minutes from 1970-01-01T00:00 of its own.
pub(super) fn shown(zone: Tz, minute: Minute) -> Minute {
    minute + ahead(zone, minute)
}

/// What a clock shows in each minute of some days.
pub(super) struct WallClock {
    from: Minute,
    shown: Vec<Minute>,
    /// In which minute it shows for the first time `shown[0] + n` or more.
    reached: Vec<usize>,
}

impl WallClock {
    /// From a day before `days` to twelve hours after them, or more: shifts and visits that reach into them lie within.
    fn around(zone: Tz, days: (i64, i64)) -> Self {
        let from = (days.0 - 1) * DAY - FURTHEST_AHEAD;
        let mut shown = vec![];
        for quarter in (from..(days.1 + 2) * DAY).step_by(QUARTER as usize) {
            let ahead = ahead(zone, quarter);
            shown.extend((quarter..quarter + QUARTER).map(|minute| minute + ahead));
        }
        let mut reached = vec![];
        for (index, reading) in shown.iter().enumerate() {
            while shown[0] + reached.len() as i64 <= *reading {
                reached.push(index);
            }
        }
        Self { from, shown, reached }
    }

    /// The minute at which it shows `minute` of `day`, the first if there are two. If it skips that time: when it would have
    /// shown it without the change. Before and after all that is known: the first or the last minute known.
    pub(super) fn at(&self, day: i64, minute: u16) -> Minute {
        let wall = day * DAY + i64::from(minute);
        if wall < self.shown[0] {
            return self.from;
        }
        let Some(&index) = self.reached.get((wall - self.shown[0]) as usize) else {
            return self.from + self.shown.len() as i64;
        };
        let skipped = if self.shown[index] > wall { wall - self.shown[index - 1] - 1 } else { 0 };
        self.from + index as i64 + skipped
    }

    /// A shift of `day`, as long as the clock makes it.
    fn shift(&self, day: i64, start: u16, end: u16) -> Span {
        let last = if end <= start { day + 1 } else { day };
        Span::new(self.at(day, start), self.at(last, end))
    }

    fn none(&self) -> Flags {
        vec![false; self.shown.len()]
    }

    fn index(&self, minute: Minute) -> usize {
        (minute - self.from).clamp(0, self.shown.len() as i64) as usize
    }

    fn put(&self, flags: &mut Flags, span: Span, value: bool) {
        let (start, end) = (self.index(span.start), self.index(span.end));
        if start < end {
            flags[start..end].fill(value);
        }
    }
}

/// Some days at one clinic.
pub(super) struct Oracle<'a> {
    world: &'a World,
    clinic: &'a Clinic,
    /// Numbers of the first and the last.
    days: (i64, i64),
    /// Visits start then or later, by notice.
    earliest: DateTime<Utc>,
    /// Visits start on that day at the latest, by the booking horizon.
    latest: i64,
    clock: WallClock,
    /// The clinic is open, and no blackout says otherwise.
    usable: Flags,
    /// When each suitable room is taken.
    rooms: Vec<Flags>,
}

impl<'a> Oracle<'a> {
    /// Looks at the clinic from one day to another.
    pub(super) fn new(world: &'a World, clinic: &'a Clinic, days: [NaiveDate; 2]) -> Self {
        let days = (number(days[0]), number(days[1]));
        let clock = WallClock::around(clinic.time_zone, days);
        let mut usable = clock.none();
        for day in days.0 - 1..=days.1 + 1 {
            for hours in clinic.opening_hours.iter().filter(|h| h.day == weekday(day)) {
                clock.put(&mut usable, clock.shift(day, hours.open, hours.close), true);
            }
        }
        for blackout in world.catalog.blackouts.iter().filter(|b| names(b.clinic_id, clinic.id)) {
            clock.put(&mut usable, closed(&clock, blackout), false);
        }
        let service = world.service();
        let suitable = world.catalog.rooms.iter().filter(|room| {
            room.clinic_id == clinic.id
                && !room.retired
                && service.room_features.iter().all(|f| room.features.contains(f))
        });
        let mut rooms = vec![];
        for room in suitable {
            let mut taken = clock.none();
            for busy in world.busy.values().flatten().filter(|b| b.room_id == room.id) {
                clock.put(&mut taken, busy.visit, true);
            }
            rooms.push(taken);
        }
        let today = shown(clinic.time_zone, world.now.timestamp().div_euclid(60)).div_euclid(DAY);
        let earliest = world.now + TimeDelta::minutes(service.minimum_notice_minutes.into());
        let latest = today + i64::from(service.booking_horizon_days);
        Self { world, clinic, days, earliest, latest, clock, usable, rooms }
    }

    /// When the provider works there.
    fn working(&self, provider: ProviderId) -> Flags {
        let (clock, calendar) = (&self.clock, &self.world.calendars[&provider]);
        let mut working = clock.none();
        for template in calendar.templates.iter().filter(|t| t.clinic_id == self.clinic.id) {
            for day in (self.days.0 - 1..=self.days.1 + 1).filter(|day| self.falls_on(template, *day)) {
                clock.put(&mut working, clock.shift(day, template.start_minute, template.end_minute), true);
            }
        }
        for (kind, value) in [(ExceptionKind::ExtraHours, true), (ExceptionKind::TimeOff, false)] {
            let own = calendar.exceptions.iter().filter(|e| e.kind == kind);
            for exception in own.filter(|e| names(e.clinic_id, self.clinic.id)) {
                clock.put(&mut working, exception.span, value);
            }
        }
        working.iter().zip(&self.usable).map(|(works, usable)| *works && *usable).collect()
    }

    fn falls_on(&self, template: &WeeklyTemplate, day: i64) -> bool {
        let in_force = template.first_date.is_none_or(|first| number(first) <= day)
            && template.last_date.is_none_or(|last| day <= number(last));
        in_force && self.world.recurrences[&template.id].falls_on(day, &self.clock)
    }

    /// When the provider is taken, wherever.
    fn busy(&self, provider: ProviderId) -> Flags {
        let mut flags = self.clock.none();
        for busy in &self.world.busy[&provider] {
            self.clock.put(&mut flags, busy.occupied, true);
        }
        flags
    }

    /// Whether a visit may start in a minute, whoever gives it: by step, notice and horizon.
    fn bookable(&self, index: usize) -> bool {
        let service = self.world.service();
        let step = if service.step_minutes == 0 { service.duration_minutes } else { service.step_minutes };
        self.time(index) % i64::from(step) == 0
            && instant(self.clock.from + index as i64) >= self.earliest
            && self.day(index) <= self.latest
    }

    /// Whether the query is about a start in that minute.
    fn asked(&self, index: usize) -> bool {
        let query = &self.world.query;
        self.days.0 <= self.day(index)
            && self.day(index) <= self.days.1
            && i64::from(query.from_minute) <= self.time(index)
            && self.time(index) < i64::from(query.before_minute)
            && asks(&query.weekdays, weekday(self.day(index)))
    }

    /// The local day that a minute lies on.
    fn day(&self, index: usize) -> i64 {
        self.clock.shown[index].div_euclid(DAY)
    }

    /// The minute of that day that the clock shows.
    fn time(&self, index: usize) -> Minute {
        self.clock.shown[index].rem_euclid(DAY)
    }

    /// The minutes in which a visit may start that the query is about.
    fn starts(&self) -> Vec<usize> {
        (0..self.clock.shown.len()).filter(|index| self.asked(*index) && self.bookable(*index)).collect()
    }

    /// Those of `starts` that the provider can give.
    fn slots(&self, provider: ProviderId, starts: &[usize]) -> Vec<Slot> {
        let service = self.world.service();
        let (working, busy) = (self.working(provider), self.busy(provider));
        let length = service.duration_minutes as usize;
        let (before, after) = (service.buffer_before_minutes as usize, service.buffer_after_minutes as usize);
        let free = |start: &usize| {
            let visit = *start..start + length;
            all(&working[visit.clone()])
                && no(&busy[start - before..start + length + after])
                && self.rooms.iter().any(|taken| no(&taken[visit.clone()]))
        };
        let starts = starts.iter().filter(|start| free(start)).map(|start| self.clock.from + *start as i64);
        starts.map(|start| Slot { start, clinic_id: self.clinic.id, provider_id: provider }).collect()
    }

    /// In how many minutes of the local day of `start` the provider is taken.
    pub(super) fn load(&self, provider: ProviderId, start: Minute) -> usize {
        let (busy, day) = (self.busy(provider), self.day(self.clock.index(start)));
        (0..busy.len()).filter(|index| busy[*index] && self.day(*index) == day).count()
    }

    /// When the first day begins.
    pub(super) fn midnight(&self) -> Minute {
        self.clock.at(self.days.0, 0)
    }

    /// When visits with the provider may start by the calendar, whatever is booked and whatever the query asks.
    pub(super) fn fitting(&self, provider: &Provider) -> BTreeSet<Minute> {
        let service = self.world.service();
        if !takes_visits(service, self.clinic, provider) || self.rooms.is_empty() {
            return BTreeSet::new();
        }
        let working = self.working(provider.id);
        let fits = |index: &usize| {
            (self.days.0..=self.days.1).contains(&self.day(*index))
                && self.bookable(*index)
                && all(&working[*index..index + service.duration_minutes as usize])
        };
        (0..working.len()).filter(fits).map(|index| self.clock.from + index as i64).collect()
    }
}

/// Every slot that the world's query is about, in order.
pub(super) fn offered(world: &World) -> Vec<Slot> {
    let (service, query) = (world.service(), &world.query);
    let mut found = vec![];
    for clinic in world.catalog.clinics.iter().filter(|c| asks(&query.clinics, c.id)) {
        let today = shown(clinic.time_zone, world.now.timestamp().div_euclid(60)).div_euclid(DAY);
        let first = query.first.unwrap_or(date(today));
        let last = query.last.unwrap_or(first + TimeDelta::days(6)).min(first + TimeDelta::days(61));
        let oracle = Oracle::new(world, clinic, [first, last]);
        let starts = oracle.starts();
        let mut slots = vec![];
        for provider in world.catalog.providers.iter().filter(|p| asks(&query.providers, p.id)) {
            if takes_visits(service, clinic, provider) {
                slots.extend(oracle.slots(provider.id, &starts));
            }
        }
        found.extend(if query.any_provider { least_busy(&oracle, slots) } else { slots });
    }
    found.sort();
    found
}

/// Of the slots of a clinic that start together only that of the provider with the fewest busy minutes that day, of the lowest id
/// if there are more.
fn least_busy(oracle: &Oracle, slots: Vec<Slot>) -> Vec<Slot> {
    let mut loads = HashMap::new();
    let mut best: BTreeMap<Minute, (usize, Slot)> = BTreeMap::new();
    for slot in slots {
        let day = oracle.day(oracle.clock.index(slot.start));
        let load = || oracle.load(slot.provider_id, slot.start);
        let load = *loads.entry((slot.provider_id, day)).or_insert_with(load);
        let least = best.entry(slot.start).or_insert((load, slot));
        *least = (*least).min((load, slot));
    }
    best.into_values().map(|(_, slot)| slot).collect()
}

fn all(flags: &[bool]) -> bool {
    !flags.contains(&false)
}

fn no(flags: &[bool]) -> bool {
    !flags.contains(&true)
}

/// 1 = Monday. The day with number 0 was a Thursday.
fn weekday(day: i64) -> u8 {
    (day + 3).rem_euclid(7) as u8 + 1
}

/// Whether something for one clinic, or for all, is about this one.
fn names(named: Option<ClinicId>, clinic: ClinicId) -> bool {
    named.is_none() || named == Some(clinic)
}

/// Whether something asked for, all if nothing is named, includes this one.
fn asks<I: PartialEq>(asked: &[I], one: I) -> bool {
    asked.is_empty() || asked.contains(&one)
}

/// When a blackout is, by this clock.
fn closed(clock: &WallClock, blackout: &Blackout) -> Span {
    match &blackout.span {
        BlackoutSpan::Days(days) => {
            Span::new(clock.at(number(*days.start()), 0), clock.at(number(*days.end()) + 1, 0))
        }
        BlackoutSpan::Exact(span) => *span,
    }
}

/// Nothing concerned is retired, and the provider offers the service.
fn takes_visits(service: &ServiceType, clinic: &Clinic, provider: &Provider) -> bool {
    !service.retired && !clinic.retired && !provider.retired && asks(&provider.service_type_ids, service.id)
}
