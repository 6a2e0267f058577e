//! What clients were told is what is written down. Nothing that was acknowledged may be missing; since the history has no gaps and
//! its end is the appointment (`history`), what stands in it is in force until a later change.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Findings, Rule};
use crate::facts::{Answer, Call, Rows, State, Told, Verb};

pub(super) fn check(found: &mut Findings, rows: &Rows, log: &[Call]) {
    // Holds that were tried again with another call.
    let named: HashSet<(Uuid, Uuid)> = log
        .iter()
        .filter(|c| c.verb == Verb::Book)
        .filter_map(|c| Some((c.asked.appointment?, c.request)))
        .collect();
    let mut tried: HashMap<Uuid, HashSet<Uuid>> = HashMap::new();
    for (hold, request) in named {
        tried.entry(hold).or_default().insert(request);
    }
    // A refused call is not kept: asked once more, it may be done after all.
    let done: HashSet<(&str, Uuid)> = log
        .iter()
        .filter(|call| matches!(call.answer, Answer::Done(_)))
        .map(|call| (call.caller.as_str(), call.request))
        .collect();
    let mut first: HashMap<(&str, Uuid), &Told> = HashMap::new();
    for call in log {
        let kept = rows.requests.get(&(call.caller.clone(), call.request));
        match &call.answer {
            Answer::Done(told) => {
                written_down(found, rows, call, told);
                found.must(kept.is_some_and(|kept| kept.appointment == told.id), Rule::Lost, || {
                    format!(
                        "{} {} was done on {}, and the request is kept as {kept:?}",
                        call.caller, call.request, told.id
                    )
                });
                let before = *first.entry((&call.caller, call.request)).or_insert(told);
                // A booking repeats how it stands; everything else repeats what it said.
                let same = if call.verb == Verb::Book { before.id == told.id } else { before == told };
                found.must(same, Rule::TwoAnswers, || {
                    format!("{} {} was answered {before:?}, then {told:?}", call.caller, call.request)
                });
            }
            Answer::Refused(refusal) => {
                let before = first.get(&(call.caller.as_str(), call.request));
                found.must(before.is_none() || call.verb == Verb::Book, Rule::TwoAnswers, || {
                    format!(
                        "{} {} was done, {before:?}, then refused: {}",
                        call.caller, call.request, refusal.reason
                    )
                });
                let Some(kept) = kept.filter(|_| !done.contains(&(&call.caller, call.request))) else {
                    continue;
                };
                // A booking is kept with its hold, whatever then becomes of it.
                let booked_by_another =
                    tried.get(&kept.appointment).is_some_and(|by| by.iter().any(|r| *r != call.request));
                let booked = rows
                    .changes
                    .range((kept.appointment, 1)..=(kept.appointment, i64::MAX))
                    .any(|(_, c)| c.state == State::Booked);
                let undone = call.verb == Verb::Book && (!booked || booked_by_another);
                found.must(undone, Rule::RefusedYetDone, || {
                    format!(
                        "{} {} {:?} was refused with {}, and was done on {}",
                        call.caller, call.request, call.verb, refusal.reason, kept.appointment
                    )
                });
            }
            Answer::Nothing(last) => found.add(
                Rule::NoAnswer,
                format!(
                    "{} {} {:?} was sent {} times; the last word was {last}",
                    call.caller, call.request, call.verb, call.tries
                ),
            ),
        }
    }
}

/// What was acknowledged stands in the history as it was told, and is what was asked for.
fn written_down(found: &mut Findings, rows: &Rows, call: &Call, told: &Told) {
    let name = || format!("{} {} {:?}", call.caller, call.request, call.verb);
    let (Some(row), Some(change)) =
        (rows.reservations.get(&told.id), rows.changes.get(&(told.id, told.version)))
    else {
        found.add(Rule::Lost, format!("{} was answered {told:?}, of which nothing is written down", name()));
        return;
    };
    let same = (change.state, change.place, row.patient, row.service_type)
        == (told.state, told.place, told.patient, told.service_type);
    found.must(same, Rule::Different, || {
        format!("{} was answered {told:?}, and written down is {change:?}", name())
    });

    let asked = &call.asked;
    let is = |wish: Option<Uuid>, got: Uuid| wish.is_none_or(|wish| wish == got);
    let mut as_asked = is(asked.appointment, told.id)
        && is(asked.patient, told.patient)
        && is(asked.service_type, told.service_type);
    // A booking answers how it stands by now, which may be elsewhere; the others what they themselves did.
    if call.verb != Verb::Book {
        as_asked &= is(asked.clinic, told.place.clinic)
            && is(asked.provider, told.place.provider)
            && is(asked.room, told.place.room)
            && asked.start.is_none_or(|start| start == told.place.visit.start)
            && asked.etag.is_none_or(|etag| etag + 1 == told.version);
    } else if let (Some(start), Some(made)) = (asked.start, rows.changes.get(&(told.id, 1))) {
        as_asked &= is(asked.clinic, made.place.clinic)
            && is(asked.provider, made.place.provider)
            && is(asked.room, made.place.room)
            && start == made.place.visit.start;
    }
    let state = match call.verb {
        Verb::Hold => told.state == State::Held,
        Verb::Release => told.state == State::Released,
        Verb::Book => true,
        Verb::Reschedule => told.state == State::Booked,
        Verb::Cancel => told.state == State::Cancelled,
        Verb::CheckIn => told.state == State::CheckedIn,
        Verb::Complete if asked.no_show => told.state == State::NoShow,
        Verb::Complete => told.state == State::Completed,
    };
    found.must(as_asked && state, Rule::Different, || {
        format!("{} asked for {asked:?} and got {told:?}", name())
    });
}
