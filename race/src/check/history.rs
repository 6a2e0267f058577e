//! Every version is there, follows from the one before, and was told once; and every booking with a co-pay came to an end in time.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Findings, Rule};
use crate::facts::{Answer, Call, Change, Rows, State, Verb};

/// How long a booking may be open after it began, or after the last kill while it was open.
pub const SAGA_BOUND: TimeDelta = TimeDelta::seconds(30);

pub(super) fn check(found: &mut Findings, rows: &Rows, log: &[Call]) {
    let mut before: Option<&Change> = None;
    for change in rows.changes.values() {
        let (id, version) = (change.reservation, change.version);
        before = before.filter(|b| b.reservation == id);
        let expected = before.map_or(1, |b| b.version + 1);
        found.must(version == expected, Rule::HistoryGap, || {
            format!("{id} has version {version} where {expected} belongs")
        });
        let allowed = match before {
            Some(b) => b.state.may_become(change.state) && b.committed <= change.committed,
            None => matches!(change.state, State::Held | State::Offered | State::Booked),
        };
        found.must(allowed, Rule::HistoryStep, || {
            let from = before.map_or("nothing".to_owned(), |b| format!("{:?}", b.state));
            format!("{id} version {version} went from {from} to {:?}", change.state)
        });
        let told = rows.told.get(&(id, version)).copied().unwrap_or(0);
        found.must(told == 1, Rule::Event, || format!("{id} version {version} was told {told} times"));
        before = Some(change);
    }
    for row in rows.reservations.values() {
        let newest = rows.changes.range((row.id, i64::MIN)..=(row.id, i64::MAX)).next_back().map(|(_, c)| c);
        let same =
            newest.is_some_and(|c| (c.version, c.state, c.place) == (row.version, row.state, row.place));
        found.must(same, Rule::HistoryGap, || {
            format!(
                "{} is at version {} {:?}, and its history ends with {newest:?}",
                row.id, row.version, row.state
            )
        });
        let open = row.state == State::Held && row.driven && row.copay == "pending";
        found.must(!open, Rule::Saga, || format!("{} is still being booked", row.id));
    }
    for &(id, version) in rows.told.keys() {
        found.must(rows.changes.contains_key(&(id, version)), Rule::Event, || {
            format!("{id} version {version} was told, and is not in the history")
        });
    }
    for saga in sagas(rows, log) {
        found.must(saga.undisturbed <= SAGA_BOUND, Rule::Saga, || {
            format!(
                "{} was open for {} s, {} s after the last kill",
                saga.id,
                saga.took.num_seconds(),
                saga.undisturbed.num_seconds()
            )
        });
    }
}

/// A booking with a co-pay, from the first call that asked for it to its end.
#[derive(Clone, Copy, Debug)]
pub struct Saga {
    /// Which appointment.
    pub id: Uuid,
    /// How long it was open.
    pub took: TimeDelta,
    /// How long of that after the last kill before its end.
    pub undisturbed: TimeDelta,
}

/// Every booking with a co-pay that came to an end.
pub fn sagas(rows: &Rows, log: &[Call]) -> Vec<Saga> {
    let mut sagas = vec![];
    for call in log.iter().filter(|call| call.verb == Verb::Book) {
        let id = match &call.answer {
            Answer::Done(told) => Some(told.id),
            Answer::Refused(refusal) => refusal.hold,
            Answer::Nothing(_) => None,
        };
        let kept = || rows.requests.get(&(call.caller.clone(), call.request)).map(|kept| kept.appointment);
        let Some(row) = id.or_else(kept).and_then(|id| rows.reservations.get(&id)) else { continue };
        if row.copay == "not_required" {
            continue;
        }
        // A hold that was answered is not decided yet; a hold that ran out undecided was open until then.
        let decided = match &call.answer {
            Answer::Done(told) if told.state == State::Held => None,
            Answer::Nothing(_) => None,
            Answer::Done(_) | Answer::Refused(_) => Some(call.ended),
        };
        let written =
            rows.changes.range((row.id, 2)..=(row.id, i64::MAX)).map(|(_, change)| change).find(|change| {
                let ran_out = change.state == State::Expired && row.copay == "pending";
                change.committed > call.begun && (change.state == State::Booked || ran_out)
            });
        let Some(end) = decided.into_iter().chain(written.map(|change| change.committed)).min() else {
            continue;
        };
        let last_kill = rows.kills[..rows.kills.partition_point(|kill| *kill < end)].last();
        let from = last_kill.map_or(call.begun, |kill| call.begun.max(*kill));
        sagas.push(Saga { id: row.id, took: end - call.begun, undisturbed: end - from });
    }
    sagas
}
