//! The use cases on a database of the test's own, with mocked neighbours.

use std::sync::Arc;

use appointments::app::{App, Booking, Change, Move, Slot, Target};
use appointments::domain::{Conflict, Reservation, Span, State};
use appointments::error::Error;
use appointments::events::Follower;
use appointments::ports::{Authorization, Billing, Patients, Scheduling};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::Caller;
use kit::client::Outbound;
use kit::db::Db;
use kit::fields::{date, timestamp};
use kit::ids::{
    AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId, ProviderId, RoomId, ServiceTypeId,
};
use kit::messaging::inbox::{Handler as _, Incoming};
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{AuthorizeCopayRequest, Charge, ChargeState};
use proto::clinic::patients::v1::{PatientChange, PatientChanged};
use proto::clinic::scheduling::v1 as scheduling;
use proto::clinic::scheduling::v1::{
    CalendarChanged, CheckSlotRequest, CheckSlotResponse, SearchAvailabilityRequest,
    SearchAvailabilityResponse, SlotProvider,
};
use proto::google::r#type::Interval;
use testkit::Servers;
use tokio::sync::Notify;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::calendar::Calendar;

mockall::mock! {
    pub(crate) Clerk {}
    #[async_trait]
    impl Billing for Clerk {
        async fn authorize(&self, request: AuthorizeCopayRequest) -> Authorization;
        async fn has_card(&self, patient: PatientId, card: Option<PaymentMethodId>) -> Result<bool, Error>;
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

    async fn search(&self, _: SearchAvailabilityRequest) -> Result<SearchAvailabilityResponse, Error> {
        Ok(SearchAvailabilityResponse::default())
    }

    async fn service_type(
        &self,
        id: ServiceTypeId,
        _: &[Uuid],
        _: &[Uuid],
    ) -> Result<scheduling::ServiceType, Error> {
        Ok(scheduling::ServiceType {
            id: id.to_string(),
            duration_minutes: 15,
            buffer_after_minutes: self.buffer.num_minutes() as i32,
            copay_required: self.copay,
            ..Default::default()
        })
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
    pub(crate) servers: Arc<Servers>,
    pub(crate) db: Db,
    pub(crate) provider: ProviderId,
    pub(crate) clinic: ClinicId,
    pub(crate) service_type: ServiceTypeId,
    scheduling: Arc<dyn Scheduling>,
    clerk: Arc<MockClerk>,
}

fn database(servers: &Servers) -> Db {
    Db::new(&servers.database_url(appointments::NAME), appointments::NAME, 16).unwrap()
}

fn use_cases(servers: &Servers, db: &Db, scheduling: &Arc<dyn Scheduling>, clerk: &Arc<MockClerk>) -> App {
    let (clock, stop) = (servers.clock.clone(), servers.stop.clone());
    App::new(db.clone(), clock, scheduling.clone(), Arc::new(Everybody), clerk.clone(), stop)
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
        Self::on(Arc::new(scheduling), clerk).await
    }

    /// The use cases with `rooms` rooms and a calendar that the test scripts; no co-pay.
    pub(crate) async fn scripted(rooms: usize) -> (Self, Calendar) {
        let calendar = Calendar::open(rooms);
        (Self::on(Arc::new(calendar.clone()), MockClerk::new()).await, calendar)
    }

    pub(crate) async fn on(scheduling: Arc<dyn Scheduling>, clerk: MockClerk) -> Self {
        let servers = Arc::new(Servers::start().await);
        let db = database(&servers);
        db.migrate(&appointments::MIGRATOR).await.unwrap();
        let clerk = Arc::new(clerk);
        let app = use_cases(&servers, &db, &scheduling, &clerk);
        let (provider, clinic, service_type) = (ProviderId::new(), ClinicId::new(), ServiceTypeId::new());
        Self { app, servers, db, provider, clinic, service_type, scheduling, clerk }
    }

    /// The same world on sessions of its own.
    pub(crate) fn reopened(&self) -> Self {
        let Self { provider, clinic, service_type, .. } = *self;
        let (servers, scheduling, clerk) =
            (self.servers.clone(), self.scheduling.clone(), self.clerk.clone());
        let db = database(&servers);
        let app = use_cases(&servers, &db, &scheduling, &clerk);
        Self { app, servers, db, provider, clinic, service_type, scheduling, clerk }
    }

    /// The slot of the provider at `start`, for a fresh patient.
    pub(crate) fn slot(&self, start: DateTime<Utc>) -> Slot {
        let Target::Slot(slot) = self.booking(start).target else { panic!("a slot") };
        slot
    }

    /// Books a slot as the front desk.
    pub(crate) async fn take(&self, slot: Slot) -> Result<Reservation, Error> {
        let booking = Booking { target: Target::Slot(slot), payment_method: None, key: None };
        self.app.book(&desk(), booking).await.map(|booked| booked.row)
    }

    /// A fresh patient's booking at `start`.
    pub(crate) async fn booked(&self, start: DateTime<Utc>) -> Reservation {
        self.take(self.slot(start)).await.unwrap()
    }

    /// The row as it is now.
    pub(crate) async fn row(&self, id: AppointmentId) -> Reservation {
        self.app.get(&desk(), id, false).await.unwrap().0
    }

    /// What the follower does with a calendar's event, up to its commit; the worker is not told.
    pub(crate) async fn calendar_changed(&self, version: i64, affected: Span) {
        let mut tx = self.db.begin().await.unwrap();
        appointments::store::see_calendar(&mut tx, self.provider.uuid(), version).await.unwrap();
        let affected = [(affected.start..affected.end).into()];
        appointments::store::mark_to_judge(&mut tx, self.provider.uuid(), version, &affected).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Runs the whole service on a port of its own, as another replica on the same database; answers where.
    pub(crate) async fn serve(&self, calendar: &Calendar) -> String {
        let (listener, url) = testkit::listener().await;
        // Neither patients nor billing is asked in these tests.
        let scheduling_url = calendar.serve().await;
        let config = appointments::Config {
            service: self.servers.service(appointments::NAME),
            patients_url: scheduling_url.clone(),
            billing_url: scheduling_url.clone(),
            scheduling_url,
            offer_minutes: appointments::OFFER_MINUTES,
            alternative_minutes: appointments::ALTERNATIVE_MINUTES,
        };
        let stop = self.servers.stop.clone();
        tokio::spawn(appointments::run(listener, config, self.servers.clock.clone(), stop));
        url
    }

    /// Calls to a replica as `caller`.
    pub(crate) fn client(&self, url: &str, caller: &Caller) -> BookingServiceClient<Outbound> {
        BookingServiceClient::new(self.servers.client(url, caller.roles[0], &caller.subject))
    }

    /// Puts `count` finished visits into the database, past every use case: one each five minutes from `first` on, dealt out to
    /// `clinics`, and to the provider and room of the same number.
    pub(crate) async fn fill(&self, count: i32, first: DateTime<Utc>, clinics: &[Uuid], places: &[Uuid]) {
        let fill = "insert into appointments.reservation
                (id, state, patient_id, service_type_id, clinic_id, provider_id, room_id, visit, occupied, visit_date, time_zone,
                 calendar_version, fee_start, copay)
            select gen_random_uuid(), 'completed', gen_random_uuid(), $5, $3[1 + n % cardinality($3)],
                   $4[1 + n % cardinality($4)], $4[1 + n % cardinality($4)], visit, visit, lower(visit)::date, 'UTC', 1,
                   lower(visit), 'not_required'
            from (select n, tstzrange($2 + n * interval '5 minutes', $2 + (n + 3) * interval '5 minutes') as visit
                  from generate_series(0, $1 - 1) n) visits";
        let mut admin = self.servers.admin().await;
        let query = sqlx::query(fill).bind(count).bind(first).bind(clinics).bind(places);
        query.bind(self.service_type.uuid()).execute(&mut admin).await.unwrap();
        sqlx::query("vacuum analyze appointments.reservation").execute(&mut admin).await.unwrap();
    }

    /// Tells the provider's calendar event, as scheduling would.
    pub(crate) async fn publish_change(&self, version: i64, affected: Span) {
        let event = CalendarChanged {
            provider_id: self.provider.to_string(),
            version,
            affected: vec![Interval {
                start_time: Some(timestamp(affected.start)),
                end_time: Some(timestamp(affected.end)),
            }],
            ..Default::default()
        };
        testkit::publish(&self.servers.broker().await, "scheduling", self.provider, version, &event).await;
    }

    /// Waits until an appointment is in `state`.
    pub(crate) async fn until_state(&self, id: AppointmentId, state: State) -> Reservation {
        testkit::until("the state", async || Some(self.row(id).await).filter(|row| row.state == state)).await
    }

    /// Waits until `count` of the database's sessions wait for a lock.
    pub(crate) async fn until_blocked(&self, count: i64) {
        testkit::until("sessions that wait for a lock", async || {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
                    .fetch_one(&mut self.servers.admin().await)
                    .await
                    .unwrap();
            (waiting >= count).then_some(())
        })
        .await;
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

impl World {
    /// The last event told of type `E`.
    pub(crate) async fn last_event<E: prost::Message + prost::Name + Default>(&self) -> E {
        let last = "select payload from outbox where subject = $1 order by position desc limit 1";
        let payload: Vec<u8> =
            sqlx::query_scalar(last).bind(E::full_name()).fetch_one(self.db.pool()).await.unwrap();
        E::decode(payload.as_slice()).unwrap()
    }
}

/// What the follower does with patients' event.
pub(crate) async fn hear_of_merge(world: &World, merged: PatientId, survivor: PatientId) {
    let event = PatientChanged {
        patient_id: merged.to_string(),
        version: 2,
        change: PatientChange::Merged.into(),
        merged_into_id: survivor.to_string(),
        ..Default::default()
    };
    let event = Incoming::new(merged.uuid(), 2, world.servers.clock.now(), &event);
    let mut tx = world.db.begin().await.unwrap();
    Follower(world.app.clone()).handle(&mut tx, &event).await.unwrap();
    tx.commit().await.unwrap();
}

/// The front desk.
pub(crate) fn desk() -> Caller {
    Caller { subject: "desk".into(), roles: vec![Role::FrontDesk] }
}

/// A patient at the portal.
pub(crate) fn portal(patient: PatientId) -> Caller {
    Caller { subject: patient.to_string(), roles: vec![Role::Patient] }
}

/// A change of an appointment, whatever its etag.
pub(crate) fn change(id: AppointmentId) -> Change {
    Change { id, etag: String::new(), key: None }
}

/// Moves an appointment to another time, and changes nothing else.
pub(crate) fn to(id: AppointmentId, start: DateTime<Utc>) -> Move {
    Move {
        change: change(id),
        clinic: None,
        provider: None,
        room: None,
        start,
        override_reason: String::new(),
    }
}

pub(crate) fn minutes(count: i64) -> TimeDelta {
    TimeDelta::minutes(count)
}

/// The database's rules that a refusal names.
pub(crate) fn broken(error: &Error) -> Vec<Conflict> {
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    refusal.clashes.iter().map(|clash| clash.rule).collect()
}

/// Code and reason of a refusal as its caller reads them.
pub(crate) fn told<T: std::fmt::Debug>(refused: Result<T, Error>) -> (Code, String) {
    let status = Status::from(refused.unwrap_err());
    (status.code(), reason(&status))
}

/// The same of a rule that says no.
pub(crate) fn says(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
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

/// Lets a test hold an authorization back.
pub(crate) struct Gate {
    pub(crate) asked: Arc<Notify>,
    pub(crate) answer: Arc<Notify>,
}

/// Billing that answers when the gate opens.
pub(crate) fn slow_clerk(outcome: Authorization) -> (MockClerk, Gate) {
    let gate = Gate { asked: Arc::default(), answer: Arc::default() };
    let (asked, answer) = (gate.asked.clone(), gate.answer.clone());
    let mut clerk = MockClerk::new();
    clerk.expect_authorize().returning(move |_| {
        asked.notify_one();
        // The mock answers synchronously: wait on a thread of the runtime that may block.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(answer.notified()));
        outcome.clone()
    });
    (clerk, gate)
}
