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
        /// A bank took money back, or gave it back.
        Dispute = "DISPUTE",
    }
}

words! {
    /// Where money stands.
    Account {
        /// What the charge's patient owes.
        Receivable = "RECEIVABLE",
        /// Money at the payment provider.
        Provider = "PROVIDER",
        /// Withdrawn from there by banks, and not reinstated.
        Disputed = "DISPUTED",
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

/// What money given back moves: it is no longer at the provider, and no longer earned, as far as it still was `earned`.
pub fn given_back(kind: Kind, amount: i64, earned: i64) -> Vec<Entry> {
    let reversal = Some(reversal(kind, amount.min(earned))).filter(|entry| entry.amount > 0);
    reversal.into_iter().chain([paid_out(amount)]).collect()
}

/// What it moves that a bank refused `amount`, perhaps after it `was_given`. What is to be given back `anyway` is no longer earned:
/// the patient is owed it.
pub fn refused(kind: Kind, amount: i64, was_given: bool, anyway: bool) -> Vec<Entry> {
    let undone = |entry: Entry| Entry { debit: entry.credit, credit: entry.debit, ..entry };
    match (was_given, anyway) {
        (false, false) => vec![],
        (false, true) => vec![reversal(kind, amount)],
        (true, false) => vec![undone(paid_out(amount)), undone(reversal(kind, amount))],
        (true, true) => vec![undone(paid_out(amount))],
    }
}

/// What it moves that banks have withdrawn `amount` more from the provider's account; below zero = reinstated.
pub fn withdrawn(amount: i64) -> Option<Entry> {
    let (debit, credit) = match amount {
        0 => return None,
        1.. => (Account::Disputed, Account::Provider),
        _ => (Account::Provider, Account::Disputed),
    };
    Some(Entry { kind: EntryKind::Dispute, debit, credit, amount: amount.abs() })
}

fn paid_out(amount: i64) -> Entry {
    Entry { kind: EntryKind::Refund, debit: Account::Receivable, credit: Account::Provider, amount }
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
