//! Clock changes rule by rule, as patients see them: the starts that a search offers, by the clinic's clock and with its offset.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::NaiveDate;
use chrono_tz::Tz;
use chrono_tz::Tz::{
    Africa__Casablanca as CASABLANCA, America__New_York as NEW_YORK, America__St_Johns as ST_JOHNS,
    Asia__Kolkata as KOLKATA, Australia__Lord_Howe as LORD_HOWE, Europe__London as LONDON,
};

use super::recurrence::{End, Pattern, Recurrence};
use super::worlds::{
    CLINIC, PROVIDER, Past, ROOM, SERVICE, TEMPLATE, World, clinic, id, provider, query, room, service,
    template,
};
use crate::domain::calendar::{Blackout, BlackoutSpan};
use crate::domain::catalog::{OpeningHours, ServiceType};
use crate::domain::network::{Calendar, Catalog};
use crate::domain::search::Search;
use crate::domain::zone;

/// One clinic, one provider.
struct Practice {
    zone: Tz,
    /// Of the clinic.
    hours: (u16, u16),
    /// Of the provider.
    shift: (u16, u16),
    days: Pattern,
    /// Visits are so long and start that often.
    minutes: i32,
    closed: Option<&'static str>,
}

/// An hour and a minute of a day.
const fn hm(hour: u16, minute: u16) -> u16 {
    hour * 60 + minute
}

const MIDNIGHT: u16 = hm(0, 0);

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// A shift each day from `start` to `end`, for visits of half an hour, at a clinic that is always open.
fn practice(zone: Tz, start: u16, end: u16) -> Practice {
    Practice {
        zone,
        hours: (MIDNIGHT, MIDNIGHT),
        shift: (start, end),
        days: Pattern::Daily(1),
        minutes: 30,
        closed: None,
    }
}

impl Practice {
    /// The starts on offer from one day to another, as in `2026-03-08T00:30-05:00`.
    fn between(&self, first: &str, last: &str) -> Vec<String> {
        let hours = (1..=7).map(|day| OpeningHours { day, open: self.hours.0, close: self.hours.1 });
        let blackout = |date: &str| Blackout {
            id: id(1),
            clinic_id: None,
            name: String::new(),
            span: BlackoutSpan::Days(day(date)..=day(date)),
        };
        let recurrence = Recurrence {
            zone: self.zone,
            start: day("2025-06-02"),
            minute: self.shift.0,
            pattern: self.days.clone(),
            end: End::Never,
            except: BTreeSet::new(),
        };
        let template = template(TEMPLATE, PROVIDER, CLINIC, &recurrence, self.shift.1);
        let world = World {
            catalog: Catalog {
                clinics: vec![clinic(CLINIC, self.zone, hours.collect())],
                rooms: vec![room(ROOM, CLINIC)],
                service_types: vec![ServiceType { duration_minutes: self.minutes, ..service(SERVICE) }],
                providers: vec![provider(PROVIDER)],
                blackouts: self.closed.iter().map(|date| blackout(date)).collect(),
            },
            recurrences: HashMap::from([(template.id, recurrence)]),
            calendars: BTreeMap::from([(
                id(PROVIDER),
                Calendar { version: 1, templates: vec![template], exceptions: vec![] },
            )]),
            busy: BTreeMap::from([(id(PROVIDER), vec![])]),
            query: query(Some(day(first)), Some(day(last))),
            now: "2026-01-01T12:00:00Z".parse().unwrap(),
            past: Past::New,
        };
        let network = world.network();
        let slots = Search::new(&network, &world.query, world.now).unwrap().slots(None, 1_000);
        let shown = slots.iter().map(|slot| zone::rfc3339(self.zone, slot.start));
        // Seconds are always none.
        shown.map(|time| format!("{}{}", &time[..16], &time[19..])).collect()
    }

    /// The starts of one day, which are the same when not the provider's shift is so but the clinic's hours.
    fn either_way_on(&self, date: &str) -> Vec<String> {
        let starts = self.on(date);
        let open = Self { hours: self.shift, shift: self.hours, days: self.days.clone(), ..*self };
        assert_eq!(open.on(date), starts, "opening hours, {} {date}", self.zone);
        starts
    }

    /// The starts of one day, without the date.
    fn on(&self, date: &str) -> Vec<String> {
        self.between(date, date).iter().map(|start| start[11..].to_owned()).collect()
    }
}

/// The first and the last of some starts, and how many there are.
fn ends(starts: &[String]) -> (&str, &str, usize) {
    (starts.first().map_or("", String::as_str), starts.last().map_or("", String::as_str), starts.len())
}

#[test]
fn opening_hours_from_ten_to_four_keep_local_time_on_both_sundays() {
    for (zone, date, first, last) in [
        (NEW_YORK, "2026-03-08", "10:00-04:00", "15:30-04:00"),
        (NEW_YORK, "2026-11-01", "10:00-05:00", "15:30-05:00"),
        (LONDON, "2026-03-29", "10:00+01:00", "15:30+01:00"),
        (LONDON, "2026-10-25", "10:00+00:00", "15:30+00:00"),
        (LORD_HOWE, "2026-10-04", "10:00+11:00", "15:30+11:00"),
        (LORD_HOWE, "2026-04-05", "10:00+10:30", "15:30+10:30"),
        (KOLKATA, "2026-03-29", "10:00+05:30", "15:30+05:30"),
        (KOLKATA, "2026-10-25", "10:00+05:30", "15:30+05:30"),
        (CASABLANCA, "2026-03-22", "10:00+01:00", "15:30+01:00"),
        (CASABLANCA, "2026-02-15", "10:00+00:00", "15:30+00:00"),
        (ST_JOHNS, "2026-03-08", "10:00-02:30", "15:30-02:30"),
        (ST_JOHNS, "2026-11-01", "10:00-03:30", "15:30-03:30"),
    ] {
        let open = practice(zone, hm(10, 0), hm(16, 0));
        assert_eq!(ends(&open.either_way_on(date)), (first, last, 12), "{zone} {date}");
    }
}

#[test]
fn a_shift_keeps_local_time_from_the_day_before_a_change_to_the_day_after() {
    let nine = practice(NEW_YORK, hm(9, 0), hm(9, 30));
    assert_eq!(
        nine.between("2026-03-07", "2026-03-09"),
        ["2026-03-07T09:00-05:00", "2026-03-08T09:00-04:00", "2026-03-09T09:00-04:00"]
    );
    assert_eq!(
        nine.between("2026-10-31", "2026-11-02"),
        ["2026-10-31T09:00-04:00", "2026-11-01T09:00-05:00", "2026-11-02T09:00-05:00"]
    );
}

#[test]
fn a_night_from_half_past_twelve_to_half_past_six_lasts_five_real_hours_in_spring_and_seven_in_autumn() {
    // Half an hour each.
    for (zone, date, first, last, visits) in [
        (NEW_YORK, "2026-03-07", "00:30-05:00", "06:00-05:00", 12),
        (NEW_YORK, "2026-03-08", "00:30-05:00", "06:00-04:00", 10),
        (NEW_YORK, "2026-11-01", "00:30-04:00", "06:00-05:00", 14),
        (LONDON, "2026-03-29", "00:30+00:00", "06:00+01:00", 10),
        (LONDON, "2026-10-25", "00:30+01:00", "06:00+00:00", 14),
        (CASABLANCA, "2026-03-22", "00:30+00:00", "06:00+01:00", 10),
        (CASABLANCA, "2026-02-15", "00:30+01:00", "06:00+00:00", 14),
        (ST_JOHNS, "2026-03-08", "00:30-03:30", "06:00-02:30", 10),
        (ST_JOHNS, "2026-11-01", "00:30-02:30", "06:00-03:30", 14),
        (KOLKATA, "2026-03-29", "00:30+05:30", "06:00+05:30", 12),
    ] {
        let night = practice(zone, hm(0, 30), hm(6, 30)).either_way_on(date);
        assert_eq!(ends(&night), (first, last, visits), "{zone} {date}");
    }
}

#[test]
fn on_lord_howe_the_same_night_lasts_five_and_a_half_and_six_and_a_half_hours() {
    let night = practice(LORD_HOWE, hm(0, 30), hm(6, 30));
    assert_eq!(ends(&night.either_way_on("2026-10-04")), ("00:30+10:30", "06:00+11:00", 11));
    assert_eq!(ends(&night.either_way_on("2026-04-05")), ("00:30+11:00", "06:00+10:30", 13));
}

#[test]
fn the_spring_night_offers_no_time_that_clocks_skip() {
    for (zone, date, starts) in [
        (NEW_YORK, "2026-03-08", ["01:00-05:00", "01:30-05:00", "03:00-04:00", "03:30-04:00"]),
        (LONDON, "2026-03-29", ["00:00+00:00", "00:30+00:00", "02:00+01:00", "02:30+01:00"]),
        (LORD_HOWE, "2026-10-04", ["01:00+10:30", "01:30+10:30", "02:30+11:00", "03:00+11:00"]),
        (CASABLANCA, "2026-03-22", ["01:00+00:00", "01:30+00:00", "03:00+01:00", "03:30+01:00"]),
        (ST_JOHNS, "2026-03-08", ["01:00-03:30", "01:30-03:30", "03:00-02:30", "03:30-02:30"]),
    ] {
        let night = practice(zone, MIDNIGHT, hm(6, 0)).on(date);
        assert!(night.windows(4).any(|four| four == starts), "{zone} {date}: {night:?}");
    }
}

#[test]
fn the_autumn_night_offers_the_repeated_time_twice() {
    for (zone, date, starts) in [
        (NEW_YORK, "2026-11-01", ["01:30-04:00", "01:00-05:00", "01:30-05:00", "02:00-05:00"]),
        (LONDON, "2026-10-25", ["01:30+01:00", "01:00+00:00", "01:30+00:00", "02:00+00:00"]),
        (LORD_HOWE, "2026-04-05", ["01:00+11:00", "01:30+11:00", "01:30+10:30", "02:00+10:30"]),
        (CASABLANCA, "2026-02-15", ["02:30+01:00", "02:00+00:00", "02:30+00:00", "03:00+00:00"]),
        (ST_JOHNS, "2026-11-01", ["01:30-02:30", "01:00-03:30", "01:30-03:30", "02:00-03:30"]),
    ] {
        let night = practice(zone, MIDNIGHT, hm(6, 0)).on(date);
        assert!(night.windows(4).any(|four| four == starts), "{zone} {date}: {night:?}");
    }
}

#[test]
fn a_shift_from_a_skipped_half_past_two_starts_at_half_past_three() {
    for (zone, date, skipped, first) in [
        (NEW_YORK, "2026-03-08", hm(2, 30), "03:30-04:00"),
        (LONDON, "2026-03-29", hm(1, 30), "02:30+01:00"),
        (LORD_HOWE, "2026-10-04", hm(2, 15), "02:45+11:00"),
        (CASABLANCA, "2026-03-22", hm(2, 30), "03:30+01:00"),
        (ST_JOHNS, "2026-03-08", hm(2, 30), "03:30-02:30"),
        (KOLKATA, "2026-03-08", hm(2, 30), "02:30+05:30"),
    ] {
        let late = Practice { minutes: 15, ..practice(zone, skipped, hm(6, 0)) };
        assert_eq!(ends(&late.either_way_on(date)).0, first, "{zone} {date}");
    }
}

#[test]
fn a_shift_to_a_skipped_half_past_two_ends_at_half_past_three() {
    for (zone, date, skipped, last) in [
        (NEW_YORK, "2026-03-08", hm(2, 30), "03:15-04:00"),
        (LONDON, "2026-03-29", hm(1, 30), "02:15+01:00"),
        (LORD_HOWE, "2026-10-04", hm(2, 15), "02:30+11:00"),
        (CASABLANCA, "2026-03-22", hm(2, 30), "03:15+01:00"),
        (ST_JOHNS, "2026-03-08", hm(2, 30), "03:15-02:30"),
        (KOLKATA, "2026-03-08", hm(2, 30), "02:15+05:30"),
    ] {
        let early = Practice { minutes: 15, ..practice(zone, hm(0, 15), skipped) };
        assert_eq!(ends(&early.either_way_on(date)).1, last, "{zone} {date}");
    }
}

#[test]
fn a_shift_from_a_repeated_half_past_one_starts_at_the_earlier() {
    for (zone, date, repeated, first, visits) in [
        (NEW_YORK, "2026-11-01", hm(1, 30), "01:30-04:00", 10),
        (LONDON, "2026-10-25", hm(1, 30), "01:30+01:00", 10),
        (LORD_HOWE, "2026-04-05", hm(1, 45), "01:45+11:00", 7),
        (CASABLANCA, "2026-02-15", hm(2, 30), "02:30+01:00", 6),
        (ST_JOHNS, "2026-11-01", hm(1, 30), "01:30-02:30", 10),
        (KOLKATA, "2026-11-01", hm(1, 30), "01:30+05:30", 6),
    ] {
        let shift = Practice { minutes: 15, ..practice(zone, repeated, hm(3, 0)) };
        let starts = shift.either_way_on(date);
        assert_eq!((starts[0].as_str(), starts.len()), (first, visits), "{zone} {date}");
    }
}

#[test]
fn a_shift_to_a_repeated_half_past_one_ends_at_the_earlier() {
    for (zone, date, repeated, last) in [
        (NEW_YORK, "2026-11-01", hm(1, 30), "01:15-04:00"),
        (LONDON, "2026-10-25", hm(1, 30), "01:15+01:00"),
        (LORD_HOWE, "2026-04-05", hm(1, 45), "01:30+11:00"),
        (CASABLANCA, "2026-02-15", hm(2, 30), "02:15+01:00"),
        (ST_JOHNS, "2026-11-01", hm(1, 30), "01:15-02:30"),
        (KOLKATA, "2026-11-01", hm(1, 30), "01:15+05:30"),
    ] {
        let shift = Practice { minutes: 15, ..practice(zone, hm(0, 15), repeated) };
        assert_eq!(ends(&shift.either_way_on(date)).1, last, "{zone} {date}");
    }
}

#[test]
fn a_window_past_midnight_belongs_to_its_start_day_and_is_as_long_as_the_real_night() {
    // From Saturday ten at night to Sunday six in the morning, by half hours.
    for (zone, saturday, sunday, first, last, visits) in [
        (NEW_YORK, "2026-03-07", "2026-03-08", "03-07T22:00-05:00", "03-08T05:30-04:00", 14),
        (NEW_YORK, "2026-10-31", "2026-11-01", "10-31T22:00-04:00", "11-01T05:30-05:00", 18),
        (LONDON, "2026-03-28", "2026-03-29", "03-28T22:00+00:00", "03-29T05:30+01:00", 14),
        (LONDON, "2026-10-24", "2026-10-25", "10-24T22:00+01:00", "10-25T05:30+00:00", 18),
        (LORD_HOWE, "2026-10-03", "2026-10-04", "10-03T22:00+10:30", "10-04T05:30+11:00", 15),
        (LORD_HOWE, "2026-04-04", "2026-04-05", "04-04T22:00+11:00", "04-05T05:30+10:30", 17),
        (CASABLANCA, "2026-03-21", "2026-03-22", "03-21T22:00+00:00", "03-22T05:30+01:00", 14),
        (CASABLANCA, "2026-02-14", "2026-02-15", "02-14T22:00+01:00", "02-15T05:30+00:00", 18),
        (ST_JOHNS, "2026-03-07", "2026-03-08", "03-07T22:00-03:30", "03-08T05:30-02:30", 14),
        (ST_JOHNS, "2026-10-31", "2026-11-01", "10-31T22:00-02:30", "11-01T05:30-03:30", 18),
        (KOLKATA, "2026-03-07", "2026-03-08", "03-07T22:00+05:30", "03-08T05:30+05:30", 16),
    ] {
        const SATURDAY: usize = 5;
        let night =
            Practice { days: Pattern::Weekly(1, vec![SATURDAY]), ..practice(zone, hm(22, 0), hm(6, 0)) };
        let starts: Vec<String> =
            night.between(saturday, sunday).iter().map(|start| start[5..].to_owned()).collect();
        assert_eq!(ends(&starts), (first, last, visits), "{zone} {sunday}");
        // Asked for alone, Sunday has the night that began the day before; no other night of the week exists.
        assert_eq!(night.on(sunday).len(), visits - 4, "{zone} {sunday}");
        assert_eq!(night.on(saturday).len(), 4, "{zone} {saturday}");
    }
}

#[test]
fn half_hour_zones_keep_their_local_grid() {
    for (zone, date, starts) in [
        (KOLKATA, "2026-06-01", ["09:00+05:30", "10:00+05:30", "11:00+05:30"]),
        (ST_JOHNS, "2026-02-02", ["09:00-03:30", "10:00-03:30", "11:00-03:30"]),
        (ST_JOHNS, "2026-06-01", ["09:00-02:30", "10:00-02:30", "11:00-02:30"]),
        (LORD_HOWE, "2026-06-01", ["09:00+10:30", "10:00+10:30", "11:00+10:30"]),
    ] {
        let hourly = Practice { minutes: 60, ..practice(zone, hm(8, 30), hm(12, 0)) };
        assert_eq!(hourly.on(date), starts, "{zone} {date}");
    }
}

#[test]
fn starts_stay_on_the_clocks_grid_after_a_change_by_half_an_hour() {
    let hourly = Practice { minutes: 60, ..practice(LORD_HOWE, MIDNIGHT, hm(5, 0)) };
    assert_eq!(hourly.on("2026-10-04"), ["00:00+10:30", "01:00+10:30", "03:00+11:00", "04:00+11:00"]);
    assert_eq!(
        hourly.on("2026-04-05"),
        ["00:00+11:00", "01:00+11:00", "02:00+10:30", "03:00+10:30", "04:00+10:30"]
    );
}

#[test]
fn in_casablanca_ramadan_turns_the_clock_back_and_shifts_keep_local_time() {
    let nine = practice(CASABLANCA, hm(9, 0), hm(9, 30));
    assert_eq!(
        [nine.between("2026-02-14", "2026-02-15"), nine.between("2026-03-21", "2026-03-22")].concat(),
        [
            "2026-02-14T09:00+01:00",
            "2026-02-15T09:00+00:00",
            "2026-03-21T09:00+00:00",
            "2026-03-22T09:00+01:00"
        ]
    );
}

#[test]
fn a_blackout_of_a_day_lasts_as_long_as_the_day() {
    for (zone, dates, last, first) in [
        (NEW_YORK, ["2026-03-07", "2026-03-08", "2026-03-09"], "03-07T23:30-05:00", "03-09T00:00-04:00"),
        (NEW_YORK, ["2026-10-31", "2026-11-01", "2026-11-02"], "10-31T23:30-04:00", "11-02T00:00-05:00"),
        (LORD_HOWE, ["2026-10-03", "2026-10-04", "2026-10-05"], "10-03T23:30+10:30", "10-05T00:00+11:00"),
        (KOLKATA, ["2026-03-07", "2026-03-08", "2026-03-09"], "03-07T23:30+05:30", "03-09T00:00+05:30"),
    ] {
        let [before, closed, after] = dates;
        let always = Practice { closed: Some(closed), ..practice(zone, MIDNIGHT, MIDNIGHT) };
        let starts = always.between(before, after);
        assert_eq!((&starts[47][5..], &starts[48][5..], starts.len()), (last, first, 96), "{zone} {closed}");
    }
}

#[test]
fn a_day_that_begins_in_the_gap_begins_when_the_gap_ends() {
    for (zone, date, first, visits) in [
        (Tz::Africa__Cairo, "2026-04-24", "01:00+03:00", 46),
        (Tz::America__Santiago, "2026-09-06", "01:00-03:00", 46),
        (Tz::America__Havana, "2026-03-08", "01:00-04:00", 46),
    ] {
        let always = practice(zone, MIDNIGHT, MIDNIGHT);
        assert_eq!(ends(&always.on(date)).0, first, "{zone} {date}");
        assert_eq!(always.on(date).len(), visits, "{zone} {date}");
    }
}
