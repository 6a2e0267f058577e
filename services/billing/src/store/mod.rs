//! All SQL. Each function takes a connection, so that its caller decides on transactions, and answers domain types.
//!
//! Locks are taken in one order: a visit, then its charges; a customer, then its cards; a schedule, then its fees.

pub mod attempts;
pub mod cards;
pub mod charges;
pub mod chores;
pub mod disputes;
pub mod fees;
pub mod ledger;
pub mod reconciliations;
pub mod refunds;
pub mod visits;
pub mod webhooks;

use sqlx::Error;

/// The stored word of an enum, which a check constraint keeps to the known ones.
fn word<T>(of_word: impl Fn(&str) -> Option<T>, text: &str) -> sqlx::Result<T> {
    of_word(text).ok_or_else(|| Error::Decode(format!("{text:?} is not known to this build").into()))
}

fn currency(text: &str) -> sqlx::Result<crate::domain::money::Currency> {
    text.parse().map_err(|error: String| Error::Decode(error.into()))
}
