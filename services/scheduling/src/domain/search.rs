//! Free slots: pure, lazy, from one state of the network.
//!
//! A clinic of the search becomes a *plan* (when visits may start there by the clock, and its suitable rooms), a provider at
//! it a *lane* (the time it could give). A lane's starts come one by one, and lanes are merged by start, so that a page costs
//! little more than its own slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, ProviderId, ServiceTypeId};

use super::catalog::ServiceType;
use super::network::{Member, Network, Site};
use super::span::{self, Minute, Span, Spans};
use super::zone::{self, Stretch};
use super::{Days, shift};

/// Days that one search may span.
pub const MAX_DAYS: i64 = 62;
/// Days that a search spans when it names no last one.
const DEFAULT_DAYS: i64 = 7;

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Kind of visit.
    pub service_type: ServiceTypeId,
    /// Only these; empty = all.
    pub clinics: Vec<ClinicId>,
    /// Only these; empty = all.
    pub providers: Vec<ProviderId>,
    /// First local day; `None` = today.
    pub first: Option<NaiveDate>,
    /// Last local day; `None` = a week.
    pub last: Option<NaiveDate>,
    /// Starts at or after this minute of the day.
    pub from_minute: u16,
    /// Starts before this minute of the day.
    pub before_minute: u16,
    /// Days of the week, 1 = Monday; empty = all.
    pub weekdays: Vec<u8>,
    /// Of slots that differ only in the provider, one.
    pub any_provider: bool,
}

/// Something that a query names and that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such service type.
    ServiceType(ServiceTypeId),
    /// No such clinic.
    Clinic(ClinicId),
    /// No such provider.
    Provider(ProviderId),
    /// No such room.
    Room(kit::ids::RoomId),
}

/// One free slot. Ordered as pages are: by start, clinic, provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Start of the visit.
    pub start: Minute,
    /// Where.
    pub clinic_id: ClinicId,
    /// With whom.
    pub provider_id: ProviderId,
}

/// When visits may start at one clinic, whoever gives them.
struct Plan<'a> {
    site: &'a Site,
    days: Days,
    /// Stretches of local days, each with the range that starts may lie in.
    starts: Vec<(Stretch, Span)>,
    /// When each suitable room is taken; none at all = a room is always free.
    rooms: Vec<Spans>,
}

/// One provider at one clinic.
struct Lane<'a> {
    member: &'a Member,
    plan: usize,
    /// Where a visit may lie as far as the provider is concerned.
    free: Spans,
}

/// A search over one state of the network.
pub struct Search<'a> {
    service: &'a ServiceType,
    any_provider: bool,
    plans: Vec<Plan<'a>>,
    lanes: Vec<Lane<'a>>,
}

/// The first minute and the last local day that visits may be booked for at `now`.
pub fn bookable(service: &ServiceType, zone: Tz, now: DateTime<Utc>) -> (Minute, NaiveDate) {
    let this = span::minute(now);
    let next = if span::instant(this) < now { this + 1 } else { this };
    let last = shift(zone::date(zone, this), i64::from(service.booking_horizon_days));
    (next + i64::from(service.minimum_notice_minutes), last)
}

impl<'a> Search<'a> {
    /// Settles which clinics, rooms, providers and times a query is about.
    pub fn new(network: &'a Network, query: &Query, now: DateTime<Utc>) -> Result<Self, Unknown> {
        let unknown = Unknown::ServiceType(query.service_type);
        let service = network.service_type(query.service_type).ok_or(unknown)?;
        let mut search = Self { service, any_provider: query.any_provider, plans: vec![], lanes: vec![] };
        let sites: Vec<&Site> = match query.clinics.as_slice() {
            [] => network.sites().collect(),
            ids => ids
                .iter()
                .map(|id| network.site(*id).ok_or(Unknown::Clinic(*id)))
                .collect::<Result<_, _>>()?,
        };
        let members: Vec<&Member> = match query.providers.as_slice() {
            [] => network.members().collect(),
            ids => ids
                .iter()
                .map(|id| network.member(*id).ok_or(Unknown::Provider(*id)))
                .collect::<Result<_, _>>()?,
        };
        if service.retired {
            return Ok(search);
        }
        let mut plan_of = HashMap::new();
        for site in sites.into_iter().filter(|s| !s.clinic.retired) {
            if let Some(plan) = Plan::new(network, service, site, query, now) {
                plan_of.entry(site.clinic.id).or_insert(search.plans.len());
                search.plans.push(plan);
            }
        }
        let mut seen = std::collections::HashSet::new();
        for member in members.into_iter().filter(|m| !m.provider.retired && m.provider.offers(service.id)) {
            let at = member.clinics().filter_map(|clinic| plan_of.get(&clinic));
            for plan in at.filter(|plan| seen.insert((member.provider.id, **plan))) {
                search.lanes.push(Lane::new(network, service, member, *plan, &search.plans[*plan]));
            }
        }
        Ok(search)
    }

    /// The calendar version of each provider considered.
    pub fn calendar_versions(&self) -> HashMap<ProviderId, i64> {
        self.lanes.iter().map(|l| (l.member.provider.id, l.member.calendar.version)).collect()
    }

    /// At most `limit` slots after `after`, in order.
    pub fn slots(&self, after: Option<Slot>, limit: usize) -> Vec<Slot> {
        let from = after.map_or(Minute::MIN, |slot| slot.start);
        let mut lanes: Vec<_> = self.lanes.iter().map(|lane| self.starts(lane, from)).collect();
        let mut heap: BinaryHeap<_> = lanes
            .iter_mut()
            .enumerate()
            .filter_map(|(i, starts)| Some(Reverse((self.slot(i, starts.next()?.1), i))))
            .collect();
        let mut found: Vec<Slot> = vec![];
        let mut loads = HashMap::new();
        while let Some(Reverse((slot, lane))) = heap.pop() {
            if let Some((_, start)) = lanes[lane].next() {
                heap.push(Reverse((self.slot(lane, start), lane)));
            }
            let same = |other: &Slot| (other.start, other.clinic_id) == (slot.start, slot.clinic_id);
            if after.is_some_and(|after| slot <= after || (self.any_provider && same(&after))) {
                continue;
            }
            if let Some(last) = found.last_mut().filter(|last| self.any_provider && same(last)) {
                let mut load =
                    |slot: Slot| *loads.entry(self.day_of(slot)).or_insert_with_key(|d| self.load(d));
                if load(slot) < load(*last) {
                    *last = slot;
                }
                continue;
            }
            if found.len() == limit {
                break;
            }
            found.push(slot);
        }
        found
    }

    /// How many slots start on each day at each clinic.
    pub fn day_counts(&self) -> BTreeMap<(NaiveDate, ClinicId), i32> {
        let mut counts = BTreeMap::new();
        if self.any_provider {
            for (i, plan) in self.plans.iter().enumerate() {
                let lanes = self.lanes.iter().filter(|lane| lane.plan == i);
                let mut starts: Vec<_> = lanes.flat_map(|lane| self.starts(lane, Minute::MIN)).collect();
                starts.sort_unstable();
                starts.dedup();
                for (date, _) in starts {
                    *counts.entry((date, plan.site.clinic.id)).or_default() += 1;
                }
            }
        } else {
            for lane in &self.lanes {
                for (date, _) in self.starts(lane, Minute::MIN) {
                    *counts.entry((date, self.plans[lane.plan].site.clinic.id)).or_default() += 1;
                }
            }
        }
        counts
    }

    /// The visit of a slot, and its clinic's zone.
    pub fn visit(&self, slot: Slot) -> (Span, Tz) {
        let zone =
            self.plans.iter().find(|p| p.site.clinic.id == slot.clinic_id).map(|p| p.site.clinic.time_zone);
        let end = slot.start + i64::from(self.service.duration_minutes);
        (Span::new(slot.start, end), zone.unwrap_or(Tz::UTC))
    }

    fn slot(&self, lane: usize, start: Minute) -> Slot {
        let Lane { member, plan, .. } = &self.lanes[lane];
        Slot { start, clinic_id: self.plans[*plan].site.clinic.id, provider_id: member.provider.id }
    }

    /// The provider of a slot and the whole local day that it lies on.
    fn day_of(&self, slot: Slot) -> (ProviderId, Span) {
        let (visit, zone) = self.visit(slot);
        let date = zone::date(zone, visit.start);
        (slot.provider_id, zone::whole_days(zone, &(date..=date)))
    }

    fn load(&self, (provider, day): &(ProviderId, Span)) -> Minute {
        self.lanes
            .iter()
            .find(|l| l.member.provider.id == *provider)
            .map_or(0, |l| l.member.busy_minutes(*day))
    }

    /// The starts that a lane offers from `from` on, with their local days, in order.
    fn starts<'s>(
        &'s self,
        lane: &'s Lane<'a>,
        from: Minute,
    ) -> impl Iterator<Item = (NaiveDate, Minute)> + 's {
        let plan = &self.plans[lane.plan];
        let duration = i64::from(self.service.duration_minutes);
        let step = self.service.step();
        let skipped = plan.starts.partition_point(|(_, range)| range.end <= from);
        plan.starts[skipped..].iter().flat_map(move |(stretch, range)| {
            let range = Span::new(range.start.max(from), range.end);
            lane.free.meeting(range).iter().flat_map(move |free| {
                let part = free.overlap(range);
                let first =
                    stretch.midnight + (part.start - stretch.midnight + step - 1).div_euclid(step) * step;
                let end = part.end.min(free.end - duration + 1);
                let starts = (first..end.max(first)).step_by(step as usize);
                let starts = starts.filter(move |start| plan.has_room(Span::new(*start, start + duration)));
                starts.map(move |start| (stretch.date, start))
            })
        })
    }
}

impl<'a> Plan<'a> {
    /// `None` when nothing can be offered there.
    fn new(
        network: &Network,
        service: &ServiceType,
        site: &'a Site,
        query: &Query,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let zone = site.clinic.time_zone;
        let (earliest, horizon) = bookable(service, zone, now);
        let first = query.first.unwrap_or_else(|| zone::date(zone, span::minute(now)));
        let last =
            query.last.unwrap_or_else(|| shift(first, DEFAULT_DAYS - 1)).min(shift(first, MAX_DAYS - 1));
        // Days that passed offer nothing and need not be looked at.
        let days = first.max(zone::date(zone, earliest))..=last.min(horizon);
        if days.is_empty() {
            return None;
        }
        let allowed = |stretch: Stretch| {
            let clock = [query.from_minute, query.before_minute].map(|m| stretch.midnight + i64::from(m));
            let range = stretch.span.overlap(Span::new(clock[0].max(earliest), clock[1]));
            let day = query.weekdays.is_empty() || query.weekdays.contains(&zone::weekday(stretch.date));
            (day && !range.is_empty()).then_some((stretch, range))
        };
        let starts: Vec<_> = zone::stretches(zone, &days).into_iter().filter_map(allowed).collect();
        let (first, last) = (starts.first()?.1.start, starts.last()?.1.end);
        let range = Span::new(first, last + i64::from(service.duration_minutes));
        let mut rooms: Vec<_> = site.rooms_for(service).map(|r| network.room_busy(r.id, range)).collect();
        if rooms.is_empty() {
            return None;
        }
        if rooms.iter().any(Spans::is_empty) {
            rooms.clear();
        }
        Some(Self { site, days, starts, rooms })
    }

    fn has_room(&self, visit: Span) -> bool {
        self.rooms.is_empty() || self.rooms.iter().any(|busy| !busy.meets(visit))
    }
}

impl<'a> Lane<'a> {
    fn new(network: &Network, service: &ServiceType, member: &'a Member, plan: usize, at: &Plan<'_>) -> Self {
        // A visit of the last day may end on the next.
        let days = *at.days.start()..=shift(*at.days.end(), 1);
        let working = network.working(member, at.site, &days);
        // The buffers are the provider's: the visit keeps away from busy time by them.
        let (before, after) = (service.buffer_before_minutes, service.buffer_after_minutes);
        let busy = member.busy.iter().map(|b| b.occupied.widened(after.into(), before.into())).collect();
        Self { member, plan, free: working.subtract(&busy) }
    }
}
