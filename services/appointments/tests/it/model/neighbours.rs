//! Scheduling, patients and billing as small as booking can tell: calendars with blocked time, and one charge per appointment. The
//! reference model and the ports of the tested program use the same two structs, each its own copy.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use appointments::domain::Span;
use appointments::error::Error;
use appointments::ports::{Authorization, Billing, Patients, Scheduling};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use kit::fields::{date, timestamp};
use kit::ids::{PatientId, PaymentMethodId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::billing::v1::{AuthorizeCopayRequest, Charge, ChargeState};
use proto::clinic::scheduling::v1::{
    Block, BlockCode, CheckSlotRequest, CheckSlotResponse, SearchAvailabilityRequest,
    SearchAvailabilityResponse, ServiceType, SlotProvider,
};
use proto::google::r#type::Interval;
use uuid::Uuid;

use super::commands::{Answer, At, KINDS, PROVIDERS, ROOMS, Truth, ZONES, id, number};

/// What providers' calendars say.
#[derive(Clone, Debug)]
pub(crate) struct Calendars {
    pub(crate) versions: [i64; PROVIDERS],
    pub(crate) blocked: [Vec<Span>; PROVIDERS],
}

impl Calendars {
    pub(crate) fn new() -> Self {
        Self { versions: [1; PROVIDERS], blocked: Default::default() }
    }

    /// Whether nothing blocks the visit.
    pub(crate) fn allow(&self, provider: usize, visit: Span) -> bool {
        !self.blocked[provider].iter().any(|block| overlap(*block, visit))
    }
}

/// Whether two half-open spans share an instant.
pub(crate) fn overlap(a: Span, b: Span) -> bool {
    a.start < b.end && b.start < a.end
}

/// The visit of a kind that starts at `start`, and what it takes of the provider.
pub(crate) fn spans(kind: usize, start: At) -> (Span, Span) {
    let kind = &KINDS[kind];
    let end = start + TimeDelta::minutes(kind.minutes);
    let occupied =
        Span { start: start - TimeDelta::minutes(kind.before), end: end + TimeDelta::minutes(kind.after) };
    (Span { start, end }, occupied)
}

/// The day of `at` at a clinic.
pub(crate) fn local_day(clinic: usize, at: At) -> chrono::NaiveDate {
    at.with_timezone(&ZONES[clinic]).date_naive()
}

/// Where a charge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Undecided,
    Authorized,
    Declined,
    ActionRequired,
}

/// One charge per appointment, and by which attempt it stands as it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Till<K, N> {
    pub(crate) charges: BTreeMap<K, (N, Standing)>,
}

/// What the one who asks hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Authorized,
    Declined,
    ActionRequired,
    NotDue,
    Refused,
    Unknown,
    Busy,
    Dead,
}

impl<K: Ord + Copy, N: PartialEq + Copy> Till<K, N> {
    /// What was decided stands: asked again under the same attempt, or once it is authorized, `answer` does not matter.
    pub(crate) fn ask(&mut self, key: K, attempt: N, answer: Answer) -> Reply {
        match self.charges.get(&key) {
            Some((_, Standing::Authorized)) => return Reply::Authorized,
            Some((same, Standing::Declined)) if *same == attempt => return Reply::Declined,
            Some((same, Standing::ActionRequired)) if *same == attempt => return Reply::ActionRequired,
            Some(_) | None => {}
        }
        let did = |truth| match truth {
            Truth::Nothing => Standing::Undecided,
            Truth::Authorized => Standing::Authorized,
            Truth::Declined => Standing::Declined,
        };
        let (standing, reply) = match answer {
            Answer::Authorized => (Standing::Authorized, Reply::Authorized),
            Answer::Declined => (Standing::Declined, Reply::Declined),
            Answer::ActionRequired => (Standing::ActionRequired, Reply::ActionRequired),
            Answer::Busy => (Standing::Undecided, Reply::Busy),
            Answer::Lost(truth) => (did(truth), Reply::Unknown),
            Answer::Dies(truth) => (did(truth), Reply::Dead),
            Answer::NotDue => return Reply::NotDue,
            Answer::Refused => return Reply::Refused,
        };
        self.charges.insert(key, (attempt, standing));
        reply
    }
}

/// What the ports of the tested program share with the test.
pub(crate) struct Desk {
    pub(crate) calendars: Calendars,
    pub(crate) till: Till<Uuid, Uuid>,
    pub(crate) answer: Answer,
    /// Every question so far, by attempt.
    pub(crate) asked: BTreeMap<Uuid, Vec<AuthorizeCopayRequest>>,
}

/// The other services.
#[derive(Clone)]
pub(crate) struct Neighbours(pub(crate) Arc<Mutex<Desk>>);

impl Neighbours {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Desk {
            calendars: Calendars::new(),
            till: Till::default(),
            answer: Answer::Authorized,
            asked: BTreeMap::new(),
        })))
    }
}

fn interval(span: Span) -> Option<Interval> {
    Some(Interval { start_time: Some(timestamp(span.start)), end_time: Some(timestamp(span.end)) })
}

#[async_trait]
impl Scheduling for Neighbours {
    async fn check_slot(&self, request: CheckSlotRequest) -> Result<CheckSlotResponse, Error> {
        let desk = self.0.lock().unwrap();
        let parse = |text: &str| number(text.parse::<Uuid>().unwrap());
        let (kind, clinic) = (parse(&request.service_type_id), parse(&request.clinic_id));
        let start = DateTime::from_timestamp(request.start_time.unwrap().seconds, 0).unwrap();
        let (visit, occupied) = spans(kind, start);
        let asked = Some(&request.provider_id).filter(|p| !p.is_empty()).map(|p| parse(p));
        let fit: Vec<_> = (0..PROVIDERS).filter(|p| desk.calendars.allow(*p, visit)).collect();
        let ok = asked.map_or(!fit.is_empty(), |p| fit.contains(&p));
        let providers = asked.map_or(fit, |p| vec![p]);
        let block =
            Block { code: BlockCode::Blackout as i32, message: "blocked".into(), ..Default::default() };
        Ok(CheckSlotResponse {
            ok,
            blocks: if ok { vec![] } else { vec![block] },
            providers: providers
                .into_iter()
                .map(|p| SlotProvider {
                    provider_id: id::<ProviderId>(p).to_string(),
                    calendar_version: desk.calendars.versions[p],
                })
                .collect(),
            room_ids: if ok {
                ROOMS[clinic].iter().map(|r| id::<RoomId>(*r).to_string()).collect()
            } else {
                vec![]
            },
            interval: interval(visit),
            occupied_interval: interval(occupied),
            visit_date: Some(date(local_day(clinic, start))),
            time_zone: ZONES[clinic].name().into(),
            copay_required: KINDS[kind].copay,
            ..Default::default()
        })
    }

    async fn search(&self, _: SearchAvailabilityRequest) -> Result<SearchAvailabilityResponse, Error> {
        Ok(SearchAvailabilityResponse::default())
    }

    async fn service_type(&self, id: ServiceTypeId, _: &[Uuid], _: &[Uuid]) -> Result<ServiceType, Error> {
        Ok(ServiceType { id: id.to_string(), ..Default::default() })
    }
}

#[async_trait]
impl Patients for Neighbours {
    async fn exists(&self, _: PatientId) -> Result<bool, Error> {
        Ok(true)
    }
}

#[async_trait]
impl Billing for Neighbours {
    async fn has_card(&self, _: PatientId, _: Option<PaymentMethodId>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn authorize(&self, request: AuthorizeCopayRequest) -> Authorization {
        let parse = |text: &str| text.parse::<Uuid>().unwrap();
        let (appointment, attempt) = (parse(&request.appointment_id), parse(&request.request_id));
        let reply = {
            let mut desk = self.0.lock().unwrap();
            desk.asked.entry(attempt).or_default().push(request);
            let answer = desk.answer;
            desk.till.ask(appointment, attempt, answer)
        };
        let charge = |state: ChargeState| {
            let charge = Charge { id: appointment.to_string(), state: state as i32, ..Default::default() };
            Authorization::Charge(Box::new(charge))
        };
        match reply {
            Reply::Authorized => charge(ChargeState::Authorized),
            Reply::ActionRequired => charge(ChargeState::RequiresAction),
            Reply::Busy => charge(ChargeState::Authorizing),
            Reply::Declined => Authorization::Declined("declined".into()),
            Reply::NotDue => Authorization::NotDue,
            Reply::Refused => {
                Authorization::Refused(Box::new(tonic::Status::failed_precondition("there is no card")))
            }
            Reply::Unknown => Authorization::Unknown,
            // Ends the task that asked, without a word.
            Reply::Dead => std::panic::resume_unwind(Box::new("killed")),
        }
    }
}
