//! Which accounts each happening moves.

use super::charge::{Charge, Happened, Kind};
use super::words;

words! {
    /// What an entry is.
    EntryKind {
        /// A co-pay became due.
        Copay = "COPAY",
        /// A no-show fee became due.
        NoShowFee = "NO_SHOW_FEE",
        /// Money was taken from a card.
        Payment = "PAYMENT",
        /// Money was given back to a card.
        Refund = "REFUND",
        /// Something due was taken back.
        Reversal = "REVERSAL",
    }
}

words! {
    /// Where money stands.
    Account {
        /// What the charge's patient owes.
        Receivable = "RECEIVABLE",
        /// Money at the payment provider.
        Provider = "PROVIDER",
        /// Earned by co-pays.
        CopayRevenue = "COPAY_REVENUE",
        /// Earned by no-show fees.
        FeeRevenue = "FEE_REVENUE",
    }
}

/// One amount moved between two accounts: balanced by its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The account that grows.
    pub debit: Account,
    /// The account that gives.
    pub credit: Account,
    /// Minor units, above zero.
    pub amount: i64,
}

/// The entries that `happened` to `charge` means, oldest first. What is owed is due; what is captured is due and paid.
pub fn entries(charge: &Charge, happened: &Happened) -> Vec<Entry> {
    let due = match charge.kind {
        Kind::Copay => (EntryKind::Copay, Account::CopayRevenue),
        Kind::NoShowFee => (EntryKind::NoShowFee, Account::FeeRevenue),
    };
    let due = |amount| Entry { kind: due.0, debit: Account::Receivable, credit: due.1, amount };
    let paid = |amount| Entry {
        kind: EntryKind::Payment,
        debit: Account::Provider,
        credit: Account::Receivable,
        amount,
    };
    let entries = match happened {
        Happened::Captured { debt } => vec![due(charge.captured - debt), paid(charge.captured)],
        Happened::FeeCharged => vec![due(charge.amount), paid(charge.captured)],
        // A fee's debt is due with the fee itself.
        Happened::Owed if charge.kind == Kind::Copay => vec![due(charge.owed)],
        Happened::Owed
        | Happened::Authorized { .. }
        | Happened::NotAuthorized { .. }
        | Happened::Voided { .. }
        | Happened::Lapsed { .. } => vec![],
    };
    entries.into_iter().filter(|entry| entry.amount > 0).collect()
}
