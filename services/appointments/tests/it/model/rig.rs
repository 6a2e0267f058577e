//! The use cases on a real PostgreSQL, driven by commands. The database's clock stands still between two commands that move it, so
//! that a slow machine changes no outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use appointments::app::{App, Booked, Booking, Change, Expected, Move, Slot, Target};
use appointments::domain::{Conflict, Copay, Reservation, State};
use appointments::error::Error;
use appointments::events::Follower;
use appointments::store::{self, Filter};
use chrono::DateTime;
use kit::clock::{Clock, Offset};
use kit::db::Db;
use kit::fields::timestamp;
use kit::idempotency::Key;
use kit::ids::{AppointmentId, RequestId};
use kit::messaging::inbox::{Handler as _, Incoming};
use kit::status::reason;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::VisitOutcome;
use proto::clinic::billing::v1::{ChargeState, CopayAuthorizationFailed, CopayAuthorized};
use proto::clinic::scheduling::v1::CalendarChanged;
use proto::google::r#type::Interval;
use sqlx::PgConnection;
use testkit::Servers;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::commands::{Answer, At, Command, id, number};
use super::neighbours::{Neighbours, Standing};
use super::reference::Model;
use super::tables;
use super::values::{Appt, Event, Expect, View};
use crate::harness::desk;

/// More than any case makes.
const MANY: i64 = 500;
/// Bound for the tasks that a look of the workers leaves running.
const SOON: Duration = Duration::from_secs(20);
/// After so many, nothing is left of what the start began.
const ROUND_TRIPS: usize = 20;

/// Servers and a schema, for all cases one after the other.
pub(crate) struct Rig {
    servers: Servers,
    admin: PgConnection,
    db: Db,
    offset: Offset,
    /// Tasks alive when nothing happens.
    idle_tasks: usize,
}

/// One case.
pub(crate) struct Case<'a> {
    rig: &'a mut Rig,
    app: App,
    neighbours: Neighbours,
    /// Ids of the appointments, by order of making.
    ids: Vec<AppointmentId>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let servers = Servers::start().await;
        let db = Db::new(&servers.database_url(appointments::NAME), appointments::NAME, 8).unwrap();
        db.migrate(&appointments::MIGRATOR).await.unwrap();
        let Clock::Simulated(offset) = servers.clock.clone() else { panic!("a simulated clock") };
        let mut admin = servers.admin().await;
        let frozen = "alter table clock.skew add frozen timestamptz not null default now();
             create or replace function clock.now() returns timestamptz
                 language sql stable as 'select frozen from clock.skew';
             grant select on clock.skew to public";
        sqlx::raw_sql(frozen).execute(&mut admin).await.unwrap();
        let mut idle_tasks = usize::MAX;
        for _ in 0..ROUND_TRIPS {
            sqlx::query("select").execute(&mut admin).await.unwrap();
            idle_tasks = idle_tasks.min(Handle::current().metrics().num_alive_tasks());
        }
        Self { servers, admin, db, offset, idle_tasks }
    }

    /// A case of its own on empty tables.
    pub(crate) async fn case(&mut self) -> Case<'_> {
        let empty =
            "truncate reservation, change, outbox, request, calendar_seen, waitlist_entry, offer, freed";
        sqlx::raw_sql(empty).execute(self.db.pool()).await.unwrap();
        let neighbours = Neighbours::new();
        let app = self.app(&neighbours);
        Case { rig: self, app, neighbours, ids: vec![] }
    }

    fn app(&self, neighbours: &Neighbours) -> App {
        let port = Arc::new(neighbours.clone());
        let (clock, stop) = (self.servers.clock.clone(), self.servers.stop.clone());
        App::new(self.db.clone(), clock, port.clone(), port.clone(), port, stop)
    }

    async fn set_time(&mut self, now: At) {
        sqlx::query("update clock.skew set frozen = $1").bind(now).execute(&mut self.admin).await.unwrap();
        self.offset.set(now - Clock::System.now());
    }

    /// Waits until nothing runs any more that the tested program has begun.
    async fn settle(&self) {
        let end = Instant::now() + SOON;
        while Handle::current().metrics().num_alive_tasks() > self.idle_tasks {
            assert!(Instant::now() < end, "tasks of the workers do not end");
            tokio::task::yield_now().await;
        }
    }
}

/// What a call was answered.
#[derive(Debug)]
enum Answered {
    Nothing,
    Shown(View),
    Refused(BTreeSet<String>),
}

impl Case<'_> {
    /// Does `command`, which led the model from `before` to `after`, and compares.
    pub(crate) async fn step(
        &mut self,
        before: &Model,
        command: Command,
        after: &Model,
    ) -> Result<(), String> {
        self.rig.set_time(after.now).await;
        {
            let mut desk = self.neighbours.0.lock().unwrap();
            desk.calendars = after.calendars.clone();
        }
        let answered = self.perform(before, command, after).await?;
        let right = match (&after.expected, &answered) {
            (Expect::Nothing, Answered::Nothing) => true,
            (Expect::Shown(expected), Answered::Shown(shown)) => expected == shown,
            (Expect::Refused(must, may), Answered::Refused(reasons)) => {
                must.iter().all(|reason| reasons.contains(*reason))
                    && reasons.iter().all(|r| must.contains(r.as_str()) || may.contains(r.as_str()))
            }
            _ => false,
        };
        if !right {
            return Err(format!("the answer\n    {answered:?}\nis not\n    {:?}", after.expected));
        }
        self.compare(after).await?;
        let mut conn = self.rig.db.pool().acquire().await.unwrap();
        tables::check(&mut conn).await
    }

    /// No hold waits for ever.
    pub(crate) async fn nothing_is_forgotten(&mut self, now: At) -> Result<(), String> {
        let mut conn = self.rig.db.pool().acquire().await.unwrap();
        let forgotten = tables::forgotten(&mut conn, now).await;
        if forgotten.is_empty() { Ok(()) } else { Err(format!("nobody decides {forgotten:?}")) }
    }

    /// Rows and charges are as the model has them.
    async fn compare(&mut self, model: &Model) -> Result<(), String> {
        let mut conn = self.rig.db.pool().acquire().await.unwrap();
        let filter = Filter { states: State::ALL.to_vec(), ..Default::default() };
        let mut rows = store::list(&mut conn, &filter, false, None, MANY).await.unwrap();
        rows.sort_by_key(|row| (self.ids.iter().position(|id| *id == row.id).unwrap_or(usize::MAX), row.id));
        self.ids = rows.iter().map(|row| row.id).collect();
        if rows.len() != model.appts.len() {
            return Err(format!("{} appointments were made, not {}", rows.len(), model.appts.len()));
        }
        for (i, (row, expected)) in rows.iter().zip(&model.appts).enumerate() {
            let is = appt(row);
            if is != *expected {
                return Err(format!("appointment {i} is\n    {is:?}\nnot\n    {expected:?}"));
            }
        }
        let desk = self.neighbours.0.lock().unwrap();
        let charges: Vec<Standing> = model.till.charges.values().map(|(_, standing)| *standing).collect();
        let order = |id: &&Uuid| self.ids.iter().position(|known| known.uuid() == **id);
        let mut keys: Vec<_> = desk.till.charges.keys().collect();
        keys.sort_by_key(order);
        let are: Vec<Standing> = keys.iter().map(|key| desk.till.charges[*key].1).collect();
        if are != charges || desk.asked.len() != model.asked.len() {
            let asked = (desk.asked.len(), model.asked.len());
            return Err(format!("billing was led to {are:?}, not {charges:?}; attempts {asked:?}"));
        }
        match desk.asked.values().find(|asked| asked.iter().any(|again| *again != asked[0])) {
            Some(asked) => Err(format!("one attempt, but two questions: {asked:?}")),
            None => Ok(()),
        }
    }

    async fn perform(&mut self, before: &Model, command: Command, after: &Model) -> Result<Answered, String> {
        match command {
            Command::Block { told: true, .. } | Command::Unblock { told: true, .. } => {
                if after.told.len() > before.told.len() {
                    self.deliver(after.told[before.told.len()]).await?;
                }
            }
            Command::Pass(_) | Command::PassTo(_) | Command::Block { .. } | Command::Unblock { .. } => {}
            Command::Settle { which, passed } => {
                let key = before.which(which).map(|i| self.ids[i].uuid());
                let mut desk = self.neighbours.0.lock().unwrap();
                let charge = key.and_then(|key| desk.till.charges.get_mut(&key));
                if let Some((_, standing @ Standing::ActionRequired)) = charge {
                    *standing = if passed { Standing::Authorized } else { Standing::Declined };
                }
            }
            Command::Deliver { event } => {
                if let Some(event) = before.told.get(event) {
                    self.deliver(*event).await?;
                }
            }
            Command::Look(answer) => {
                self.answers(answer);
                self.app.look_after().await.map_err(|e| format!("the workers failed: {e:?}"))?;
                self.rig.settle().await;
            }
            Command::Restart => self.app = self.rig.app(&self.neighbours),
            Command::Repeat { other_body } => {
                let Some(last) = &after.last else { return Ok(Answered::Nothing) };
                if other_body && after.expected == Expect::Nothing {
                    return Ok(Answered::Nothing);
                }
                return Ok(self.call(before, last.command, last.number, other_body).await);
            }
            call => {
                let Some(last) = &after.last else { return Ok(Answered::Nothing) };
                if after.expected == Expect::Nothing {
                    return Ok(Answered::Nothing);
                }
                debug_assert_eq!(std::mem::discriminant(&call), std::mem::discriminant(&last.command));
                return Ok(self.call(before, last.command, last.number, false).await);
            }
        }
        Ok(Answered::Nothing)
    }

    fn answers(&self, answer: Answer) {
        self.neighbours.0.lock().unwrap().answer = answer;
    }

    async fn deliver(&mut self, event: Event) -> Result<(), String> {
        let now = self.app.now();
        let charged = |i: usize| (self.ids[i].uuid(), self.ids[i].to_string());
        let incoming = match event {
            Event::Calendar { provider, version, affected } => {
                let affected = Interval {
                    start_time: Some(timestamp(affected.start)),
                    end_time: Some(timestamp(affected.end)),
                };
                let provider: Uuid = id::<kit::ids::ProviderId>(provider).uuid();
                let event = CalendarChanged {
                    provider_id: provider.to_string(),
                    version,
                    affected: vec![affected],
                    ..Default::default()
                };
                Incoming::new(provider, version, now, &event)
            }
            Event::Authorized(i) => {
                let (key, id) = charged(i);
                let event =
                    CopayAuthorized { charge_id: id.clone(), appointment_id: id, ..Default::default() };
                Incoming::new(key, 1, now, &event)
            }
            Event::Failed(i) => {
                let (key, id) = charged(i);
                let event = CopayAuthorizationFailed {
                    charge_id: id.clone(),
                    appointment_id: id,
                    state: ChargeState::Declined as i32,
                    decline_code: "declined".into(),
                    ..Default::default()
                };
                Incoming::new(key, 1, now, &event)
            }
        };
        let follower = Follower(self.app.clone());
        let mut tx = self.rig.db.begin().await.unwrap();
        let handled = follower.handle(&mut tx, &incoming).await;
        handled.map_err(|e| format!("the event cannot be handled: {e:#}"))?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn call(&mut self, before: &Model, command: Command, request: usize, other_body: bool) -> Answered {
        let body = if other_body { "another".to_owned() } else { format!("{command:?}") };
        let body = pb::HoldSlotRequest { override_reason: body, ..Default::default() };
        let key = Key::new(&desk(), "call", Some(id::<RequestId>(request)), &body);
        // Without time left, a call that another one settles answers at once how far that is.
        kit::deadline::scope(Instant::now(), self.answer(before, command, key)).await
    }

    async fn answer(&self, before: &Model, command: Command, key: Option<Key>) -> Answered {
        let (app, caller) = (&self.app, desk());
        let change = |which: usize, stale: bool, key: Option<Key>| {
            let version = if stale { 0 } else { before.appts[which].version };
            Change { id: self.ids[which], etag: version.to_string(), key }
        };
        let slot = |want: super::commands::Want| Slot {
            patient: Some(id(want.patient)),
            service_type: id(want.kind),
            clinic: id(want.clinic),
            provider: want.provider.map(id),
            room: None,
            start: want.start,
            override_reason: String::new(),
        };
        let answered = match command {
            Command::Hold(want) => app.hold(&caller, &slot(want), key).await,
            Command::Book(want, answer) => {
                self.answers(answer);
                let target = Target::Slot(slot(want));
                return booked(app.book(&caller, Booking { target, payment_method: None, key }).await);
            }
            Command::BookHold { which, answer } => {
                self.answers(answer);
                let target = Target::Hold(self.ids[which], Expected::default());
                return booked(app.book(&caller, Booking { target, payment_method: None, key }).await);
            }
            Command::Release { which, stale } => app.release(&caller, change(which, stale, key)).await,
            Command::Cancel { which, stale, by_clinic } => {
                app.cancel(&caller, change(which, stale, key), by_clinic).await
            }
            Command::CheckIn { which, stale } => app.check_in(&caller, change(which, stale, key), "").await,
            Command::Complete { which, stale, no_show } => {
                let outcome = if no_show { VisitOutcome::NoShow } else { VisitOutcome::Attended };
                app.complete(&caller, change(which, stale, key), outcome).await
            }
            Command::Reschedule { which, stale, clinic, provider, start } => {
                let to = Move {
                    change: change(which, stale, key),
                    clinic: clinic.map(id),
                    provider: provider.map(id),
                    room: None,
                    start,
                    override_reason: String::new(),
                };
                app.reschedule(&caller, &to).await
            }
            other => panic!("{other:?} is no call"),
        };
        match answered {
            Ok(appointment) => Answered::Shown(shown(&appointment)),
            Err(error) => refused(error),
        }
    }
}

fn booked(answered: Result<Booked, Error>) -> Answered {
    match answered {
        Ok(booked) => Answered::Shown(appt(&booked.row).view()),
        Err(error) => refused(error),
    }
}

fn refused(error: Error) -> Answered {
    let reasons = match error {
        Error::Refused(refusal) => {
            let rule = |rule| match rule {
                Conflict::Provider => "SLOT_TAKEN",
                Conflict::Room => "ROOM_TAKEN",
                Conflict::Patient => "PATIENT_BUSY",
                Conflict::SevenDays => "WITHIN_7_DAYS",
                Conflict::OpenHold => "TOO_MANY_HOLDS",
            };
            let blocks = refusal.blocks.iter().map(|b| b.code().as_str_name().replace("BLOCK_CODE_", ""));
            blocks.chain(refusal.clashes.iter().map(|c| rule(c.rule).to_owned())).collect()
        }
        Error::Overtaken { .. } => BTreeSet::from(["OVERTAKEN".to_owned()]),
        Error::Remote(_) => BTreeSet::from(["REMOTE".to_owned()]),
        other => BTreeSet::from([reason(&other.into())]),
    };
    Answered::Refused(reasons)
}

/// A row in the model's words.
fn appt(row: &Reservation) -> Appt {
    Appt {
        version: row.version,
        state: row.state,
        patient: number(row.patient_id),
        kind: number(row.service_type_id),
        clinic: number(row.clinic_id),
        provider: number(row.provider_id),
        room: number(row.room_id),
        start: row.start,
        hold_expires: row.hold_expires_at,
        calendar_version: row.calendar_version,
        fee_start: row.fee_start,
        fee_due: row.fee_due,
        copay: row.copay,
        charged: row.charge_id.is_some(),
        driven_until: row.driven_until,
        judge_at: row.judge_at,
        displaced: row.displaced_at.is_some(),
        reasons: row.displaced_reasons.clone(),
    }
}

/// An answer in the model's words.
fn shown(appointment: &pb::Appointment) -> View {
    let instant = |t: Option<prost_types::Timestamp>| {
        t.map(|t| DateTime::from_timestamp(t.seconds, t.nanos.unsigned_abs()).unwrap())
    };
    let known = |text: &str| number(text.parse::<Uuid>().unwrap());
    let place = (&appointment.clinic_id, &appointment.provider_id, &appointment.room_id);
    let copay = appointment.copay.as_ref().map(pb::Copay::state);
    View {
        version: appointment.version,
        // The contract numbers its states in the same order, from 1.
        state: State::ALL[appointment.state as usize - 1],
        place: (known(place.0), known(place.1), known(place.2)),
        start: instant(appointment.interval.and_then(|i| i.start_time)).unwrap(),
        hold_expires: instant(appointment.hold_expire_time),
        fee_start: instant(appointment.fee_start_time).unwrap(),
        copay: match copay.unwrap_or_default() {
            pb::CopayState::Unspecified => panic!("a co-pay without a state"),
            pb::CopayState::NotRequired => Copay::NotRequired,
            pb::CopayState::Pending => Copay::Pending,
            pb::CopayState::Authorized => Copay::Authorized,
            pb::CopayState::Declined => Copay::Declined,
            pb::CopayState::ActionRequired => Copay::ActionRequired,
        },
        fee_due: appointment.cancellation.as_ref().map(|c| c.fee_due),
        reasons: appointment.displacement.as_ref().map(|d| d.reasons.clone()).unwrap_or_default(),
    }
}
