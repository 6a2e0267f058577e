//! The independent checker: facts in, violations out. It knows the contract and nothing else; in particular it does not rely on the
//! database's constraints, but works every overlap out again.
//!
//! - `places`: nobody and nothing is in two visits at once, at any moment of the run
//! - `history`: every version is there, follows from the one before, and was told
//! - `promises`: what clients were told is what is written down
//! - `refusals`: every refusal has a reason of the contract's, and it was true
//! - `money`: one live authorization for each booked co-pay, and no other

mod history;
mod money;
mod places;
mod promises;
mod refusals;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::facts::{Call, Rows};

pub use history::{SAGA_BOUND, Saga, sagas};
pub use places::{Stay, stays};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rule {
    /// A provider was in two visits at once.
    ProviderOverlap,
    /// A room was taken twice.
    RoomOverlap,
    /// A patient was in two visits at once.
    PatientOverlap,
    /// A patient had two visits with a provider less than 7 days apart.
    SevenDays,
    /// A patient had two open holds.
    TwoHolds,
    /// A visit's date is not its start's day at the clinic.
    VisitDate,
    /// A version is missing from the history, or the newest is not the appointment.
    HistoryGap,
    /// A state followed one that it may not follow.
    HistoryStep,
    /// A version was told never or twice.
    Event,
    /// An acknowledged call left nothing behind.
    Lost,
    /// What was acknowledged is not what is written down, or not what was asked for.
    Different,
    /// One request id was answered in two ways.
    TwoAnswers,
    /// A call was refused and done all the same.
    RefusedYetDone,
    /// A refusal without a reason of the contract's, or by our own fault.
    Reason,
    /// A refusal whose reason was not so.
    Untrue,
    /// A call was never answered.
    NoAnswer,
    /// More than one payment of an appointment holds or has taken money.
    DoubleAuthorization,
    /// Money is reserved or taken for what is not to be paid.
    Unfounded,
    /// A booked co-pay without a live authorization, or an attended visit without its money.
    Unpaid,
    /// Billing's records differ from the provider's, or the ledger from the charges.
    Books,
    /// A booking was left open, or took longer than promised.
    Saga,
    /// An event was never published, or given up on.
    Messaging,
    /// A deadlock reached a caller.
    Deadlock,
    /// A service worked in a transaction that another call had left open.
    StrayTransaction,
    /// A service panicked.
    Panic,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, with the ids needed to look it up.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Collects violations.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: Rule, what: String) {
        self.0.push(Violation { rule, what });
    }

    /// Adds one unless `holds`.
    fn must(&mut self, holds: bool, rule: Rule, what: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, what());
        }
    }
}

/// Everything that was promised and not kept, each once, in a stable order.
pub fn check(rows: &Rows, log: &[Call]) -> Vec<Violation> {
    let mut found = Findings::default();
    let stays = stays(rows);
    places::check(&mut found, rows, &stays);
    history::check(&mut found, rows, log);
    promises::check(&mut found, rows, log);
    refusals::check(&mut found, rows, &stays, log);
    money::check(&mut found, rows);
    for line in &rows.surfaced_deadlocks {
        found.add(Rule::Deadlock, line.clone());
    }
    if let Some(first) = rows.stray_transactions.first() {
        found.add(Rule::StrayTransaction, format!("{} times, first {first}", rows.stray_transactions.len()));
    }
    for line in &rows.panics {
        found.add(Rule::Panic, line.clone());
    }
    for letter in &rows.dead_letters {
        found.add(Rule::Messaging, format!("an event was given up on: {letter}"));
    }
    found.must(rows.unpublished == 0, Rule::Messaging, || {
        format!("{} events were never published", rows.unpublished)
    });
    found.0.sort();
    found.0.dedup();
    found.0
}
