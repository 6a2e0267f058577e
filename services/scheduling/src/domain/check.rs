//! Judging one start: every rule that blocks it, in words; for a booking also who can take it, and in which rooms.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, FormId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::scheduling::v1::BlockCode;
use uuid::Uuid;

use super::calendar::ExceptionKind;
use super::catalog::ServiceType;
use super::network::{Member, Network, Post, Site};
use super::search::{self, Unknown};
use super::span::{Minute, Span, Spans};
use super::{Days, shift, zone};

/// Providers named at most when any would do, and judged one by one when none fits.
const MAX_PROVIDERS: usize = 20;

/// The start to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Kind of visit.
    pub service_type: ServiceTypeId,
    /// Where.
    pub clinic: ClinicId,
    /// With whom; `None` = any who fits.
    pub provider: Option<ProviderId>,
    /// In which room; `None` = any that suits.
    pub room: Option<RoomId>,
    /// When.
    pub start: Minute,
    /// Book regardless of what can be overridden.
    pub overriding: bool,
    /// End of a visit that is already booked: only the calendar is judged.
    pub standing_end: Option<Minute>,
}

/// One rule that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which.
    pub code: BlockCode,
    /// The same for staff.
    pub message: String,
    /// The front desk may book regardless.
    pub overridable: bool,
    /// The part of the visit concerned.
    pub span: Option<Span>,
    /// Exception, blackout or appointment at fault.
    pub source: Option<Uuid>,
}

/// All that a booking needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// It may be booked.
    pub ok: bool,
    /// By code.
    pub blocks: Vec<Block>,
    /// With calendar versions, least busy first.
    pub providers: Vec<(ProviderId, i64)>,
    /// In the order to try.
    pub rooms: Vec<RoomId>,
    /// The visit.
    pub visit: Span,
    /// The provider's time, buffers included.
    pub occupied: Span,
    /// Clinic-local day of the start.
    pub date: NaiveDate,
    /// The clinic's.
    pub time_zone: Tz,
    /// A co-pay is authorized first.
    pub copay_required: bool,
    /// To be submitted before check-in.
    pub intake_form: Option<FormId>,
}

/// Judges `question` against one state of the network.
pub fn check(network: &Network, question: &Question, now: DateTime<Utc>) -> Result<Answer, Unknown> {
    let case = Case::new(network, question, now)?;
    let own: Vec<Block> = case.blocks();
    let mut blocks = own.clone();
    let passes = |blocks: &[Block]| blocks.iter().all(|b| question.overriding && b.overridable);
    let mut providers: Vec<&Member> = vec![];
    match question.provider {
        Some(id) => {
            let member = network.member(id).ok_or(Unknown::Provider(id))?;
            blocks.extend(case.blocks_of(member));
            providers.push(member);
        }
        None => {
            let mut candidates: Vec<&Post> = case.candidates().collect();
            if candidates.iter().any(|post| post.own.covers(case.visit)) {
                candidates.retain(|post| post.own.covers(case.visit));
            }
            let day = zone::whole_days(case.zone(), &(case.date..=case.date));
            let id = |post: &Post| post.member.provider.id;
            candidates.sort_by_cached_key(|post| (network.busy_minutes(id(post), day), id(post)));
            let candidates = candidates.into_iter().map(|post| post.member.as_ref()).take(MAX_PROVIDERS);
            let judged: Vec<_> = candidates.map(|m| (m, case.blocks_of(m))).collect();
            if judged.is_empty() {
                blocks.push(case.outside_schedule(case.visit));
            }
            if !judged.iter().any(|(_, blocks)| blocks.is_empty()) {
                blocks.extend(judged.iter().flat_map(|(_, blocks)| blocks.clone()));
            }
            providers.extend(judged.iter().filter(|(_, blocks)| passes(blocks)).map(|(m, _)| *m));
        }
    }
    sort(&mut blocks);
    if question.provider.is_none() {
        blocks.dedup_by_key(|b| b.code);
    }
    // For any provider the rules of one who cannot come do not speak against another who can.
    let ok = passes(&own) && !providers.is_empty() && (question.provider.is_none() || passes(&blocks));
    if !ok && question.provider.is_none() {
        providers.clear();
    }
    Ok(Answer {
        ok,
        blocks,
        providers: providers.iter().map(|m| (m.provider.id, m.calendar.version)).collect(),
        rooms: if ok { case.rooms() } else { vec![] },
        visit: case.visit,
        occupied: case.occupied,
        date: case.date,
        time_zone: case.zone(),
        copay_required: case.service.copay_required,
        intake_form: case.service.intake_form_id,
    })
}

/// Why one provider cannot be had at one start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// By code; empty = a search offers it.
    pub blocks: Vec<Block>,
    /// The clinic's zone.
    pub time_zone: Tz,
    /// The provider's calendar version.
    pub calendar_version: i64,
}

/// Every rule that keeps `provider` from the start of `question`, busy time and rooms included.
pub fn explain(
    network: &Network,
    question: &Question,
    provider: ProviderId,
    now: DateTime<Utc>,
) -> Result<Explanation, Unknown> {
    let case = Case::new(network, question, now)?;
    let member = network.member(provider).ok_or(Unknown::Provider(provider))?;
    let mut blocks = case.blocks();
    blocks.extend(case.blocks_of(member));
    blocks.extend(case.taken(provider));
    blocks.extend(case.crowded());
    sort(&mut blocks);
    Ok(Explanation { blocks, time_zone: case.zone(), calendar_version: member.calendar.version })
}

fn sort(blocks: &mut [Block]) {
    blocks.sort_by_key(|b| (b.code, b.span.map(|s| s.start), b.source));
}

/// A question with everything it names looked up.
struct Case<'a> {
    network: &'a Network,
    question: &'a Question,
    now: DateTime<Utc>,
    service: &'a ServiceType,
    site: &'a Site,
    visit: Span,
    occupied: Span,
    date: NaiveDate,
}

impl<'a> Case<'a> {
    fn new(network: &'a Network, question: &'a Question, now: DateTime<Utc>) -> Result<Self, Unknown> {
        let unknown = Unknown::ServiceType(question.service_type);
        let service = network.service_type(question.service_type).ok_or(unknown)?;
        let site = network.site(question.clinic).ok_or(Unknown::Clinic(question.clinic))?;
        if let Some(room) = question.room {
            network.clinic_of(room).ok_or(Unknown::Room(room))?;
        }
        let end = question.standing_end.unwrap_or(question.start + i64::from(service.duration_minutes));
        let visit = Span::new(question.start, end);
        Ok(Self {
            network,
            question,
            now,
            service,
            site,
            visit,
            occupied: visit
                .widened(service.buffer_before_minutes.into(), service.buffer_after_minutes.into()),
            date: zone::date(site.clinic.time_zone, visit.start),
        })
    }

    fn zone(&self) -> Tz {
        self.site.clinic.time_zone
    }

    /// The days that the visit may reach into.
    fn days(&self) -> Days {
        self.date..=shift(self.date, 1)
    }

    /// A span on the clinic's clock.
    fn clock(&self, span: Span) -> String {
        zone::clock(self.zone(), span)
    }

    /// Who could be meant when any would do.
    fn candidates(&self) -> impl Iterator<Item = &'a Post> {
        let service = self.service.id;
        let posts = self.network.posts_at(self.site.clinic.id).map(|(_, post)| post);
        posts.filter(move |p| !p.member.provider.retired && p.member.provider.offers(service))
    }

    /// What speaks against it whoever the provider is.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = vec![];
        if let Some(part) = self.uncovered(&self.site.clinic.open(&self.days())) {
            let message = format!("{} is closed {}.", self.site.clinic.name, self.clock(part));
            blocks.push(timed(BlockCode::ClinicClosed, message, part, None));
        }
        for blackout in &self.site.blackouts {
            let whole = blackout.at(self.zone());
            let part = whole.overlap(self.visit);
            if !part.is_empty() {
                let message = format!("{}: no visits {}.", blackout.name, self.clock(whole));
                blocks.push(timed(BlockCode::Blackout, message, part, Some(blackout.id.uuid())));
            }
        }
        if self.question.standing_end.is_none() {
            self.rules(&mut blocks);
        }
        blocks
    }

    /// What only a new visit must obey.
    fn rules(&self, blocks: &mut Vec<Block>) {
        let start = self.visit.start;
        let service = self.service;
        let (earliest, horizon) = search::bookable(service, self.zone(), self.now);
        let retired = [
            (self.site.clinic.retired, "The clinic takes no new bookings."),
            (service.retired, "The service type takes no new bookings."),
            (self.asked_room().is_some_and(|r| r.retired), "The room takes no new bookings."),
        ];
        for (_, message) in retired.iter().filter(|(retired, _)| *retired) {
            blocks.push(plain(BlockCode::Retired, (*message).to_owned(), false));
        }
        if zone::minute_of_day(self.zone(), start) % service.step() != 0 {
            let message = format!("{} starts every {} minutes from midnight.", service.name, service.step());
            blocks.push(plain(BlockCode::OffStep, message, true));
        }
        if start < earliest {
            let message = format!(
                "{} is booked {} minutes ahead at least; the first start now is {}.",
                service.name,
                service.minimum_notice_minutes,
                zone::rfc3339(self.zone(), earliest)
            );
            blocks.push(plain(BlockCode::TooSoon, message, true));
        }
        if self.date > horizon {
            let days = service.booking_horizon_days;
            let message =
                format!("{} is booked at most {days} days ahead, now until {horizon}.", service.name);
            blocks.push(plain(BlockCode::TooFar, message, true));
        }
        blocks.extend(self.room_block());
    }

    fn asked_room(&self) -> Option<&super::catalog::Room> {
        let id = self.question.room?;
        self.site.rooms.iter().find(|room| room.id == id)
    }

    fn room_block(&self) -> Option<Block> {
        let needed = self.service.room_features.join(", ");
        let (message, overridable) = match (self.question.room, self.asked_room()) {
            (Some(_), None) => ("The room is in another clinic.".to_owned(), false),
            (Some(_), Some(room)) if room.retired || room.suits(self.service) => return None,
            (Some(_), Some(room)) => (format!("Room {} lacks some of: {needed}.", room.name), true),
            (None, _) if self.site.rooms_for(self.service).next().is_some() => return None,
            (None, _) if needed.is_empty() => {
                (format!("{} has no room in use.", self.site.clinic.name), false)
            }
            (None, _) => (format!("No room of {} has all of: {needed}.", self.site.clinic.name), false),
        };
        Some(plain(BlockCode::NoSuitableRoom, message, overridable))
    }

    /// What speaks against this provider.
    fn blocks_of(&self, member: &Member) -> Vec<Block> {
        let clinic = self.site.clinic.id;
        let provider = &member.provider;
        let mut blocks = vec![];
        // Worked out from the rules only when the expanded time says that something is wrong, or does not reach so far.
        if !self.network.post(clinic, provider.id).is_some_and(|post| post.own.covers(self.visit)) {
            let scheduled = member.calendar.scheduled_on(clinic, &self.days());
            blocks.extend(self.uncovered(&scheduled).map(|part| self.outside_schedule(part)));
        }
        for off in member.calendar.exceptions_at(clinic, ExceptionKind::TimeOff) {
            let part = off.span.overlap(self.visit);
            if !part.is_empty() {
                let message = format!("{} is off {}.", provider.name, self.clock(off.span));
                blocks.push(timed(BlockCode::TimeOff, message, part, Some(off.id.uuid())));
            }
        }
        if self.question.standing_end.is_none() {
            if provider.retired {
                let message = format!("{} takes no new bookings.", provider.name);
                blocks.push(plain(BlockCode::Retired, message, false));
            }
            if !provider.offers(self.service.id) {
                let message = format!("{} does not offer {}.", provider.name, self.service.name);
                blocks.push(plain(BlockCode::ServiceNotOffered, message, true));
            }
        }
        blocks
    }

    /// The provider's time that is taken already.
    fn taken(&self, provider: ProviderId) -> Vec<Block> {
        let taken = self.network.taken(provider).into_iter().flat_map(|taken| taken.meeting(self.occupied));
        taken
            .map(|busy| Block {
                overridable: false,
                ..timed(
                    BlockCode::Busy,
                    format!("Held or booked, with buffers, {}.", self.clock(busy.occupied)),
                    busy.occupied.overlap(self.occupied),
                    Some(busy.appointment_id.uuid()),
                )
            })
            .collect()
    }

    /// All rooms that would do are taken.
    fn crowded(&self) -> Option<Block> {
        let mut rooms = self.site.rooms_for(self.service).peekable();
        rooms.peek()?;
        let taken = rooms.all(|room| self.network.room_is_taken(room.id, self.visit));
        let message = || format!("No suitable room is free all of {}.", self.clock(self.visit));
        taken.then(|| Block {
            overridable: false,
            ..timed(BlockCode::NoRoomFree, message(), self.visit, None)
        })
    }

    fn outside_schedule(&self, part: Span) -> Block {
        let message = format!("No shift at {} covers {}.", self.site.clinic.name, self.clock(part));
        timed(BlockCode::OutsideSchedule, message, part, None)
    }

    /// From the first to the last minute of the visit that `spans` lacks.
    fn uncovered(&self, spans: &Spans) -> Option<Span> {
        let missing = [self.visit].into_iter().collect::<Spans>().subtract(spans);
        let hull = (missing.iter().next()?.start, missing.iter().next_back()?.end);
        Some(Span::new(hull.0, hull.1))
    }

    /// Rooms to try: believed free first, then with the fewest features that are not needed.
    fn rooms(&self) -> Vec<RoomId> {
        if let Some(room) = self.question.room {
            return vec![room];
        }
        let mut rooms: Vec<_> = self.site.rooms_for(self.service).collect();
        let taken = |id| self.network.room_is_taken(id, self.visit);
        rooms.sort_by_cached_key(|r| (taken(r.id), r.features.len(), r.id));
        rooms.into_iter().map(|room| room.id).collect()
    }
}

/// A block about time; a booking may override those of the calendar.
fn timed(code: BlockCode, message: String, part: Span, source: Option<Uuid>) -> Block {
    Block { code, message, overridable: true, span: Some(part), source }
}

/// A block that is not about a part of the visit.
fn plain(code: BlockCode, message: String, overridable: bool) -> Block {
    Block { code, message, overridable, span: None, source: None }
}
