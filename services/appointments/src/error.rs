//! What booking says no with, and how it says it.

use std::time::Duration;

use kit::ids::AppointmentId;
use kit::status::Fault;
use proto::clinic::scheduling::v1::Block;
use tonic::{Code, Status};

use crate::DOMAIN;
use crate::domain::{Conflict, State};

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields, missing records, outages, our own bugs.
    #[error(transparent)]
    Kit(#[from] kit::status::Error),
    /// Someone else has the time, or the patient's own rules forbid it. Every rule broken is listed, never none.
    #[error("the slot conflicts with {0:?}")]
    Conflicts(Vec<Conflict>),
    /// The schedule says no, with every rule that does.
    #[error("the schedule does not allow this slot")]
    Blocked(Vec<Block>),
    /// The hold's time was up.
    #[error("the hold has expired; search again")]
    HoldExpired,
    /// The appointment is in a state in which this cannot be done.
    #[error("the appointment is {state:?}, which does not allow this")]
    WrongState {
        /// Which appointment.
        id: AppointmentId,
        /// Its state.
        state: State,
    },
    /// The card was declined; the hold stays for another try.
    #[error("the card was declined; try another one before the hold ends")]
    PaymentDeclined {
        /// The hold that stays.
        hold: AppointmentId,
        /// The provider's word for why, such as `insufficient_funds`.
        decline_code: String,
    },
    /// Check-in is for the day of the visit.
    #[error("check-in is possible on the day of the visit only")]
    NotVisitDay(AppointmentId),
    /// A visit that has not begun cannot be a no-show.
    #[error("the visit has not started yet")]
    NotStarted(AppointmentId),
    /// A patient who came after all.
    #[error("checking in after a no-show is not built yet: the fee could not be given back")]
    LateArrival(AppointmentId),
    /// The calendar keeps changing under the slot.
    #[error("the calendar is changing at this moment; try again")]
    CalendarMoving,
    /// Another service's own refusal, passed on.
    #[error("{}", .0.message())]
    Remote(Box<Status>),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Kit(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let words = error.to_string();
        let fault =
            match error {
                Error::Kit(error) => return error.into_status(DOMAIN),
                Error::Remote(status) => return *status,
                Error::Conflicts(conflicts) => return of_conflicts(&conflicts),
                Error::Blocked(blocks) => of_blocks(&blocks),
                Error::HoldExpired => Fault::precondition("HOLD_EXPIRED", words, "hold"),
                Error::WrongState { id, state } => Fault::precondition("WRONG_STATE", words, id.to_string())
                    .meta("state", format!("{state:?}").to_ascii_uppercase()),
                Error::PaymentDeclined { hold, decline_code } => {
                    Fault::precondition("PAYMENT_DECLINED", words, "payment_method")
                        .meta("hold_id", hold.to_string())
                        .meta("decline_code", decline_code)
                }
                Error::LateArrival(id) => Fault::new(Code::Unimplemented, "LATE_ARRIVAL", words)
                    .resource("Appointment", id.to_string()),
                Error::CalendarMoving => Fault::new(Code::Unavailable, "DEPENDENCY_DOWN", words)
                    .retry_after(Duration::from_secs(1)),
                Error::NotVisitDay(id) => Fault::precondition("NOT_VISIT_DAY", words, id.to_string()),
                Error::NotStarted(id) => Fault::precondition("NOT_STARTED", words, id.to_string()),
            };
        fault.into_status(DOMAIN)
    }
}

/// ABORTED when someone was faster, for then another slot may do; FAILED_PRECONDITION when the patient's own rules forbid it.
fn of_conflicts(conflicts: &[Conflict]) -> Status {
    let words = |conflict: &Conflict| match conflict {
        Conflict::Provider => (Code::Aborted, "SLOT_TAKEN", "someone was faster: the slot is taken"),
        Conflict::Room => (Code::Aborted, "ROOM_TAKEN", "no suitable room is free at that time"),
        Conflict::Patient => {
            (Code::FailedPrecondition, "PATIENT_BUSY", "the patient has another visit at that time")
        }
        Conflict::SevenDays => (
            Code::FailedPrecondition,
            "WITHIN_7_DAYS",
            "the patient has a visit with this provider less than 7 days from it",
        ),
        Conflict::OpenHold => (
            Code::ResourceExhausted,
            "TOO_MANY_HOLDS",
            "the patient has an open hold: book it, or release it first",
        ),
    };
    // The patient's own rules come first: they stand whichever slot is tried next.
    let main = conflicts
        .iter()
        .max_by_key(|c| words(c).0 == Code::FailedPrecondition)
        .unwrap_or(&Conflict::Provider);
    let (code, reason, message) = words(main);
    let mut fault = Fault::new(code, reason, message);
    for conflict in conflicts {
        let (_, reason, message) = words(conflict);
        fault = fault.and_rule(reason, "slot", message);
    }
    if code == Code::ResourceExhausted {
        fault = fault.retry_after(Duration::from_secs_f64(crate::domain::HOLD_TTL_SECS));
    }
    fault.into_status(DOMAIN)
}

fn of_blocks(blocks: &[Block]) -> Fault {
    let reason = |block: &Block| block.code().as_str_name().trim_start_matches("BLOCK_CODE_").to_owned();
    let first = blocks.first().map_or("OUTSIDE_SCHEDULE".to_owned(), reason);
    let message = blocks.iter().map(|b| b.message.as_str()).collect::<Vec<_>>().join("; ");
    let mut fault = Fault::new(Code::FailedPrecondition, &first, message);
    for block in blocks {
        fault = fault.and_rule(&reason(block), "slot", block.message.clone());
    }
    fault
}
