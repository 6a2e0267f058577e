//! Appointments' events become visits and reminders; and what notify tells the others.
//!
//! Every event carries the whole visit, so only its version matters: an older one than the newest heard of changes nothing, and any
//! order of delivery ends in the same state.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::fields::timestamp;
use kit::messaging::inbox::{Handler, Incoming};
use kit::messaging::outbox;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentFacts, AppointmentRescheduled,
    AppointmentState, PatientCheckedIn, VisitCompleted,
};
use proto::clinic::notify::v1::{Channel, MessageFailed, MessageSent};
use sqlx::PgConnection;

use crate::domain::{KINDS, Visit, plan};
use crate::store::{self, Message};

/// Calls `$each!` with every event that moves, keeps or ends a booked visit.
macro_rules! followed {
    ($each:ident) => {
        $each!(
            AppointmentBooked,
            AppointmentRescheduled,
            AppointmentCancelled,
            AppointmentDisplaced,
            PatientCheckedIn,
            VisitCompleted
        )
    };
}

/// Full names of the events that notify follows.
pub fn subjects() -> Vec<String> {
    macro_rules! names {
        ($($event:ty),*) => { vec![$(<$event as prost::Name>::full_name()),*] };
    }
    followed!(names)
}

/// The visit that an event tells of.
fn visit(event: &Incoming) -> anyhow::Result<Option<Visit>> {
    macro_rules! decode {
        ($($event:ty),*) => {
            $(if let Some(told) = event.decode::<$event>()? {
                let facts = told.appointment.context("an event without its appointment")?;
                return read(event, &facts).map(Some);
            })*
        };
    }
    followed!(decode);
    Ok(None)
}

fn read(event: &Incoming, facts: &AppointmentFacts) -> anyhow::Result<Visit> {
    let start = facts.interval.as_ref().and_then(|interval| interval.start_time).context("no start")?;
    let start = u32::try_from(start.nanos)
        .ok()
        .and_then(|nanos| chrono::DateTime::from_timestamp(start.seconds, nanos));
    Ok(Visit {
        appointment: event.aggregate_id.into(),
        version: event.version,
        patient: facts.patient_id.parse().context("patient_id")?,
        clinic: facts.clinic_id.parse().context("clinic_id")?,
        start: start.context("the start is no instant")?,
        zone: facts
            .time_zone
            .parse()
            .map_err(|_| anyhow::anyhow!("{:?} is no time zone", facts.time_zone))?,
        standing: facts.state() == AppointmentState::Booked,
    })
}

/// Plans reminders from appointments' events.
#[derive(Debug)]
pub struct Visits {
    clock: Clock,
}

impl Visits {
    /// Planned by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl Handler for Visits {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let Some(visit) = visit(event)? else { return Ok(()) };
        let now = self.clock.now().trunc_subsecs(6);
        if !store::remember_visit(tx, &visit).await? {
            return Ok(());
        }
        store::drop_older(tx, &visit, now).await?;
        if visit.standing {
            for kind in KINDS {
                let planned = plan(kind, visit.start, now, visit.zone);
                store::insert_reminder(tx, &visit, kind, planned, now).await?;
            }
        }
        Ok(())
    }
}

/// The provider took `message`.
pub async fn message_sent(
    tx: &mut PgConnection,
    message: &Message,
    send_time: chrono::DateTime<Utc>,
) -> sqlx::Result<()> {
    let event = MessageSent {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: message.patient.to_string(),
        appointment_id: message.appointment.to_string(),
        appointment_version: message.appointment_version,
        reminder_id: message.reminder.to_string(),
        kind: message.kind.into(),
        channel: Channel::Sms.into(),
        segments: message.segments,
        send_time: Some(timestamp(send_time)),
    };
    outbox::put(tx, message.id, message.version, &event).await
}

/// The provider refused `message`.
pub async fn message_failed(tx: &mut PgConnection, message: &Message) -> sqlx::Result<()> {
    let event = MessageFailed {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: message.patient.to_string(),
        appointment_id: message.appointment.to_string(),
        reminder_id: message.reminder.to_string(),
        kind: message.kind.into(),
        channel: Channel::Sms.into(),
        reason: message.failure_reason.into(),
        provider_error_code: message.provider_error_code.clone(),
    };
    outbox::put(tx, message.id, message.version, &event).await
}
