//! Judging one start for a booking: every rule that blocks it, who can take it, and in which rooms.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, FormId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::scheduling::v1::BlockCode;
use uuid::Uuid;

use super::calendar::ExceptionKind;
use super::catalog::ServiceType;
use super::network::{Member, Network, Site};
use super::search::{self, Unknown};
use super::span::{Minute, Span, Spans};
use super::{shift, zone};

/// Providers named at most when any would do.
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
    pub message: &'static str,
    /// The front desk may book regardless.
    pub overridable: bool,
    /// The part of the visit concerned.
    pub span: Option<Span>,
    /// Exception or blackout at fault.
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
            let candidates = network.members().filter(|m| case.is_candidate(m));
            let judged: Vec<_> = candidates.map(|m| (m, case.blocks_of(m))).collect();
            let mut fit: Vec<_> = judged.iter().filter(|(_, blocks)| blocks.is_empty()).collect();
            if fit.is_empty() {
                blocks.extend(judged.iter().flat_map(|(_, blocks)| blocks.clone()));
                if judged.is_empty() {
                    blocks.push(case.outside_schedule());
                }
                fit = judged.iter().filter(|(_, blocks)| passes(blocks)).collect();
            }
            let day = zone::whole_days(case.zone(), &(case.date..=case.date));
            fit.sort_by_cached_key(|(m, _)| (m.busy_minutes(day), m.provider.id));
            providers.extend(fit.into_iter().map(|(m, _)| m).take(MAX_PROVIDERS));
        }
    }
    blocks.sort_by_key(|b| (b.code, b.span.map(|s| s.start), b.source));
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
        rooms: if ok { case.rooms(network) } else { vec![] },
        visit: case.visit,
        occupied: case.occupied,
        date: case.date,
        time_zone: case.zone(),
        copay_required: case.service.copay_required,
        intake_form: case.service.intake_form_id,
    })
}

/// A question with everything it names looked up.
struct Case<'a> {
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

    /// Whether the provider could be meant when any would do.
    fn is_candidate(&self, member: &Member) -> bool {
        let clinic = self.site.clinic.id;
        !member.provider.retired
            && member.provider.offers(self.service.id)
            && member.clinics().any(|c| c == clinic)
    }

    /// What speaks against it whoever the provider is.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = vec![];
        let days = self.date..=shift(self.date, 1);
        if let Some(part) = self.uncovered(&self.site.clinic.open(&days)) {
            blocks.push(timed(BlockCode::ClinicClosed, "The clinic is closed then.", part, None));
        }
        for blackout in &self.site.blackouts {
            let part = blackout.at(self.zone()).overlap(self.visit);
            if !part.is_empty() {
                let source = blackout.id.uuid();
                blocks.push(timed(BlockCode::Blackout, "A blackout covers that time.", part, Some(source)));
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
        let (earliest, horizon) = search::bookable(self.service, self.zone(), self.now);
        let off_step = zone::minute_of_day(self.zone(), start) % self.service.step() != 0;
        let closed =
            self.site.clinic.retired || self.service.retired || self.asked_room().is_some_and(|r| r.retired);
        for (applies, code, message, overridable) in [
            (
                closed,
                BlockCode::Retired,
                "The clinic, the room or the service type takes no new bookings.",
                false,
            ),
            (off_step, BlockCode::OffStep, "Visits of this type do not start at that minute.", true),
            (
                start < earliest,
                BlockCode::TooSoon,
                "The start is nearer than the minimum notice, or passed.",
                true,
            ),
            (self.date > horizon, BlockCode::TooFar, "The start is beyond the booking horizon.", true),
        ] {
            if applies {
                blocks.push(Block { code, message, overridable, span: None, source: None });
            }
        }
        blocks.extend(self.room_block());
    }

    fn asked_room(&self) -> Option<&super::catalog::Room> {
        let id = self.question.room?;
        self.site.rooms.iter().find(|room| room.id == id)
    }

    fn room_block(&self) -> Option<Block> {
        let (message, overridable) = match (self.question.room, self.asked_room()) {
            (Some(_), None) => ("The room is in another clinic.", false),
            (Some(_), Some(room)) if room.retired || room.suits(self.service) => return None,
            (Some(_), Some(_)) => ("The room lacks what the service type needs.", true),
            (None, _) if self.site.rooms_for(self.service).next().is_some() => return None,
            (None, _) => ("No room of the clinic has what the service type needs.", false),
        };
        Some(Block { code: BlockCode::NoSuitableRoom, message, overridable, span: None, source: None })
    }

    /// What speaks against this provider.
    fn blocks_of(&self, member: &Member) -> Vec<Block> {
        let clinic = self.site.clinic.id;
        let mut blocks = vec![];
        let scheduled = member.scheduled_on(clinic, &(self.date..=shift(self.date, 1)));
        if let Some(part) = self.uncovered(&scheduled) {
            blocks.push(Block { span: Some(part), ..self.outside_schedule() });
        }
        for off in member.exceptions(clinic, ExceptionKind::TimeOff) {
            let part = off.span.overlap(self.visit);
            if !part.is_empty() {
                let source = off.id.uuid();
                blocks.push(timed(BlockCode::TimeOff, "The provider is off then.", part, Some(source)));
            }
        }
        if self.question.standing_end.is_none() {
            for (applies, code, message, overridable) in [
                (member.provider.retired, BlockCode::Retired, "The provider takes no new bookings.", false),
                (
                    !member.provider.offers(self.service.id),
                    BlockCode::ServiceNotOffered,
                    "The provider does not offer this service type.",
                    true,
                ),
            ] {
                if applies {
                    blocks.push(Block { code, message, overridable, span: None, source: None });
                }
            }
        }
        blocks
    }

    fn outside_schedule(&self) -> Block {
        timed(
            BlockCode::OutsideSchedule,
            "No shift of the provider at the clinic covers the visit.",
            self.visit,
            None,
        )
    }

    /// From the first to the last minute of the visit that `spans` lacks.
    fn uncovered(&self, spans: &Spans) -> Option<Span> {
        let missing = [self.visit].into_iter().collect::<Spans>().subtract(spans);
        let hull = (missing.iter().next()?.start, missing.iter().next_back()?.end);
        Some(Span::new(hull.0, hull.1))
    }

    /// Rooms to try: believed free first, then with the fewest features that are not needed.
    fn rooms(&self, network: &Network) -> Vec<RoomId> {
        if let Some(room) = self.question.room {
            return vec![room];
        }
        let mut rooms: Vec<_> = self.site.rooms_for(self.service).collect();
        rooms.sort_by_cached_key(|r| {
            (network.room_busy(r.id, self.visit).meets(self.visit), r.features.len(), r.id)
        });
        rooms.into_iter().map(|room| room.id).collect()
    }
}

/// A block about time; all of those can be overridden.
fn timed(code: BlockCode, message: &'static str, part: Span, source: Option<Uuid>) -> Block {
    Block { code, message, overridable: true, span: Some(part), source }
}
