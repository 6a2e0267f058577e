//! How the fee of a late cancellation or a missed visit is settled: first from the co-pay's reservation, then from the card on
//! file, and what neither gives is owed.

use super::charge::{Charge, Happened, Standing, State};
use super::money::SMALLEST;

/// Why a rest that no card can be charged is owed, in the provider's words.
const TOO_SMALL: &str = "amount_too_small";

impl Charge {
    /// Whether the fee still waits for what the co-pay gives.
    pub fn awaits_copay(&self) -> bool {
        self.state == State::Capturing && self.attempt == 0
    }

    /// Takes over that `drawn` of the fee came out of the co-pay's `payment`. True = the rest is to be charged to a card; else
    /// [`Charge::settle_fee`] is next.
    pub fn take_from_copay(&mut self, drawn: i64, payment: Option<String>) -> bool {
        self.captured = drawn;
        self.drawn_from_copay = drawn;
        self.drawn_reference = payment.filter(|_| drawn > 0);
        let rest = self.uncollected();
        if (1..SMALLEST).contains(&rest) {
            self.decline_code = Some(TOO_SMALL.to_owned());
        }
        rest >= SMALLEST
    }

    /// What is due and neither taken nor owed yet.
    pub fn uncollected(&self) -> i64 {
        self.amount - self.captured - self.owed
    }

    /// Ends a fee: what was not taken is owed.
    pub fn settle_fee(&mut self) -> Vec<Happened> {
        self.owed = self.uncollected();
        self.state = State::Captured;
        let mut happened = vec![Happened::FeeCharged];
        happened.extend((self.owed > 0).then_some(Happened::Owed));
        happened
    }

    /// Takes over how the fee's own payment stands.
    pub(super) fn learn_fee(&mut self, standing: &Standing) -> Vec<Happened> {
        if self.state != State::Capturing || self.attempt == 0 {
            return vec![];
        }
        match standing {
            Standing::Taken { amount } => self.captured += amount,
            Standing::Refused { code } => self.decline_code = Some(code.clone()),
            Standing::Released => self.decline_code = Some("canceled".to_owned()),
            // Never so: it is taken at once, and nobody is there to be asked.
            Standing::Reserved { .. } | Standing::ActionRequired { .. } => return vec![],
        }
        self.settle_fee()
    }
}
