//! Events in and out: appointments become busy time; changes of catalog and calendars are told to others.

use std::collections::HashMap;

use anyhow::Context as _;
use async_trait::async_trait;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, ClinicId, ProviderId};
use kit::messaging::inbox::{Failure, Handler, Incoming};
use kit::messaging::outbox;
use prost::Name;
use proto::clinic::appointments::v1 as appointments;
use proto::clinic::appointments::v1::{AppointmentFacts, AppointmentState};
use proto::clinic::scheduling::v1 as wire;
use proto::google::r#type::Interval;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::span::{Minute, Span, Spans, instant, minute};
use crate::mirror::Mirror;
use crate::store::busy::{self, Taken};

/// Declares which events are followed; all carry the appointment's whole state in the same field.
macro_rules! followed {
    ($($event:ident),* $(,)?) => {
        /// Full names of the events that say who is taken when.
        pub fn followed() -> Vec<String> {
            vec![$(appointments::$event::full_name()),*]
        }

        /// The appointment as an event left it; `None` for other events.
        fn facts(event: &Incoming) -> anyhow::Result<Option<AppointmentFacts>> {
            $(if let Some(event) = event.decode::<appointments::$event>()? {
                return event.appointment.context("the event carries no appointment").map(Some);
            })*
            Ok(None)
        }
    };
}

followed!(
    SlotHeld,
    SlotReleased,
    AppointmentBooked,
    AppointmentRescheduled,
    AppointmentCancelled,
    AppointmentDisplaced,
    PatientCheckedIn,
    VisitCompleted,
    WaitlistOffered,
    WaitlistOfferClosed,
);

/// Keeps the projection of busy time.
#[derive(Debug)]
pub struct BusyTime {
    /// Looks again when something was written.
    pub mirror: Mirror,
}

#[async_trait]
impl Handler for BusyTime {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        self.handle_all(tx, &[event]).await.map_err(|failure| failure.error)
    }

    async fn handle_all(&self, tx: &mut PgConnection, events: &[&Incoming]) -> Result<(), Failure> {
        // Of an appointment that several are about, only the newest state matters.
        let mut newest: HashMap<AppointmentId, Taken> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            let state = facts(event).and_then(|facts| facts.map(|facts| taken(event, &facts)).transpose());
            let Some(state) = state.map_err(|error| Failure { at: Some(at), error })? else { continue };
            let known = newest.entry(state.appointment_id).or_insert(state);
            if known.version < state.version {
                *known = state;
            }
        }
        let states: Vec<Taken> = newest.into_values().collect();
        Ok(busy::apply(tx, &states).await?)
    }

    async fn committed(&self, _events: &[Incoming]) {
        self.mirror.wake();
    }
}

fn taken(event: &Incoming, facts: &AppointmentFacts) -> anyhow::Result<Taken> {
    let occupies = match facts.state() {
        AppointmentState::Held
        | AppointmentState::Offered
        | AppointmentState::Booked
        | AppointmentState::CheckedIn
        | AppointmentState::Displaced => true,
        AppointmentState::Completed
        | AppointmentState::NoShow
        | AppointmentState::Cancelled
        | AppointmentState::Expired
        | AppointmentState::Released
        | AppointmentState::Declined => false,
        AppointmentState::Unspecified => anyhow::bail!("the appointment has no state"),
    };
    let times = || anyhow::Ok((span(facts.occupied_interval.as_ref())?, span(facts.interval.as_ref())?));
    Ok(Taken {
        appointment_id: event.aggregate_id.into(),
        version: event.version,
        provider_id: facts.provider_id.parse().context("provider_id")?,
        room_id: facts.room_id.parse().context("room_id")?,
        times: occupies.then(times).transpose()?,
    })
}

/// Whole minutes that cover an interval of the wire.
fn span(interval: Option<&Interval>) -> anyhow::Result<Span> {
    let interval = interval.context("an interval is missing")?;
    let instant = |t: Option<prost_types::Timestamp>| {
        let t = t.context("an interval has an open end")?;
        chrono::DateTime::from_timestamp(t.seconds, t.nanos.unsigned_abs()).context("an instant out of range")
    };
    let (start, end) = (instant(interval.start_time)?, instant(interval.end_time)?);
    let last = minute(end);
    let end = if crate::domain::span::instant(last) < end { last + 1 } else { last };
    let span = Span::new(minute(start), end);
    anyhow::ensure!(!span.is_empty(), "an interval is empty");
    Ok(span)
}

/// Tells that something bookable was created or changed.
pub async fn catalog_changed(
    tx: &mut PgConnection,
    id: Uuid,
    version: i64,
    resource: wire::catalog_changed::Resource,
) -> sqlx::Result<()> {
    let event = wire::CatalogChanged { resource_id: id.to_string(), version, resource: Some(resource) };
    outbox::put(tx, id, version, &event).await
}

/// What changed calendars.
#[derive(Clone, Copy, Debug)]
pub struct CalendarChange {
    /// The one clinic concerned; `None` = every clinic.
    pub clinic: Option<ClinicId>,
    /// What kind of change.
    pub cause: wire::CalendarChangeCause,
    /// What changed.
    pub source: Uuid,
}

/// Tells a provider's new calendar version, and when its free time may differ; an end at [`Minute::MAX`] is none.
pub async fn calendar_changed(
    tx: &mut PgConnection,
    (provider, version): (ProviderId, i64),
    change: CalendarChange,
    affected: &Spans,
) -> sqlx::Result<()> {
    let event = wire::CalendarChanged {
        provider_id: provider.to_string(),
        version,
        clinic_id: change.clinic.map(|id| id.to_string()).unwrap_or_default(),
        affected: affected.iter().map(interval).collect(),
        cause: change.cause.into(),
        source_id: change.source.to_string(),
    };
    outbox::put(tx, provider, version, &event).await
}

/// An end that never comes is left unset.
fn interval(span: Span) -> Interval {
    let end = (span.end != Minute::MAX).then(|| timestamp(instant(span.end)));
    Interval { start_time: Some(timestamp(instant(span.start))), end_time: end }
}
