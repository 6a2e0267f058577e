//! Plays a history on a running billing, as appointments, patients and staff would, while the provider fails by script and
//! billing is killed now and then.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::{date, timestamp};
use kit::ids::{PatientId, RequestId};
use proto::clinic::appointments::v1::{
    AppointmentRescheduled, AppointmentState, CancelTimeliness, PatientCheckedIn, VisitOutcome,
};
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::{ChargeKind, ChargeState};
use rand::RngExt as _;
use sqlx::PgConnection;
use tonic::{Code, Status};

use super::history::{CARDS, Fate, History, Step};
use super::judge::{Due, Visit};
use super::news::News;
use crate::visits::{cancelled, completed, released};
use crate::world::{COPAY, World, reason};

/// Chances, per step of the history.
const KILLED: f64 = 0.12;
const TOLD_TWICE: f64 = 0.2;
const HELD_BACK: f64 = 0.15;
/// That all sleep from one step to the next, and find it late.
const SLEPT: f64 = 0.15;
/// How long a kill may come after the step began, in milliseconds.
const KILLED_WITHIN_MS: u64 = 40;
/// How long billing may take to have nothing due; that it has longer is part of the trouble.
const CALM_WITHIN: Duration = Duration::from_secs(3);
/// What is due within this is waited for, and how far time goes on between two looks at it.
const SOON: TimeDelta = TimeDelta::minutes(2);
const BETWEEN_LOOKS: TimeDelta = TimeDelta::seconds(15);
/// How often a caller repeats a call that was not answered, and the pause between.
const TRIES: usize = 60;
const PAUSE: Duration = Duration::from_millis(50);
/// How long a slot is held for its payment.
const HOLD: TimeDelta = TimeDelta::minutes(5);

/// One visit on its way.
struct Live {
    request: pb::AuthorizeCopayRequest,
    /// Version of the newest event about it.
    version: i64,
    booked: bool,
    held_back: Option<News>,
    given_back: i64,
}

/// A history being played.
pub(super) struct Player {
    history: History,
    pub(super) begun: DateTime<Utc>,
    patients: Vec<PatientId>,
    visits: Vec<Live>,
    fee: i64,
    admin: PgConnection,
}

impl Player {
    /// Puts a card on file for everybody.
    pub(super) async fn begin(world: &World, history: History, fee: i64) -> Self {
        let mut patients = vec![];
        for token in CARDS {
            let patient = PatientId::new();
            let card = world.save_card(patient, token).await.unwrap();
            if let Some((setup, _)) = card.client_secret.split_once("_secret") {
                world.confirm(setup, true).await;
            }
            patients.push(patient);
        }
        let live = |plan: &super::history::Plan| Live {
            request: world.request(patients[plan.card]),
            version: 1,
            booked: false,
            held_back: None,
            given_back: 0,
        };
        let visits = history.visits.iter().map(live).collect();
        let admin = world.servers.admin().await;
        Self { history, begun: world.today(), patients, visits, fee, admin }
    }

    /// Plays every step at its time.
    pub(super) async fn play(&mut self, world: &World) {
        for (at, visit, step) in self.history.steps.clone() {
            self.pass(world, self.begun + at).await;
            let kill = self
                .history
                .draws
                .random_bool(KILLED)
                .then(|| Duration::from_millis(self.history.draws.random_range(0..KILLED_WITHIN_MS)));
            let killing = async {
                if let Some(after) = kill {
                    tokio::time::sleep(after).await;
                    world.kill_and_restart();
                }
            };
            tokio::join!(self.take(world, visit, step), killing);
        }
        for visit in 0..self.visits.len() {
            if let Some(news) = self.visits[visit].held_back.take() {
                news.tell(world).await;
            }
        }
    }

    /// Lets time pass, from one thing that billing is to do to the next.
    async fn pass(&mut self, world: &World, until: DateTime<Utc>) {
        if !self.history.draws.random_bool(SLEPT) {
            while self.calm(world).await.is_some_and(|due| due < until) && world.today() < until {
                let due = self.due().await.unwrap_or(until);
                world.advance_to(due.min(until) + TimeDelta::seconds(1)).await;
            }
        }
        world.advance_to(until).await;
    }

    /// Waits until billing has nothing to do soon, for as long as that may take. Answers when it has.
    pub(super) async fn calm(&mut self, world: &World) -> Option<DateTime<Utc>> {
        let calming = async {
            loop {
                let due = self.due().await;
                if due.is_none_or(|due| due > world.today() + SOON) {
                    return due;
                }
                self.nudge(world).await;
                tokio::time::sleep(PAUSE).await;
                world.advance_to(world.today() + BETWEEN_LOOKS).await;
            }
        };
        tokio::time::timeout(CALM_WITHIN, calming).await.unwrap_or_default()
    }

    /// Makes billing look at once for what has become due, by news that is older than all it knows.
    async fn nudge(&self, world: &World) {
        if let Some(live) = self.visits.iter().find(|live| live.booked) {
            let old = AppointmentRescheduled {
                appointment_id: live.request.appointment_id.clone(),
                appointment: world.facts(&live.request, AppointmentState::Booked),
                ..AppointmentRescheduled::default()
            };
            News::Rescheduled(Box::new(old)).tell(world).await;
        }
    }

    /// When billing is to do something next.
    async fn due(&mut self) -> Option<DateTime<Utc>> {
        let due = "select min(due_at) from (select due_at from billing.charge
                   union all select due_at from billing.refund_part
                   union all select due_at from billing.webhook_event) due";
        sqlx::query_scalar(due).fetch_one(&mut self.admin).await.unwrap()
    }

    /// What each visit should have come to.
    pub(super) fn expected(&self) -> Vec<Visit> {
        let expected = |(plan, live): (&super::history::Plan, &Live)| Visit {
            appointment: live.request.appointment_id.clone(),
            due: match plan.fate {
                _ if !live.booked => Due::Nothing,
                Fate::HoldEnds | Fate::CancelledInTime => Due::Nothing,
                Fate::Attended => Due::Copay,
                Fate::CancelledLate | Fate::NoShow => Due::Fee,
                Fate::LateArrival => Due::CopayAfterAll,
            },
            copay: COPAY,
            fee: self.fee,
            pays: plan.pays(),
            given_back: live.given_back,
        };
        self.history.visits.iter().zip(&self.visits).map(expected).collect()
    }

    async fn take(&mut self, world: &World, visit: usize, step: Step) {
        let plan = self.history.visits[visit].clone();
        if step == Step::Book {
            return self.book(world, visit).await;
        }
        if !self.visits[visit].booked {
            return;
        }
        let before = self.visits[visit].request.clone();
        let request = before.clone();
        let news = match (step, plan.fate) {
            (Step::Book, _) => unreachable!("done above"),
            (Step::Refund, _) => return self.refund(world, visit, plan.refund.unwrap_or_default()).await,
            (Step::Reschedule, _) => {
                self.start_at(visit, plan.moved.unwrap_or(plan.start));
                let request = &self.visits[visit].request;
                News::Rescheduled(Box::new(AppointmentRescheduled {
                    appointment_id: request.appointment_id.clone(),
                    appointment: world.facts(request, AppointmentState::Booked),
                    previous: world.facts(&before, AppointmentState::Booked),
                    ..AppointmentRescheduled::default()
                }))
            }
            (Step::End, Fate::HoldEnds) => News::Released(released(world, &request)),
            (Step::End, Fate::CancelledInTime) => {
                News::Cancelled(cancelled(world, &request, CancelTimeliness::Timely))
            }
            (Step::End, Fate::CancelledLate) => {
                News::Cancelled(cancelled(world, &request, CancelTimeliness::Late))
            }
            (Step::End, Fate::NoShow | Fate::LateArrival) => {
                News::Completed(completed(world, &request, VisitOutcome::NoShow))
            }
            (Step::End, Fate::Attended) | (Step::Close, _) => {
                News::Completed(completed(world, &request, VisitOutcome::Attended))
            }
            (Step::Come, _) => News::CheckedIn(PatientCheckedIn {
                appointment_id: request.appointment_id.clone(),
                appointment: world.facts(&request, AppointmentState::CheckedIn),
                check_in_time: Some(timestamp(world.today())),
                after_no_show: true,
                ..PatientCheckedIn::default()
            }),
        };
        self.tell(world, visit, news).await;
    }

    fn start_at(&mut self, visit: usize, minute: i64) {
        let start = self.begun + TimeDelta::minutes(minute);
        let request = &mut self.visits[visit].request;
        request.visit_start_time = Some(timestamp(start));
        request.visit_date = Some(date(start.date_naive()));
    }

    /// Books as appointments does: the call is repeated under its name until it is answered, and else the hold ends.
    async fn book(&mut self, world: &World, visit: usize) {
        let plan = self.history.visits[visit].clone();
        self.start_at(visit, plan.start);
        let live = &mut self.visits[visit];
        live.request.patient_id = self.patients[plan.card].to_string();
        live.request.request_id = RequestId::new().to_string();
        live.request.authorize_by = Some(timestamp(world.today() + HOLD));
        let mut asked = false;
        for _ in 0..TRIES {
            match world.authorize(&live.request).await {
                Ok(charge) if charge.state() == ChargeState::Authorized => {
                    live.booked = true;
                    return;
                }
                Ok(charge) if !asked => {
                    asked = true;
                    let passes = self.history.draws.random_bool(0.7);
                    world.confirm(&charge.provider_reference, passes).await;
                }
                Ok(_) => tokio::time::sleep(PAUSE).await,
                Err(status) if unanswered(&status) => tokio::time::sleep(PAUSE).await,
                Err(status) if reason(&status) == "PAYMENT_DECLINED" => break,
                Err(status) => panic!("{status:?}"),
            }
        }
        let news = News::Released(released(world, &live.request));
        self.tell(world, visit, news).await;
    }

    /// Tells news of a visit, sometimes twice, sometimes only after what comes next.
    async fn tell(&mut self, world: &World, visit: usize, news: News) {
        let draws = &mut self.history.draws;
        let live = &mut self.visits[visit];
        live.version += 1;
        let news = news.at(live.version);
        let before = live.held_back.take();
        if before.is_none() && draws.random_bool(HELD_BACK) {
            live.held_back = Some(news);
            return;
        }
        let times = if draws.random_bool(TOLD_TWICE) { 2 } else { 1 };
        for _ in 0..times {
            news.tell(world).await;
        }
        if let Some(before) = before {
            before.tell(world).await;
        }
    }

    /// Gives back a share of what was taken for the visit, under one name until it is answered.
    async fn refund(&mut self, world: &World, visit: usize, percent: i64) {
        let request_id = RequestId::new().to_string();
        let mut ask: Option<(pb::RefundChargeRequest, i64)> = None;
        for _ in 0..TRIES {
            if ask.is_none() {
                let list = pb::ListChargesRequest {
                    appointment_id: self.visits[visit].request.appointment_id.clone(),
                    ..pb::ListChargesRequest::default()
                };
                let Ok(charges) = world.service().list_charges(list).await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                // The fee of a late arrival is given back anyhow.
                let late = self.history.visits[visit].fate == Fate::LateArrival;
                let left =
                    |charge: &pb::Charge| cents(&charge.captured_amount) - cents(&charge.refunded_amount);
                let charges = charges.into_inner().charges;
                let Some(charge) = charges
                    .into_iter()
                    .find(|charge| left(charge) > 0 && !(late && charge.kind() == ChargeKind::NoShowFee))
                else {
                    return;
                };
                let amount = (left(&charge) * percent / 100).max(1);
                let request = pb::RefundChargeRequest {
                    request_id: request_id.clone(),
                    charge_id: charge.id,
                    amount: Some(crate::world::usd(amount)),
                    reason: "a complaint".into(),
                    etag: charge.etag,
                };
                ask = Some((request, amount));
            }
            let Some((request, amount)) = &ask else { continue };
            let answer = world
                .client(proto::clinic::auth::v1::Role::Billing, "bea")
                .refund_charge(request.clone())
                .await;
            match answer {
                Ok(_) => {
                    self.visits[visit].given_back += amount;
                    return;
                }
                Err(status) if unanswered(&status) => tokio::time::sleep(PAUSE).await,
                // Someone was faster: read again.
                Err(status) if status.code() == Code::Aborted => ask = None,
                Err(status) if status.code() == Code::FailedPrecondition => return,
                Err(status) => panic!("{status:?}"),
            }
        }
        panic!("a refund was never answered");
    }
}

/// Whether the call may or may not have happened.
fn unanswered(status: &Status) -> bool {
    // A connection that dies in the middle of an answer is UNKNOWN.
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::DeadlineExceeded)
}

fn cents(money: &Option<proto::google::r#type::Money>) -> i64 {
    money.as_ref().map_or(0, |money| money.units * 100 + i64::from(money.nanos) / 10_000_000)
}
