//! What billing knows of a visit.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ClinicId, PatientId, ServiceTypeId};

use super::charge::VoidCause;
use super::words;

words! {
    /// How a visit, or its hold, ended.
    Ending {
        /// The hold ended without a booking.
        HoldEnded = "HOLD_ENDED",
        /// Called off in time, or by the clinic.
        Cancelled = "CANCELLED",
        /// Called off late by the patient.
        CancelledLate = "CANCELLED_LATE",
        /// The patient did not come.
        NoShow = "NO_SHOW",
        /// It took place.
        Attended = "ATTENDED",
    }
}

impl Ending {
    /// Why the co-pay is no longer due; `None` = it is.
    pub const fn voids(self) -> Option<VoidCause> {
        match self {
            Self::HoldEnded => Some(VoidCause::HoldEnded),
            Self::Cancelled => Some(VoidCause::Cancelled),
            Self::CancelledLate => Some(VoidCause::CancelledLate),
            Self::NoShow => Some(VoidCause::NoShow),
            Self::Attended => None,
        }
    }
}

/// A visit that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: Ending,
    /// The no-show fee it costs, minor units; 0 = none.
    pub fee: i64,
}

/// A visit as appointments last told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Which.
    pub appointment: AppointmentId,
    /// The appointment's version; 0 = only AuthorizeCopay has named it.
    pub version: i64,
    /// Who pays.
    pub patient: PatientId,
    /// Where.
    pub clinic: ClinicId,
    /// What.
    pub service_type: ServiceTypeId,
    /// When it starts.
    pub start: DateTime<Utc>,
    /// How it ended; `None` = it is held or booked.
    pub ended: Option<Ended>,
    /// The patient came after it was closed as missed: its fee is taken back.
    pub fee_reversed: bool,
}
