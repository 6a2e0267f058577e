//! What happens to whom and when, drawn before anything runs.

use std::collections::HashMap;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, TimeZone as _, Utc};
use chrono_tz::America::{Los_Angeles, New_York};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, PatientId};
use rand::{RngExt as _, rngs::StdRng};

/// Clocks change on the 14th of March 2027.
const FIRST_DAY: (i32, u32, u32) = (2027, 3, 12);
/// Visits start on the hour within these hours of the clinic; everything else happens half past.
const OPEN: (u32, u32) = (7, 19);

/// One patient and visit.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) appointment: AppointmentId,
    pub(super) patient: PatientId,
    /// Named after the case, so that a text tells whose it is.
    pub(super) clinic: ClinicId,
    pub(super) clinic_zone: Tz,
    pub(super) home: Tz,
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// The visit is booked, or moved, to start then.
    Schedule(DateTime<Utc>),
    Cancel,
    /// The patient wants no texts.
    Withdraw,
    /// The patient has another number.
    Renumber(String),
}

/// What happens to one case at one time.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: DateTime<Utc>,
    pub(super) case: usize,
    pub(super) what: Deed,
}

/// Everything, in order of time.
pub(super) struct Plot {
    pub(super) begin: DateTime<Utc>,
    pub(super) end: DateTime<Utc>,
    pub(super) cases: Vec<Case>,
    pub(super) deeds: Vec<Event>,
}

impl Plot {
    pub(super) fn write(dice: &mut StdRng, bookings: usize, days: u32) -> Self {
        let (year, month, day) = FIRST_DAY;
        let first = NaiveDate::from_ymd_opt(year, month, day).expect("a day");
        let begin = wall(first, 8, 0, New_York);
        let end = wall(first + Days::new(u64::from(days) + 3), 8, 0, New_York);
        let (mut cases, mut deeds) = (vec![], vec![]);
        for case in 0..bookings {
            let clinic_zone = if dice.random_range(0..2) == 0 { New_York } else { Los_Angeles };
            let away = dice.random_range(0..5) == 0;
            let elsewhere = if clinic_zone == New_York { Los_Angeles } else { New_York };
            let home = if away { elsewhere } else { clinic_zone };
            cases.push(Case {
                appointment: AppointmentId::new(),
                patient: PatientId::new(),
                clinic: ClinicId::new(),
                clinic_zone,
                home,
            });
            live(dice, first, days, case, clinic_zone, &mut deeds);
        }
        deeds.sort_by_key(|deed: &Event| deed.at);
        Self { begin, end, cases, deeds }
    }

    /// What happened to each case, in order.
    pub(super) fn stories(&self) -> HashMap<usize, Vec<&Event>> {
        let mut stories: HashMap<usize, Vec<&Event>> = HashMap::new();
        for deed in &self.deeds {
            stories.entry(deed.case).or_default().push(deed);
        }
        stories
    }
}

/// A number of one case, the first or the second.
pub(super) fn phone(case: usize, nth: u32) -> String {
    format!("+1202{:07}", case as u32 * 2 + nth + 2_000_000)
}

/// What clocks show, as an instant.
fn wall(day: NaiveDate, hour: u32, minute: u32, zone: Tz) -> DateTime<Utc> {
    let local = day.and_hms_opt(hour, minute, 0).expect("a time of day");
    zone.from_local_datetime(&local).earliest().expect("daytime is never skipped").to_utc()
}

/// Draws the life of one case.
fn live(dice: &mut StdRng, first: NaiveDate, days: u32, case: usize, zone: Tz, deeds: &mut Vec<Event>) {
    let day = |dice: &mut StdRng, from: u32| {
        let from = from.min(days);
        first + Days::new(u64::from(dice.random_range(from..=days)))
    };
    let start_on = |dice: &mut StdRng, day: NaiveDate| wall(day, dice.random_range(OPEN.0..=OPEN.1), 0, zone);
    let booked_day = dice.random_range(0..=days);
    let visit_day = day(dice, booked_day);
    let start = start_on(dice, visit_day);
    let mut at = match dice.random_range(0..100) {
        0..4 => start - TimeDelta::minutes(20),
        4..10 => start - TimeDelta::minutes(90),
        // Also late in the evening, from the portal.
        _ => wall(first + Days::new(booked_day.into()), dice.random_range(8..=22), 30, zone),
    };
    if at >= start {
        at = start - TimeDelta::minutes(150);
    }
    // Nothing happens before the story begins.
    at = at.max(wall(first, 12, 30, New_York));
    if at >= start {
        return;
    }
    deeds.push(Event { at, case, what: Deed::Schedule(start) });
    let mut start = start;
    if dice.random_range(0..100) < 25
        && let Some(moved_at) = between(dice, at, start)
    {
        let visit_day = day(dice, 1);
        let later = start_on(dice, visit_day);
        if later > moved_at + TimeDelta::hours(1) && later != start {
            deeds.push(Event { at: moved_at, case, what: Deed::Schedule(later) });
            (at, start) = (moved_at, later);
        }
    }
    for (percent, what) in [(10, Deed::Renumber(phone(case, 1))), (8, Deed::Withdraw), (15, Deed::Cancel)] {
        if dice.random_range(0..100) < percent
            && let Some(then) = between(dice, at, start)
        {
            deeds.push(Event { at: then, case, what });
            at = then;
        }
    }
}

/// Half past some hour between two instants.
fn between(dice: &mut StdRng, from: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let hours = (until - from).num_hours();
    if hours < 2 {
        return None;
    }
    let then = from + TimeDelta::hours(dice.random_range(1..hours));
    let past = then.timestamp().rem_euclid(3600);
    let then = then - TimeDelta::seconds(past) + TimeDelta::minutes(30);
    (then > from && then < until).then_some(then)
}
