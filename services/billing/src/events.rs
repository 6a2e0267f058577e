//! What billing tells the others, and what it hears from appointments.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use kit::fields::{Fields, timestamp};
use kit::messaging::inbox::{Handler, Incoming, Subscription};
use kit::messaging::outbox;
use prost::Name;
use proto::clinic::appointments::v1 as appointments;
use proto::clinic::appointments::v1::{
    AppointmentFacts, AppointmentState, CancelTimeliness, CancelledBy, VisitOutcome,
};
use proto::clinic::billing::v1 as pb;
use sqlx::PgConnection;

use crate::app::App;
use crate::domain::charge::{Charge, Happened};
use crate::domain::visit::{Ending, Visit};
use crate::store::ledger;
use crate::wire;

/// Puts what happened to `charge` into the outbox, as the event that its version already counts.
pub async fn publish(
    tx: &mut PgConnection,
    visit: &Visit,
    charge: &Charge,
    happened: &Happened,
) -> sqlx::Result<()> {
    let id = charge.id.uuid();
    let version = charge.version;
    let charge_id = charge.id.to_string();
    let appointment_id = charge.appointment.to_string();
    let patient_id = visit.patient.to_string();
    let clinic_id = visit.clinic.to_string();
    let visit_start_time = Some(timestamp(visit.start));
    let money = |minor| Some(wire::money(minor, charge.currency));
    match happened {
        Happened::Authorized { renewal } => {
            let event = pb::CopayAuthorized {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                visit_start_time,
                amount: money(charge.authorized),
                capture_before: charge.capture_before.map(timestamp),
                renewal: *renewal,
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::NotAuthorized { renewal } => {
            let event = pb::CopayAuthorizationFailed {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                visit_start_time,
                amount: money(charge.amount),
                state: wire::state(charge.state).into(),
                decline_code: charge.decline_code.clone().unwrap_or_default(),
                renewal: *renewal,
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::Captured { .. } => {
            let amount = money(charge.captured);
            let event =
                pb::CopayCaptured { charge_id, version, appointment_id, patient_id, clinic_id, amount };
            outbox::put(tx, id, version, &event).await
        }
        Happened::Voided { released, drawn, .. } => {
            let event = pb::CopayVoided {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                released_amount: money(*released),
                drawn_for_fee_amount: money(*drawn),
                cause: charge.void_cause.map_or(pb::VoidCause::Unspecified, wire::void_cause).into(),
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::Lapsed { amount, at } => {
            let event = pb::CopayLapsed {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                visit_start_time,
                amount: money(*amount),
                lapse_time: Some(timestamp(*at)),
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::FeeCharged => {
            let event = pb::NoShowFeeCharged {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                amount: money(charge.amount),
                drawn_from_copay_amount: money(charge.drawn_from_copay),
                off_session_amount: money(charge.captured - charge.drawn_from_copay),
                owed_amount: money(charge.owed),
                late_cancellation: visit.ended.is_some_and(|ended| ended.how == Ending::CancelledLate),
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::Owed => {
            let event = pb::BalanceOwed {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                kind: wire::kind(charge.kind).into(),
                amount: money(charge.owed),
                balance: money(ledger::balance(tx, visit.patient).await?),
                decline_code: charge.decline_code.clone().unwrap_or_default(),
            };
            outbox::put(tx, id, version, &event).await
        }
        Happened::Refunded { amount, forgiven, cause } => {
            let event = pb::ChargeRefunded {
                charge_id,
                version,
                appointment_id,
                patient_id,
                clinic_id,
                kind: wire::kind(charge.kind).into(),
                amount: money(*amount),
                forgiven_amount: money(*forgiven),
                refunded_amount: money(charge.refunded),
                remaining_amount: money(charge.refundable()),
                cause: wire::refund_cause(*cause).into(),
            };
            outbox::put(tx, id, version, &event).await
        }
    }
}

/// The events of appointments that billing follows, as the consumer `consumer`.
pub fn subscription(consumer: &'static str) -> Subscription {
    Subscription {
        context: "appointments",
        consumer,
        subjects: vec![
            appointments::SlotReleased::full_name(),
            appointments::WaitlistOfferClosed::full_name(),
            appointments::AppointmentRescheduled::full_name(),
            appointments::AppointmentCancelled::full_name(),
            appointments::PatientCheckedIn::full_name(),
            appointments::VisitCompleted::full_name(),
        ],
    }
}

/// Follows how holds and visits end.
pub struct Visits(pub App);

/// One event, reduced to what billing needs.
struct News {
    version: i64,
    facts: Option<AppointmentFacts>,
    appointment_id: String,
    /// How it ended, and whether a no-show fee is due; `None` = it goes on.
    ending: Option<(Ending, bool)>,
    /// The patient came after it was closed as missed.
    after_no_show: bool,
}

#[async_trait]
impl Handler for Visits {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        let Some(news) = news(event)? else { return Ok(()) };
        let (mut visit, visit_date) = visit(&news)?;
        if let Some((how, fee_due)) = news.ending {
            visit.ended = Some(self.0.ended(tx, &visit, visit_date, how, fee_due).await?);
        }
        match news.after_no_show {
            true => self.0.follow_late_arrival(tx, visit).await?,
            false => self.0.follow_visit(tx, visit).await?,
        }
        Ok(())
    }

    async fn committed(&self, _events: &[Incoming]) {
        self.0.wake.notify_one();
        self.0.books.notify_one();
    }
}

fn news(event: &Incoming) -> anyhow::Result<Option<News>> {
    if let Some(e) = event.decode::<appointments::SlotReleased>()? {
        let ending = Some((Ending::HoldEnded, false));
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id: e.appointment_id,
            ending,
            after_no_show: false,
        }));
    }
    if let Some(e) = event.decode::<appointments::WaitlistOfferClosed>()? {
        let booked = e.appointment.as_ref().is_some_and(|facts| facts.state() == AppointmentState::Booked);
        let ending = (!booked).then_some((Ending::HoldEnded, false));
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id: e.offer_id,
            ending,
            after_no_show: false,
        }));
    }
    if let Some(e) = event.decode::<appointments::AppointmentRescheduled>()? {
        let appointment_id = e.appointment_id;
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id,
            ending: None,
            after_no_show: false,
        }));
    }
    if let Some(e) = event.decode::<appointments::AppointmentCancelled>()? {
        let cancellation = e.cancellation.unwrap_or_default();
        let late = cancellation.timeliness() == CancelTimeliness::Late
            && cancellation.cancelled_by() == CancelledBy::Patient;
        let how = if late { Ending::CancelledLate } else { Ending::Cancelled };
        let ending = Some((how, late && cancellation.fee_due));
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id: e.appointment_id,
            ending,
            after_no_show: false,
        }));
    }
    if let Some(e) = event.decode::<appointments::PatientCheckedIn>()? {
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id: e.appointment_id,
            ending: None,
            after_no_show: e.after_no_show,
        }));
    }
    if let Some(e) = event.decode::<appointments::VisitCompleted>()? {
        let ending = match e.outcome() {
            VisitOutcome::Attended => (Ending::Attended, false),
            VisitOutcome::NoShow => (Ending::NoShow, e.fee_due),
            VisitOutcome::Unspecified => anyhow::bail!("a visit was completed without an outcome"),
        };
        let ending = Some(ending);
        return Ok(Some(News {
            version: e.version,
            facts: e.appointment,
            appointment_id: e.appointment_id,
            ending,
            after_no_show: false,
        }));
    }
    Ok(None)
}

/// The visit that `news` is about, not ended, and its clinic-local date.
fn visit(news: &News) -> anyhow::Result<(Visit, NaiveDate)> {
    let facts = news.facts.clone().unwrap_or_default();
    let mut fields = Fields::new();
    let start: DateTime<Utc> =
        fields.instant("interval.start_time", facts.interval.and_then(|i| i.start_time));
    let visit_date = fields.date("visit_date", facts.visit_date.as_ref());
    let visit = Visit {
        appointment: fields.id("appointment_id", &news.appointment_id),
        version: news.version,
        patient: fields.id("patient_id", &facts.patient_id),
        clinic: fields.id("clinic_id", &facts.clinic_id),
        service_type: fields.id("service_type_id", &facts.service_type_id),
        start,
        ended: None,
        fee_reversed: false,
    };
    fields.check().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok((visit, visit_date))
}
