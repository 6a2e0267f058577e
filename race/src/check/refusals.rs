//! Every refusal has a reason of the contract's, with its code; and where it names an appointment in the way, that one was there and
//! in the way while the call was being answered.

use std::collections::HashMap;

use chrono::TimeDelta;
use uuid::Uuid;

use super::places::Stay;
use super::{Findings, Rule};
use crate::facts::{Answer, Call, Refusal, Rows, State, Verb};

/// A commit's time is taken a moment before others can see it: so much later a state may still be seen that has ended.
const UNSEEN: TimeDelta = TimeDelta::seconds(1);

/// Reasons that a client which asks for nothing impossible may be refused with: reason, code, and the calls that may say it.
const REASONS: &[(&str, &str, &[Verb])] = {
    use Verb::{Book, Cancel, CheckIn, Complete, Hold, Release, Reschedule};
    const TAKE: &[Verb] = &[Hold, Book, Reschedule];
    &[
        ("SLOT_TAKEN", "Aborted", &[Hold, Book, Reschedule, CheckIn]),
        ("ROOM_TAKEN", "Aborted", &[Hold, Book, Reschedule, CheckIn]),
        ("WITHIN_7_DAYS", "FailedPrecondition", &[Hold, Book, Reschedule, CheckIn]),
        ("PATIENT_BUSY", "FailedPrecondition", &[Hold, Book, Reschedule, CheckIn]),
        ("TOO_MANY_HOLDS", "ResourceExhausted", &[Hold, Book]),
        ("OUTSIDE_SCHEDULE", "FailedPrecondition", TAKE),
        ("TIME_OFF", "FailedPrecondition", TAKE),
        ("CLINIC_CLOSED", "FailedPrecondition", TAKE),
        ("BLACKOUT", "FailedPrecondition", TAKE),
        ("NO_SUITABLE_ROOM", "FailedPrecondition", TAKE),
        ("OFF_STEP", "FailedPrecondition", TAKE),
        ("TOO_SOON", "FailedPrecondition", TAKE),
        ("HOLD_EXPIRED", "FailedPrecondition", &[Book]),
        ("PAYMENT_DECLINED", "FailedPrecondition", &[Book]),
        ("WRONG_STATE", "FailedPrecondition", &[Release, Book, Reschedule, Cancel, CheckIn, Complete]),
        ("ETAG_MISMATCH", "Aborted", &[Reschedule, Cancel, CheckIn, Complete]),
        ("NOT_VISIT_DAY", "FailedPrecondition", &[CheckIn]),
        ("NOT_STARTED", "FailedPrecondition", &[Complete]),
    ]
};

pub(super) fn check(found: &mut Findings, rows: &Rows, stays: &[Stay], log: &[Call]) {
    let mut by_id: HashMap<Uuid, Vec<&Stay>> = HashMap::new();
    for stay in stays {
        by_id.entry(stay.id).or_default().push(stay);
    }
    for call in log {
        let Answer::Refused(refusal) = &call.answer else { continue };
        let known = REASONS.iter().any(|(reason, code, verbs)| {
            *reason == refusal.reason && *code == refusal.code && verbs.contains(&call.verb)
        });
        found.must(known, Rule::Reason, || {
            format!("{} {} {:?} was refused with {refusal:?}", call.caller, call.request, call.verb)
        });
        for (rule, subject) in &refusal.rules {
            let Some(id) = subject.strip_prefix("Appointment/").and_then(|id| id.parse().ok()) else {
                continue;
            };
            let in_the_way = by_id.get(&id).is_some_and(|versions| {
                versions.iter().any(|stay| {
                    stay.stood(call.begun - UNSEEN, call.ended) && is_in_the_way(rows, call, rule, stay)
                })
            });
            found.must(in_the_way, Rule::Untrue, || {
                format!(
                    "{} {} {:?} {:?} was refused with {rule} because of {id}, which was not in the way",
                    call.caller, call.request, call.verb, call.asked
                )
            });
        }
        if refusal.reason == "WRONG_STATE" {
            wrong_state(found, call, refusal, &by_id);
        }
    }
}

/// Whether `stay` breaks `rule` for what the call asked. What the client left open cannot be held against it.
fn is_in_the_way(rows: &Rows, call: &Call, rule: &str, stay: &Stay) -> bool {
    let asked = &call.asked;
    let own = asked.appointment.and_then(|id| rows.reservations.get(&id));
    let patient = asked.patient.or(own.map(|row| row.patient));
    let start = asked.start.or(own.map(|row| row.place.visit.start));
    let near = start.is_none_or(|start| {
        // The length of the visit asked for is the service's to know: half an hour and buffers at most.
        let reach = TimeDelta::hours(1);
        stay.place.visit.start - reach < start && start < stay.place.visit.end + reach
    });
    let is = |wish: Option<Uuid>, got: Uuid| wish.is_none_or(|wish| wish == got);
    match rule {
        "SLOT_TAKEN" => stay.state.occupies() && is(asked.provider, stay.place.provider) && near,
        "ROOM_TAKEN" => stay.state.occupies() && is(asked.room, stay.place.room) && near,
        "PATIENT_BUSY" => stay.is_the_patients() && is(patient, stay.patient) && near,
        "WITHIN_7_DAYS" => {
            stay.is_the_patients() && is(patient, stay.patient) && is(asked.provider, stay.place.provider)
        }
        "TOO_MANY_HOLDS" => stay.state == State::Held && is(patient, stay.patient),
        _ => true,
    }
}

/// The state that forbade it was its state at some moment of the call, and does forbid it.
fn wrong_state(found: &mut Findings, call: &Call, refusal: &Refusal, by_id: &HashMap<Uuid, Vec<&Stay>>) {
    let Some(versions) = call.asked.appointment.and_then(|id| by_id.get(&id)) else { return };
    let allowed = |state| match call.verb {
        Verb::Hold => true,
        Verb::Release | Verb::Book => state == State::Held,
        Verb::Reschedule | Verb::Cancel => matches!(state, State::Booked | State::Displaced),
        Verb::CheckIn => matches!(state, State::Booked | State::Displaced | State::NoShow),
        Verb::Complete if call.asked.no_show => matches!(state, State::Booked | State::Displaced),
        Verb::Complete => state == State::CheckedIn,
    };
    let so = versions.iter().any(|stay| stay.stood(call.begun - UNSEEN, call.ended) && !allowed(stay.state));
    found.must(so, Rule::Untrue, || {
        format!(
            "{} {} {:?} was refused with {}, and no state it had then forbids it",
            call.caller, call.request, call.verb, refusal.message
        )
    });
}
