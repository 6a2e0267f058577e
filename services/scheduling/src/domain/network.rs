//! The whole network as search sees it: definitions, and the working time they come to over a rolling horizon.
//!
//! A [`Network`] is never changed; each change makes a new one that shares what stayed the same, so that a search works on one
//! consistent state without a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::NaiveDate;
use kit::ids::{AppointmentId, ClinicId, ProviderId, RoomId, ServiceTypeId};

use super::calendar::{Blackout, Exception, ExceptionKind, WeeklyTemplate};
use super::catalog::{Clinic, Provider, Room, ServiceType};
use super::span::{Span, Spans};
use super::{Days, shift, zone};

/// Days after today that are expanded ahead: the longest booking horizon, the days that zones differ by, and one for visits that
/// end on the next day.
const HORIZON_DAYS: i64 = 733;
/// Days before today that are expanded: zones differ by up to one, shifts begin on the day before.
const PAST_DAYS: i64 = 2;

/// The days that are expanded ahead on the UTC day `today`.
pub fn horizon(today: NaiveDate) -> Days {
    shift(today, -PAST_DAYS)..=shift(today, HORIZON_DAYS)
}

/// Clinics, rooms, service types, providers and blackouts as they are stored.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// All, retired ones too.
    pub clinics: Vec<Clinic>,
    /// All, retired ones too.
    pub rooms: Vec<Room>,
    /// All, retired ones too.
    pub service_types: Vec<ServiceType>,
    /// All, retired ones too.
    pub providers: Vec<Provider>,
    /// All.
    pub blackouts: Vec<Blackout>,
}

/// A provider's own rules as they are stored.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    /// The calendar version they were read at.
    pub version: i64,
    /// Shifts.
    pub templates: Vec<WeeklyTemplate>,
    /// Time off and extra hours.
    pub exceptions: Vec<Exception>,
}

/// Time that an appointment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Which one.
    pub appointment_id: AppointmentId,
    /// In which room.
    pub room_id: RoomId,
    /// Of the provider, buffers included.
    pub occupied: Span,
    /// Of the room.
    pub visit: Span,
}

/// A clinic and when visits can be there at all.
#[derive(Clone, Debug)]
pub struct Site {
    /// The clinic.
    pub clinic: Clinic,
    /// Its rooms, retired ones too.
    pub rooms: Vec<Room>,
    /// Blackouts that close it.
    pub blackouts: Vec<Blackout>,
    usable: Spans,
}

impl Site {
    /// Opening hours on `days` without blackouts.
    fn usable_on(&self, days: &Days) -> Spans {
        let closed = self.blackouts.iter().map(|b| b.at(self.clinic.time_zone)).collect();
        self.clinic.open(days).subtract(&closed)
    }

    /// The rooms that take new visits of this kind.
    pub fn rooms_for<'a>(&'a self, service: &'a ServiceType) -> impl Iterator<Item = &'a Room> {
        self.rooms.iter().filter(|room| !room.retired && room.suits(service))
    }
}

/// A provider, its rules, and what they come to.
#[derive(Clone, Debug)]
pub struct Member {
    /// The catalog entry.
    pub provider: Provider,
    /// The rules.
    pub calendar: Arc<Calendar>,
    /// Time taken, from the day before yesterday on.
    pub busy: Arc<[Busy]>,
    working: BTreeMap<ClinicId, Spans>,
}

impl Member {
    /// Clinics that the provider ever works at.
    pub fn clinics(&self) -> impl Iterator<Item = ClinicId> + '_ {
        self.working.keys().copied()
    }

    /// Shifts and extra hours at `clinic` on `days`, time off not yet taken away.
    pub fn scheduled_on(&self, clinic: ClinicId, days: &Days) -> Spans {
        let shifts =
            self.calendar.templates.iter().filter(|t| t.clinic_id == clinic).flat_map(|t| t.shifts(days));
        shifts.chain(self.exceptions(clinic, ExceptionKind::ExtraHours).map(|e| e.span)).collect()
    }

    /// Exceptions of a kind that apply at `clinic`.
    pub fn exceptions(&self, clinic: ClinicId, kind: ExceptionKind) -> impl Iterator<Item = &Exception> {
        self.calendar.exceptions.iter().filter(move |e| e.kind == kind && e.applies_at(clinic))
    }

    /// How many minutes of `span` are taken.
    pub fn busy_minutes(&self, span: Span) -> i64 {
        self.busy
            .iter()
            .map(|b| b.occupied.overlap(span))
            .filter(|s| !s.is_empty())
            .map(|s| s.end - s.start)
            .sum()
    }

    fn working_on(&self, site: &Site, usable: &Spans, days: &Days) -> Spans {
        let clinic = site.clinic.id;
        let off = self.exceptions(clinic, ExceptionKind::TimeOff).map(|e| e.span).collect();
        self.scheduled_on(clinic, days).subtract(&off).intersect(usable)
    }

    fn expand(&mut self, sites: &BTreeMap<ClinicId, Arc<Site>>, days: &Days) {
        let templates = self.calendar.templates.iter().map(|t| t.clinic_id);
        let extra = self.calendar.exceptions.iter().filter(|e| e.kind == ExceptionKind::ExtraHours);
        let clinics: Vec<_> = templates.chain(extra.filter_map(|e| e.clinic_id)).collect();
        let sites = clinics.iter().filter_map(|clinic| sites.get(clinic));
        self.working = sites.map(|s| (s.clinic.id, self.working_on(s, &s.usable, days))).collect();
    }
}

/// Everything a search needs.
#[derive(Clone, Debug)]
pub struct Network {
    /// The days that are expanded.
    days: Days,
    sites: BTreeMap<ClinicId, Arc<Site>>,
    room_sites: HashMap<RoomId, ClinicId>,
    service_types: HashMap<ServiceTypeId, Arc<ServiceType>>,
    members: BTreeMap<ProviderId, Arc<Member>>,
    /// When rooms are taken, by start.
    rooms: HashMap<RoomId, Arc<Vec<Span>>>,
}

impl Network {
    /// A network without anything in it, on the UTC day `today`.
    pub fn new(today: NaiveDate) -> Self {
        Self {
            days: horizon(today),
            sites: BTreeMap::new(),
            room_sites: HashMap::new(),
            service_types: HashMap::new(),
            members: BTreeMap::new(),
            rooms: HashMap::new(),
        }
    }

    /// Whether it was expanded on another day.
    pub fn is_of_another_day(&self, today: NaiveDate) -> bool {
        self.days != horizon(today)
    }

    /// Takes over a new day and, if given, a new catalog; expands every calendar again.
    pub fn rebuild(&mut self, today: NaiveDate, catalog: Option<Catalog>) {
        self.days = horizon(today);
        if let Some(catalog) = catalog {
            self.take_catalog(catalog);
        }
        for site in self.sites.values_mut() {
            let usable = site.usable_on(&self.days);
            Arc::make_mut(site).usable = usable;
        }
        for member in self.members.values_mut() {
            Arc::make_mut(member).expand(&self.sites, &self.days);
        }
    }

    fn take_catalog(&mut self, catalog: Catalog) {
        self.room_sites = catalog.rooms.iter().map(|r| (r.id, r.clinic_id)).collect();
        let site = |clinic: Clinic| {
            let rooms = catalog.rooms.iter().filter(|r| r.clinic_id == clinic.id).cloned().collect();
            let blackouts = catalog.blackouts.iter().filter(|b| b.applies_at(clinic.id)).cloned().collect();
            (clinic.id, Arc::new(Site { clinic, rooms, blackouts, usable: Spans::default() }))
        };
        self.sites = catalog.clinics.into_iter().map(site).collect();
        self.service_types = catalog.service_types.into_iter().map(|s| (s.id, Arc::new(s))).collect();
        for provider in catalog.providers {
            let new = || Member {
                provider: provider.clone(),
                calendar: Arc::default(),
                busy: Arc::default(),
                working: BTreeMap::new(),
            };
            let member = self.members.entry(provider.id).or_insert_with(|| Arc::new(new()));
            Arc::make_mut(member).provider = provider;
        }
    }

    /// Takes over the rules of one provider of the catalog.
    pub fn set_calendar(&mut self, provider: ProviderId, calendar: Calendar) {
        if let Some(member) = self.members.get_mut(&provider) {
            let member = Arc::make_mut(member);
            member.calendar = Arc::new(calendar);
            member.expand(&self.sites, &self.days);
        }
    }

    /// Takes over the busy time of one provider of the catalog, and with it that of its rooms.
    pub fn set_busy(&mut self, provider: ProviderId, busy: Vec<Busy>) {
        let Some(member) = self.members.get_mut(&provider) else { return };
        let before = std::mem::replace(&mut Arc::make_mut(member).busy, busy.into());
        for gone in before.iter() {
            let spans = Arc::make_mut(self.rooms.entry(gone.room_id).or_default());
            if let Ok(at) = spans.binary_search(&gone.visit) {
                spans.remove(at);
            }
        }
        for taken in member.busy.iter() {
            let spans = Arc::make_mut(self.rooms.entry(taken.room_id).or_default());
            spans.insert(spans.partition_point(|s| *s < taken.visit), taken.visit);
        }
    }

    /// One clinic.
    pub fn site(&self, id: ClinicId) -> Option<&Site> {
        self.sites.get(&id).map(Arc::as_ref)
    }

    /// All clinics, by id.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values().map(Arc::as_ref)
    }

    /// One service type.
    pub fn service_type(&self, id: ServiceTypeId) -> Option<&ServiceType> {
        self.service_types.get(&id).map(Arc::as_ref)
    }

    /// One provider.
    pub fn member(&self, id: ProviderId) -> Option<&Member> {
        self.members.get(&id).map(Arc::as_ref)
    }

    /// All providers, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(Arc::as_ref)
    }

    /// The clinic that a room is in.
    pub fn clinic_of(&self, room: RoomId) -> Option<ClinicId> {
        self.room_sites.get(&room).copied()
    }

    /// When `member` works at `site` on `days`: expanded ahead, or now for days outside the horizon.
    pub fn working(&self, member: &Member, site: &Site, days: &Days) -> Spans {
        let range = zone::whole_days(site.clinic.time_zone, days);
        if self.days.start() < days.start() && days.end() < self.days.end() {
            return member.working.get(&site.clinic.id).map(|w| w.within(range)).unwrap_or_default();
        }
        member.working_on(site, &site.usable_on(days), days).within(range)
    }

    /// When a room is taken, within `range`.
    pub fn room_busy(&self, room: RoomId, range: Span) -> Spans {
        let spans = self.rooms.get(&room).map(|s| s.as_slice()).unwrap_or_default();
        let until = spans.partition_point(|s| s.start < range.end);
        spans[..until].iter().copied().filter(|s| s.end > range.start).collect()
    }
}
