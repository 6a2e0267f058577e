//! The use cases on a database of the test's own, with mocked neighbours.

use std::sync::Arc;

use appointments::app::{App, Booking, Slot, Target};
use appointments::error::Error;
use appointments::ports::{Authorization, Billing, Patients, Scheduling};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::Caller;
use kit::db::Db;
use kit::fields::{date, timestamp};
use kit::ids::{ChargeId, ClinicId, PatientId, ProviderId, RoomId, ServiceTypeId};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{AuthorizeCopayRequest, Charge, ChargeState};
use proto::clinic::scheduling::v1 as scheduling;
use proto::clinic::scheduling::v1::{
    CheckSlotRequest, CheckSlotResponse, SearchAvailabilityRequest, SlotProvider,
};
use proto::google::r#type::Interval;
use testkit::Servers;

mockall::mock! {
    pub(crate) Clerk {}
    #[async_trait]
    impl Billing for Clerk {
        async fn authorize(&self, request: AuthorizeCopayRequest) -> Authorization;
    }
}

/// Scheduling that lets everything pass: 15-minute visits, the rooms and the calendar version it was made with.
pub(crate) struct Open {
    pub(crate) rooms: Vec<RoomId>,
    pub(crate) copay: bool,
    pub(crate) buffer: TimeDelta,
    pub(crate) calendar_version: Box<dyn Fn() -> i64 + Send + Sync>,
}

#[async_trait]
impl Scheduling for Open {
    async fn check_slot(&self, request: CheckSlotRequest) -> Result<CheckSlotResponse, Error> {
        let start = DateTime::from_timestamp(request.start_time.unwrap().seconds, 0).unwrap();
        let span = |a: DateTime<Utc>, b: DateTime<Utc>| {
            Some(Interval { start_time: Some(timestamp(a)), end_time: Some(timestamp(b)) })
        };
        let end = start + TimeDelta::minutes(15);
        Ok(CheckSlotResponse {
            ok: true,
            providers: vec![SlotProvider {
                provider_id: request.provider_id,
                calendar_version: (self.calendar_version)(),
            }],
            room_ids: self.rooms.iter().map(ToString::to_string).collect(),
            interval: span(start, end),
            occupied_interval: span(start, end + self.buffer),
            visit_date: Some(date(start.date_naive())),
            time_zone: "UTC".into(),
            copay_required: self.copay,
            ..Default::default()
        })
    }

    async fn search(&self, _: SearchAvailabilityRequest) -> Result<Vec<scheduling::Slot>, Error> {
        Ok(vec![])
    }
}

/// Patients that knows everybody.
struct Everybody;

#[async_trait]
impl Patients for Everybody {
    async fn exists(&self, _: PatientId) -> Result<bool, Error> {
        Ok(true)
    }
}

/// One test's world.
pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) servers: Servers,
    pub(crate) db: Db,
    pub(crate) provider: ProviderId,
    clinic: ClinicId,
    service_type: ServiceTypeId,
}

impl World {
    /// The use cases with `rooms` rooms, and a clerk who answers for billing. Without a clerk there is no co-pay.
    pub(crate) async fn new(rooms: usize, clerk: Option<MockClerk>) -> Self {
        let open = Open {
            rooms: (0..rooms).map(|_| RoomId::new()).collect(),
            copay: clerk.is_some(),
            buffer: TimeDelta::zero(),
            calendar_version: Box::new(|| 1),
        };
        Self::with(open, clerk.unwrap_or_default()).await
    }

    pub(crate) async fn with(scheduling: Open, clerk: MockClerk) -> Self {
        let servers = Servers::start().await;
        let db = Db::new(&servers.database_url(appointments::NAME), appointments::NAME, 16).unwrap();
        db.migrate(&appointments::MIGRATOR).await.unwrap();
        let app = App::new(
            db.clone(),
            servers.clock.clone(),
            Arc::new(scheduling),
            Arc::new(Everybody),
            Arc::new(clerk),
            servers.stop.clone(),
        );
        let (clinic, service_type) = (ClinicId::new(), ServiceTypeId::new());
        Self { app, servers, db, provider: ProviderId::new(), clinic, service_type }
    }

    /// A call that books the provider for a fresh patient at `start`.
    pub(crate) fn booking(&self, start: DateTime<Utc>) -> Booking {
        self.booking_for(PatientId::new(), start)
    }

    pub(crate) fn booking_for(&self, patient: PatientId, start: DateTime<Utc>) -> Booking {
        let slot = Slot {
            patient: Some(patient),
            service_type: self.service_type,
            clinic: self.clinic,
            provider: Some(self.provider),
            room: None,
            start,
            override_reason: String::new(),
        };
        Booking { target: Target::Slot(slot), payment_method: None, key: None }
    }

    /// Texts of the subjects told so far, oldest first.
    pub(crate) async fn told(&self) -> Vec<String> {
        let subjects: Vec<String> = sqlx::query_scalar("select subject from outbox order by position")
            .fetch_all(self.db.pool())
            .await
            .unwrap();
        subjects.into_iter().map(|s| s.rsplit('.').next().unwrap_or_default().to_owned()).collect()
    }
}

/// The front desk.
pub(crate) fn desk() -> Caller {
    Caller { subject: "desk".into(), roles: vec![Role::FrontDesk] }
}

/// 10:00 UTC on a day next month, the same in every test run of a day.
pub(crate) fn ten_o_clock(world: &World, in_days: i64) -> DateTime<Utc> {
    let day = world.servers.clock.now().date_naive() + TimeDelta::days(30 + in_days);
    day.and_hms_opt(10, 0, 0).unwrap().and_utc()
}

/// Billing's yes.
pub(crate) fn authorized() -> Authorization {
    let charge = Charge {
        id: ChargeId::new().to_string(),
        state: ChargeState::Authorized as i32,
        ..Default::default()
    };
    Authorization::Charge(Box::new(charge))
}
