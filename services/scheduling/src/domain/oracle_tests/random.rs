//! Random small worlds: two clinics, three providers, up to five rooms, and all that can be said about them, around one minute.

use std::ops::Range;

use chrono::TimeDelta;
use chrono_tz::Tz;
use kit::ids::{ClinicId, ProviderId, ServiceTypeId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::oracle::DAY;
use super::recurrence::{End, Pattern, Recurrence};
use super::worlds::{
    CLINIC, GRID, PROVIDER, Past, ROOM, SERVICE, TEMPLATE, World, clinic, id, provider, query, room, service,
    template,
};
use crate::domain::calendar::{Blackout, BlackoutSpan, Exception, ExceptionKind, WeeklyTemplate};
use crate::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
use crate::domain::network::{Busy, Calendar, Catalog};
use crate::domain::search::Query;
use crate::domain::span::{Minute, Span, instant};
use crate::domain::{GRID_MINUTES, shift};

/// Room features there are.
const FEATURES: [&str; 2] = ["exam-table", "x-ray"];
const CLINICS: u128 = 2;
const ROOMS: u128 = 5;
const PROVIDERS: u128 = 3;
/// Not the service type asked for.
const OTHER_SERVICE: u128 = 2;
const EXCEPTION: u128 = 60;
const BLACKOUT: u128 = 80;
const APPOINTMENT: u128 = 1_000;

/// A world whose clinics are in `zones`; what is said about times is said around the minute `middle`.
pub(super) fn worlds(zones: [Tz; 2], middle: Minute) -> impl Strategy<Value = World> {
    let middle = middle - middle.rem_euclid(GRID);
    let catalog = (
        [clinics(CLINIC, zones[0]), clinics(CLINIC + 1, zones[1])],
        rooms(),
        service_types(),
        vec(providers(), PROVIDERS as usize),
        vec(blackouts(middle), 0..3),
    )
        .prop_map(|(clinics, rooms, service, providers, blackouts)| Catalog {
            clinics: clinics.into(),
            rooms,
            service_types: vec![service],
            providers: numbered(providers, PROVIDER, |provider, n| provider.id = id(n)),
            blackouts: numbered(blackouts, BLACKOUT, |blackout, n| blackout.id = id(n)),
        });
    let rules = (vec(shifts(zones, middle), 2..8), vec(exceptions(middle), 0..8));
    let past = select(&[Past::New, Past::New, Past::New, Past::Yesterdays, Past::Changed][..]);
    (catalog, rules, vec(visits(middle), PROVIDERS as usize), queries(middle), times(), past).prop_map(
        move |(catalog, (shifts, exceptions), mut visits, query, now, past)| {
            for (busy, n) in visits.iter_mut().flatten().zip(APPOINTMENT..) {
                busy.appointment_id = id(n);
            }
            let shifts = numbered(shifts, TEMPLATE, |(template, _), n| template.id = id(n));
            let exceptions = numbered(exceptions, EXCEPTION, |exception, n| exception.id = id(n));
            let calendar = |provider: &Provider| Calendar {
                version: 1,
                templates: shifts
                    .iter()
                    .map(|(template, _)| template.clone())
                    .filter(|template| template.provider_id == provider.id)
                    .collect(),
                exceptions: exceptions.iter().filter(|e| e.provider_id == provider.id).cloned().collect(),
            };
            World {
                calendars: catalog.providers.iter().map(|p| (p.id, calendar(p))).collect(),
                busy: catalog.providers.iter().map(|p| p.id).zip(visits).collect(),
                catalog,
                recurrences: shifts.into_iter().map(|(template, rule)| (template.id, rule)).collect(),
                query,
                now: instant(middle) + now,
                past,
            }
        },
    )
}

/// Numbers things that have no id of their own yet.
fn numbered<T>(mut things: Vec<T>, first: u128, number: impl Fn(&mut T, u128)) -> Vec<T> {
    things.iter_mut().zip(first..).for_each(|(thing, n)| number(thing, n));
    things
}

/// Some time around `middle`; `length` counts steps of the grid.
fn spans(middle: Minute, length: Range<i64>) -> impl Strategy<Value = Span> {
    (-400..400i64, length).prop_map(move |(from, length)| {
        let start = middle + from * GRID;
        Span::new(start, start + length * GRID)
    })
}

/// A time of day; clocks change at night.
fn wall() -> impl Strategy<Value = u16> {
    prop_oneof![2 => 0..60u16, 2 => 0..288u16, 1 => Just(0)].prop_map(|n| n * GRID as u16)
}

/// The same as the end of something.
fn wall_end() -> impl Strategy<Value = u16> {
    prop_oneof![4 => wall(), 1 => Just(DAY as u16)]
}

fn seldom() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.04)
}

fn clinics(n: u128, zone: Tz) -> impl Strategy<Value = Clinic> {
    (opening_hours(), seldom()).prop_map(move |(hours, retired)| Clinic { retired, ..clinic(n, zone, hours) })
}

fn opening_hours() -> impl Strategy<Value = Vec<OpeningHours>> {
    let spans = (wall(), wall_end(), subsequence((1..=7u8).collect::<Vec<_>>(), 1..=7))
        .prop_map(|(open, close, days)| days.into_iter().map(move |day| OpeningHours { day, open, close }));
    prop_oneof![
        Just((1..=7).map(|day| OpeningHours { day, open: 0, close: 0 }).collect()),
        vec(spans, 1..5).prop_map(|spans| {
            let mut all: Vec<OpeningHours> = vec![];
            for hours in spans.into_iter().flatten() {
                if !all.iter().any(|other| other.overlaps(hours)) {
                    all.push(hours);
                }
            }
            all
        }),
    ]
}

fn rooms() -> impl Strategy<Value = Vec<Room>> {
    let one =
        (0..CLINICS, subsequence(FEATURES.to_vec(), 0..=2), seldom()).prop_map(|(at, features, retired)| {
            Room {
                features: features.into_iter().map(str::to_owned).collect(),
                retired,
                ..room(ROOM, CLINIC + at)
            }
        });
    vec(one, 2..=ROOMS as usize).prop_map(|rooms| numbered(rooms, ROOM, |room, n| room.id = id(n)))
}

fn service_types() -> impl Strategy<Value = ServiceType> {
    let short = |most: i32| prop_oneof![4 => 0..5i32, 1 => 0..most];
    (
        prop_oneof![6 => 1..13i32, 1 => 1..97i32],
        prop_oneof![6 => 0..13i32, 1 => 0..97i32],
        (short(25), short(25)),
        prop_oneof![1 => Just(0), 1 => 0..3_000i32],
        prop_oneof![1 => 1..6i32, 5 => Just(730)],
        prop_oneof![2 => Just(vec![]), 1 => subsequence(FEATURES.to_vec(), 1)],
        seldom(),
    )
        .prop_map(|(duration, step, buffers, notice, horizon, features, retired)| ServiceType {
            duration_minutes: duration * GRID_MINUTES,
            step_minutes: step * GRID_MINUTES,
            buffer_before_minutes: buffers.0 * GRID_MINUTES,
            buffer_after_minutes: buffers.1 * GRID_MINUTES,
            minimum_notice_minutes: notice,
            booking_horizon_days: horizon,
            room_features: features.into_iter().map(str::to_owned).collect(),
            retired,
            ..service(SERVICE)
        })
}

fn providers() -> impl Strategy<Value = Provider> {
    let offers = prop_oneof![
        6 => Just(vec![]),
        1 => Just(vec![id(OTHER_SERVICE), id(SERVICE)]),
        1 => Just(vec![id::<ServiceTypeId>(OTHER_SERVICE)]),
    ];
    (offers, seldom()).prop_map(|(service_type_ids, retired)| Provider {
        service_type_ids,
        retired,
        ..provider(PROVIDER)
    })
}

/// Whole days or a time, at one clinic or everywhere.
fn blackouts(middle: Minute) -> impl Strategy<Value = Blackout> {
    let day = instant(middle).date_naive();
    let days = (-2..3i64, 0..2i64).prop_map(move |(from, more)| shift(day, from)..=shift(day, from + more));
    let span = prop_oneof![
        1 => days.prop_map(BlackoutSpan::Days),
        3 => spans(middle, 1..100).prop_map(BlackoutSpan::Exact),
    ];
    (option::of(0..CLINICS), span).prop_map(|(at, span)| Blackout {
        id: id(BLACKOUT),
        clinic_id: at.map(|at| id(CLINIC + at)),
        name: String::new(),
        span,
    })
}

fn patterns() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        6 => Just(Pattern::Daily(1)),
        1 => (2..4i64).prop_map(Pattern::Daily),
        3 => (1..4i64, subsequence((0..7).collect::<Vec<_>>(), 0..=7))
            .prop_map(|(every, days)| Pattern::Weekly(every, days)),
        1 => (1..3i64, prop_oneof![1..32i64, -7..0i64]).prop_map(|(every, day)| Pattern::Monthly(every, day)),
    ]
}

/// How many days before `middle` a rule begins, and how it ends.
fn extents(middle: Minute) -> impl Strategy<Value = (i64, End)> {
    let until = (-1_000..1_000i64).prop_map(move |n| End::Until(middle + n * GRID));
    prop_oneof![
        2 => (-2..1_500i64, Just(End::Never)),
        1 => (-2..1_500i64, until),
        1 => (-2..10i64, (1..12usize).prop_map(End::Count)),
    ]
}

/// Shifts, each with what its rule means.
fn shifts(zones: [Tz; 2], middle: Minute) -> impl Strategy<Value = (WeeklyTemplate, Recurrence)> {
    let today = instant(middle).date_naive();
    let near = move || (-3..4i64).prop_map(move |by| shift(today, by));
    let limit = || prop_oneof![4 => Just(None), 1 => near().prop_map(Some)];
    let rule = (patterns(), extents(middle), vec(near(), 0..2));
    ((0..PROVIDERS, 0..CLINICS), (wall(), wall_end()), rule, (limit(), limit())).prop_map(
        move |(
            (who, at),
            (minute, end_minute),
            (pattern, (before, end), except),
            (first_date, last_date),
        )| {
            let recurrence = Recurrence {
                zone: zones[at as usize],
                start: shift(today, -before),
                minute,
                pattern,
                end,
                except: except.into_iter().collect(),
            };
            let template = template(TEMPLATE, PROVIDER + who, CLINIC + at, &recurrence, end_minute);
            (WeeklyTemplate { first_date, last_date, ..template }, recurrence)
        },
    )
}

/// Time off, also at all clinics, and extra hours.
fn exceptions(middle: Minute) -> impl Strategy<Value = Exception> {
    let everywhere = prop::bool::weighted(0.25);
    (0..PROVIDERS, 0..CLINICS, any::<bool>(), everywhere, spans(middle, 1..120)).prop_map(
        |(who, at, off, everywhere, span)| Exception {
            id: id(EXCEPTION),
            provider_id: id(PROVIDER + who),
            clinic_id: (!(off && everywhere)).then_some(id(CLINIC + at)),
            kind: if off { ExceptionKind::TimeOff } else { ExceptionKind::ExtraHours },
            span,
            cause: 0,
            calendar_version: 1,
        },
    )
}

/// A provider's visits one after the other, from a day before `middle` on.
fn visits(middle: Minute) -> impl Strategy<Value = Vec<Busy>> {
    // In steps of the grid: a pause, the visit between its buffers.
    let one = (0..60i64, 0..3i64, 1..30i64, 0..3i64, 0..ROOMS);
    vec(one, 0..14).prop_map(move |visits| {
        let mut free = middle - DAY;
        let mut busy = vec![];
        for (pause, before, length, after, room) in visits {
            let start = free + pause * GRID;
            let visit = Span::new(start + before * GRID, start + (before + length) * GRID);
            let occupied = Span::new(start, visit.end + after * GRID);
            busy.push(Busy { appointment_id: id(APPOINTMENT), room_id: id(ROOM + room), occupied, visit });
            free = occupied.end;
        }
        busy
    })
}

/// A day or some, mostly; all clinics and providers, or some of them.
fn queries(middle: Minute) -> impl Strategy<Value = Query> {
    let day = instant(middle).date_naive();
    let first = prop_oneof![6 => (-2..2i64).prop_map(move |by| Some(shift(day, by))), 1 => Just(None)];
    let length = prop_oneof![60 => (0..3i64).prop_map(Some), 5 => Just(None), 1 => (3..70i64).prop_map(Some)];
    let clock = prop_oneof![
        3 => Just((0, DAY as u16)),
        1 => (0..DAY as u16, 1..=DAY as u16).prop_map(|(from, length)| (from, (from + length).min(DAY as u16))),
    ];
    let weekdays = prop_oneof![4 => Just(vec![]), 1 => subsequence((1..=7u8).collect::<Vec<_>>(), 1..=7)];
    let clinics: Vec<ClinicId> = (CLINIC..CLINIC + CLINICS).map(id).collect();
    let providers: Vec<ProviderId> = (PROVIDER..PROVIDER + PROVIDERS).map(id).collect();
    (
        (first, length),
        clock,
        weekdays,
        prop_oneof![3 => Just(vec![]), 1 => vec(select(clinics), 1..3)],
        prop_oneof![3 => Just(vec![]), 1 => vec(select(providers), 1..5)],
        any::<bool>(),
    )
        .prop_map(move |((first, length), clock, weekdays, clinics, providers, any_provider)| Query {
            clinics,
            providers,
            from_minute: clock.0,
            before_minute: clock.1,
            weekdays,
            any_provider,
            ..query(first, first.zip(length).map(|(first, by)| shift(first, by)))
        })
}

/// When a world is asked, seen from its middle: mostly some days before, seldom as long as visits can be booked ahead.
fn times() -> impl Strategy<Value = TimeDelta> {
    const DAY_MILLIS: i64 = 86_400_000;
    let days = |days: Range<i64>| days.start * DAY_MILLIS..days.end * DAY_MILLIS;
    prop_oneof![12 => days(-4..-1), 3 => days(-1..2), 1 => days(-735..-726)].prop_map(TimeDelta::milliseconds)
}
