//! Money given back: how much there is to give, of which payments, and what it does to a charge.
//!
//! A refund is written down first, as parts, one for each payment that gives; then the provider is asked. What the bank refuses,
//! even later, counts as never given back.

use chrono::{DateTime, Utc};
use kit::ids::ChargeId;
use uuid::Uuid;

use super::charge::{Charge, Happened, Kind, State};
use super::visit::Visit;
use super::words;

words! {
    /// How far a refund, or a part of one, is.
    RefundState {
        /// On its way.
        Pending = "PENDING",
        /// Given back.
        Succeeded = "SUCCEEDED",
        /// The bank refused it.
        Failed = "FAILED",
    }
}

words! {
    /// What caused a refund.
    Cause {
        /// RefundCharge.
        Staff = "STAFF",
        /// The patient came after all.
        FeeReversed = "FEE_REVERSED",
        /// Made at the provider, outside this suite.
        Provider = "PROVIDER",
        /// A reconciliation found money taken without cause.
        Reconciliation = "RECONCILIATION",
    }
}

/// Money given back on a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Which.
    pub id: Uuid,
    /// Of what.
    pub charge: ChargeId,
    /// Minor units.
    pub amount: i64,
    /// How far it is.
    pub state: RefundState,
    /// Why.
    pub cause: Cause,
    /// What staff said; empty = another cause.
    pub reason: String,
    /// Who asked; empty = another cause.
    pub requested_by: String,
    /// The provider's id of its first part.
    pub provider_reference: Option<String>,
    /// When asked for.
    pub created_at: DateTime<Utc>,
}

/// A payment that took money for a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The provider's payment.
    pub payment: String,
    /// What it took for the charge and has not given back, minor units.
    pub left: i64,
}

/// The payments that took a charge's money, each with what it took less what it has `given` back: for a fee the co-pay's that it
/// drew from, and the charge's own.
pub fn sources(charge: &Charge, given: &[(String, i64)]) -> Vec<Source> {
    let from = |payment: Option<&str>, took: i64| {
        let payment = payment?.to_owned();
        let given: i64 = given.iter().filter(|(from, _)| *from == payment).map(|(_, amount)| amount).sum();
        Some(Source { payment, left: took - given })
    };
    let drawn = from(charge.drawn_reference.as_deref(), charge.drawn_from_copay);
    let own = from(charge.provider_reference.as_deref(), charge.captured - charge.drawn_from_copay);
    drawn.into_iter().chain(own).filter(|source| source.left > 0).collect()
}

/// Shares `amount` out over `sources`, the first first.
pub fn split(amount: i64, sources: &[Source]) -> Vec<(String, i64)> {
    let mut rest = amount;
    let mut parts = vec![];
    for source in sources.iter().filter(|source| source.left > 0) {
        let part = rest.min(source.left);
        if part > 0 {
            parts.push((source.payment.clone(), part));
        }
        rest -= part;
    }
    parts
}

impl Charge {
    /// What was taken and is not being given back.
    pub fn refundable(&self) -> i64 {
        self.captured - self.refunded
    }

    /// Whether what was taken is to be given back, all of it: the fee of a patient who came, or the co-pay of a visit that did not
    /// take place.
    pub fn without_cause(&self, visit: &Visit) -> bool {
        match self.kind {
            Kind::NoShowFee => visit.fee_reversed,
            Kind::Copay => visit.ended.is_some_and(|ended| ended.how.voids().is_some()),
        }
    }

    /// Counts what a bank refused to take back as never given.
    pub fn refund_failed(&mut self, amount: i64) {
        self.refunded -= amount;
        if self.state == State::Refunded {
            self.state = State::Captured;
        }
    }

    /// Ends a charge of which all was given back; `given` = what the bank has confirmed.
    pub fn given_back(&mut self, given: i64) {
        if self.state == State::Captured && self.captured > 0 && given == self.captured {
            self.state = State::Refunded;
        }
    }

    /// Takes back what a settled fee is still owed; a fee of which nothing was taken ends with it.
    pub fn forgive(&mut self) -> Option<Happened> {
        if self.kind != Kind::NoShowFee || self.state != State::Captured || self.owed == 0 {
            return None;
        }
        let forgiven = std::mem::take(&mut self.owed);
        if self.captured == 0 {
            self.state = State::Voided;
        }
        Some(Happened::Refunded { amount: 0, forgiven, cause: Cause::FeeReversed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(payment: &str, left: i64) -> Source {
        Source { payment: payment.to_owned(), left }
    }

    proptest! {
        #[test]
        fn a_refund_is_shared_out_to_the_cent_and_no_payment_gives_more_than_it_took(
            lefts in prop::collection::vec(0..5_000_i64, 1..4), share in 0..=100_i64,
        ) {
            let sources: Vec<_> = lefts.iter().enumerate().map(|(n, left)| source(&format!("pi_{n}"), *left)).collect();
            let amount = lefts.iter().sum::<i64>() * share / 100;
            let parts = split(amount, &sources);
            prop_assert_eq!(parts.iter().map(|(_, part)| part).sum::<i64>(), amount);
            for (payment, part) in parts {
                let left = sources.iter().find(|s| s.payment == payment).map_or(0, |s| s.left);
                prop_assert!(part > 0 && part <= left);
            }
        }
    }
}
