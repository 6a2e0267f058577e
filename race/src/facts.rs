//! What the checker judges, as plain values: rows of the database, the provider's payments, and the clients' own log. Nothing here
//! knows how the services work; tests plant lies in it.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use uuid::Uuid;

/// Where an appointment stands, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum State {
    Held,
    Offered,
    Booked,
    Displaced,
    CheckedIn,
    Completed,
    NoShow,
    Cancelled,
    Expired,
    Released,
    Declined,
}

impl State {
    /// From the contract's or the database's word, such as `CHECKED_IN`.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "held" => Self::Held,
            "offered" => Self::Offered,
            "booked" => Self::Booked,
            "displaced" => Self::Displaced,
            "checked_in" => Self::CheckedIn,
            "completed" => Self::Completed,
            "no_show" => Self::NoShow,
            "cancelled" => Self::Cancelled,
            "expired" => Self::Expired,
            "released" => Self::Released,
            "declined" => Self::Declined,
            _ => return None,
        })
    }

    /// Whether provider and room are taken in it.
    pub fn occupies(self) -> bool {
        matches!(self, Self::Held | Self::Offered | Self::Booked | Self::Displaced | Self::CheckedIn)
    }

    /// Whether `next` may follow it, by the diagram in the contract. A booking may follow itself, for it can be moved.
    pub fn may_become(self, next: Self) -> bool {
        use State::{
            Booked, Cancelled, CheckedIn, Completed, Declined, Displaced, Expired, Held, NoShow, Offered,
            Released,
        };
        match self {
            Held | Offered => matches!(next, Booked | Expired | Released | Declined),
            Booked => matches!(next, Booked | CheckedIn | Cancelled | NoShow | Displaced),
            Displaced => matches!(next, Booked | CheckedIn | Cancelled | NoShow),
            CheckedIn => next == Completed,
            NoShow => next == CheckedIn,
            Completed | Cancelled | Expired | Released | Declined => false,
        }
    }
}

/// A half-open stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// First instant.
    pub start: DateTime<Utc>,
    /// First instant after it.
    pub end: DateTime<Utc>,
}

impl Span {
    /// Whether both have an instant in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Where and when a visit takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Place {
    pub clinic: Uuid,
    pub provider: Uuid,
    pub room: Uuid,
    pub visit: Span,
}

/// A row of `appointments.reservation`.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the service's migration explains each")]
pub struct Reservation {
    pub id: Uuid,
    pub version: i64,
    pub state: State,
    pub patient: Uuid,
    pub service_type: Uuid,
    pub place: Place,
    pub occupied: Span,
    pub visit_date: NaiveDate,
    /// `not_required`, `pending`, `authorized`, `declined` or `action_required`.
    pub copay: String,
    pub charge: Option<Uuid>,
    /// Someone is booking it, or should be.
    pub driven: bool,
    pub fee_due: bool,
}

/// A row of `appointments.change`.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the service's migration explains each")]
pub struct Change {
    pub reservation: Uuid,
    pub version: i64,
    pub state: State,
    pub place: Place,
    /// When its transaction committed, by the machine's clock: from then on others could see it.
    pub committed: DateTime<Utc>,
}

/// A row of `appointments.request`: a call that was done, and what is answered when it is repeated.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The appointment it made or changed.
    pub appointment: Uuid,
}

/// A row of `billing.charge`; amounts in minor units.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the service's migration explains each")]
pub struct Charge {
    pub id: Uuid,
    pub appointment: Uuid,
    /// `COPAY` or `NO_SHOW_FEE`.
    pub kind: String,
    pub state: String,
    pub amount: i64,
    pub captured: i64,
    pub refunded: i64,
    /// Cards tried: rows of `billing.attempt`.
    pub attempts: i64,
    /// Sum of the `PAYMENT` entries in the ledger.
    pub paid: i64,
}

/// A payment as the provider itself lists it; amounts in minor units.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the provider's reference explains each")]
pub struct Intent {
    pub id: String,
    pub appointment: Uuid,
    pub status: String,
    pub amount: i64,
    /// What was taken and not given back.
    pub kept: i64,
}

impl Intent {
    /// Money is reserved by it.
    pub fn is_live(&self) -> bool {
        self.status == "requires_capture"
    }
}

/// Everything read once all has come to rest.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `appointments.reservation`, by id.
    pub reservations: BTreeMap<Uuid, Reservation>,
    /// `appointments.change`, by reservation and version.
    pub changes: BTreeMap<(Uuid, i64), Change>,
    /// `appointments.request`, by caller and request id.
    pub requests: HashMap<(String, Uuid), Kept>,
    /// `appointments.outbox`: how often each version was told.
    pub told: HashMap<(Uuid, i64), i64>,
    /// `billing.charge`.
    pub charges: Vec<Charge>,
    /// The provider's payments.
    pub intents: Vec<Intent>,
    /// The time zone of each clinic.
    pub zones: HashMap<Uuid, Tz>,
    /// Events of any service that are not published.
    pub unpublished: i64,
    /// Events that a service could not take, with its reason.
    pub dead_letters: Vec<String>,
    /// Lines of the services' logs that tell of a deadlock which reached a caller; consumers of events just try again.
    pub surfaced_deadlocks: Vec<String>,
    /// Lines that tell of a transaction which another call had left open.
    pub stray_transactions: Vec<String>,
    /// Lines that tell of a panic.
    pub panics: Vec<String>,
    /// When services were killed, in order.
    pub kills: Vec<DateTime<Utc>>,
}

/// A call of the contract that changes an appointment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum Verb {
    Hold,
    Release,
    Book,
    Reschedule,
    Cancel,
    CheckIn,
    Complete,
}

/// What a client asked for. What it left open is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract's requests explain each")]
pub struct Asked {
    pub appointment: Option<Uuid>,
    pub patient: Option<Uuid>,
    pub service_type: Option<Uuid>,
    pub clinic: Option<Uuid>,
    pub provider: Option<Uuid>,
    pub room: Option<Uuid>,
    pub start: Option<DateTime<Utc>>,
    pub etag: Option<i64>,
    pub card: Option<Uuid>,
    pub no_show: bool,
    pub overriding: bool,
}

/// An appointment as a client was told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the contract explains each")]
pub struct Told {
    pub id: Uuid,
    pub version: i64,
    pub state: State,
    pub patient: Uuid,
    pub service_type: Uuid,
    pub place: Place,
}

/// Why a client was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The gRPC code's name, such as `Aborted`.
    pub code: String,
    /// `google.rpc.ErrorInfo.reason`; empty = none.
    pub reason: String,
    /// Each broken rule and what it says no for, such as (`SLOT_TAKEN`, `Appointment/…`).
    pub rules: Vec<(String, String)>,
    /// The hold that stays, after a declined card.
    pub hold: Option<Uuid>,
    /// The words for people.
    pub message: String,
}

/// How a call ended for its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// Done, and this is how it stands.
    Done(Told),
    /// Refused.
    Refused(Refusal),
    /// Not answered, however often it was asked; the last word of the last try.
    Nothing(String),
}

/// One line of the clients' log: a call, asked under one request id until it was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The `sub` of the client's token.
    pub caller: String,
    /// Its name for the call. A line with a name used before is a repetition.
    pub request: Uuid,
    /// Which call.
    pub verb: Verb,
    /// What was asked.
    pub asked: Asked,
    /// Just before the first try.
    pub begun: DateTime<Utc>,
    /// When the answer was there.
    pub ended: DateTime<Utc>,
    /// How often it was sent.
    pub tries: u32,
    /// What the client was told.
    pub answer: Answer,
}
