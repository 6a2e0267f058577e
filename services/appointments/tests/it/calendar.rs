//! Scheduling as a test scripts it: everything is open but what is blocked. Answers a use case directly, or a whole service over gRPC.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use appointments::domain::Span;
use appointments::error::Error;
use appointments::ports::Scheduling;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::fields::{date, timestamp};
use kit::ids::{FormId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::scheduling::v1 as pb;
use proto::clinic::scheduling::v1::BlockCode;
use proto::clinic::scheduling::v1::availability_service_server::{
    AvailabilityService, AvailabilityServiceServer,
};
use proto::google::r#type::Interval;
use tokio::sync::Notify;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Length of a visit when the script says no other.
const VISIT: TimeDelta = TimeDelta::minutes(15);

/// What a test may change at any time.
pub(crate) struct Script {
    pub(crate) rooms: Vec<RoomId>,
    /// Who fits when any provider will do.
    pub(crate) providers: Vec<ProviderId>,
    pub(crate) copay: bool,
    /// Length of visits of some kinds, in minutes.
    pub(crate) minutes: HashMap<ServiceTypeId, i32>,
    /// Kinds that nobody there offers.
    pub(crate) not_offered: Vec<ServiceTypeId>,
    /// The form that visits ask for.
    pub(crate) intake_form: Option<FormId>,
    /// Provider's time before and after each visit.
    pub(crate) buffers: (TimeDelta, TimeDelta),
    pub(crate) version: i64,
    pub(crate) blocks: Vec<(BlockCode, Span)>,
    pub(crate) zone: Tz,
    /// Starts that a search finds.
    pub(crate) free: Vec<DateTime<Utc>>,
    pub(crate) down: bool,
    /// Who is away all the time.
    pub(crate) away: Option<ProviderId>,
    /// Its answers come after the time for them.
    pub(crate) late: bool,
    /// It takes questions and never answers.
    pub(crate) silent: bool,
    /// The question with this number waits until it is told to go on.
    pub(crate) held_up: Option<(usize, Arc<Notify>)>,
    /// Slots judged so far.
    pub(crate) asked: usize,
}

#[derive(Clone)]
pub(crate) struct Calendar(Arc<Mutex<Script>>);

impl Script {
    fn length(&self, kind: ServiceTypeId) -> TimeDelta {
        self.minutes.get(&kind).map_or(VISIT, |minutes| TimeDelta::minutes((*minutes).into()))
    }
}

fn interval(start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Interval> {
    Some(Interval { start_time: Some(timestamp(start)), end_time: Some(timestamp(end)) })
}

impl Calendar {
    pub(crate) fn open(rooms: usize) -> Self {
        Self(Arc::new(Mutex::new(Script {
            rooms: (0..rooms).map(|_| RoomId::new()).collect(),
            providers: vec![],
            copay: false,
            minutes: HashMap::new(),
            not_offered: vec![],
            intake_form: None,
            buffers: (TimeDelta::zero(), TimeDelta::zero()),
            version: 1,
            blocks: vec![],
            zone: Tz::UTC,
            free: vec![],
            down: false,
            away: None,
            late: false,
            silent: false,
            held_up: None,
            asked: 0,
        })))
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// Blocks an hour from `start` on, as a new version of the calendar; answers the hour.
    pub(crate) fn block(&self, code: BlockCode, start: DateTime<Utc>) -> Span {
        let hour = Span { start, end: start + TimeDelta::hours(1) };
        let mut script = self.script();
        script.blocks.push((code, hour));
        script.version += 1;
        hour
    }

    /// Takes every block away, as a new version of the calendar.
    pub(crate) fn unblock(&self) {
        let mut script = self.script();
        script.blocks.clear();
        script.version += 1;
    }

    /// What the last question waits for.
    fn here(&self) -> Option<Arc<Notify>> {
        let mut script = self.script();
        let asked = script.asked;
        script.held_up.take_if(|(question, _)| *question == asked).map(|(_, go_on)| go_on)
    }

    fn judge(&self, request: &pb::CheckSlotRequest) -> Result<pb::CheckSlotResponse, Status> {
        let mut script = self.script();
        script.asked += 1;
        if script.down {
            return Err(Status::unavailable("scheduling is down"));
        }
        if script.late {
            return Err(Status::deadline_exceeded("scheduling is slow"));
        }
        let start = DateTime::from_timestamp(request.start_time.unwrap().seconds, 0).unwrap();
        let kind = request.service_type_id.parse().unwrap();
        let end = start + script.length(kind);
        let broken = script.blocks.iter().filter(|(_, span)| span.start < end && start < span.end);
        let away =
            script.away.filter(|away| away.to_string() == request.provider_id).map(|_| BlockCode::TimeOff);
        let not_offered = script.not_offered.contains(&kind).then_some(BlockCode::ServiceNotOffered);
        let blocks: Vec<_> = broken
            .map(|(code, _)| *code)
            .chain(not_offered)
            .chain(away)
            .map(|code| pb::Block {
                code: code as i32,
                message: format!("{} says no.", code.as_str_name()),
                overridable: true,
                ..Default::default()
            })
            .collect();
        let ok = blocks.is_empty() || request.overriding;
        let providers = match request.provider_id.as_str() {
            "" => script.providers.iter().map(ToString::to_string).collect(),
            named => vec![named.to_owned()],
        };
        let calendar_version = script.version;
        let rooms = match request.room_id.as_str() {
            _ if !ok => vec![],
            "" => script.rooms.iter().map(ToString::to_string).collect(),
            named => vec![named.to_owned()],
        };
        Ok(pb::CheckSlotResponse {
            ok,
            blocks,
            providers: providers
                .into_iter()
                .map(|provider_id| pb::SlotProvider { provider_id, calendar_version })
                .collect(),
            room_ids: rooms,
            interval: interval(start, end),
            occupied_interval: interval(start - script.buffers.0, end + script.buffers.1),
            visit_date: Some(date(start.with_timezone(&script.zone).date_naive())),
            time_zone: script.zone.name().into(),
            copay_required: script.copay,
            intake_form_id: script.intake_form.map(|form| form.to_string()).unwrap_or_default(),
        })
    }

    fn found(
        &self,
        request: &pb::SearchAvailabilityRequest,
    ) -> Result<pb::SearchAvailabilityResponse, Status> {
        let script = self.script();
        if script.down {
            return Err(Status::unavailable("scheduling is down"));
        }
        let query = request.query.clone().unwrap();
        let asked = query.provider_ids.first().cloned();
        let fits = script.providers.first().map(ToString::to_string);
        let slot = |start: &DateTime<Utc>| pb::Slot {
            provider_id: asked.clone().or(fits.clone()).unwrap_or_default(),
            clinic_id: query.clinic_ids[0].clone(),
            interval: interval(*start, *start + script.length(query.service_type_id.parse().unwrap())),
            local_start: start.with_timezone(&script.zone).to_rfc3339(),
        };
        let slots = script.free.iter().map(slot).collect();
        let calendar_versions = query.provider_ids.iter().map(|id| (id.clone(), script.version)).collect();
        Ok(pb::SearchAvailabilityResponse { slots, calendar_versions, ..Default::default() })
    }

    /// Serves the same answers over gRPC until the test ends; answers where.
    pub(crate) async fn serve(&self) -> String {
        let (listener, url) = testkit::listener().await;
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = AvailabilityServiceServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        url
    }
}

#[async_trait]
impl Scheduling for Calendar {
    async fn check_slot(&self, request: pb::CheckSlotRequest) -> Result<pb::CheckSlotResponse, Error> {
        let answer = self.judge(&request).map_err(|status| Error::Remote(Box::new(status)));
        if self.script().silent {
            std::future::pending::<()>().await;
        }
        let held_up = self.here();
        if let Some(go_on) = held_up {
            go_on.notified().await;
        }
        answer
    }

    async fn search(
        &self,
        request: pb::SearchAvailabilityRequest,
    ) -> Result<pb::SearchAvailabilityResponse, Error> {
        self.found(&request).map_err(|status| Error::Remote(Box::new(status)))
    }

    async fn service_type(
        &self,
        id: ServiceTypeId,
        _: &[Uuid],
        _: &[Uuid],
    ) -> Result<pb::ServiceType, Error> {
        let script = self.script();
        Ok(pb::ServiceType {
            id: id.to_string(),
            duration_minutes: script.length(id).num_minutes() as i32,
            buffer_before_minutes: script.buffers.0.num_minutes() as i32,
            buffer_after_minutes: script.buffers.1.num_minutes() as i32,
            step_minutes: 15,
            copay_required: script.copay,
            ..Default::default()
        })
    }
}

#[tonic::async_trait]
impl AvailabilityService for Calendar {
    async fn check_slot(
        &self,
        request: Request<pb::CheckSlotRequest>,
    ) -> Result<Response<pb::CheckSlotResponse>, Status> {
        self.judge(request.get_ref()).map(Response::new)
    }

    async fn search_availability(
        &self,
        request: Request<pb::SearchAvailabilityRequest>,
    ) -> Result<Response<pb::SearchAvailabilityResponse>, Status> {
        self.found(request.get_ref()).map(Response::new)
    }
}
