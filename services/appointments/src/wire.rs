//! Appointments, entries of the waitlist and offers as the contract has them.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::fields::{date, time_of_day, timestamp};
use proto::clinic::appointments::v1 as pb;
use proto::google::r#type::{DayOfWeek, Interval};

use crate::app::Booked;
use crate::domain::waitlist::{Entry, EntryState, Offer, OfferState, Outlook};
use crate::domain::{Copay, Reservation, State};
use crate::events::{cancellation, displacement};
use crate::store::Change;

/// A state as the wire has it.
pub(crate) fn state(state: State) -> pb::AppointmentState {
    match state {
        State::Held => pb::AppointmentState::Held,
        State::Offered => pb::AppointmentState::Offered,
        State::Booked => pb::AppointmentState::Booked,
        State::Displaced => pb::AppointmentState::Displaced,
        State::CheckedIn => pb::AppointmentState::CheckedIn,
        State::Completed => pb::AppointmentState::Completed,
        State::NoShow => pb::AppointmentState::NoShow,
        State::Cancelled => pb::AppointmentState::Cancelled,
        State::Expired => pb::AppointmentState::Expired,
        State::Released => pb::AppointmentState::Released,
        State::Declined => pb::AppointmentState::Declined,
    }
}

fn copay(copay: Copay) -> pb::CopayState {
    match copay {
        Copay::NotRequired => pb::CopayState::NotRequired,
        Copay::Pending => pb::CopayState::Pending,
        Copay::Authorized => pb::CopayState::Authorized,
        Copay::Declined => pb::CopayState::Declined,
        Copay::ActionRequired => pb::CopayState::ActionRequired,
    }
}

/// Both ends set.
pub(crate) fn interval(start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Interval> {
    Some(Interval { start_time: Some(timestamp(start)), end_time: Some(timestamp(end)) })
}

/// An appointment without its history.
pub(crate) fn appointment(row: &Reservation) -> pb::Appointment {
    pb::Appointment {
        id: row.id.to_string(),
        version: row.version,
        state: state(row.state) as i32,
        patient_id: row.patient_id.to_string(),
        service_type_id: row.service_type_id.to_string(),
        clinic_id: row.clinic_id.to_string(),
        provider_id: row.provider_id.to_string(),
        room_id: row.room_id.to_string(),
        interval: interval(row.start, row.end),
        occupied_interval: interval(row.occupied_start, row.occupied_end),
        visit_date: Some(date(row.visit_date)),
        time_zone: row.time_zone.clone(),
        hold_expire_time: row.hold_expires_at.map(timestamp),
        calendar_version: row.calendar_version,
        copay: Some(pb::Copay {
            state: copay(row.copay) as i32,
            charge_id: row.charge_id.map(|c| c.to_string()).unwrap_or_default(),
            client_secret: String::new(),
        }),
        intake_form_id: row.intake_form_id.map(|f| f.to_string()).unwrap_or_default(),
        fee_start_time: Some(timestamp(row.fee_start)),
        displacement: displacement(row),
        cancellation: cancellation(row),
        patient_confirm_time: None,
        check_in_time: row.checked_in_at.map(timestamp),
        close_time: row.closed_at.map(timestamp),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        etag: row.etag(),
        history: vec![],
    }
}

/// What a booking call led to.
pub(crate) fn booked(booked: &Booked) -> pb::Appointment {
    let mut answer = appointment(&booked.row);
    if let Some(copay) = &mut answer.copay {
        copay.client_secret.clone_from(&booked.client_secret);
    }
    answer
}

/// A patient reads what happened to a visit, but not who did it or why a rule was overridden.
pub(crate) fn change(change: Change, to_patient: bool) -> pb::AppointmentChange {
    pb::AppointmentChange {
        version: change.version,
        state: state(change.state) as i32,
        change_time: Some(timestamp(change.changed_at)),
        actor_id: change.actor.filter(|_| !to_patient).unwrap_or_default(),
        actor_role: change.actor_role.unwrap_or_default(),
        interval: interval(change.start, change.end),
        clinic_id: change.clinic_id.to_string(),
        provider_id: change.provider_id.to_string(),
        room_id: change.room_id.to_string(),
        override_reason: change.override_reason.filter(|_| !to_patient).unwrap_or_default(),
        overridden: change.overridden,
        patient_id: change.patient_id.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// An entry's state as the wire has it.
pub(crate) fn entry_state(state: EntryState) -> pb::WaitlistEntryState {
    match state {
        EntryState::Waiting => pb::WaitlistEntryState::Waiting,
        EntryState::Offered => pb::WaitlistEntryState::Offered,
        EntryState::Fulfilled => pb::WaitlistEntryState::Fulfilled,
        EntryState::Left => pb::WaitlistEntryState::Left,
        EntryState::Expired => pb::WaitlistEntryState::Expired,
    }
}

/// An offer's state as the wire has it.
pub(crate) fn offer_state(state: OfferState) -> pb::OfferState {
    match state {
        OfferState::Open => pb::OfferState::Open,
        OfferState::Accepted => pb::OfferState::Accepted,
        OfferState::Declined => pb::OfferState::Declined,
        OfferState::Expired => pb::OfferState::Expired,
        OfferState::Withdrawn => pb::OfferState::Withdrawn,
    }
}

/// An entry with its place in the queue, if it is open, and what it may hope for. A patient is not told why it goes first.
pub(crate) fn entry(
    entry: &Entry,
    place: Option<(i64, Option<Outlook>)>,
    to_patient: bool,
) -> pb::WaitlistEntry {
    let days = (1..=7).filter(|day| entry.weekdays & (1 << (day - 1)) != 0);
    let every_day = days.clone().count() == 7;
    let outlook = place.and_then(|(_, outlook)| outlook);
    pb::WaitlistEntry {
        id: entry.id.to_string(),
        patient_id: entry.patient_id.to_string(),
        service_type_id: entry.service_type_id.to_string(),
        clinic_ids: entry.clinic_ids.iter().map(ToString::to_string).collect(),
        provider_ids: entry.provider_ids.iter().map(ToString::to_string).collect(),
        first_date: Some(date(entry.first_date)),
        last_date: Some(date(entry.last_date)),
        start_from: Some(time_of_day(entry.from_minute.unsigned_abs())),
        start_before: Some(time_of_day(entry.before_minute.unsigned_abs())),
        days_of_week: days
            .filter(|_| !every_day)
            .filter_map(|day| DayOfWeek::try_from(day).ok())
            .map(|d| d as i32)
            .collect(),
        priority: entry.priority.into(),
        priority_reason: if to_patient { String::new() } else { entry.priority_reason.clone() },
        auto_book: entry.auto_book,
        payment_method_id: entry.payment_method_id.map(|m| m.to_string()).unwrap_or_default(),
        replaces_appointment_id: entry.replaces_id.map(|a| a.to_string()).unwrap_or_default(),
        state: entry_state(entry.state) as i32,
        appointment_id: entry.appointment_id.map(|a| a.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(entry.created_at)),
        update_time: Some(timestamp(entry.updated_at)),
        position: place.map_or(0, |(position, _)| i32::try_from(position).unwrap_or(i32::MAX)),
        expected_days: outlook.map(|outlook| outlook.expected_days),
        chance_percent: outlook.map(|outlook| outlook.chance),
    }
}

/// An offer with the appointment that holds its time, or held it and was moved since.
pub(crate) fn offer(offer: &Offer, row: &Reservation) -> pb::Offer {
    let zone: Tz = row.time_zone.parse().unwrap_or(Tz::UTC);
    pb::Offer {
        id: offer.id.to_string(),
        waitlist_entry_id: offer.entry_id.map(|e| e.to_string()).unwrap_or_default(),
        patient_id: offer.patient_id.to_string(),
        service_type_id: offer.service_type_id.to_string(),
        clinic_id: offer.clinic_id.to_string(),
        provider_id: offer.provider_id.to_string(),
        room_id: row.room_id.to_string(),
        interval: interval(offer.starts_at, offer.starts_at + (row.end - row.start)),
        visit_date: Some(date(offer.starts_at.with_timezone(&zone).date_naive())),
        time_zone: row.time_zone.clone(),
        state: offer_state(offer.state) as i32,
        expire_time: Some(timestamp(offer.expires_at)),
        replaces_appointment_id: offer.replaces_id.map(|a| a.to_string()).unwrap_or_default(),
        appointment_id: offer.led_to().map(|a| a.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(offer.made_at)),
        preference: offer.preference.unwrap_or_default().into(),
    }
}
