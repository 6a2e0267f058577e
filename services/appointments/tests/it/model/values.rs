//! Appointments, answers and events as the reference model has them.

use std::collections::BTreeSet;
use std::fmt;

use appointments::domain::{Copay, Span, State};
use chrono::TimeDelta;

use super::commands::At;
use super::neighbours::spans;

const TIMELY: TimeDelta = TimeDelta::hours(2);

/// An appointment as it should be; compared with its row field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appt {
    pub(crate) version: i64,
    pub(crate) state: State,
    pub(crate) patient: usize,
    pub(crate) kind: usize,
    pub(crate) clinic: usize,
    pub(crate) provider: usize,
    pub(crate) room: usize,
    pub(crate) start: At,
    pub(crate) hold_expires: Option<At>,
    pub(crate) calendar_version: i64,
    pub(crate) fee_start: At,
    pub(crate) fee_due: bool,
    pub(crate) copay: Copay,
    pub(crate) charged: bool,
    pub(crate) driven_until: Option<At>,
    pub(crate) judge_at: Option<i64>,
    pub(crate) displaced: bool,
    pub(crate) reasons: Vec<String>,
}

/// What an answer shows of an appointment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) version: i64,
    pub(crate) state: State,
    pub(crate) place: (usize, usize, usize),
    pub(crate) start: At,
    pub(crate) hold_expires: Option<At>,
    pub(crate) fee_start: At,
    pub(crate) copay: Copay,
    /// Of a cancellation; else `None`.
    pub(crate) fee_due: Option<bool>,
    pub(crate) reasons: Vec<String>,
}

impl Appt {
    pub(crate) fn view(&self) -> View {
        View {
            version: self.version,
            state: self.state,
            place: (self.clinic, self.provider, self.room),
            start: self.start,
            hold_expires: self.hold_expires,
            fee_start: self.fee_start,
            copay: self.copay,
            fee_due: (self.state == State::Cancelled).then_some(self.fee_due),
            reasons: if self.state == State::Displaced { self.reasons.clone() } else { vec![] },
        }
    }

    pub(crate) fn visit(&self) -> Span {
        spans(self.kind, self.start).0
    }

    pub(crate) fn occupied(&self) -> Span {
        spans(self.kind, self.start).1
    }

    pub(crate) fn is_over(&self, now: At) -> bool {
        self.hold_expires.is_some_and(|end| end <= now)
    }

    pub(crate) fn timely(&self, now: At) -> bool {
        self.fee_start - now >= TIMELY
    }

    /// The next version, in another state.
    pub(crate) fn become_(&mut self, state: State) {
        (self.version, self.state, self.driven_until) = (self.version + 1, state, None);
        if state != State::Held {
            self.hold_expires = None;
        }
    }

    pub(crate) fn expire(&mut self) {
        let declined = self.copay == Copay::Declined;
        self.become_(if declined { State::Declined } else { State::Expired });
    }

    /// How an authorization stands that led to no booking.
    pub(crate) fn note(&mut self, copay: Copay, charged: bool, driven_until: Option<At>) {
        if self.state == State::Held {
            (self.copay, self.driven_until) = (copay, driven_until);
            self.charged |= charged;
        }
    }
}

/// What a command should be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    Shown(View),
    /// With all of the first reasons, and perhaps some of the second.
    Refused(BTreeSet<&'static str>, BTreeSet<&'static str>),
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no answer"),
            Self::Shown(view) => write!(f, "{:?}", view.state),
            Self::Refused(must, _) => write!(f, "{must:?}"),
        }
    }
}

/// A refusal with one reason.
pub(crate) fn no(reason: &'static str) -> Expect {
    Expect::Refused(BTreeSet::from([reason]), BTreeSet::new())
}

/// What another service has told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Calendar { provider: usize, version: i64, affected: Span },
    Authorized(usize),
    Failed(usize),
}
