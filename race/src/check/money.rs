//! One live authorization for each booked co-pay, and no other. What billing does when a visit ends: attended = the whole co-pay is
//! taken; a late cancellation or a no-show = its fee is taken out of the co-pay's authorization and the rest released; a patient who
//! came after a no-show = the fee is given back, and the co-pay asked for anew once the visit is over; everything else = released.
//! The provider's own list of payments is the truth; billing's records must agree with it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Findings, Rule};
use crate::facts::{Charge, Intent, Reservation, Rows, State};

/// What an appointment in its state must have at the provider.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing reserved, nothing taken.
    Nothing,
    /// The co-pay, reserved.
    Reserved,
    /// The co-pay, taken.
    Taken,
    /// Nothing reserved; the fee may have been taken.
    Fee,
    /// No fee; the co-pay still reserved, or not any more.
    Late,
    /// No fee; the co-pay taken, or owed.
    TakenLate,
}

fn due(rows: &Rows, row: &Reservation) -> Due {
    if row.copay == "not_required" {
        return Due::Nothing;
    }
    let missed =
        rows.changes.range((row.id, 1)..=(row.id, i64::MAX)).any(|(_, change)| change.state == State::NoShow);
    match row.state {
        State::CheckedIn if missed => Due::Late,
        State::Completed if missed => Due::TakenLate,
        State::Booked | State::Displaced | State::CheckedIn => Due::Reserved,
        State::Completed => Due::Taken,
        State::Cancelled if row.fee_due => Due::Fee,
        State::NoShow => Due::Fee,
        State::Held
        | State::Offered
        | State::Cancelled
        | State::Expired
        | State::Released
        | State::Declined => Due::Nothing,
    }
}

pub(super) fn check(found: &mut Findings, rows: &Rows) {
    let mut intents: BTreeMap<Uuid, Vec<&Intent>> = BTreeMap::new();
    for intent in &rows.intents {
        intents.entry(intent.appointment).or_default().push(intent);
    }
    let copays: BTreeMap<Uuid, &Charge> =
        rows.charges.iter().filter(|c| c.kind == "COPAY").map(|c| (c.appointment, c)).collect();
    for row in rows.reservations.values() {
        let payments = intents.remove(&row.id).unwrap_or_default();
        let live: Vec<&Intent> = payments.iter().copied().filter(|i| i.is_live()).collect();
        let taken: Vec<&Intent> = payments.iter().copied().filter(|i| i.kept > 0).collect();
        let name = || format!("{} ({:?}, co-pay {}) has payments {payments:?}", row.id, row.state, row.copay);
        found.must(live.len() + taken.len() <= 1, Rule::DoubleAuthorization, name);
        let copay = copays.get(&row.id);
        match due(rows, row) {
            Due::Nothing => found.must(live.is_empty() && taken.is_empty(), Rule::Unfounded, name),
            Due::Fee => found.must(live.is_empty(), Rule::Unfounded, name),
            Due::Late => found.must(taken.is_empty(), Rule::Unfounded, name),
            Due::TakenLate => {
                let right =
                    live.is_empty() && copay.is_some_and(|c| taken.iter().all(|i| i.kept == c.amount));
                found.must(right, Rule::Unfounded, name);
            }
            Due::Reserved => {
                let right =
                    live.len() == 1 && taken.is_empty() && copay.is_some_and(|c| c.amount == live[0].amount);
                found.must(right, Rule::Unpaid, name);
                let noted = copay.is_some_and(|c| row.copay == "authorized" && row.charge == Some(c.id));
                found.must(noted, Rule::Unpaid, || format!("{} does not name its charge {copay:?}", name()));
            }
            Due::Taken => {
                let right =
                    live.is_empty() && taken.len() == 1 && copay.is_some_and(|c| c.amount == taken[0].kept);
                found.must(right, Rule::Unpaid, name);
            }
        }
        if let Some(copay) = copay {
            books(found, rows, copay, &payments);
        }
    }
    for (appointment, payments) in intents {
        let held = payments.iter().any(|i| i.is_live() || i.kept > 0);
        found.must(!held, Rule::Unfounded, || {
            format!("there is no appointment {appointment} for {payments:?}")
        });
    }
    for charge in rows.charges.iter().filter(|charge| charge.paid != charge.captured) {
        found.add(Rule::Books, format!("the ledger says that {} was paid on {charge:?}", charge.paid));
    }
}

/// Billing's records of a co-pay agree with the provider's.
fn books(found: &mut Findings, rows: &Rows, copay: &Charge, payments: &[&Intent]) {
    let live = payments.iter().filter(|i| i.is_live()).count();
    let kept: i64 = payments.iter().map(|i| i.kept).sum();
    let agrees = match copay.state.as_str() {
        "AUTHORIZED" => live == 1 && kept == 0,
        "CAPTURED" => live == 0 && kept == copay.captured,
        // What a fee took came out of the co-pay's authorization.
        "VOIDED" => {
            let fee =
                rows.charges.iter().find(|c| c.kind == "NO_SHOW_FEE" && c.appointment == copay.appointment);
            live == 0 && kept == fee.map_or(0, |fee| fee.captured - fee.refunded)
        }
        "DECLINED" | "REQUIRES_ACTION" => live == 0 && kept == 0,
        // On its way, when all should have come to rest; or lapsed, which takes days.
        _ => false,
    };
    found.must(agrees, Rule::Books, || format!("billing has {copay:?}, and the provider {payments:?}"));
}
