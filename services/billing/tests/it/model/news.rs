//! What appointments tells of a visit.

use kit::ids::AppointmentId;
use proto::clinic::appointments::v1::{
    AppointmentCancelled, AppointmentRescheduled, PatientCheckedIn, SlotReleased, VisitCompleted,
};

use crate::world::World;

/// One event.
#[derive(Clone, Debug)]
pub(super) enum News {
    Released(SlotReleased),
    Rescheduled(Box<AppointmentRescheduled>),
    Cancelled(AppointmentCancelled),
    Completed(VisitCompleted),
    CheckedIn(PatientCheckedIn),
}

impl News {
    /// The same, as the appointment's version `version`.
    pub(super) fn at(mut self, version: i64) -> Self {
        match &mut self {
            Self::Released(event) => event.version = version,
            Self::Rescheduled(event) => event.version = version,
            Self::Cancelled(event) => event.version = version,
            Self::Completed(event) => event.version = version,
            Self::CheckedIn(event) => event.version = version,
        }
        self
    }

    pub(super) async fn tell(&self, world: &World) {
        match self {
            Self::Released(event) => publish(world, &event.appointment_id, event.version, event).await,
            Self::Rescheduled(event) => publish(world, &event.appointment_id, event.version, &**event).await,
            Self::Cancelled(event) => publish(world, &event.appointment_id, event.version, event).await,
            Self::Completed(event) => publish(world, &event.appointment_id, event.version, event).await,
            Self::CheckedIn(event) => publish(world, &event.appointment_id, event.version, event).await,
        }
    }
}

async fn publish<E: prost::Message + prost::Name>(world: &World, id: &str, version: i64, event: &E) {
    let appointment: AppointmentId = id.parse().unwrap();
    testkit::publish(&world.servers.broker().await, "appointments", appointment, version, event).await;
}
