//! What appointments tells, and what it follows: calendars (so that a booking judged at an old version is judged again, and time that
//! became free finds who waits for it),
//! patients (so that their existence, whether two of them are one, and whether an intake form was submitted, is known without
//! asking) and authorizations that came late.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kit::fields::{date, timestamp};
use kit::ids::{ChargeId, OfferId, PatientId, WaitlistEntryId};
use kit::merges;
use kit::messaging::inbox::{Handler, Incoming, Subscription};
use kit::messaging::outbox::Event;
use kit::platform::Platform;
use prost::Name as _;
use proto::clinic::appointments::v1::{
    AppointmentBooked, AppointmentCancelled, AppointmentDisplaced, AppointmentFacts, AppointmentReassigned,
    AppointmentRescheduled, CancelTimeliness, Cancellation, CancelledBy, Displacement, PatientCheckedIn,
    SlotHeld, SlotOption, SlotReleased, VisitCompleted, VisitOutcome, WaitlistOfferClosed, WaitlistOffered,
};
use proto::clinic::billing::v1::{ChargeState, CopayAuthorizationFailed, CopayAuthorized};
use proto::clinic::patients::v1::{IntakeCompleted, PatientChanged};
use proto::clinic::scheduling::v1::CalendarChanged;
use proto::google::r#type::Interval;
use sqlx::PgConnection;
use sqlx::postgres::types::PgRange;
use std::ops::Bound;
use std::sync::Arc;

use crate::app::App;
use crate::domain::waitlist::Offer;
use crate::domain::{Copay, Reservation, State};
use crate::error::Error;
use crate::{NAME, store, wire};

fn facts(row: &Reservation) -> Option<AppointmentFacts> {
    Some(AppointmentFacts {
        state: wire::state(row.state) as i32,
        patient_id: row.patient_id.to_string(),
        service_type_id: row.service_type_id.to_string(),
        clinic_id: row.clinic_id.to_string(),
        provider_id: row.provider_id.to_string(),
        room_id: row.room_id.to_string(),
        interval: wire::interval(row.start, row.end),
        occupied_interval: wire::interval(row.occupied_start, row.occupied_end),
        visit_date: Some(date(row.visit_date)),
        time_zone: row.time_zone.clone(),
        copay_required: row.copay != Copay::NotRequired,
        intake_form_id: row.intake_form_id.map(|f| f.to_string()).unwrap_or_default(),
    })
}

/// A slot was taken: held for whoever asked for it, or instead of a displaced visit, or booked at once.
pub(crate) fn taken(row: &Reservation) -> Event {
    if row.state == State::Booked {
        return booked(row);
    }
    let event = SlotHeld {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        hold_expire_time: row.hold_expires_at.map(timestamp),
    };
    Event::new(&event)
}

/// A visit is booked.
pub(crate) fn booked(row: &Reservation) -> Event {
    booked_from(row, None)
}

/// A visit is booked, perhaps from the waitlist.
pub(crate) fn booked_from(row: &Reservation, entry: Option<WaitlistEntryId>) -> Event {
    let event = AppointmentBooked {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        charge_id: row.charge_id.map(|c| c.to_string()).unwrap_or_default(),
        waitlist_entry_id: entry.map(|e| e.to_string()).unwrap_or_default(),
    };
    Event::new(&event)
}

/// A hold ended without a booking.
pub(crate) fn released(row: &Reservation) -> Event {
    let event =
        SlotReleased { appointment_id: row.id.to_string(), version: row.version, appointment: facts(row) };
    Event::new(&event)
}

/// Time is offered to a patient who waits for it.
fn offered(row: &Reservation, offer: &Offer) -> Event {
    let event = WaitlistOffered {
        offer_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        waitlist_entry_id: offer.entry_id.map(|e| e.to_string()).unwrap_or_default(),
        expire_time: Some(timestamp(offer.expires_at)),
        replaces_appointment_id: offer.replaces_id.map(|a| a.to_string()).unwrap_or_default(),
        auto_book: offer.auto_book,
    };
    Event::new(&event)
}

/// Time is kept for a patient, who is told by this or, of a displaced visit, by what displaces it.
pub(crate) fn kept(row: &Reservation, offer: &Offer) -> Event {
    match offer.entry_id {
        Some(_) => offered(row, offer),
        None => taken(row),
    }
}

/// It is kept no longer.
pub(crate) fn no_longer_kept(row: &Reservation, offer: &Offer) -> Event {
    match offer.entry_id {
        Some(_) => offer_closed(row, offer),
        None => released(row),
    }
}

/// An offer ended, as it now says.
pub(crate) fn offer_closed(row: &Reservation, offer: &Offer) -> Event {
    let event = WaitlistOfferClosed {
        offer_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        waitlist_entry_id: offer.entry_id.map(|e| e.to_string()).unwrap_or_default(),
        outcome: wire::offer_state(offer.state) as i32,
        appointment_id: offer.led_to().map(|a| a.to_string()).unwrap_or_default(),
    };
    Event::new(&event)
}

/// A visit was moved, perhaps to the time of an offer, or stands again where it was.
pub(crate) fn rescheduled(row: &Reservation, before: &Reservation, offer: Option<OfferId>) -> Event {
    let event = AppointmentRescheduled {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        previous: facts(before),
        fee_start_time: Some(timestamp(row.fee_start)),
        offer_id: offer.map(|o| o.to_string()).unwrap_or_default(),
    };
    Event::new(&event)
}

/// A visit is the survivor's of `previous`, who was merged.
pub(crate) fn reassigned(row: &Reservation, previous: PatientId) -> Event {
    let event = AppointmentReassigned {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        previous_patient_id: previous.to_string(),
    };
    Event::new(&event)
}

/// Why a displaced visit no longer fits its calendar, or its patient.
pub(crate) fn displacement(row: &Reservation) -> Option<Displacement> {
    let found = row.displaced_at.filter(|_| row.state == State::Displaced)?;
    Some(Displacement {
        reasons: row.displaced_reasons.clone(),
        displace_time: Some(timestamp(found)),
        work_list_time: row.work_list_at.map(timestamp),
    })
}

/// A visit no longer fits its calendar.
pub(crate) fn displaced(row: &Reservation, alternatives: Vec<SlotOption>) -> Event {
    let event = AppointmentDisplaced {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        displacement: displacement(row),
        alternatives,
    };
    Event::new(&event)
}

/// How an appointment was called off; `None` when it was not.
pub(crate) fn cancellation(row: &Reservation) -> Option<Cancellation> {
    let received = row.cancel_received_at?;
    let by = if row.cancelled_by_clinic? { CancelledBy::Clinic } else { CancelledBy::Patient };
    let timeliness = if row.timely(received) { CancelTimeliness::Timely } else { CancelTimeliness::Late };
    Some(Cancellation {
        cancelled_by: by as i32,
        timeliness: timeliness as i32,
        received_time: Some(timestamp(received)),
        fee_due: row.fee_due,
    })
}

/// A visit was called off.
pub(crate) fn cancelled(row: &Reservation) -> Event {
    let event = AppointmentCancelled {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        cancellation: cancellation(row),
    };
    Event::new(&event)
}

/// The patient is here.
pub(crate) fn checked_in(row: &Reservation, after_no_show: bool) -> Event {
    let event = PatientCheckedIn {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        check_in_time: row.checked_in_at.map(timestamp),
        after_no_show,
    };
    Event::new(&event)
}

/// A visit was closed.
pub(crate) fn completed(row: &Reservation, outcome: VisitOutcome) -> Event {
    let event = VisitCompleted {
        appointment_id: row.id.to_string(),
        version: row.version,
        appointment: facts(row),
        outcome: outcome as i32,
        close_time: row.closed_at.map(timestamp),
        fee_due: row.fee_due,
    };
    Event::new(&event)
}

/// Applies what the other services tell.
pub struct Follower(pub App);

/// Follows calendars, patients with their intakes, and authorizations until the platform stops.
pub(crate) fn follow(platform: &Platform, app: &App) {
    let follower = Arc::new(Follower(app.clone()));
    for (context, subjects) in [
        ("scheduling", vec![CalendarChanged::full_name()]),
        ("patients", vec![PatientChanged::full_name(), IntakeCompleted::full_name()]),
        ("billing", vec![CopayAuthorized::full_name(), CopayAuthorizationFailed::full_name()]),
    ] {
        let subscription = Subscription { context, consumer: NAME, subjects };
        platform.follow(subscription, follower.clone());
    }
}

#[async_trait]
impl Handler for Follower {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        if let Some(changed) = event.decode::<CalendarChanged>()? {
            let provider = changed.provider_id.parse()?;
            store::see_calendar(tx, provider, changed.version).await?;
            let affected: Vec<_> = changed.affected.iter().map(range).collect();
            store::mark_to_judge(tx, provider, changed.version, &affected).await?;
            store::free_calendar(tx, provider, changed.version, &affected).await?;
        }
        if let Some(changed) = event.decode::<PatientChanged>()? {
            store::see_patient(tx, changed.patient_id.parse()?).await?;
            if let Some((merged, survivor)) = merges::told(&changed)? {
                merges::note(tx, merged, survivor).await?;
                store::hand_over(tx, merged).await?;
            }
        }
        if let Some(completed) = event.decode::<IntakeCompleted>()? {
            store::complete_intake(tx, completed.appointment_id.parse()?).await?;
        }
        if let Some(authorized) = event.decode::<CopayAuthorized>()? {
            let charge: ChargeId = authorized.charge_id.parse()?;
            let id = authorized.appointment_id.parse()?;
            // The usual case: the caller who asked for the authorization has confirmed already.
            let open = [State::Held, State::Offered];
            if store::get(tx, id).await?.is_some_and(|row| !open.contains(&row.state)) {
                return Ok(());
            }
            match self.0.confirm_in(tx, id, Copay::Authorized, Some(charge)).await {
                // Or the hold has ended, or its patient has taken another visit in the way of an offer.
                Ok(_) | Err(Error::HoldExpired | Error::WrongState { .. } | Error::Overtaken { .. }) => {}
                Err(Error::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(failed) = event.decode::<CopayAuthorizationFailed>()?
            && failed.state() == ChargeState::Declined
        {
            self.0.decline_in(tx, failed.appointment_id.parse()?, &failed.decline_code).await?;
        }
        Ok(())
    }

    async fn committed(&self, events: &[Incoming]) {
        let rings = [CalendarChanged::full_name(), PatientChanged::full_name()];
        if events.iter().any(|event| rings.contains(&event.subject)) {
            self.0.marked.notify_one();
        }
    }
}

/// An end that is not set is open.
fn range(interval: &Interval) -> PgRange<DateTime<Utc>> {
    let instant = |t: prost_types::Timestamp| DateTime::from_timestamp(t.seconds, t.nanos.unsigned_abs());
    let bound = |t: Option<prost_types::Timestamp>| t.and_then(instant);
    PgRange {
        start: bound(interval.start_time).map_or(Bound::Unbounded, Bound::Included),
        end: bound(interval.end_time).map_or(Bound::Unbounded, Bound::Excluded),
    }
}
