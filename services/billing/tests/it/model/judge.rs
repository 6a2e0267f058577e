//! The judge: what a history should have come to, against what billing and the provider wrote down. It knows nothing of how
//! billing works, and is itself tested against planted faults.

use super::books::{Books, Charge};

/// Why a charge is owed for which the provider failed until its key was too old to ask again, as it does for a day when time is
/// slept over.
const NEVER_MADE: &str = "processing_error";

/// What a visit should have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Neither co-pay nor fee.
    Nothing,
    /// The co-pay.
    Copay,
    /// The no-show fee instead of the co-pay.
    Fee,
    /// The co-pay after all, and a fee that was taken back.
    CopayAfterAll,
}

/// A visit as the history has it. Amounts in cents.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) appointment: String,
    pub(super) due: Due,
    pub(super) copay: i64,
    pub(super) fee: i64,
    /// The card gives whatever is due.
    pub(super) pays: bool,
    /// What staff gave back, as billing answered.
    pub(super) given_back: i64,
}

/// Everything that is wrong, one sentence each.
pub(super) fn judge(visits: &[Visit], books: &Books) -> Vec<String> {
    let mut wrong = vec![];
    for payment in &books.payments {
        if ["requires_capture", "requires_action"].contains(&payment.status.as_str()) {
            wrong.push(format!(
                "a live payment {} of the visit {} that is over",
                payment.id, payment.appointment
            ));
        }
        if !visits.iter().any(|visit| visit.appointment == payment.appointment) {
            wrong.push(format!("a payment {} of no visit", payment.id));
        }
    }
    for charge in &books.charges {
        wrong.extend(of_charge(charge, books).into_iter().map(|what| format!("{what}: {charge:?}")));
    }
    for line in &books.lines {
        let entry = books.lines.iter().filter(|other| other.entry == line.entry);
        if entry.map(|line| line.amount).sum::<i64>() != 0 {
            wrong.push(format!("an entry that does not sum to zero: {line:?}"));
        }
    }
    let provider = balance(books, None, "PROVIDER");
    let kept: i64 = books.payments.iter().map(|payment| payment.received - payment.refunded).sum();
    if provider != kept {
        wrong.push(format!("the ledger has {provider} at the provider, which has {kept}"));
    }
    for visit in visits {
        wrong.extend(of_visit(visit, books).into_iter().map(|what| format!("{what}: {visit:?}")));
    }
    wrong
}

fn of_charge(charge: &Charge, books: &Books) -> Vec<&'static str> {
    let mut wrong = vec![];
    let mut expect = |holds: bool, otherwise| {
        if !holds {
            wrong.push(otherwise);
        }
    };
    let ended = ["CAPTURED", "VOIDED", "REFUNDED", "DECLINED"].contains(&charge.state.as_str());
    expect(ended, "a charge that has not ended");
    expect(charge.authorized == 0, "a reservation that billing still counts");
    expect(charge.captured + charge.owed <= charge.amount, "more taken and owed than due");
    let receivable = balance(books, Some(&charge.id), "RECEIVABLE");
    expect(receivable == charge.owed, "the ledger owes something else than the charge");
    let provider = balance(books, Some(&charge.id), "PROVIDER");
    expect(provider == charge.captured - charge.refunded, "the ledger took something else than the charge");

    // The part of a fee that came out of a payment of the co-pay's counts there: its only one, unless the patient came after all.
    let of_visit = books.charges.iter().filter(|other| other.appointment == charge.appointment);
    let drawn: i64 = of_visit.clone().map(|other| other.drawn).sum();
    let own = if charge.kind == "COPAY" { charge.captured + drawn } else { charge.captured - drawn };
    let takings = books.payments.iter().filter(|p| p.charge == charge.id && p.received > 0);
    let by_cause =
        usize::from(charge.captured > charge.drawn) + usize::from(charge.kind == "COPAY" && drawn > 0);
    expect(takings.clone().count() == by_cause, "a charge taken twice");
    expect(takings.map(|p| p.received).sum::<i64>() == own, "a payment took something else than its charge");

    let told = |what: &str| {
        let subject = format!("clinic.billing.v1.{what}");
        books.told.iter().filter(|(told, id)| *told == subject && *id == charge.id).count()
    };
    if charge.kind == "COPAY" {
        expect(told("CopayCaptured") == usize::from(charge.captured > 0), "a capture not told once");
        // Nothing but a fee, released or drawn before the patient came, is told of a co-pay that was taken after all.
        let fee_before = of_visit.clone().any(|other| other.kind == "NO_SHOW_FEE");
        let voided = told("CopayVoided");
        let ended = if charge.state == "VOIDED" { 1 } else { usize::from(fee_before) };
        expect(voided == ended, "a release not told once");
    } else {
        expect(told("NoShowFeeCharged") == 1, "a fee not told once");
    }
    wrong
}

fn of_visit(visit: &Visit, books: &Books) -> Vec<&'static str> {
    let mut wrong = vec![];
    let mut expect = |holds: bool, otherwise| {
        if !holds {
            wrong.push(otherwise);
        }
    };
    let of_visit = books.charges.iter().filter(|charge| charge.appointment == visit.appointment);
    let sum = |kind: &str, amount: fn(&Charge) -> i64| -> i64 {
        of_visit.clone().filter(|charge| charge.kind == kind).map(amount).sum()
    };
    let payments = books.payments.iter().filter(|payment| payment.appointment == visit.appointment);
    let received: i64 = payments.clone().map(|payment| payment.received).sum();
    let returned: i64 = payments.map(|payment| payment.refunded).sum();
    let captured = sum("COPAY", |c| c.captured) + sum("NO_SHOW_FEE", |c| c.captured);
    let refunded = sum("COPAY", |c| c.refunded) + sum("NO_SHOW_FEE", |c| c.refunded);
    expect(received == captured, "the provider took something else than billing says");
    expect(returned == refunded, "the provider gave back something else than billing says");

    // What the visit cost in the end, and how much of that no card gave.
    let net = |kind| sum(kind, |c| c.captured + c.owed);
    let refused = |kind| sum(kind, |c| if c.decline == NEVER_MADE { 0 } else { c.owed });
    let (copay, fee) = (net("COPAY"), net("NO_SHOW_FEE"));
    match visit.due {
        Due::Nothing => expect(copay + fee == 0, "a visit that costs nothing cost something"),
        Due::Copay => {
            expect(copay == visit.copay && fee == 0, "not exactly the co-pay");
            expect(!visit.pays || refused("COPAY") == 0, "owed, although the card would have paid");
        }
        Due::Fee => {
            expect(fee == visit.fee && copay == 0, "not exactly the fee");
            expect(!visit.pays || refused("NO_SHOW_FEE") == 0, "owed, although the card would have paid");
        }
        Due::CopayAfterAll => {
            let left = fee - sum("NO_SHOW_FEE", |c| c.refunded);
            expect(left == 0, "a fee that was not taken back whole");
            expect(copay == visit.copay, "not exactly the co-pay");
            expect(!visit.pays || refused("COPAY") == 0, "owed, although the card would have paid");
        }
    }
    let by_staff = match visit.due {
        Due::CopayAfterAll => sum("COPAY", |c| c.refunded),
        Due::Nothing | Due::Copay | Due::Fee => refunded,
    };
    expect(by_staff == visit.given_back, "not given back what staff gave back");
    wrong
}

/// What an account holds, on one charge or in all: debits less credits.
fn balance(books: &Books, charge: Option<&str>, account: &str) -> i64 {
    let lines = books.lines.iter().filter(|line| charge.is_none_or(|id| line.charge == id));
    lines.filter(|line| line.account == account).map(|line| line.amount).sum()
}

mod tests {
    //! Books that are right, and every fault that the judge exists for.

    use super::super::books::{Line, Payment};
    use super::*;

    const COPAY: i64 = 2_500;
    const FEE: i64 = 4_000;

    fn charge(id: &str, kind: &str, amount: i64, drawn: i64, state: &str) -> Charge {
        let captured = if state == "CAPTURED" { amount } else { 0 };
        Charge {
            id: id.into(),
            appointment: "a1".into(),
            kind: kind.into(),
            state: state.into(),
            amount,
            authorized: 0,
            captured,
            drawn,
            refunded: 0,
            owed: 0,
            decline: String::new(),
        }
    }

    fn entry(charge: &str, debit: &str, credit: &str, amount: i64) -> [Line; 2] {
        [(debit, amount), (credit, -amount)].map(|(account, amount)| Line {
            charge: charge.into(),
            entry: format!("{charge} {debit}"),
            account: account.into(),
            amount,
        })
    }

    fn payment(id: &str, charge: &str, status: &str, received: i64) -> Payment {
        let (appointment, charge) = ("a1".into(), charge.into());
        Payment { id: id.into(), appointment, charge, status: status.into(), received, refunded: 0 }
    }

    fn told(what: &str, charge: &str) -> (String, String) {
        (format!("clinic.billing.v1.{what}"), charge.into())
    }

    fn visit(due: Due) -> Visit {
        Visit { appointment: "a1".into(), due, copay: COPAY, fee: FEE, pays: true, given_back: 0 }
    }

    fn attended() -> (Visit, Books) {
        let books = Books {
            charges: vec![charge("c", "COPAY", COPAY, 0, "CAPTURED")],
            lines: [
                entry("c", "RECEIVABLE", "COPAY_REVENUE", COPAY),
                entry("c", "PROVIDER", "RECEIVABLE", COPAY),
            ]
            .concat(),
            payments: vec![payment("pi_1", "c", "succeeded", COPAY)],
            told: vec![told("CopayAuthorized", "c"), told("CopayCaptured", "c")],
        };
        (visit(Due::Copay), books)
    }

    fn missed() -> (Visit, Books) {
        let books = Books {
            charges: vec![
                charge("c", "COPAY", COPAY, 0, "VOIDED"),
                charge("f", "NO_SHOW_FEE", FEE, COPAY, "CAPTURED"),
            ],
            lines: [entry("f", "RECEIVABLE", "FEE_REVENUE", FEE), entry("f", "PROVIDER", "RECEIVABLE", FEE)]
                .concat(),
            payments: vec![
                payment("pi_1", "c", "succeeded", COPAY),
                payment("pi_2", "f", "succeeded", FEE - COPAY),
            ],
            told: vec![told("CopayVoided", "c"), told("NoShowFeeCharged", "f")],
        };
        (visit(Due::Fee), books)
    }

    /// Missed, then attended: the fee, all of it drawn, is given back, and the co-pay taken by a payment of its own.
    fn came_late() -> (Visit, Books) {
        let mut fee = charge("f", "NO_SHOW_FEE", COPAY, COPAY, "REFUNDED");
        (fee.captured, fee.refunded) = (COPAY, COPAY);
        let mut drawn = payment("pi_1", "c", "succeeded", COPAY);
        drawn.refunded = COPAY;
        let books = Books {
            charges: vec![charge("c", "COPAY", COPAY, 0, "CAPTURED"), fee],
            lines: [
                entry("c", "RECEIVABLE", "COPAY_REVENUE", COPAY),
                entry("c", "PROVIDER", "RECEIVABLE", COPAY),
            ]
            .concat(),
            payments: vec![drawn, payment("pi_2", "c", "succeeded", COPAY)],
            told: vec![told("CopayVoided", "c"), told("NoShowFeeCharged", "f"), told("CopayCaptured", "c")],
        };
        (visit(Due::CopayAfterAll), books)
    }

    #[test]
    fn right_books_are_left_in_peace() {
        for (visit, books) in [attended(), missed(), came_late()] {
            assert_eq!(judge(&[visit], &books), [""; 0]);
        }
    }

    #[test]
    fn every_planted_fault_is_found() {
        type Fault = (&'static str, fn() -> (Visit, Books), fn(&mut Visit, &mut Books));
        let faults: [Fault; 15] = [
            ("taken twice", attended, |_, books| {
                books.payments.push(payment("pi_9", "c", "succeeded", COPAY));
            }),
            ("taken twice", came_late, |_, books| {
                books.payments.push(payment("pi_9", "c", "succeeded", COPAY));
            }),
            ("not exactly the co-pay", came_late, |_, books| books.charges[0].captured = 0),
            ("took something else than its charge", missed, |_, books| books.charges[1].drawn = 0),
            ("a live payment", attended, |_, books| {
                books.payments.push(payment("pi_9", "c", "requires_capture", 0));
            }),
            ("of no visit", attended, |_, books| books.payments[0].appointment = "a9".into()),
            ("the ledger took something else", attended, |_, books| books.lines.truncate(2)),
            ("at the provider", missed, |_, books| books.lines[2].amount -= 1),
            ("does not sum to zero", missed, |_, books| books.lines[2].amount -= 1),
            ("the ledger owes something else", missed, |_, books| drop(books.lines.drain(..2))),
            ("a capture not told once", attended, |_, books| books.told.push(told("CopayCaptured", "c"))),
            ("a fee not told once", missed, |_, books| books.told.retain(|(what, _)| !what.contains("Fee"))),
            ("cost something", attended, |visit, _| visit.due = Due::Nothing),
            ("not taken back whole", missed, |visit, _| visit.due = Due::CopayAfterAll),
            ("gave back something else", attended, |_, books| books.payments[0].refunded = 1),
        ];
        for (words, books, plant) in faults {
            let (mut visit, mut books) = books();
            plant(&mut visit, &mut books);
            let wrong = judge(&[visit], &books);
            assert!(wrong.iter().any(|sentence| sentence.contains(words)), "{words}: {wrong:#?}");
        }
        let (visit, mut books) = attended();
        let charge = &mut books.charges[0];
        (charge.captured, charge.owed, charge.state) = (0, COPAY, "DECLINED".into());
        books.lines.truncate(2);
        books.payments.clear();
        books.told.pop();
        let owed = judge(std::slice::from_ref(&visit), &books);
        assert!(owed.len() == 1 && owed[0].contains("would have paid"), "{owed:#?}");
        assert_eq!(judge(&[Visit { pays: false, ..visit }], &books), [""; 0]);
    }
}
