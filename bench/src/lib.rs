//! The networks that are measured: made of the domain's own values, so that the engine can hold one in memory and a database can
//! be filled with the same one.

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, Utc, Weekday};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, ProviderId, RoomId, ServiceTypeId, WeeklyTemplateId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::index;
use scheduling::domain::calendar::WeeklyTemplate;
use scheduling::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
use scheduling::domain::network::{Busy, Calendar, Catalog, Network};
use scheduling::domain::rule::Rule;
use scheduling::domain::search::Query;
use scheduling::domain::span::{Minute, Span};
use scheduling::domain::zone;

/// Two zones that clinics take turns at.
pub const ZONES: [Tz; 2] = [Tz::America__Chicago, Tz::America__New_York];
/// Rooms for every ten providers of a clinic.
const ROOMS_PER_TEN: usize = 12;
/// A clinic is open from six to ten at night: shifts are what bounds visits.
const OPEN: (u16, u16) = (6 * 60, 22 * 60);
/// Days ahead on which visits may be booked.
const HORIZON_DAYS: i32 = 730;
/// So that every run measures the same appointments.
const SEED: u64 = 20;
/// Everything is planned on this grid.
const GRID: Minute = 5;
/// Longest visit of those spread evenly.
const LONGEST_SPREAD: Minute = 30;
const DAY_END: u16 = 24 * 60;

/// On which days providers work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Week {
    /// Monday to Friday.
    Workdays,
    /// All seven.
    EveryDay,
}

/// What is taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing.
    Nothing,
    /// Of each provider's visits on each working day of the first `days`, half, drawn by lot, each in the first free room.
    Half {
        /// Days from the first.
        days: u64,
    },
    /// So many intervals in all, shared by the providers and spread evenly over the two years that are kept in memory: each of
    /// 30 minutes, or as long as fits.
    Spread {
        /// In all.
        intervals: usize,
    },
}

/// What a network is like. Providers are shared out evenly among clinics and work at one each.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many clinics.
    pub clinics: usize,
    /// Their time zones; they take turns at these.
    pub zones: [Tz; 2],
    /// How many providers in all.
    pub providers: usize,
    /// Minutes of the day from which and to which everyone works.
    pub shifts: Vec<(u16, u16)>,
    /// On which days.
    pub week: Week,
    /// Length of a visit, and step from one to the next.
    pub visit_minutes: u16,
    /// What is taken.
    pub taken: Taken,
}

/// A network, and the first day to search.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Clinics, rooms, one kind of visit, providers.
    pub catalog: Catalog,
    /// Each provider's shifts and taken time, in the catalog's order.
    pub members: Vec<(ProviderId, Calendar, Vec<Busy>)>,
    /// A Monday; the network is looked at from the noon before.
    pub first: NaiveDate,
}

/// The Monday after `date`.
pub fn monday_after(date: NaiveDate) -> NaiveDate {
    date + Days::new(7 - u64::from(date.weekday().num_days_from_monday()))
}

/// Hundred providers of three clinics in two zones, eight hours a day, half of the next fourteen days taken.
pub fn hundred_providers() -> Shape {
    Shape {
        clinics: 3,
        zones: ZONES,
        providers: 100,
        shifts: vec![(8 * 60, 12 * 60), (13 * 60, 17 * 60)],
        week: Week::Workdays,
        visit_minutes: 30,
        taken: Taken::Half { days: 14 },
    }
}

impl Shape {
    /// Makes it, to be searched from `first`, a Monday.
    pub fn build(&self, first: NaiveDate) -> Sample {
        assert_eq!(first.weekday(), Weekday::Mon, "the first day is a Monday");
        let service = self.service();
        let clinics: Vec<Clinic> =
            (0..self.clinics).map(|n| clinic(n, self.zones[n % self.zones.len()])).collect();
        let rooms_each = (self.providers.div_ceil(self.clinics) * ROOMS_PER_TEN).div_ceil(10);
        let rooms: Vec<Vec<Room>> =
            clinics.iter().map(|c| (0..rooms_each).map(|n| room(c.id, n)).collect()).collect();
        let providers: Vec<Provider> = (0..self.providers).map(|n| provider(n, service.id)).collect();
        let members = providers.iter().enumerate().map(|(n, provider)| {
            (provider.id, self.calendar(provider.id, &clinics[n % self.clinics], first), vec![])
        });
        let mut sample = Sample {
            members: members.collect(),
            catalog: Catalog {
                clinics,
                rooms: rooms.concat(),
                service_types: vec![service],
                providers,
                blackouts: vec![],
            },
            first,
        };
        match self.taken {
            Taken::Nothing => {}
            Taken::Half { days } => self.take_half(&mut sample, &rooms, days),
            Taken::Spread { intervals } => self.spread(&mut sample, &rooms, intervals),
        }
        sample
    }

    /// The visits of a working day, by their first minutes.
    fn visits(&self) -> Vec<u16> {
        let step = usize::from(self.visit_minutes);
        self.shifts
            .iter()
            .flat_map(|(start, end)| (*start..=*end - self.visit_minutes).step_by(step))
            .collect()
    }

    fn service(&self) -> ServiceType {
        ServiceType {
            id: ServiceTypeId::new(),
            name: "Visit".to_owned(),
            description: String::new(),
            duration_minutes: self.visit_minutes.into(),
            buffer_before_minutes: 0,
            buffer_after_minutes: 0,
            step_minutes: 0,
            minimum_notice_minutes: 0,
            booking_horizon_days: HORIZON_DAYS,
            room_features: vec![],
            intake_form_id: None,
            copay_required: false,
            retired: false,
            version: 1,
        }
    }

    fn calendar(&self, provider_id: ProviderId, clinic: &Clinic, first: NaiveDate) -> Calendar {
        let days = match self.week {
            Week::Workdays => "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR",
            Week::EveryDay => "FREQ=DAILY",
        };
        let (zone, day) = (clinic.time_zone.name(), first.format("%Y%m%d"));
        let template = |(start, end): &(u16, u16)| {
            let (hour, minute) = (start / 60, start % 60);
            let rule = format!("DTSTART;TZID={zone}:{day}T{hour:02}{minute:02}00\nRRULE:{days}");
            WeeklyTemplate {
                id: WeeklyTemplateId::new(),
                provider_id,
                clinic_id: clinic.id,
                rule: Rule::parse(&rule).expect("a rule of one frequency"),
                start_minute: *start,
                end_minute: *end,
                first_date: None,
                last_date: None,
                calendar_version: 1,
                version: 1,
            }
        };
        Calendar { version: 1, templates: self.shifts.iter().map(template).collect(), exceptions: vec![] }
    }

    fn take_half(&self, sample: &mut Sample, rooms: &[Vec<Room>], days: u64) {
        let mut lots = StdRng::seed_from_u64(SEED);
        let visits = self.visits();
        let days = (0..days).map(|n| sample.first + Days::new(n));
        for day in days.filter(|day| self.week == Week::EveryDay || day.weekday().number_from_monday() < 6) {
            // By clinic and visit: how many rooms are taken.
            let mut used = vec![vec![0; visits.len()]; self.clinics];
            for (n, (_, _, busy)) in sample.members.iter_mut().enumerate() {
                let at = n % self.clinics;
                let zone = sample.catalog.clinics[at].time_zone;
                let mut drawn = index::sample(&mut lots, visits.len(), visits.len() / 2).into_vec();
                drawn.sort_unstable();
                for visit in drawn {
                    let start = zone::at(zone, day, visits[visit]);
                    let room = &rooms[at][used[at][visit]];
                    used[at][visit] += 1;
                    busy.push(taken(room.id, Span::new(start, start + Minute::from(self.visit_minutes))));
                }
            }
        }
    }

    fn spread(&self, sample: &mut Sample, rooms: &[Vec<Room>], intervals: usize) {
        let network = Network::new(sample.now().date_naive());
        let all = zone::whole_days(Tz::UTC, network.days());
        let cells = ((all.end - all.start) / GRID) as usize;
        let each = intervals / self.providers;
        for (n, (_, _, busy)) in sample.members.iter_mut().enumerate() {
            // A room for each, so that none is taken twice.
            let room = &rooms[n % self.clinics][n / self.clinics];
            let at = |i: usize| all.start + (i * cells / each) as Minute * GRID;
            busy.extend((0..each).map(|i| {
                let length = (at(i + 1) - at(i)).min(LONGEST_SPREAD);
                taken(room.id, Span::new(at(i), at(i) + length))
            }));
        }
    }
}

impl Sample {
    /// The instant at which it is looked at.
    pub fn now(&self) -> DateTime<Utc> {
        let noon = NaiveTime::from_hms_opt(12, 0, 0).expect("a time of the day");
        (self.first - Days::new(1)).and_time(noon).and_utc()
    }

    /// It in memory, as a replica holds it.
    pub fn network(&self) -> Network {
        let mut network = Network::new(self.now().date_naive());
        network.set_catalog(self.catalog.clone());
        for (provider, calendar, _) in &self.members {
            network.set_calendar(*provider, calendar.clone());
        }
        let busy = self.members.iter().flat_map(|(id, _, busy)| busy.iter().map(|b| (*id, *b)));
        network.take_busy(busy.map(|(id, busy)| (id, busy.appointment_id, Some(busy))));
        network
    }

    /// Its one kind of visit.
    pub fn service(&self) -> &ServiceType {
        &self.catalog.service_types[0]
    }

    /// Every slot of the first `days`.
    pub fn query(&self, days: u64) -> Query {
        Query {
            service_type: self.service().id,
            clinics: vec![],
            providers: vec![],
            first: Some(self.first),
            last: Some(self.first + Days::new(days - 1)),
            from_minute: 0,
            before_minute: DAY_END,
            weekdays: vec![],
            any_provider: false,
        }
    }
}

fn clinic(n: usize, time_zone: Tz) -> Clinic {
    let hours = |day| OpeningHours { day, open: OPEN.0, close: OPEN.1 };
    Clinic {
        id: ClinicId::new(),
        name: format!("Clinic {n:03}"),
        time_zone,
        opening_hours: (1..=7).map(hours).collect(),
        phone: String::new(),
        address: String::new(),
        retired: false,
        version: 1,
    }
}

fn room(clinic_id: ClinicId, n: usize) -> Room {
    Room {
        id: RoomId::new(),
        clinic_id,
        name: format!("{n:03}"),
        features: vec![],
        retired: false,
        version: 1,
    }
}

fn provider(n: usize, service: ServiceTypeId) -> Provider {
    Provider {
        id: ProviderId::new(),
        name: format!("Provider {n:04}"),
        specialty: String::new(),
        languages: vec![],
        service_type_ids: vec![service],
        retired: false,
        version: 1,
        calendar_version: 1,
    }
}

fn taken(room_id: RoomId, visit: Span) -> Busy {
    Busy { appointment_id: AppointmentId::new(), room_id, occupied: visit, visit }
}
