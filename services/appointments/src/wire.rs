//! Appointments as the contract has them.

use chrono::{DateTime, Utc};
use kit::fields::{date, timestamp};
use proto::clinic::appointments::v1 as pb;
use proto::google::r#type::Interval;

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
