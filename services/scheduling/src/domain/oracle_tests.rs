//! The search against a slow, obvious judge: every minute of the grid, by the rules that `check` tells one by one, busy minutes
//! and rooms counted flag by flag.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{
    AppointmentId, BlackoutId, ClinicId, ExceptionId, ProviderId, RoomId, ServiceTypeId, WeeklyTemplateId,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::calendar::{Blackout, BlackoutSpan, Exception, ExceptionKind, WeeklyTemplate};
use super::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
use super::check::{Question, check};
use super::network::{Busy, Calendar, Catalog, Network};
use super::rule::Rule;
use super::search::{Query, Search, Slot};
use super::span::{Minute, Span, instant};
use super::{shift, zone};

fn id<I: From<Uuid>>(n: u128) -> I {
    I::from(Uuid::from_u128(n))
}

const ZONES: [Tz; 6] = [
    Tz::America__New_York,
    Tz::Europe__London,
    Tz::Australia__Lord_Howe,
    Tz::Asia__Kolkata,
    Tz::Africa__Casablanca,
    Tz::America__St_Johns,
];

/// Days on which clocks change in one of the zones, and a plain one.
const DAYS: [&str; 7] =
    ["2026-03-08", "2026-11-01", "2026-03-29", "2026-10-25", "2026-10-04", "2026-02-15", "2026-06-01"];

/// A random small world around one day.
#[derive(Clone, Debug)]
struct World {
    zone: Tz,
    day: NaiveDate,
    hours: Vec<(u16, u16)>,
    shifts: Vec<(u8, u16, u16)>,
    exceptions: Vec<(bool, i64, i64)>,
    blackouts: Vec<(i64, i64)>,
    busy: Vec<(u8, u8, i64, i64)>,
    duration: i32,
    step: i32,
    buffers: (i32, i32),
    notice: i32,
    any_provider: bool,
}

fn worlds() -> impl Strategy<Value = World> {
    let wall = || (0..288u16).prop_map(|n| n * 5);
    let around = || (-300..600i64).prop_map(|n| n * 5);
    let length = || (1..100i64).prop_map(|n| n * 5);
    (
        (prop::sample::select(&ZONES[..]), prop::sample::select(&DAYS[..])),
        prop::collection::vec((wall(), wall()), 1..3),
        prop::collection::vec((0..2u8, wall(), wall()), 0..4),
        prop::collection::vec((any::<bool>(), around(), length()), 0..3),
        prop::collection::vec((around(), length()), 0..2),
        prop::collection::vec((0..2u8, 0..2u8, around(), length()), 0..8),
        (1..12i32, 1..14i32, 0..4i32, 0..4i32, 0..400i32, any::<bool>()),
    )
        .prop_map(
            |(
                (zone, day),
                hours,
                shifts,
                exceptions,
                blackouts,
                busy,
                (d, s, before, after, notice, any),
            )| World {
                zone,
                day: day.parse().unwrap(),
                hours,
                shifts,
                exceptions,
                blackouts,
                busy,
                duration: d * 5,
                step: s * 5,
                buffers: (before * 5, after * 5),
                notice,
                any_provider: any,
            },
        )
}

impl World {
    fn origin(&self) -> Minute {
        zone::at(self.zone, self.day, 0)
    }

    fn span(&self, from: i64, length: i64) -> Span {
        Span::new(self.origin() + from, self.origin() + from + length)
    }

    fn busy_of(&self, provider: u8) -> Vec<Busy> {
        let own = self.busy.iter().filter(|b| b.0 == provider);
        own.map(|(_, room, from, length)| Busy {
            appointment_id: AppointmentId::new(),
            room_id: id(10 + u128::from(*room)),
            occupied: self.span(*from, *length),
            visit: self.span(*from, *length),
        })
        .collect()
    }

    fn service(&self) -> ServiceType {
        ServiceType {
            id: id(1),
            name: String::new(),
            description: String::new(),
            duration_minutes: self.duration,
            buffer_before_minutes: self.buffers.0,
            buffer_after_minutes: self.buffers.1,
            step_minutes: self.step,
            minimum_notice_minutes: self.notice,
            booking_horizon_days: 30,
            room_features: vec![],
            intake_form_id: None,
            copay_required: false,
            retired: false,
            version: 1,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        instant(self.origin() - 180)
    }

    fn network(&self) -> Network {
        let today = self.now().date_naive();
        let mut clinic = Clinic {
            id: id(2),
            name: String::new(),
            time_zone: self.zone,
            opening_hours: vec![],
            phone: String::new(),
            address: String::new(),
            retired: false,
            version: 1,
        };
        for (open, close) in &self.hours {
            clinic.opening_hours.extend((1..=7).map(|day| OpeningHours { day, open: *open, close: *close }));
        }
        let room = |n: u128| Room {
            id: id(10 + n),
            clinic_id: clinic.id,
            name: String::new(),
            features: vec![],
            retired: false,
            version: 1,
        };
        let provider = |n: u128| Provider {
            id: id(20 + n),
            name: String::new(),
            specialty: String::new(),
            languages: vec![],
            service_type_ids: vec![],
            retired: false,
            version: 1,
            calendar_version: 1,
        };
        let blackout = |(from, length): &(i64, i64)| Blackout {
            id: BlackoutId::new(),
            clinic_id: None,
            name: String::new(),
            span: BlackoutSpan::Exact(self.span(*from, *length)),
        };
        let catalog = Catalog {
            rooms: vec![room(0), room(1)],
            clinics: vec![clinic],
            service_types: vec![self.service()],
            providers: vec![provider(0), provider(1)],
            blackouts: self.blackouts.iter().map(blackout).collect(),
        };
        let mut network = Network::new(today);
        network.set_catalog(catalog);
        for n in 0..2u8 {
            let provider_id: ProviderId = id(20 + u128::from(n));
            let own = self.shifts.iter().filter(|s| s.0 == n);
            let templates = own.map(|(_, start, end)| self.template(provider_id, *start, *end)).collect();
            let exceptions = if n == 0 { self.exceptions.as_slice() } else { &[] };
            let exceptions = exceptions.iter().map(|e| self.exception(provider_id, e)).collect();
            network.set_calendar(provider_id, Calendar { version: 1, templates, exceptions });
            network.set_busy(provider_id, self.busy_of(n));
        }
        network
    }

    fn template(&self, provider_id: ProviderId, start: u16, end: u16) -> WeeklyTemplate {
        let time = format!("{:02}{:02}00", start / 60, start % 60);
        let rule = format!("DTSTART;TZID={}:20250101T{time}\nRRULE:FREQ=DAILY", self.zone.name());
        WeeklyTemplate {
            id: WeeklyTemplateId::new(),
            provider_id,
            clinic_id: id(2),
            rule: Rule::parse(&rule).unwrap(),
            start_minute: start,
            end_minute: end,
            first_date: None,
            last_date: None,
            calendar_version: 1,
            version: 1,
        }
    }

    fn exception(&self, provider_id: ProviderId, (extra, from, length): &(bool, i64, i64)) -> Exception {
        Exception {
            id: ExceptionId::new(),
            provider_id,
            clinic_id: Some(id(2)),
            kind: if *extra { ExceptionKind::ExtraHours } else { ExceptionKind::TimeOff },
            span: self.span(*from, *length),
            cause: 0,
            calendar_version: 1,
        }
    }

    fn query(&self) -> Query {
        Query {
            service_type: id(1),
            clinics: vec![],
            providers: vec![],
            first: Some(self.day),
            last: Some(shift(self.day, 1)),
            from_minute: 0,
            before_minute: 1440,
            weekdays: vec![],
            any_provider: self.any_provider,
        }
    }

    /// The judge's answer.
    fn expected(&self, network: &Network) -> Vec<Slot> {
        let days = self.day..=shift(self.day, 1);
        let range = zone::whole_days(self.zone, &days);
        let (before, after) = (i64::from(self.buffers.0), i64::from(self.buffers.1));
        let taken = |busy: &[Span], span: Span| busy.iter().any(|b| !b.overlap(span).is_empty());
        let all: Vec<Busy> = (0..2).flat_map(|n| self.busy_of(n)).collect();
        let mut slots = BTreeSet::new();
        for start in (range.start..range.end).step_by(5) {
            let visit = Span::new(start, start + i64::from(self.duration));
            let in_room = |n: u128| -> Vec<Span> {
                all.iter().filter(|b| b.room_id == id::<RoomId>(10 + n)).map(|b| b.visit).collect()
            };
            if (0..2).all(|n| taken(&in_room(n), visit)) {
                continue;
            }
            for n in 0..2u8 {
                let question = Question {
                    service_type: id::<ServiceTypeId>(1),
                    clinic: id::<ClinicId>(2),
                    provider: Some(id(20 + u128::from(n))),
                    room: None,
                    start,
                    overriding: false,
                    standing_end: None,
                };
                let own: Vec<Span> = self.busy_of(n).iter().map(|b| b.occupied).collect();
                let free = !taken(&own, visit.widened(before, after));
                if free && check(network, &question, self.now()).unwrap().ok {
                    slots.insert(Slot { start, clinic_id: id(2), provider_id: id(20 + u128::from(n)) });
                }
            }
        }
        if !self.any_provider {
            return slots.into_iter().collect();
        }
        let load = |slot: &Slot| {
            let date = zone::date(self.zone, slot.start);
            network.busy_minutes(slot.provider_id, zone::whole_days(self.zone, &(date..=date)))
        };
        let starts: BTreeSet<_> = slots.iter().map(|s| s.start).collect();
        let best = |start| {
            slots
                .iter()
                .filter(|s| s.start == start)
                .min_by_key(|s| (load(s), s.provider_id))
                .copied()
                .unwrap()
        };
        starts.into_iter().map(best).collect()
    }
}

/// What a night shift from 00:30 to 06:30 in New York offers on `day`, every half hour.
fn night(day: &str) -> Vec<String> {
    let world = World {
        zone: Tz::America__New_York,
        day: day.parse().unwrap(),
        hours: vec![(0, 0)],
        shifts: vec![(0, 30, 390)],
        exceptions: vec![],
        blackouts: vec![],
        busy: vec![],
        duration: 30,
        step: 30,
        buffers: (0, 0),
        notice: 0,
        any_provider: false,
    };
    let network = world.network();
    let query = Query { last: Some(world.day), ..world.query() };
    let slots = Search::new(&network, &query, world.now()).unwrap().slots(None, 100);
    slots.iter().map(|slot| zone::rfc3339(world.zone, slot.start)[11..].replace(":00-", "-")).collect()
}

#[test]
fn the_spring_sunday_offers_no_time_that_clocks_skip() {
    assert_eq!(
        night("2026-03-08"),
        [
            "00:30-05:00",
            "01:00-05:00",
            "01:30-05:00",
            "03:00-04:00",
            "03:30-04:00",
            "04:00-04:00",
            "04:30-04:00",
            "05:00-04:00",
            "05:30-04:00",
            "06:00-04:00",
        ]
    );
}

#[test]
fn the_autumn_sunday_offers_the_repeated_hour_twice() {
    assert_eq!(
        night("2026-11-01"),
        [
            "00:30-04:00",
            "01:00-04:00",
            "01:30-04:00",
            "01:00-05:00",
            "01:30-05:00",
            "02:00-05:00",
            "02:30-05:00",
            "03:00-05:00",
            "03:30-05:00",
            "04:00-05:00",
            "04:30-05:00",
            "05:00-05:00",
            "05:30-05:00",
            "06:00-05:00",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_search_offers_exactly_what_the_rules_allow_minute_by_minute(world in worlds(), size in 1..40usize) {
        let network = world.network();
        let search = Search::new(&network, &world.query(), world.now()).unwrap();
        let expected = world.expected(&network);

        let mut paged = vec![];
        loop {
            let page = search.slots(paged.last().copied(), size);
            let last = page.len() < size;
            paged.extend(page);
            if last {
                break;
            }
        }
        prop_assert_eq!(&paged, &expected);

        let counted: i32 = search.day_counts().values().sum();
        prop_assert_eq!(counted as usize, expected.len());
    }
}
