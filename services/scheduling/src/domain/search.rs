//! Free slots: pure, lazy, from one state of the network, on bit sets.
//!
//! A clinic of the search becomes a *plan*: when visits may start there by the clock, and its suitable rooms. A provider at it is a
//! *lane*. Time is looked at in *windows* of some words at a time. In a window the starts of a lane come from a dozen operations
//! a word: own time, usable time and what is not taken, where it runs on for the whole visit; and on the starts that the clock allows
//! and some room is free for. A page stops at the window that fills it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, ProviderId, ServiceTypeId};

use super::bits;
use super::catalog::ServiceType;
use super::network::{Member, Network, Post, RoomTime, Site, Taken};
use super::shift;
use super::span::{self, Minute, Span};
use super::zone::{self, Stretch};

/// Words of a window: two days and two thirds.
const WINDOW: usize = 12;
/// Words before the window that are read, for buffers before a visit.
const BEFORE: usize = 1;
/// Words after it, for visits that begin in it: the longest visit and its buffers are 144 cells.
const AFTER: usize = 3;
/// Words that are read to judge a window.
type Strip = [u64; BEFORE + WINDOW + AFTER];

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
    /// Stretches of local days, each with the range that starts may lie in.
    starts: Vec<(Stretch, Span)>,
    /// Suitable rooms that are ever taken; `None` = some suitable room never is.
    rooms: Option<Vec<&'a RoomTime>>,
    /// Which lanes are at this clinic.
    lanes: std::ops::Range<usize>,
}

/// One provider at one clinic.
struct Lane<'a> {
    clinic_id: ClinicId,
    provider_id: ProviderId,
    post: &'a Post,
    taken: Option<&'a Taken>,
}

/// A search over one state of the network.
pub struct Search<'a> {
    network: &'a Network,
    service: &'a ServiceType,
    any_provider: bool,
    plans: Vec<Plan<'a>>,
    /// By clinic and provider.
    lanes: Vec<Lane<'a>>,
}

/// Which starts of each lane are free in the words from number `first` on.
struct Window {
    first: i64,
    starts: Vec<[u64; WINDOW]>,
}

impl Window {
    /// The words that meet `range`, with the bits that lie in it.
    fn masks(&self, range: Span) -> impl Iterator<Item = (usize, u64)> + use<> {
        let first = self.first;
        (0..WINDOW).map(move |w| (w, bits::mask(first + w as i64, range))).filter(|(_, mask)| *mask != 0)
    }

    /// Every start in the window with its lane, by start and lane. `lanes_of` is room to work in.
    fn each(
        &self,
        lanes_of: &mut Vec<[u64; 64]>,
        mut each: impl FnMut(Minute, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        lanes_of.resize(self.starts.len().div_ceil(64), [0; 64]);
        for w in 0..WINDOW {
            let mut any = 0;
            for (block, lanes) in lanes_of.iter_mut().zip(self.starts.chunks(64)) {
                block.fill(0);
                block.iter_mut().zip(lanes).for_each(|(set, starts)| *set = starts[w]);
                let some = block.iter().fold(0, |some, set| some | set);
                any |= some;
                if some != 0 {
                    bits::transpose(block);
                }
            }
            for bit in bits::ones(any) {
                let start = bits::minute_of(self.first + w as i64, bit);
                for (n, block) in lanes_of.iter().enumerate() {
                    for lane in bits::ones(block[bit as usize]) {
                        each(start, n * 64 + lane as usize)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The first minute and the last local day that visits may be booked for at `now`.
pub fn bookable(service: &ServiceType, zone: Tz, now: DateTime<Utc>) -> (Minute, NaiveDate) {
    let this = span::minute(now);
    let next = if span::instant(this) < now { this + 1 } else { this };
    let last = shift(zone::date(zone, this), i64::from(service.booking_horizon_days));
    (next + i64::from(service.minimum_notice_minutes), last)
}

/// All that a search finds: the starts in each word of each provider at each clinic that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts(BTreeMap<(i64, ClinicId, ProviderId), u64>);

impl Starts {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.values().map(|starts| starts.count_ones() as usize).sum()
    }

    /// The slots that are here and not in `other`, in order.
    pub fn without(&self, other: &Self) -> Vec<Slot> {
        let more = |(key, starts): (&(i64, ClinicId, ProviderId), &u64)| {
            let starts = starts & !other.0.get(key).unwrap_or(&0);
            let (word, clinic_id, provider_id) = *key;
            bits::ones(starts).map(move |bit| Slot {
                start: bits::minute_of(word, bit),
                clinic_id,
                provider_id,
            })
        };
        let mut slots: Vec<Slot> = self.0.iter().flat_map(more).collect();
        slots.sort_unstable();
        slots
    }
}

impl<'a> Search<'a> {
    /// Settles which clinics, rooms, providers and times a query is about.
    pub fn new(network: &'a Network, query: &Query, now: DateTime<Utc>) -> Result<Self, Unknown> {
        Self::following(network, query, now, now)
    }

    /// The same for a query that was asked at another time and means the days that it meant then.
    pub fn following(
        network: &'a Network,
        query: &Query,
        asked: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Self, Unknown> {
        let unknown = Unknown::ServiceType(query.service_type);
        let service = network.service_type(query.service_type).ok_or(unknown)?;
        let mut search =
            Self { network, service, any_provider: query.any_provider, plans: vec![], lanes: vec![] };
        let mut sites: Vec<&Site> = match query.clinics.as_slice() {
            [] => network.sites().collect(),
            ids => ids
                .iter()
                .map(|id| network.site(*id).ok_or(Unknown::Clinic(*id)))
                .collect::<Result<_, _>>()?,
        };
        sites.sort_unstable_by_key(|site| site.clinic.id);
        sites.dedup_by_key(|site| site.clinic.id);
        if let Some(id) = query.providers.iter().find(|id| network.member(**id).is_none()) {
            return Err(Unknown::Provider(*id));
        }
        let wanted: HashSet<ProviderId> = query.providers.iter().copied().collect();
        for site in sites.into_iter().filter(|s| !service.retired && !s.clinic.retired) {
            let Some(mut plan) = Plan::new(network, service, site, query, [asked, now]) else { continue };
            let clinic_id = site.clinic.id;
            let takes = |member: &Member| {
                let provider = &member.provider;
                !provider.retired
                    && provider.offers(service.id)
                    && (wanted.is_empty() || wanted.contains(&provider.id))
            };
            let posts = network.posts_at(site.clinic.id).filter(|(_, post)| takes(&post.member));
            search.lanes.extend(posts.map(|(provider_id, post)| Lane {
                clinic_id,
                post,
                provider_id,
                taken: network.taken(provider_id),
            }));
            plan.lanes.end = search.lanes.len();
            plan.lanes.start = search.plans.last().map_or(0, |p| p.lanes.end);
            search.plans.push(plan);
        }
        Ok(search)
    }

    /// The calendar version of each provider considered.
    pub fn calendar_versions(&self) -> HashMap<ProviderId, i64> {
        self.lanes.iter().map(|l| (l.provider_id, l.post.member.calendar.version)).collect()
    }

    /// At most `limit` slots after `after`, in order.
    pub fn slots(&self, after: Option<Slot>, limit: usize) -> Vec<Slot> {
        let mut found = Vec::with_capacity(limit.min(self.lanes.len().saturating_mul(WINDOW)));
        if limit == 0 {
            return found;
        }
        let told = |slot: &Slot| {
            after.is_some_and(|after| {
                let same = (after.start, after.clinic_id) == (slot.start, slot.clinic_id);
                *slot <= after || (self.any_provider && same)
            })
        };
        let mut room = vec![];
        let _ = self.windows(after.map_or(Minute::MIN, |slot| slot.start), |window| {
            window.each(&mut room, |start, lane| {
                let Lane { clinic_id, provider_id, .. } = self.lanes[lane];
                let slot = Slot { start, clinic_id, provider_id };
                if !told(&slot) {
                    found.push(slot);
                }
                if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        found
    }

    /// How many slots start on each day at each clinic.
    pub fn day_counts(&self) -> BTreeMap<(NaiveDate, ClinicId), i32> {
        let mut counts = BTreeMap::new();
        let _ = self.windows(Minute::MIN, |window| {
            for plan in &self.plans {
                for (stretch, range) in plan.starts_in(window.first) {
                    let masks: Vec<_> = window.masks(*range).collect();
                    let lanes = window.starts[plan.lanes.clone()].iter();
                    let slots: u32 = lanes
                        .flat_map(|starts| masks.iter().map(|(w, mask)| (starts[*w] & mask).count_ones()))
                        .sum();
                    if slots > 0 {
                        *counts.entry((stretch.date, plan.site.clinic.id)).or_default() += slots as i32;
                    }
                }
            }
            ControlFlow::Continue(())
        });
        counts
    }

    /// Every free start.
    pub fn starts(&self) -> Starts {
        let mut all = Starts::default();
        let _ = self.windows(Minute::MIN, |window| {
            for (lane, starts) in self.lanes.iter().zip(&window.starts) {
                for (w, starts) in starts.iter().enumerate().filter(|(_, starts)| **starts != 0) {
                    all.0.insert((window.first + w as i64, lane.clinic_id, lane.provider_id), *starts);
                }
            }
            ControlFlow::Continue(())
        });
        all
    }

    /// How long visits are.
    pub fn visit_minutes(&self) -> i32 {
        self.service.duration_minutes
    }

    /// The visit of a slot, and its clinic's zone.
    pub fn visit(&self, slot: Slot) -> (Span, Tz) {
        let zone = self.network.site(slot.clinic_id).map(|site| site.clinic.time_zone);
        let end = slot.start + i64::from(self.service.duration_minutes);
        (Span::new(slot.start, end), zone.unwrap_or(Tz::UTC))
    }

    /// Works out one window after the other, from the one that `from` lies in.
    fn windows(&self, from: Minute, mut each: impl FnMut(&Window) -> ControlFlow<()>) -> ControlFlow<()> {
        let ranges = || self.plans.iter().flat_map(|p| p.starts.iter().map(|(_, range)| range));
        let (Some(first), Some(last)) = (ranges().map(|r| r.start).min(), ranges().map(|r| r.end).max())
        else {
            return ControlFlow::Continue(());
        };
        let starts = vec![[0; WINDOW]; self.lanes.len()];
        let mut window = Window { first: bits::word_of(first.max(from)), starts };
        while window.first <= bits::word_of(last - 1) {
            let plans = self.plans.iter().filter(|plan| self.fill(plan, &mut window)).count();
            if plans > 0 {
                each(&window)?;
            }
            window.first += WINDOW as i64;
        }
        ControlFlow::Continue(())
    }

    /// Works out the starts of a plan's lanes; false when there can be none.
    fn fill(&self, plan: &Plan<'_>, window: &mut Window) -> bool {
        let allowed = plan.allowed(self.service, window.first);
        if allowed == [0; WINDOW] {
            window.starts[plan.lanes.clone()].fill([0; WINDOW]);
            return false;
        }
        let length = bits::cells(self.service.duration_minutes.into());
        let before = bits::cells(self.service.buffer_before_minutes.into());
        let after = bits::cells(self.service.buffer_after_minutes.into());
        let from = window.first - BEFORE as i64;
        let (mut usable, mut strip, mut clear): (Strip, Strip, Strip) = Default::default();
        plan.site.usable().read(from, &mut usable);
        for lane in plan.lanes.clone() {
            let Lane { post, taken, .. } = &self.lanes[lane];
            post.own.read(from, &mut strip);
            both(&mut strip, &usable);
            if let Some(taken) = taken {
                taken.bits().read(from, &mut clear);
                clear.iter_mut().for_each(|word| *word = !*word);
                both(&mut strip, &clear);
            }
            bits::keep_runs(&mut strip, length);
            // The buffers are the provider's: the visit keeps away from what is taken by them, not from the end of a shift.
            if taken.is_some() && before + after > 0 {
                bits::keep_runs(&mut clear, before + length + after);
                bits::delay(&mut clear, before);
                both(&mut strip, &clear);
            }
            for (w, allowed) in allowed.iter().enumerate() {
                window.starts[lane][w] = strip[BEFORE + w] & allowed;
            }
        }
        if self.any_provider {
            self.balance(plan, window);
        }
        true
    }

    /// Leaves each start to the provider with the least time taken that day, of equals to the lowest id.
    fn balance(&self, plan: &Plan<'_>, window: &mut Window) {
        let zone = plan.site.clinic.time_zone;
        for (stretch, range) in plan.starts_in(window.first) {
            let day = zone::whole_days(zone, &(stretch.date..=stretch.date));
            let load = |lane: &usize| self.network.busy_minutes(self.lanes[*lane].provider_id, day);
            let mut order: Vec<usize> = plan.lanes.clone().collect();
            // Lanes are in the order of ids, and the sort keeps it among equals.
            order.sort_by_cached_key(load);
            for (w, mask) in window.masks(*range) {
                let mut given = !mask;
                for lane in &order {
                    let starts = &mut window.starts[*lane][w];
                    let own = *starts & mask;
                    *starts &= !(own & given);
                    given |= own;
                }
            }
        }
    }
}

fn both(words: &mut Strip, with: &Strip) {
    words.iter_mut().zip(with).for_each(|(word, with)| *word &= with);
}

impl<'a> Plan<'a> {
    /// `None` when nothing can be offered there.
    fn new(
        network: &'a Network,
        service: &'a ServiceType,
        site: &'a Site,
        query: &Query,
        [asked, now]: [DateTime<Utc>; 2],
    ) -> Option<Self> {
        let zone = site.clinic.time_zone;
        let (earliest, horizon) = bookable(service, zone, now);
        let first = query.first.unwrap_or_else(|| zone::date(zone, span::minute(asked)));
        let last =
            query.last.unwrap_or_else(|| shift(first, DEFAULT_DAYS - 1)).min(shift(first, MAX_DAYS - 1));
        // Days that passed offer nothing and need not be looked at.
        let days = first.max(zone::date(zone, earliest))..=last.min(horizon);
        if days.is_empty() {
            return None;
        }
        let allowed = |stretch: &Stretch| {
            let clock = [query.from_minute, query.before_minute].map(|m| stretch.midnight + i64::from(m));
            let range = stretch.span.overlap(Span::new(clock[0].max(earliest), clock[1]));
            let day = query.weekdays.is_empty() || query.weekdays.contains(&zone::weekday(stretch.date));
            (day && !range.is_empty()).then_some((*stretch, range))
        };
        let stretches = site.stretches(zone::whole_days(zone, &days));
        let starts: Vec<_> = stretches.iter().filter_map(allowed).collect();
        let mut suitable = site.rooms_for(service).map(|room| network.room(room.id)).peekable();
        (!starts.is_empty() && suitable.peek().is_some()).then(|| Self {
            site,
            starts,
            rooms: suitable.collect(),
            lanes: 0..0,
        })
    }

    /// The stretches with starts in the window that begins with word `first`.
    fn starts_in(&self, first: i64) -> &[(Stretch, Span)] {
        let window = Span::new(bits::minute_of(first, 0), bits::minute_of(first + WINDOW as i64, 0));
        let from = self.starts.partition_point(|(_, range)| range.end <= window.start);
        let to = self.starts.partition_point(|(_, range)| range.start < window.end);
        self.starts.get(from..to).unwrap_or_default()
    }

    /// The starts in the window that begins with word `first` that are on the step and have some room free for the visit.
    fn allowed(&self, service: &ServiceType, first: i64) -> [u64; WINDOW] {
        let window = Span::new(bits::minute_of(first, 0), bits::minute_of(first + WINDOW as i64, 0));
        let mut allowed = [0; WINDOW];
        for (stretch, range) in self.starts_in(first) {
            let part = range.overlap(window);
            let ahead = (stretch.midnight - part.start).rem_euclid(service.step());
            for start in (part.start + ahead..part.end).step_by(service.step() as usize) {
                let (word, bit) = bits::position(start);
                allowed[(word - first) as usize] |= 1 << bit;
            }
        }
        self.keep_roomed(service, first, &mut allowed);
        allowed
    }

    fn keep_roomed(&self, service: &ServiceType, first: i64, allowed: &mut [u64; WINDOW]) {
        let Some(rooms) = &self.rooms else { return };
        let mut missing = *allowed;
        for room in rooms {
            if missing == [0; WINDOW] {
                return;
            }
            let mut free: Strip = Default::default();
            room.bits().read(first - BEFORE as i64, &mut free);
            free.iter_mut().for_each(|word| *word = !*word);
            bits::keep_runs(&mut free, bits::cells(service.duration_minutes.into()));
            missing.iter_mut().zip(&free[BEFORE..]).for_each(|(missing, free)| *missing &= !free);
        }
        allowed.iter_mut().zip(missing).for_each(|(allowed, missing)| *allowed &= !missing);
    }
}
