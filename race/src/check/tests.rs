//! Lies planted among true facts: each kind of violation is found, and nothing is found in a truthful story.

use chrono::{DateTime, TimeDelta, TimeZone as _, Utc};
use uuid::Uuid;

use super::{Rule, check, sagas};
use crate::facts::{
    Answer, Asked, Call, Change, Charge, Intent, Kept, Place, Refusal, Reservation, Rows, Span, State, Told,
    Verb,
};

/// So many seconds into the story.
fn at(secs: i64) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 2, 12, 0, 0).single().expect("an instant") + TimeDelta::seconds(secs)
}

/// A visit that starts so many minutes into the story, a quarter of an hour long.
fn visit(minutes: i64) -> Span {
    Span { start: at(minutes * 60), end: at(minutes * 60 + 900) }
}

fn place(provider: u128, room: u128, minutes: i64) -> Place {
    Place { clinic: id(1), provider: id(provider), room: id(room), visit: visit(minutes) }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// The fee of appointment `n`, taken.
fn fee(n: u128) -> Charge {
    Charge {
        id: id(n + 2_000),
        appointment: id(n),
        kind: "NO_SHOW_FEE".into(),
        state: "CAPTURED".into(),
        amount: 2_500,
        captured: 2_500,
        refunded: 0,
        attempts: 0,
        paid: 2_500,
    }
}

/// Facts under construction.
#[derive(Default)]
struct Story {
    rows: Rows,
    log: Vec<Call>,
}

impl Story {
    /// Appointment `n` of `patient`, without a co-pay, with its versions: state, place and second of its commit.
    fn appointment(&mut self, n: u128, patient: u128, versions: &[(State, Place, i64)]) -> &mut Reservation {
        self.rows.zones.insert(id(1), chrono_tz::America::Chicago);
        for (version, &(state, place, secs)) in (1..).zip(versions) {
            let change = Change { reservation: id(n), version, state, place, committed: at(secs) };
            self.rows.changes.insert((id(n), version), change);
            self.rows.told.insert((id(n), version), 1);
        }
        let (state, place, _) = *versions.last().expect("a version");
        let row = Reservation {
            id: id(n),
            version: versions.len() as i64,
            state,
            patient: id(patient),
            service_type: id(2),
            place,
            occupied: place.visit,
            visit_date: place.visit.start.with_timezone(&chrono_tz::America::Chicago).date_naive(),
            copay: "not_required".into(),
            charge: None,
            driven: false,
            fee_due: false,
        };
        self.rows.reservations.entry(id(n)).insert_entry(row).into_mut()
    }

    /// Gives appointment `n` a co-pay whose charge is in `state`, with payments as (status, kept).
    fn copay(&mut self, n: u128, copay: &str, state: &str, payments: &[(&str, i64)]) {
        let captured = if state == "CAPTURED" { 4_000 } else { 0 };
        let charge = Charge {
            id: id(n + 1_000),
            appointment: id(n),
            kind: "COPAY".into(),
            state: state.into(),
            amount: 4_000,
            captured,
            refunded: 0,
            attempts: 1,
            paid: captured,
        };
        let row = self.rows.reservations.get_mut(&id(n)).expect("the appointment");
        (row.copay, row.charge) = (copay.into(), Some(charge.id));
        self.rows.charges.push(charge);
        self.rows.intents.extend(payments.iter().enumerate().map(|(i, (status, kept))| Intent {
            id: format!("pi_{n}_{i}"),
            appointment: id(n),
            status: (*status).into(),
            amount: 4_000,
            kept: *kept,
        }));
    }

    /// A call named `request`, from second `begun` to the next.
    fn call(&mut self, request: u128, verb: Verb, asked: Asked, begun: i64, answer: Answer) -> &mut Call {
        self.log.push(Call {
            caller: "client-0".into(),
            request: id(request),
            verb,
            asked,
            begun: at(begun),
            ended: at(begun + 1),
            tries: 1,
            answer,
        });
        self.log.last_mut().expect("just pushed")
    }

    /// A call that was done, as the history has it, and kept.
    fn done(&mut self, request: u128, verb: Verb, asked: Asked, (n, version): (u128, i64)) {
        let told = self.told(n, version);
        self.rows.requests.insert(("client-0".into(), id(request)), Kept { appointment: id(n) });
        self.call(request, verb, asked, 0, Answer::Done(told));
    }

    fn told(&self, n: u128, version: i64) -> Told {
        let (change, row) = (&self.rows.changes[&(id(n), version)], &self.rows.reservations[&id(n)]);
        Told {
            id: id(n),
            version,
            state: change.state,
            patient: row.patient,
            service_type: row.service_type,
            place: change.place,
        }
    }

    #[track_caller]
    fn finds(&self, rules: &[Rule]) {
        let found = check(&self.rows, &self.log);
        assert_eq!(found.iter().map(|v| v.rule).collect::<Vec<_>>(), rules, "{found:#?}");
    }
}

/// A slot asked for by patient 70.
fn asked(provider: u128, minutes: i64) -> Asked {
    Asked {
        patient: Some(id(70)),
        service_type: Some(id(2)),
        clinic: Some(id(1)),
        provider: Some(id(provider)),
        start: Some(visit(minutes).start),
        ..Asked::default()
    }
}

fn refused(code: &str, reason: &str, rules: &[(&str, &str)]) -> Answer {
    Answer::Refused(Refusal {
        code: code.into(),
        reason: reason.into(),
        rules: rules.iter().map(|(rule, subject)| ((*rule).into(), (*subject).into())).collect(),
        ..Refusal::default()
    })
}

use State::{Booked, Cancelled, CheckedIn, Completed, Displaced, Expired, Held, NoShow, Released};

#[test]
fn a_truthful_story_has_no_violations() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0), (Cancelled, place(20, 30, 60), 5)]);
    // The same provider, room and time, once the first had let go; in the very moment.
    story.appointment(11, 71, &[(Booked, place(20, 30, 60), 5)]);
    story.appointment(
        12,
        72,
        &[(Booked, place(20, 30, 75), 0), (Displaced, place(20, 30, 75), 1), (Booked, place(20, 31, 90), 2)],
    );
    story.done(1, Verb::Book, asked(20, 60), (10, 1));
    story.done(
        2,
        Verb::Cancel,
        Asked { appointment: Some(id(10)), etag: Some(1), ..Asked::default() },
        (10, 2),
    );
    let taken = "Appointment/00000000-0000-0000-0000-00000000000b";
    story.call(3, Verb::Book, asked(20, 60), 8, refused("Aborted", "SLOT_TAKEN", &[("SLOT_TAKEN", taken)]));
    story.appointment(13, 73, &[(Held, place(21, 32, 60), 0), (Booked, place(21, 32, 60), 2)]);
    story.copay(13, "authorized", "AUTHORIZED", &[("canceled", 0), ("requires_capture", 0)]);
    story.appointment(14, 74, &[(Held, place(22, 33, 60), 0), (Expired, place(22, 33, 60), 2)]);
    story.copay(14, "pending", "VOIDED", &[("canceled", 0)]);
    story.finds(&[]);
}

#[test]
fn two_visits_of_a_provider_at_once_are_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.appointment(11, 71, &[(Held, place(20, 31, 70), 1)]);
    story.finds(&[Rule::ProviderOverlap]);
}

#[test]
fn an_overlap_of_buffers_is_one_of_the_provider() {
    let mut story = Story::default();
    let row = story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    row.occupied.end += TimeDelta::minutes(10);
    story.appointment(11, 71, &[(Booked, place(20, 30, 75), 1)]);
    story.finds(&[Rule::ProviderOverlap]);
}

#[test]
fn an_overlap_that_was_over_before_the_end_is_found_in_the_history() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0), (Cancelled, place(20, 30, 60), 9)]);
    story.appointment(11, 71, &[(Booked, place(20, 31, 60), 5), (Booked, place(21, 31, 60), 6)]);
    story.finds(&[Rule::ProviderOverlap]);
}

#[test]
fn a_room_taken_twice_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(CheckedIn, place(20, 30, 60), 0)]);
    story.rows.changes.get_mut(&(id(10), 1)).expect("a version").state = CheckedIn;
    story.appointment(11, 71, &[(Booked, place(21, 30, 60), 1)]);
    // Nobody begins checked in.
    story.finds(&[Rule::RoomOverlap, Rule::HistoryStep]);
}

#[test]
fn a_patient_in_two_visits_at_once_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.appointment(11, 70, &[(Booked, place(21, 31, 65), 1)]);
    story.finds(&[Rule::PatientOverlap]);
}

#[test]
fn two_visits_with_a_provider_within_seven_days_are_found_by_the_clinics_own_days() {
    const DAY: i64 = 24 * 60;
    let mut story = Story::default();
    // 23:30 in Chicago on the 2nd and 00:30 on the 9th: seven days apart by the calendar, less by the clock.
    story.appointment(10, 70, &[(Booked, place(20, 30, 17 * 60 + 30), 0)]);
    story.appointment(11, 70, &[(Booked, place(20, 30, 6 * DAY + 18 * 60 + 30), 1)]);
    story.finds(&[]);
    story.appointment(12, 70, &[(Booked, place(20, 30, 5 * DAY), 2)]);
    story.finds(&[Rule::SevenDays, Rule::SevenDays]);
}

#[test]
fn a_date_that_is_not_the_clinics_is_found() {
    let mut story = Story::default();
    let row = story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    row.visit_date += TimeDelta::days(1);
    story.finds(&[Rule::VisitDate]);
}

#[test]
fn two_open_holds_of_a_patient_are_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 0)]);
    story.appointment(11, 70, &[(Held, place(21, 31, 120), 1)]);
    story.finds(&[Rule::TwoHolds]);
}

#[test]
fn a_missing_version_and_a_newest_that_is_not_the_row_are_found() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    story.appointment(10, 70, &[(Booked, there, 0), (Displaced, there, 1), (Booked, there, 2)]);
    story.rows.changes.remove(&(id(10), 2));
    story.rows.told.remove(&(id(10), 2));
    story.appointment(11, 71, &[(Booked, place(21, 31, 60), 0)]).state = Displaced;
    story.finds(&[Rule::HistoryGap, Rule::HistoryGap]);
}

#[test]
fn a_state_that_may_not_follow_is_found() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    story.appointment(10, 70, &[(Held, there, 0), (Released, there, 1), (Booked, there, 2)]);
    story.finds(&[Rule::HistoryStep]);
}

#[test]
fn an_event_that_is_missing_doubled_or_of_nothing_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.appointment(11, 71, &[(Booked, place(21, 31, 60), 0)]);
    story.rows.told.remove(&(id(10), 1));
    story.rows.told.insert((id(11), 1), 2);
    story.rows.told.insert((id(12), 1), 1);
    story.finds(&[Rule::Event, Rule::Event, Rule::Event]);
}

#[test]
fn an_acknowledged_booking_that_is_missing_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.done(1, Verb::Book, asked(20, 60), (10, 1));
    story.rows = Rows { requests: story.rows.requests, ..Rows::default() };
    story.finds(&[Rule::Lost]);
}

#[test]
fn an_acknowledged_cancellation_that_is_not_in_force_is_found() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    story.appointment(10, 70, &[(Booked, there, 0), (Cancelled, there, 1)]);
    story.done(1, Verb::Cancel, Asked { appointment: Some(id(10)), ..Asked::default() }, (10, 2));
    story.appointment(10, 70, &[(Booked, there, 0), (Displaced, there, 1)]);
    story.finds(&[Rule::Different]);
}

#[test]
fn a_move_that_is_acknowledged_and_written_down_elsewhere_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0), (Booked, place(21, 31, 90), 1)]);
    let to = Asked { appointment: Some(id(10)), patient: None, service_type: None, ..asked(21, 90) };
    story.done(1, Verb::Reschedule, to.clone(), (10, 2));
    story.finds(&[]);
    // Told of another room than the one that is written down.
    if let Some(Call { answer: Answer::Done(told), .. }) = story.log.last_mut() {
        told.place.room = id(32);
    }
    story.finds(&[Rule::Different]);
    // Another time than the one asked for.
    story.log.clear();
    story.done(1, Verb::Reschedule, Asked { start: Some(visit(95).start), ..to }, (10, 2));
    story.finds(&[Rule::Different]);
}

#[test]
fn an_acknowledgement_that_would_be_forgotten_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.done(1, Verb::Book, asked(20, 60), (10, 1));
    story.rows.requests.clear();
    story.finds(&[Rule::Lost]);
}

#[test]
fn two_answers_to_one_request_are_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.appointment(11, 70, &[(Booked, place(21, 31, 120), 0)]);
    story.done(1, Verb::Book, Asked { provider: None, start: None, ..asked(20, 60) }, (10, 1));
    let other = story.told(11, 1);
    story.call(1, Verb::Book, Asked { patient: Some(id(70)), ..Asked::default() }, 2, Answer::Done(other));
    // What is kept is the first.
    story.finds(&[Rule::Lost, Rule::TwoAnswers]);
}

#[test]
fn a_change_that_was_done_and_refused_when_repeated_is_found() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    story.appointment(10, 70, &[(Booked, there, 0), (Cancelled, there, 1)]);
    let cancel = Asked { appointment: Some(id(10)), ..Asked::default() };
    story.done(1, Verb::Cancel, cancel.clone(), (10, 2));
    story.call(1, Verb::Cancel, cancel, 2, refused("FailedPrecondition", "WRONG_STATE", &[]));
    story.finds(&[Rule::TwoAnswers]);
}

#[test]
fn a_refused_booking_that_stands_all_the_same_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    story.rows.requests.insert(("client-0".into(), id(1)), Kept { appointment: id(10) });
    story.call(1, Verb::Book, asked(20, 60), 0, refused("FailedPrecondition", "HOLD_EXPIRED", &[]));
    story.finds(&[Rule::RefusedYetDone]);
}

#[test]
fn refusals_without_a_known_reason_are_found() {
    let mut story = Story::default();
    let refusals = [
        ("Internal", "INTERNAL"),
        ("Aborted", ""),
        ("FailedPrecondition", "SLOT_TAKEN"),
        ("FailedPrecondition", "NOT_STARTED"),
        ("InvalidArgument", "INVALID_FIELD"),
    ];
    for (request, (code, reason)) in (1..).zip(refusals) {
        story.call(request, Verb::Book, asked(20, 60), 0, refused(code, reason, &[]));
    }
    story.finds(&[Rule::Reason; 5]);
}

#[test]
fn a_refusal_for_an_appointment_that_was_not_in_the_way_is_found() {
    let ten = "Appointment/00000000-0000-0000-0000-00000000000a";
    let cases = [
        ("Aborted", "SLOT_TAKEN", asked(21, 60), 1),
        ("Aborted", "SLOT_TAKEN", asked(20, 600), 1),
        // It had ended long before.
        ("Aborted", "SLOT_TAKEN", asked(20, 60), 50),
        ("Aborted", "ROOM_TAKEN", Asked { room: Some(id(31)), ..asked(20, 60) }, 1),
        ("FailedPrecondition", "PATIENT_BUSY", Asked { patient: Some(id(71)), ..asked(20, 60) }, 1),
        ("FailedPrecondition", "WITHIN_7_DAYS", asked(21, 60), 1),
        ("ResourceExhausted", "TOO_MANY_HOLDS", asked(20, 60), 1),
    ];
    for (code, reason, asked, begun) in cases {
        let mut story = Story::default();
        story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0), (Cancelled, place(20, 30, 60), 9)]);
        story.call(1, Verb::Book, asked, begun, refused(code, reason, &[(reason, ten)]));
        story.finds(&[Rule::Untrue]);
    }
}

#[test]
fn a_wrong_state_that_it_never_had_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    let named = Asked { appointment: Some(id(10)), ..Asked::default() };
    story.call(1, Verb::Cancel, named.clone(), 1, refused("FailedPrecondition", "WRONG_STATE", &[]));
    story.finds(&[Rule::Untrue]);
    story.log.clear();
    story.call(2, Verb::Release, named, 1, refused("FailedPrecondition", "WRONG_STATE", &[]));
    story.finds(&[]);
}

#[test]
fn a_call_that_was_never_answered_is_found() {
    let mut story = Story::default();
    story.call(1, Verb::Hold, asked(20, 60), 0, Answer::Nothing("unavailable".into()));
    story.finds(&[Rule::NoAnswer]);
}

#[test]
fn two_payments_that_hold_money_are_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 0), (Booked, place(20, 30, 60), 1)]);
    story.copay(10, "authorized", "AUTHORIZED", &[("requires_capture", 0), ("requires_capture", 0)]);
    story.finds(&[Rule::DoubleAuthorization, Rule::Unpaid, Rule::Books]);
}

#[test]
fn money_held_for_a_dead_hold_is_found() {
    for state in [Expired, Released] {
        let mut story = Story::default();
        story.appointment(10, 70, &[(Held, place(20, 30, 60), 0), (state, place(20, 30, 60), 1)]);
        story.copay(10, "declined", "AUTHORIZED", &[("requires_capture", 0)]);
        story.finds(&[Rule::Unfounded]);
    }
}

#[test]
fn money_held_for_no_appointment_or_for_a_free_visit_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Booked, place(20, 30, 60), 0)]);
    for n in [10, 99] {
        let status = "requires_capture".into();
        story.rows.intents.push(Intent {
            id: "pi".into(),
            appointment: id(n),
            status,
            amount: 4_000,
            kept: 0,
        });
    }
    story.finds(&[Rule::Unfounded, Rule::Unfounded]);
}

#[test]
fn a_booked_copay_without_a_live_authorization_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 0), (Booked, place(20, 30, 60), 1)]);
    story.copay(10, "authorized", "VOIDED", &[("canceled", 0)]);
    story.finds(&[Rule::Unpaid]);
}

#[test]
fn an_attended_visit_without_its_money_is_found() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    let versions = [(Held, there, 0), (Booked, there, 1), (CheckedIn, there, 2), (Completed, there, 3)];
    story.appointment(10, 70, &versions);
    story.copay(10, "authorized", "CAPTURED", &[("succeeded", 4_000)]);
    story.finds(&[]);
    story.rows.intents[0].kept = 3_000;
    story.finds(&[Rule::Unpaid, Rule::Books]);
}

#[test]
fn a_fee_may_be_taken_of_a_missed_visit_but_nothing_stay_reserved() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    story.appointment(10, 70, &[(Held, there, 0), (Booked, there, 1), (NoShow, there, 2)]).fee_due = true;
    story.copay(10, "authorized", "VOIDED", &[("succeeded", 2_500)]);
    story.rows.charges.push(fee(10));
    story.finds(&[]);
    story.rows.charges[0].state = "AUTHORIZED".into();
    story.rows.intents[0] =
        Intent { status: "requires_capture".into(), kept: 0, ..story.rows.intents[0].clone() };
    story.finds(&[Rule::Unfounded]);
}

#[test]
fn who_came_after_all_gets_the_fee_back_and_pays_the_copay() {
    let mut story = Story::default();
    let there = place(20, 30, 60);
    let versions = [
        (Held, there, 0),
        (Booked, there, 1),
        (NoShow, there, 2),
        (CheckedIn, there, 3),
        (Completed, there, 4),
    ];
    story.appointment(10, 70, &versions).fee_due = true;
    story.copay(10, "authorized", "CAPTURED", &[("succeeded", 0), ("succeeded", 4_000)]);
    story.rows.charges.push(Charge { state: "REFUNDED".into(), refunded: 2_500, ..fee(10) });
    story.finds(&[]);
    story.rows.intents[0].kept = 2_500;
    story.finds(&[Rule::DoubleAuthorization, Rule::Unfounded, Rule::Books]);
}

#[test]
fn a_charge_on_its_way_and_a_ledger_that_differs_are_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 0), (Released, place(20, 30, 60), 1)]);
    story.copay(10, "pending", "VOIDING", &[("canceled", 0)]);
    story.rows.charges[0].paid = 4_000;
    story.finds(&[Rule::Books, Rule::Books]);
}

#[test]
fn a_booking_left_open_is_found() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 0)]);
    story.copay(10, "pending", "DECLINED", &[]);
    story.rows.reservations.get_mut(&id(10)).expect("the appointment").driven = true;
    story.finds(&[Rule::Saga]);
}

#[test]
fn a_booking_open_longer_than_promised_is_found_unless_a_kill_prolonged_it() {
    let mut story = Story::default();
    story.appointment(10, 70, &[(Held, place(20, 30, 60), 1), (Booked, place(20, 30, 60), 41)]);
    story.copay(10, "authorized", "AUTHORIZED", &[("requires_capture", 0)]);
    story.done(1, Verb::Book, asked(20, 60), (10, 1));
    story.finds(&[Rule::Saga]);
    story.rows.kills = vec![at(15), at(60)];
    story.finds(&[]);
    let saga = sagas(&story.rows, &story.log)[0];
    assert_eq!((saga.took, saga.undisturbed), (TimeDelta::seconds(41), TimeDelta::seconds(26)));
}

#[test]
fn what_services_could_not_do_is_found() {
    let mut story = Story::default();
    story.rows.unpublished = 1;
    story.rows.dead_letters.push("an event".into());
    story.rows.surfaced_deadlocks.push("a line".into());
    story.rows.stray_transactions.push("a line".into());
    story.rows.panics.push("a line".into());
    story.finds(&[Rule::Messaging, Rule::Messaging, Rule::Deadlock, Rule::StrayTransaction, Rule::Panic]);
}
