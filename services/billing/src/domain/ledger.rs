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

/// What money given back moves: it is no longer earned, and no longer at the provider.
pub fn given_back(kind: Kind, amount: i64) -> [Entry; 2] {
    let paid_out =
        Entry { kind: EntryKind::Refund, debit: Account::Receivable, credit: Account::Provider, amount };
    [reversal(kind, amount), paid_out]
}

/// What undoes [`given_back`] when the bank refuses after all.
pub fn kept(kind: Kind, amount: i64) -> [Entry; 2] {
    given_back(kind, amount).map(|entry| Entry { debit: entry.credit, credit: entry.debit, ..entry })
}

fn reversal(kind: Kind, amount: i64) -> Entry {
    let earned = match kind {
        Kind::Copay => Account::CopayRevenue,
        Kind::NoShowFee => Account::FeeRevenue,
    };
    Entry { kind: EntryKind::Reversal, debit: earned, credit: Account::Receivable, amount }
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
        Happened::Refunded { forgiven, .. } => vec![reversal(charge.kind, *forgiven)],
        Happened::Owed
        | Happened::Authorized { .. }
        | Happened::NotAuthorized { .. }
        | Happened::Voided { .. }
        | Happened::Lapsed { .. } => vec![],
    };
    entries.into_iter().filter(|entry| entry.amount > 0).collect()
}
