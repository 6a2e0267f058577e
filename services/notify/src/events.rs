//! Appointments' events become visits and reminders; and what notify tells the others.
//!
//! Every event carries the whole visit, so only its version matters: an older one than the newest heard of changes nothing, and any
//! order of delivery ends in the same state.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::fields::timestamp;
use kit::messaging::inbox::{Handler, Incoming};
use kit::messaging::outbox;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentFacts, AppointmentRescheduled,
    AppointmentState, PatientCheckedIn, VisitCompleted,
};
use proto::clinic::notify::v1::{Channel, MessageDelivered, MessageFailed, MessageSent};
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

/// An id that may be absent, as events spell it.
pub(crate) fn optional(id: Option<impl ToString>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// The provider took `message`, which is now of `version`.
pub fn message_sent(message: &Message, version: i64, send_time: DateTime<Utc>) -> MessageSent {
    MessageSent {
        message_id: message.id.to_string(),
        version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        appointment_version: message.appointment_version,
        reminder_id: optional(message.reminder),
        kind: message.kind.into(),
        channel: Channel::Sms.into(),
        segments: message.segments,
        send_time: Some(timestamp(send_time)),
    }
}

/// `message` reached the handset.
pub async fn message_delivered(
    tx: &mut PgConnection,
    message: &Message,
    deliver_time: DateTime<Utc>,
) -> sqlx::Result<()> {
    let event = MessageDelivered {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        kind: message.kind.into(),
        channel: Channel::Sms.into(),
        deliver_time: Some(timestamp(deliver_time)),
    };
    outbox::put(tx, message.id, message.version, &event).await
}

/// The provider refused `message`, or could not deliver it.
pub async fn message_failed(tx: &mut PgConnection, message: &Message) -> sqlx::Result<()> {
    let event = MessageFailed {
        message_id: message.id.to_string(),
        version: message.version,
        patient_id: optional(message.patient),
        appointment_id: optional(message.appointment),
        reminder_id: optional(message.reminder),
        kind: message.kind.into(),
        channel: Channel::Sms.into(),
        reason: message.failure_reason.into(),
        provider_error_code: message.provider_error_code.clone(),
    };
    outbox::put(tx, message.id, message.version, &event).await
}
