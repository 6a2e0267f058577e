//! The whole network as search sees it: definitions, and the time they come to as bit sets over a rolling horizon.
//!
//! A [`Network`] is never changed in place; each change makes a new one that shares what stayed the same, so that a search works
//! on one consistent state without a lock. What changes apart is kept apart: a provider's own time (shifts and exceptions), a
//! clinic's usable time (opening hours without blackouts), and time taken. Search brings them together, so no change has to be
//! worked into more than the one set it is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::NaiveDate;
use kit::ids::{AppointmentId, ClinicId, ProviderId, RoomId, ServiceTypeId};
use uuid::Uuid;

use super::bits::Bits;
use super::calendar::{Blackout, Exception, ExceptionKind, WeeklyTemplate};
use super::catalog::{Clinic, Provider, Room, ServiceType};
use super::span::{Span, Spans};
use super::zone::{self, Stretch};
use super::{Days, shift};

/// Days after today that must be expanded: the longest booking horizon, the days that zones differ by, and one for visits that
/// end on the next day.
const HORIZON_DAYS: i64 = 733;
/// Days that are expanded beyond those, so that everything is expanded again only so often.
const SPARE_DAYS: i64 = 28;
/// Days before today that are expanded: zones differ by up to one, shifts begin on the day before.
const PAST_DAYS: i64 = 2;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    /// The calendar version they were read at.
    pub version: i64,
    /// Shifts.
    pub templates: Vec<WeeklyTemplate>,
    /// Time off and extra hours.
    pub exceptions: Vec<Exception>,
}

impl Calendar {
    /// Clinics that the rules ever bring the provider to.
    pub fn clinics(&self) -> impl Iterator<Item = ClinicId> + '_ {
        let extra = self.exceptions.iter().filter(|e| e.kind == ExceptionKind::ExtraHours);
        self.templates.iter().map(|t| t.clinic_id).chain(extra.filter_map(|e| e.clinic_id))
    }

    /// Exceptions of a kind that apply at `clinic`.
    pub fn exceptions_at(&self, clinic: ClinicId, kind: ExceptionKind) -> impl Iterator<Item = &Exception> {
        self.exceptions.iter().filter(move |e| e.kind == kind && e.applies_at(clinic))
    }

    /// Shifts and extra hours at `clinic` on `days`, time off not yet taken away.
    pub fn scheduled_on(&self, clinic: ClinicId, days: &Days) -> Spans {
        let shifts = self.templates.iter().filter(|t| t.clinic_id == clinic).flat_map(|t| t.shifts(days));
        shifts.chain(self.exceptions_at(clinic, ExceptionKind::ExtraHours).map(|e| e.span)).collect()
    }

    /// Another template that has the provider at another clinic during one of the shifts of `template` on `days`, and when first.
    pub fn clash(&self, template: &WeeklyTemplate, days: &Days) -> Option<(&WeeklyTemplate, Span)> {
        let shifts: Spans = template.shifts(days).collect();
        let elsewhere =
            self.templates.iter().filter(|t| t.clinic_id != template.clinic_id && t.id != template.id);
        let clashes = elsewhere.filter_map(|other| {
            let both = shifts.intersect(&other.shifts(days).collect());
            both.iter().next().map(|span| (other, span))
        });
        clashes.min_by_key(|(_, span)| span.start)
    }

    /// Shifts and extra hours without time off: when the provider would work if the clinic were always open.
    pub fn own_on(&self, clinic: ClinicId, days: &Days) -> Spans {
        let off = self.exceptions_at(clinic, ExceptionKind::TimeOff).map(|e| e.span).collect();
        self.scheduled_on(clinic, days).subtract(&off)
    }
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

/// All that is taken of one provider's time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// By start of the occupied time.
    all: Vec<Busy>,
    bits: Bits,
}

impl Taken {
    /// Appointments, by start of the time they occupy.
    pub fn iter(&self) -> impl Iterator<Item = &Busy> {
        self.all.iter()
    }

    /// Those that occupy some time of `span`.
    pub fn meeting(&self, span: Span) -> impl Iterator<Item = &Busy> + Clone {
        let until = self.all.partition_point(|b| b.occupied.start < span.end);
        self.all[..until].iter().filter(move |b| b.occupied.end > span.start)
    }

    /// The cells that are taken, buffers included.
    pub fn bits(&self) -> &Bits {
        &self.bits
    }
}

/// When a room is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomTime {
    /// By start.
    visits: Vec<Span>,
    bits: Bits,
}

impl RoomTime {
    /// The cells that are taken.
    pub fn bits(&self) -> &Bits {
        &self.bits
    }
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
    usable: Bits,
    stretches: Vec<Stretch>,
}

impl Site {
    fn new(clinic: Clinic, rooms: Vec<Room>, blackouts: Vec<Blackout>, days: &Days) -> Self {
        let mut site = Self { clinic, rooms, blackouts, usable: Bits::default(), stretches: vec![] };
        site.expand(days);
        site
    }

    fn is(&self, clinic: &Clinic, rooms: &Vec<Room>, blackouts: &Vec<Blackout>) -> bool {
        (&self.clinic, &self.rooms, &self.blackouts) == (clinic, rooms, blackouts)
    }

    fn expand(&mut self, days: &Days) {
        self.usable = Bits::inside(zone::whole_days(self.clinic.time_zone, days), &self.usable_on(days));
        self.stretches = zone::stretches(self.clinic.time_zone, days);
    }

    /// Opening hours on `days` without blackouts.
    pub fn usable_on(&self, days: &Days) -> Spans {
        let closed = self.blackouts.iter().map(|b| b.at(self.clinic.time_zone)).collect();
        self.clinic.open(days).subtract(&closed)
    }

    /// The same over the horizon, as cells.
    pub fn usable(&self) -> &Bits {
        &self.usable
    }

    /// The stretches of local days within the horizon that meet `range`.
    pub fn stretches(&self, range: Span) -> &[Stretch] {
        let from = self.stretches.partition_point(|s| s.span.end <= range.start);
        let to = self.stretches.partition_point(|s| s.span.start < range.end);
        self.stretches.get(from..to).unwrap_or_default()
    }

    /// The rooms that take new visits of this kind.
    pub fn rooms_for<'a>(&'a self, service: &'a ServiceType) -> impl Iterator<Item = &'a Room> {
        self.rooms.iter().filter(|room| !room.retired && room.suits(service))
    }
}

/// A provider and its rules.
#[derive(Clone, Debug)]
pub struct Member {
    /// The catalog entry.
    pub provider: Provider,
    /// The rules.
    pub calendar: Arc<Calendar>,
}

/// A provider at a clinic.
#[derive(Clone, Debug)]
pub struct Post {
    /// The provider.
    pub member: Arc<Member>,
    /// Shifts and extra hours there without time off, over the horizon.
    pub own: Arc<Bits>,
}

/// Everything a search needs.
#[derive(Clone, Debug)]
pub struct Network {
    /// The days that are expanded.
    days: Days,
    sites: BTreeMap<ClinicId, Arc<Site>>,
    room_sites: Arc<HashMap<RoomId, ClinicId>>,
    service_types: Arc<HashMap<ServiceTypeId, ServiceType>>,
    members: BTreeMap<ProviderId, Arc<Member>>,
    posts: BTreeMap<(ClinicId, ProviderId), Post>,
    taken: HashMap<ProviderId, Arc<Taken>>,
    rooms: HashMap<RoomId, Arc<RoomTime>>,
}

impl Network {
    /// A network without anything in it, on the UTC day `today`.
    pub fn new(today: NaiveDate) -> Self {
        Self {
            days: shift(today, -PAST_DAYS)..=shift(today, HORIZON_DAYS + SPARE_DAYS),
            sites: BTreeMap::new(),
            room_sites: Arc::default(),
            service_types: Arc::default(),
            members: BTreeMap::new(),
            posts: BTreeMap::new(),
            taken: HashMap::new(),
            rooms: HashMap::new(),
        }
    }

    /// Whether it does not reach as far as it must on the UTC day `today`.
    pub fn is_outrun(&self, today: NaiveDate) -> bool {
        *self.days.end() < shift(today, HORIZON_DAYS) || *self.days.start() > shift(today, -PAST_DAYS)
    }

    /// The days that are expanded.
    pub fn days(&self) -> &Days {
        &self.days
    }

    /// All the time that bit sets are about: the days that are expanded, on every clock.
    fn range(&self) -> Span {
        let utc = zone::whole_days(chrono_tz::UTC, &self.days);
        utc.widened(zone::DAY, zone::DAY)
    }

    /// The same network expanded for the UTC day `today`; time taken before it is forgotten.
    pub fn rolled(&self, today: NaiveDate) -> Self {
        let mut next = Self {
            room_sites: self.room_sites.clone(),
            service_types: self.service_types.clone(),
            ..Self::new(today)
        };
        let range = next.range();
        next.sites = self.sites.iter().map(|(id, site)| (*id, site.clone())).collect();
        for site in next.sites.values_mut() {
            Arc::make_mut(site).expand(&next.days);
        }
        next.members = self.members.clone();
        for id in self.members.keys() {
            next.expand(*id);
        }
        let busy = self.taken.iter().flat_map(|(id, taken)| taken.iter().map(|b| (*id, *b)));
        let busy = busy.filter(|(_, b)| b.occupied.end.max(b.visit.end) > range.start);
        next.take_busy(busy.map(|(id, b)| (id, b.appointment_id, Some(b))));
        next
    }

    /// Takes over clinics, rooms, service types, providers and blackouts.
    pub fn set_catalog(&mut self, catalog: Catalog) {
        self.room_sites = Arc::new(catalog.rooms.iter().map(|r| (r.id, r.clinic_id)).collect());
        let site = |clinic: Clinic| {
            let id = clinic.id;
            let rooms = catalog.rooms.iter().filter(|r| r.clinic_id == id).cloned().collect();
            let blackouts = catalog.blackouts.iter().filter(|b| b.applies_at(id)).cloned().collect();
            let known = self.sites.get(&id).filter(|s| s.is(&clinic, &rooms, &blackouts)).cloned();
            (id, known.unwrap_or_else(|| Arc::new(Site::new(clinic, rooms, blackouts, &self.days))))
        };
        self.sites = catalog.clinics.into_iter().map(site).collect();
        self.service_types = Arc::new(catalog.service_types.into_iter().map(|s| (s.id, s)).collect());
        for provider in catalog.providers {
            let id = provider.id;
            let calendar = self.members.get(&id).map(|m| m.calendar.clone()).unwrap_or_default();
            let member = Arc::new(Member { provider, calendar });
            for clinic in member.calendar.clinics() {
                if let Some(post) = self.posts.get_mut(&(clinic, id)) {
                    post.member = member.clone();
                }
            }
            self.members.insert(id, member);
        }
    }

    /// Takes over the rules of one provider of the catalog.
    pub fn set_calendar(&mut self, provider: ProviderId, calendar: Calendar) {
        let Some(member) = self.members.get_mut(&provider) else { return };
        for clinic in member.calendar.clinics() {
            self.posts.remove(&(clinic, provider));
        }
        Arc::make_mut(member).calendar = Arc::new(calendar);
        self.expand(provider);
    }

    /// Works out when a provider is where.
    fn expand(&mut self, provider: ProviderId) {
        let Some(member) = self.members.get(&provider) else { return };
        let range = self.range();
        for clinic in member.calendar.clinics() {
            if !self.posts.contains_key(&(clinic, provider)) {
                let own = Arc::new(Bits::inside(range, &member.calendar.own_on(clinic, &self.days)));
                self.posts.insert((clinic, provider), Post { member: member.clone(), own });
            }
        }
    }

    /// Takes over what became of appointments: the time that each takes of a provider, or none any more. Of several changes to
    /// one appointment of a provider the last counts.
    pub fn take_busy(
        &mut self,
        changes: impl IntoIterator<Item = (ProviderId, AppointmentId, Option<Busy>)>,
    ) {
        let range = self.range();
        let mut by_provider: HashMap<ProviderId, HashMap<AppointmentId, Option<Busy>>> = HashMap::new();
        for (provider, appointment, busy) in changes {
            by_provider.entry(provider).or_default().insert(appointment, busy);
        }
        // Visits that left each room, and those that came.
        let mut rooms: HashMap<RoomId, [Vec<Span>; 2]> = HashMap::new();
        for (provider, changes) in by_provider {
            let taken = Arc::make_mut(self.taken.entry(provider).or_default());
            for gone in taken.all.extract_if(.., |b| changes.contains_key(&b.appointment_id)) {
                rooms.entry(gone.room_id).or_default()[0].push(gone.visit);
            }
            for busy in changes.into_values().flatten() {
                rooms.entry(busy.room_id).or_default()[1].push(busy.visit);
                taken.all.push(busy);
            }
            taken.all.sort_by_key(|b| (b.occupied, b.appointment_id));
            taken.bits = Bits::touching(range, taken.all.iter().map(|b| b.occupied));
        }
        for (id, [left, came]) in rooms {
            let room = Arc::make_mut(self.rooms.entry(id).or_default());
            for gone in left {
                if let Ok(at) = room.visits.binary_search(&gone) {
                    room.visits.remove(at);
                }
            }
            room.visits.extend(came);
            room.visits.sort();
            room.bits = Bits::touching(range, room.visits.iter().copied());
        }
        self.taken.retain(|_, taken| !taken.all.is_empty());
        self.rooms.retain(|_, room| !room.visits.is_empty());
    }

    /// Takes over all that is taken of one provider's time.
    pub fn set_busy(&mut self, provider: ProviderId, busy: Vec<Busy>) {
        let before: Vec<_> =
            self.taken(provider).into_iter().flat_map(Taken::iter).map(|b| b.appointment_id).collect();
        let gone = before.into_iter().map(|id| (provider, id, None));
        self.take_busy(gone.chain(busy.into_iter().map(|b| (provider, b.appointment_id, Some(b)))));
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
        self.service_types.get(&id)
    }

    /// One provider.
    pub fn member(&self, id: ProviderId) -> Option<&Member> {
        self.members.get(&id).map(Arc::as_ref)
    }

    /// The clinic that a room is in.
    pub fn clinic_of(&self, room: RoomId) -> Option<ClinicId> {
        self.room_sites.get(&room).copied()
    }

    /// Who ever works at a clinic, by id.
    pub fn posts_at(&self, clinic: ClinicId) -> impl Iterator<Item = (ProviderId, &Post)> {
        let of = (clinic, Uuid::nil().into())..=(clinic, Uuid::max().into());
        self.posts.range(of).map(|((_, provider), post)| (*provider, post))
    }

    /// A provider at a clinic; `None` = never works there.
    pub fn post(&self, clinic: ClinicId, provider: ProviderId) -> Option<&Post> {
        self.posts.get(&(clinic, provider))
    }

    /// Who ever works anywhere; at several clinics, several times.
    pub fn posts(&self) -> impl Iterator<Item = (ClinicId, &Post)> {
        self.posts.iter().map(|((clinic, _), post)| (*clinic, post))
    }

    /// When a provider's working time differs between this state and another, over the days that are expanded here.
    pub fn difference(&self, other: &Self, provider: ProviderId) -> Spans {
        let clinics =
            |network: &Self| network.member(provider).map(|m| m.calendar.clinics().collect::<BTreeSet<_>>());
        let clinics = clinics(self).into_iter().chain(clinics(other)).flatten();
        let differ = clinics.map(|clinic| {
            let [here, there] = [self, other].map(|n| n.working_cells(clinic, provider));
            here.zip(&there, |a, b| a ^ b).spans()
        });
        differ.fold(Spans::default(), |all, spans| all.union(&spans))
    }

    fn working_cells(&self, clinic: ClinicId, provider: ProviderId) -> Bits {
        match (self.post(clinic, provider), self.site(clinic)) {
            (Some(post), Some(site)) => post.own.zip(&site.usable, |own, usable| own & usable),
            _ => Bits::over(self.range()),
        }
    }

    /// The part of `span` that lies beyond what is expanded.
    pub fn beyond(&self, span: Span) -> Span {
        Span::new(span.start.max(self.range().end), span.end)
    }

    /// What is taken of a provider's time; `None` = nothing.
    pub fn taken(&self, provider: ProviderId) -> Option<&Taken> {
        self.taken.get(&provider).map(Arc::as_ref)
    }

    /// Minutes of `span` that are taken of a provider, to whole cells.
    pub fn busy_minutes(&self, provider: ProviderId, span: Span) -> i64 {
        self.taken(provider).map_or(0, |taken| taken.bits.minutes_within(span))
    }

    /// When a room is taken; `None` = never.
    pub fn room(&self, id: RoomId) -> Option<&RoomTime> {
        self.rooms.get(&id).map(Arc::as_ref)
    }

    /// Whether a room is taken at some time of `span`.
    pub fn room_is_taken(&self, id: RoomId, span: Span) -> bool {
        self.room(id).is_some_and(|room| {
            let until = room.visits.partition_point(|v| v.start < span.end);
            room.visits[..until].iter().any(|v| v.end > span.start)
        })
    }

    /// When `member` works at `site` on `days`, worked out from the rules.
    pub fn working(&self, member: &Member, site: &Site, days: &Days) -> Spans {
        let range = zone::whole_days(site.clinic.time_zone, days);
        let own = member.calendar.own_on(site.clinic.id, days);
        own.intersect(&site.usable_on(days)).within(range)
    }
}
