//! From other services' events to what patients are to be told.
//!
//! Every event of a visit carries the whole visit, so only its version matters: an older one than the newest heard of changes nothing,
//! and any order of delivery ends in the same state. Charges likewise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use kit::clock::Clock;
use kit::ids::{ChargeId, ClinicId, MessageId, PatientId};
use kit::messaging::inbox::{Handler, Incoming};
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentFacts, AppointmentRescheduled,
    PatientCheckedIn, SlotOption, VisitCompleted, WaitlistOfferClosed, WaitlistOffered,
};
use proto::clinic::billing::v1::{
    BalanceOwed, ChargeRefunded, CopayAuthorizationFailed, CopayAuthorized, CopayCaptured, CopayLapsed,
    CopayVoided,
};
use proto::clinic::notify::v1::{Channel, MessageKind};
use proto::google::r#type::{Interval, Money};
use sqlx::PgConnection;

use crate::bells::Bells;
use crate::domain::notice::{Alternative, Facts, INTAKE_LEAD, LAPSE_GRACE, expires};
use crate::domain::{KINDS, Visit, first_look, plan};
use crate::store;
use crate::store::notices::{self, Notice};
use crate::store::offers;

/// Calls `$each!` with every event that moves, keeps or ends a booked visit or an offer.
macro_rules! visits_followed {
    ($each:ident) => {
        $each!(
            AppointmentBooked,
            AppointmentRescheduled,
            AppointmentCancelled,
            AppointmentDisplaced,
            PatientCheckedIn,
            VisitCompleted,
            WaitlistOffered,
            WaitlistOfferClosed
        )
    };
}

/// Calls `$each!` with every event that makes or ends a problem with a payment.
macro_rules! payments_followed {
    ($each:ident) => {
        $each!(
            CopayAuthorized,
            CopayAuthorizationFailed,
            CopayCaptured,
            CopayVoided,
            CopayLapsed,
            ChargeRefunded,
            BalanceOwed
        )
    };
}

macro_rules! names {
    ($($event:ty),*) => { vec![$(<$event as prost::Name>::full_name()),*] };
}

/// Full names of appointments' events that notify follows.
pub fn visit_subjects() -> Vec<String> {
    visits_followed!(names)
}

/// Full names of billing's events that notify follows.
pub fn payment_subjects() -> Vec<String> {
    payments_followed!(names)
}

/// What a patient asked for by text within this is answered by text, and no news.
const ANSWERED: TimeDelta = TimeDelta::hours(1);

/// What an event of a visit tells its patient.
#[derive(Debug)]
struct Tale {
    kind: MessageKind,
    facts: Facts,
    /// Earlier than news of its kind end.
    ends: Option<DateTime<Utc>>,
}

impl Tale {
    fn of(kind: MessageKind, facts: Facts) -> Option<Self> {
        Some(Self { kind, facts, ends: None })
    }
}

/// What each event tells beside the visit itself.
trait Telling {
    fn appointment(&self) -> Option<&AppointmentFacts>;
    fn tale(&self) -> Option<Tale>;
}

macro_rules! telling {
    ($($event:ty: |$told:ident| $tale:expr;)*) => {$(
        impl Telling for $event {
            fn appointment(&self) -> Option<&AppointmentFacts> {
                self.appointment.as_ref()
            }
            fn tale(&self) -> Option<Tale> {
                let $told = self;
                $tale
            }
        }
    )*};
}

telling! {
    AppointmentBooked: |told| {
        let from_offer = told.appointment_id.parse().ok().filter(|_| !told.waitlist_entry_id.is_empty());
        Tale::of(MessageKind::Booked, Facts { from_offer, ..Facts::default() })
    };
    AppointmentRescheduled: |told| moved(told);
    AppointmentCancelled: |told| {
        let late_fee = told.cancellation.as_ref().is_some_and(|cancellation| cancellation.fee_due);
        Tale::of(MessageKind::Cancelled, Facts { late_fee, ..Facts::default() })
    };
    AppointmentDisplaced: |told| {
        let alternatives = told.alternatives.iter().filter_map(alternative).collect();
        Tale::of(MessageKind::Displaced, Facts { alternatives, ..Facts::default() })
    };
    PatientCheckedIn: |_told| None;
    VisitCompleted: |_told| None;
    WaitlistOffered: |told| {
        // What books by itself is told once it is booked.
        let ends = told.expire_time.filter(|_| !told.auto_book);
        let ends = ends.and_then(|at| instant(at.seconds, at.nanos))?;
        let facts = Facts { offer_ends: Some(ends), ..Facts::default() };
        Some(Tale { kind: MessageKind::WaitlistOffer, facts, ends: Some(ends) })
    };
    WaitlistOfferClosed: |_told| None;
}

/// A move that kept its time lets a displaced visit stand: it is booked, as it was.
fn moved(told: &AppointmentRescheduled) -> Option<Tale> {
    let start_of = |facts: &Option<AppointmentFacts>| start(facts.as_ref()?.interval.as_ref());
    let old_start = start_of(&told.previous).filter(|old| Some(*old) != start_of(&told.appointment));
    let kind = if old_start.is_some() { MessageKind::Rescheduled } else { MessageKind::Booked };
    Tale::of(kind, Facts { old_start, from_offer: told.offer_id.parse().ok(), ..Facts::default() })
}

fn alternative(slot: &SlotOption) -> Option<Alternative> {
    Some(Alternative { provider: slot.provider_id.parse().ok()?, start: start(slot.interval.as_ref())? })
}

fn instant(seconds: i64, nanos: i32) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, u32::try_from(nanos).ok()?)
}

fn start(interval: Option<&Interval>) -> Option<DateTime<Utc>> {
    let at = interval?.start_time?;
    instant(at.seconds, at.nanos)
}

/// The visit that an event tells of, and what its patient is told.
fn visit(event: &Incoming) -> anyhow::Result<Option<(Visit, Option<Tale>)>> {
    macro_rules! decode {
        ($($event:ty),*) => {
            $(if let Some(told) = event.decode::<$event>()? {
                let facts = told.appointment().context("an event without its appointment")?;
                return Ok(Some((read(event, facts)?, told.tale())));
            })*
        };
    }
    visits_followed!(decode);
    Ok(None)
}

fn read(event: &Incoming, facts: &AppointmentFacts) -> anyhow::Result<Visit> {
    let interval = facts.interval.as_ref();
    let start = start(interval).context("no start")?;
    Ok(Visit {
        appointment: event.aggregate_id.into(),
        version: event.version,
        patient: facts.patient_id.parse().context("patient_id")?,
        clinic: facts.clinic_id.parse().context("clinic_id")?,
        start,
        end: interval.and_then(|i| i.end_time).and_then(|at| instant(at.seconds, at.nanos)).unwrap_or(start),
        zone: facts
            .time_zone
            .parse()
            .map_err(|_| anyhow::anyhow!("{:?} is no time zone", facts.time_zone))?,
        state: facts.state(),
        has_form: !facts.intake_form_id.is_empty(),
    })
}

/// Plans reminders and notices from appointments' events.
#[derive(Debug)]
pub struct Visits {
    clock: Clock,
    bells: Arc<Bells>,
    /// A reminder was planned that is looked at next.
    near: AtomicBool,
}

impl Visits {
    /// Planned by `clock`; rings `bells` for what is due.
    pub fn new(clock: Clock, bells: Arc<Bells>) -> Self {
        Self { clock, bells, near: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Handler for Visits {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let Some((visit, tale)) = visit(event)? else { return Ok(()) };
        let now = self.clock.now().trunc_subsecs(6);
        if !store::remember_visit(tx, &visit).await? {
            return Ok(());
        }
        store::drop_older(tx, &visit, now).await?;
        notices::forget_older(tx, &visit).await?;
        if visit.standing() {
            for kind in KINDS {
                let planned = plan(kind, visit.start, now, visit.zone);
                if first_look(kind, visit.start, now) <= now {
                    self.near.store(true, Ordering::Relaxed);
                }
                store::insert_reminder(tx, &visit, kind, planned, now).await?;
            }
        }
        if let Some(tale) = tale {
            tell(tx, &visit, tale, event.time, now).await?;
        }
        Ok(())
    }

    async fn committed(&self, events: &[Incoming]) {
        let offers = <WaitlistOffered as prost::Name>::full_name();
        if events.iter().any(|event| event.subject == offers) {
            self.bells.offers.notify_one();
        }
        if events.iter().any(|event| event.subject != offers) {
            self.bells.news.notify_one();
        }
        if self.near.swap(false, Ordering::Relaxed) {
            self.bells.reminders.notify_one();
        }
    }
}

/// Plans what a patient is told of a visit that changed at `at`.
async fn tell(
    tx: &mut PgConnection,
    visit: &Visit,
    mut tale: Tale,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    use MessageKind as K;
    if let Some(offer) = tale.facts.from_offer {
        tale.facts.asked = offers::is_taken_by_text(tx, offer, at - ANSWERED).await?;
    }
    let end = |kind| expires(kind, at, Some(visit.start));
    let expire_time = tale.ends.map_or(end(tale.kind), |ends| ends.min(end(tale.kind)));
    let notice = |kind, channel, or_email, facts, expire_time| Notice {
        id: MessageId::new(),
        kind,
        channel,
        or_email,
        patient: visit.patient,
        clinic: Some(visit.clinic),
        appointment: Some(visit.appointment),
        appointment_version: visit.version,
        charge: None,
        facts,
        expire_time,
        create_time: at,
    };
    // What changes calendars is e-mailed too, with an invitation.
    let in_calendars = matches!(tale.kind, K::Booked | K::Rescheduled | K::Cancelled);
    if expire_time > now {
        if !notices::is_answered(tx, visit, at - ANSWERED).await? {
            let text = notice(tale.kind, Channel::Sms, !in_calendars, tale.facts.clone(), expire_time);
            notices::insert(tx, &text, now).await?;
        }
        if in_calendars {
            let mail = notice(tale.kind, Channel::Email, false, tale.facts, expire_time);
            notices::insert(tx, &mail, now).await?;
        }
    }
    if visit.standing() && visit.has_form && visit.start > now {
        let form = notice(K::IntakeOpen, Channel::Sms, true, Facts::default(), end(K::IntakeOpen));
        notices::insert(tx, &form, now.max(visit.start - INTAKE_LEAD)).await?;
    }
    Ok(())
}

/// A problem with a payment, as an event of a charge tells it.
struct Problem<'a> {
    patient: &'a str,
    clinic: &'a str,
    appointment: &'a str,
    amount: Option<&'a Money>,
    /// Told after this; by then it may have passed.
    grace: TimeDelta,
}

/// The problem that an event tells of; `None` = it tells of none, and ends those before it.
fn problem(event: &Incoming) -> anyhow::Result<Option<Notice>> {
    let none = TimeDelta::zero();
    macro_rules! told {
        ($event:ty, $grace:expr, $counts:expr) => {
            if let Some(told) = event.decode::<$event>()?.filter($counts) {
                let (patient, clinic) = (told.patient_id.as_str(), told.clinic_id.as_str());
                let (appointment, amount, grace) =
                    (told.appointment_id.as_str(), told.amount.as_ref(), $grace);
                return notice(event, &Problem { patient, clinic, appointment, amount, grace }).map(Some);
            }
        };
    }
    // At booking the caller is told at once.
    told!(CopayAuthorizationFailed, none, |told| told.renewal);
    told!(CopayLapsed, LAPSE_GRACE, |_| true);
    told!(BalanceOwed, none, |_| true);
    Ok(None)
}

fn notice(event: &Incoming, problem: &Problem<'_>) -> anyhow::Result<Notice> {
    let patient: PatientId = problem.patient.parse().context("patient_id")?;
    let clinic: ClinicId = problem.clinic.parse().context("clinic_id")?;
    let amount = problem.amount.map(money).context("no amount")?;
    Ok(Notice {
        id: MessageId::new(),
        kind: MessageKind::PaymentProblem,
        channel: Channel::Sms,
        or_email: true,
        patient,
        clinic: Some(clinic),
        appointment: Some(problem.appointment.parse().context("appointment_id")?),
        appointment_version: 0,
        charge: Some(ChargeId::from(event.aggregate_id)),
        facts: Facts { given: [("amount".to_owned(), amount)].into(), ..Facts::default() },
        expire_time: expires(MessageKind::PaymentProblem, event.time, None),
        create_time: event.time + problem.grace,
    })
}

/// Money as patients read it: "$25.00", and with its code where the currency has no sign of its own.
fn money(money: &Money) -> String {
    const NANOS_PER_CENT: i32 = 10_000_000;
    let figure = format!("{}.{:02}", money.units, (money.nanos / NANOS_PER_CENT).abs());
    match money.currency_code.as_str() {
        "USD" => format!("${figure}"),
        other => format!("{figure} {other}"),
    }
}

/// Plans what is told of payments from billing's events.
#[derive(Debug)]
pub struct Payments {
    clock: Clock,
    bells: Arc<Bells>,
}

impl Payments {
    /// Planned by `clock`; rings `bells` for what is due.
    pub fn new(clock: Clock, bells: Arc<Bells>) -> Self {
        Self { clock, bells }
    }
}

#[async_trait]
impl Handler for Payments {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let told = problem(event)?;
        if !notices::remember_charge(tx, event.aggregate_id.into(), event.version).await? {
            return Ok(());
        }
        let now = self.clock.now().trunc_subsecs(6);
        if let Some(notice) = told.filter(|notice| notice.expire_time > now) {
            let at = notice.create_time.max(now);
            notices::insert(tx, &notice, at).await?;
        }
        Ok(())
    }

    async fn committed(&self, _: &[Incoming]) {
        self.bells.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_due_at_once_rings_when_it_is_committed() {
        let bells = Arc::<Bells>::default();
        let rung = || {
            let [offers, news, reminders] = [&bells.offers, &bells.news, &bells.reminders];
            [offers, news, reminders].map(|bell| bell.notified().now_or_never().is_some())
        };
        let visits = Visits::new(Clock::System, bells.clone());
        let at = DateTime::UNIX_EPOCH;
        let offered = Incoming::new(uuid::Uuid::nil(), 1, at, &WaitlistOffered::default());
        let booked = Incoming::new(uuid::Uuid::nil(), 1, at, &AppointmentBooked::default());
        visits.committed(&[]).await;
        assert_eq!(rung(), [false, false, false]);
        visits.committed(std::slice::from_ref(&offered)).await;
        assert_eq!(rung(), [true, false, false]);
        visits.committed(&[booked, offered]).await;
        assert_eq!(rung(), [true, true, false]);
        Payments::new(Clock::System, bells.clone()).committed(&[]).await;
        assert_eq!(rung(), [false, true, false]);
    }

    #[test]
    fn money_is_told_with_its_cents_and_its_currency() {
        let of =
            |currency: &str, units, nanos| money(&Money { currency_code: currency.to_owned(), units, nanos });
        assert_eq!(of("USD", 25, 0), "$25.00");
        assert_eq!(of("USD", 1_000, 50_000_000), "$1000.05");
        assert_eq!(of("EUR", 7, 500_000_000), "7.50 EUR");
    }
}
