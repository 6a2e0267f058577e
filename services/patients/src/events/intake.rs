//! What appointments tells of visits that ask for a form.

use async_trait::async_trait;
use kit::messaging::inbox::{Failure, Handler, Incoming, Subscription};
use prost::Name as _;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentFacts, AppointmentRescheduled, AppointmentState,
    VisitCompleted,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::AccessPurpose;
use sqlx::PgConnection;

use crate::NAME;
use crate::access::Access;
use crate::app::App;
use crate::store::intake::Visit;

/// The context that tells of visits.
const CONTEXT: &str = "appointments";

/// The events of appointments that patients follows.
pub fn subscription() -> Subscription {
    Subscription {
        context: CONTEXT,
        consumer: NAME,
        subjects: vec![
            AppointmentBooked::full_name(),
            AppointmentRescheduled::full_name(),
            AppointmentCancelled::full_name(),
            VisitCompleted::full_name(),
        ],
    }
}

/// Who opens and closes intakes, as the access log has it.
pub fn access() -> Access {
    Access {
        actor: CONTEXT.to_owned(),
        role: Role::Service,
        method: "clinic.appointments.v1",
        purpose: AccessPurpose::Operations,
        break_glass_reason: String::new(),
    }
}

/// Follows how visits stand.
pub struct Follower(pub App);

#[async_trait]
impl Handler for Follower {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let visit = visit(event)?;
        Ok(self.0.follow_visits(tx, visit.as_slice()).await?)
    }

    /// Together, so that the log's rows are written last and its chains locked in order.
    async fn handle_all(&self, tx: &mut PgConnection, events: &[&Incoming]) -> Result<(), Failure> {
        let mut visits = vec![];
        for (at, event) in events.iter().enumerate() {
            visits.extend(visit(event).map_err(|error| Failure { at: Some(at), error })?);
        }
        Ok(self.0.follow_visits(tx, &visits).await?)
    }
}

/// The visit that an event tells of; `None` when it asks for no form. Which form it asks for never changes.
fn visit(event: &Incoming) -> anyhow::Result<Option<Visit>> {
    let told: Option<(String, i64, Option<AppointmentFacts>)> =
        if let Some(e) = event.decode::<AppointmentBooked>()? {
            Some((e.appointment_id, e.version, e.appointment))
        } else if let Some(e) = event.decode::<AppointmentRescheduled>()? {
            Some((e.appointment_id, e.version, e.appointment))
        } else if let Some(e) = event.decode::<AppointmentCancelled>()? {
            Some((e.appointment_id, e.version, e.appointment))
        } else {
            event.decode::<VisitCompleted>()?.map(|e| (e.appointment_id, e.version, e.appointment))
        };
    let Some((appointment, version, Some(facts))) = told else { return Ok(None) };
    if facts.intake_form_id.is_empty() {
        return Ok(None);
    }
    Ok(Some(Visit {
        appointment: appointment.parse()?,
        version,
        patient: facts.patient_id.parse()?,
        form: facts.intake_form_id.parse()?,
        // After a no-show the patient may still come.
        expected: !matches!(facts.state(), AppointmentState::Cancelled | AppointmentState::Completed),
    }))
}
