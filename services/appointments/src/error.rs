//! What booking says no with, and how it says it.

use std::time::Duration;

use kit::ids::{AppointmentId, ServiceTypeId, WaitlistEntryId};
use kit::status::Fault;
use proto::clinic::appointments::v1::{NearbySlots, SlotOption};
use proto::clinic::scheduling::v1::Block;
use tonic::{Code, Status};

use crate::DOMAIN;
use crate::domain::waitlist::{EntryState, MOST_ENTRIES};
use crate::domain::{Clash, Conflict, Reservation, State};

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields, missing records, outages, our own bugs.
    #[error(transparent)]
    Kit(#[from] kit::status::Error),
    /// The slot cannot be had, for all these reasons.
    #[error("the slot cannot be had: {0:?}")]
    Refused(Box<Refusal>),
    /// The calendar changed under a hold, which ended.
    #[error("the hold ended because the calendar changed: {}; search again", .reasons.join(", "))]
    Overtaken {
        /// The rules it broke then.
        reasons: Vec<String>,
    },
    /// The hold's time was up.
    #[error("the hold has expired; search again")]
    HoldExpired,
    /// The offer's time was up.
    #[error("the offer has expired")]
    OfferExpired,
    /// The patient waits for this kind of visit already.
    #[error("the patient waits for this kind of visit already")]
    AlreadyWaiting(WaitlistEntryId),
    /// The id of a new entry is taken.
    #[error("there is an entry of this id")]
    EntryExists(WaitlistEntryId),
    /// The patient waits for too much.
    #[error("the patient has {MOST_ENTRIES} open entries; leave one first")]
    TooManyEntries,
    /// An entry that is closed cannot be left.
    #[error("the entry is {state:?}, which does not allow this")]
    EntryClosed {
        /// Which entry.
        id: WaitlistEntryId,
        /// Its state.
        state: EntryState,
    },
    /// A co-pay is due, and there is no card to take it from.
    #[error("booking without asking takes a saved card for the co-pay")]
    CardRequired,
    /// The kind of visit takes no new bookings.
    #[error("the service type takes no new bookings")]
    ServiceRetired(ServiceTypeId),
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
    /// The visit's intake form is still to be submitted.
    #[error("the intake form was not submitted; have it filled in, or give a reason to go without")]
    IntakeIncomplete(AppointmentId),
    /// A visit that has not begun cannot be a no-show.
    #[error("the visit has not started yet")]
    NotStarted(AppointmentId),
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
        let fault = match error {
            Error::Kit(error) => return error.into_status(DOMAIN),
            Error::Remote(status) => return *status,
            Error::Refused(refusal) => refusal.into(),
            Error::Overtaken { reasons } => {
                let first = reasons.first().map_or("OUTSIDE_SCHEDULE", String::as_str);
                reasons.iter().fold(Fault::new(Code::FailedPrecondition, first, words), |fault, reason| {
                    fault.and_rule(reason, "hold", "the calendar changed under the hold")
                })
            }
            Error::HoldExpired => Fault::precondition("HOLD_EXPIRED", words, "hold"),
            Error::OfferExpired => Fault::precondition("OFFER_EXPIRED", words, "offer"),
            Error::AlreadyWaiting(id) => Fault::new(Code::AlreadyExists, "ALREADY_WAITING", words)
                .resource("WaitlistEntry", id.to_string()),
            Error::EntryExists(id) => Fault::new(Code::AlreadyExists, "WAITLIST_ENTRY_EXISTS", words)
                .resource("WaitlistEntry", id.to_string()),
            Error::TooManyEntries => Fault::new(Code::ResourceExhausted, "TOO_MANY_ENTRIES", words),
            Error::EntryClosed { id, state } => Fault::precondition("WRONG_STATE", words, id.to_string())
                .meta("state", format!("{state:?}").to_ascii_uppercase()),
            Error::CardRequired => Fault::precondition("PAYMENT_METHOD_REQUIRED", words, "payment_method_id"),
            Error::ServiceRetired(id) => Fault::precondition("RETIRED", words, id.to_string()),
            Error::WrongState { id, state } => Fault::precondition("WRONG_STATE", words, id.to_string())
                .meta("state", format!("{state:?}").to_ascii_uppercase()),
            Error::PaymentDeclined { hold, decline_code } => {
                Fault::precondition("PAYMENT_DECLINED", words, "payment_method")
                    .meta("hold_id", hold.to_string())
                    .meta("decline_code", decline_code)
            }
            Error::CalendarMoving => {
                Fault::new(Code::Unavailable, "DEPENDENCY_DOWN", words).retry_after(Duration::from_secs(1))
            }
            Error::NotVisitDay(id) => Fault::precondition("NOT_VISIT_DAY", words, id.to_string()),
            Error::IntakeIncomplete(id) => Fault::precondition("INTAKE_INCOMPLETE", words, id.to_string()),
            Error::NotStarted(id) => Fault::precondition("NOT_STARTED", words, id.to_string()),
        };
        fault.into_status(DOMAIN)
    }
}

/// Every reason why a slot cannot be had; at least one.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// Rules of the schedule.
    pub blocks: Vec<Block>,
    /// Rules that the database keeps.
    pub clashes: Vec<Clash>,
    /// Free slots near it, nearest first.
    pub nearby: Vec<SlotOption>,
}

impl Error {
    /// What became of a hold that the calendar overtook.
    pub(crate) fn overtaken(row: &Reservation) -> Self {
        Self::Overtaken { reasons: row.displaced_reasons.clone() }
    }

    /// Rules that the database keeps, and nothing else.
    pub(crate) fn clashes(clashes: Vec<Clash>) -> Self {
        Self::Refused(Box::new(Refusal { clashes, ..Refusal::default() }))
    }
}

/// The contract's word for what blocks a slot, such as `OUTSIDE_SCHEDULE`.
pub(crate) fn reason_of(block: &Block) -> String {
    block.code().as_str_name().trim_start_matches("BLOCK_CODE_").to_owned()
}

/// Code, reason and words of a rule: ABORTED when someone was faster, for then another slot may do; FAILED_PRECONDITION when the
/// patient's own rules forbid it.
fn words(rule: Conflict) -> (Code, &'static str, &'static str) {
    let (code, words) = match rule {
        Conflict::Provider => (Code::Aborted, "someone was faster: the slot is taken"),
        Conflict::Room => (Code::Aborted, "no suitable room is free at that time"),
        Conflict::Patient => (Code::FailedPrecondition, "the patient has another visit at that time"),
        Conflict::SevenDays => {
            (Code::FailedPrecondition, "the patient has a visit with this provider less than 7 days from it")
        }
        Conflict::OpenHold => {
            (Code::ResourceExhausted, "the patient has an open hold: book it, or release it first")
        }
    };
    (code, rule.reason(), words)
}

impl From<Box<Refusal>> for Fault {
    fn from(refusal: Box<Refusal>) -> Self {
        let Refusal { blocks, clashes, nearby } = *refusal;
        // The schedule first, then the patient's own rules: they stand whichever rival gives way.
        let own = |clash: &&Clash| words(clash.rule).0 == Code::FailedPrecondition;
        let main = clashes.iter().find(own).or(clashes.first());
        let (code, reason, message) = match (blocks.first(), main) {
            (Some(first), _) => {
                let all: Vec<_> = blocks.iter().map(|b| b.message.as_str()).collect();
                (Code::FailedPrecondition, reason_of(first), all.join(" "))
            }
            (None, Some(clash)) => {
                let (code, reason, message) = words(clash.rule);
                (code, reason.to_owned(), message.to_owned())
            }
            (None, None) => (
                Code::FailedPrecondition,
                "OUTSIDE_SCHEDULE".to_owned(),
                "the schedule does not allow it".to_owned(),
            ),
        };
        let mut fault = Self::new(code, &reason, message);
        for block in &blocks {
            fault = fault.and_rule(&reason_of(block), "slot", block.message.clone());
        }
        for clash in &clashes {
            let (_, reason, message) = words(clash.rule);
            let subject = clash.with.map_or("slot".to_owned(), |id| format!("Appointment/{id}"));
            fault = fault.and_rule(reason, subject, message);
        }
        if code == Code::ResourceExhausted {
            fault = fault.retry_after(crate::domain::HOLD_TTL);
        }
        if code == Code::Aborted && !nearby.is_empty() {
            fault = fault.detail(&NearbySlots { slots: nearby });
        }
        fault
    }
}
