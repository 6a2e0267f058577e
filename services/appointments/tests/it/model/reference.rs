//! What the contract says should become of each command, in memory and without a database.

mod followed;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use appointments::domain::{Copay, Span, State};
use chrono::{TimeDelta, TimeZone as _, Utc};
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::commands::{self, Answer, At, Command, KINDS, PROVIDERS, ROOMS, Want};
use super::neighbours::{Calendars, Reply, Standing, Till, local_day, spans};
use super::values::{Appt, Event, Expect, View, no};

const HOLD: TimeDelta = TimeDelta::minutes(5);
const LEASE: TimeDelta = TimeDelta::seconds(15);
const RETRY: TimeDelta = TimeDelta::seconds(2);
const ASK_AGAIN: TimeDelta = TimeDelta::seconds(10);
/// The only rule of the schedule here.
const BLACKOUT: &str = "BLACKOUT";

/// What stays beside a request id.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Answer(View),
    /// Whom to ask how it went.
    Receipt(usize),
}

/// The last call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    /// Names its request id.
    pub(crate) number: usize,
    kept: Kept,
}

/// Everything there is.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) now: At,
    pub(crate) calendars: Calendars,
    pub(crate) till: Till<usize, u32>,
    /// The attempt that each appointment is in.
    attempts: BTreeMap<usize, u32>,
    attempted: u32,
    /// The attempts that billing has been asked about.
    pub(crate) asked: BTreeSet<u32>,
    seen: [i64; PROVIDERS],
    pub(crate) appts: Vec<Appt>,
    pub(crate) told: Vec<Event>,
    pub(crate) last: Option<Call>,
    calls: usize,
    /// What the last command should be answered.
    pub(crate) expected: Expect,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an empty clinic")
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Command;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::new()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Command> {
        commands::next(state)
    }

    fn apply(mut state: Self, command: &Command) -> Self {
        state.expected = state.run(*command);
        state
    }
}

impl Model {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        // Half a minute past, so that no boundary of a rule is met by a hair; the clocks change within a week.
        let now = Utc.with_ymd_and_hms(2027, 3, 8, 12, 0, 30).single().expect("an instant");
        Self {
            now,
            calendars: Calendars::new(),
            till: Till::default(),
            attempts: BTreeMap::new(),
            attempted: 0,
            asked: BTreeSet::new(),
            seen: [0; PROVIDERS],
            appts: vec![],
            told: vec![],
            last: None,
            calls: 0,
            expected: Expect::Nothing,
        }
    }

    fn run(&mut self, command: Command) -> Expect {
        match command {
            Command::Pass(secs) => self.now += TimeDelta::seconds(secs),
            Command::PassTo(at) => self.now = self.now.max(at),
            Command::Block { provider, from, minutes, told } => {
                let block = Span { start: from, end: from + TimeDelta::minutes(minutes) };
                self.calendars.blocked[provider].push(block);
                self.calendar_changed(provider, block, told);
            }
            Command::Unblock { provider, told } => {
                if let Some(block) = self.calendars.blocked[provider].pop() {
                    self.calendar_changed(provider, block, told);
                }
            }
            Command::Settle { which, passed } => self.settle(which, passed),
            Command::Deliver { event } => {
                if let Some(event) = self.told.get(event).copied() {
                    self.deliver(event);
                }
            }
            Command::Look(answer) => self.look(answer),
            Command::Restart => {}
            Command::Repeat { other_body } => return self.repeat(other_body),
            Command::Hold(_)
            | Command::Book(..)
            | Command::BookHold { .. }
            | Command::Release { .. }
            | Command::Cancel { .. }
            | Command::CheckIn { .. }
            | Command::Complete { .. }
            | Command::Reschedule { .. } => return self.call(command),
        }
        Expect::Nothing
    }

    /// The appointment that a command names; `None` while there is none.
    pub(crate) fn which(&self, which: usize) -> Option<usize> {
        which.checked_rem(self.appts.len())
    }

    fn call(&mut self, command: Command) -> Expect {
        self.calls += 1;
        let Some(command) = self.resolved(command) else { return Expect::Nothing };
        let (expect, kept) = self.perform(command);
        self.last = Some(Call { command, number: self.calls, kept });
        expect
    }

    /// The command with the number of its appointment, which stays right when more are made.
    fn resolved(&self, mut command: Command) -> Option<Command> {
        if let Some(which) = command.which() {
            *which = self.which(*which)?;
        }
        Some(command)
    }

    fn repeat(&mut self, other_body: bool) -> Expect {
        let Some(Call { command, number, kept }) = self.last.clone() else { return Expect::Nothing };
        match kept {
            Kept::Nothing if other_body => Expect::Nothing,
            Kept::Answer(_) | Kept::Receipt(_) if other_body => no("REQUEST_ID_REUSED"),
            Kept::Answer(view) => Expect::Shown(view),
            Kept::Receipt(i) => self.settled(i, Answer::Authorized),
            // A refusal leaves nothing, so it is a new call.
            Kept::Nothing => {
                let (expect, kept) = self.perform(command);
                self.last = Some(Call { command, number, kept });
                expect
            }
        }
    }

    fn perform(&mut self, command: Command) -> (Expect, Kept) {
        let done = match command {
            Command::Hold(want) => self.take(want, State::Held, false),
            Command::Book(want, answer) if KINDS[want.kind].copay => {
                return match self.take(want, State::Held, true) {
                    Ok(i) => (self.drive(i, true, answer), Kept::Receipt(i)),
                    Err(refused) => (refused, Kept::Nothing),
                };
            }
            Command::Book(want, _) => match self.take(want, State::Booked, false) {
                Ok(i) => return (self.shown(i), Kept::Receipt(i)),
                Err(refused) => Err(refused),
            },
            Command::BookHold { which, answer } => return self.book_hold(which, answer),
            Command::Release { which, stale } => self.change(which, stale, |a, _| {
                let held = a.state == State::Held;
                held.then(|| a.become_(State::Released)).ok_or("WRONG_STATE")
            }),
            Command::Cancel { which, stale, by_clinic } => self.change(which, stale, |a, now| {
                let displaced = a.state == State::Displaced;
                if !displaced && a.state != State::Booked {
                    return Err("WRONG_STATE");
                }
                a.fee_due = !by_clinic && !displaced && !a.timely(now);
                a.become_(State::Cancelled);
                Ok(())
            }),
            Command::Complete { which, stale, no_show } => self.change(which, stale, |a, now| {
                match (a.state, no_show) {
                    (State::Booked | State::Displaced, true) if now < a.start => return Err("NOT_STARTED"),
                    (State::Booked | State::Displaced, true) => a.fee_due = a.state == State::Booked,
                    (State::CheckedIn, false) => a.fee_due = false,
                    _ => return Err("WRONG_STATE"),
                }
                a.become_(if no_show { State::NoShow } else { State::Completed });
                Ok(())
            }),
            Command::CheckIn { which, stale } => self.check_in(which, stale),
            Command::Reschedule { which, stale, clinic, provider, start } => {
                self.reschedule(which, stale, clinic, provider, start)
            }
            _ => return (Expect::Nothing, Kept::Nothing),
        };
        match done {
            Ok(i) => (self.shown(i), Kept::Answer(self.appts[i].view())),
            Err(refused) => (refused, Kept::Nothing),
        }
    }

    fn shown(&self, i: usize) -> Expect {
        Expect::Shown(self.appts[i].view())
    }

    /// A change that concerns no other appointment.
    fn change(
        &mut self,
        i: usize,
        stale: bool,
        change: impl FnOnce(&mut Appt, At) -> Result<(), &'static str>,
    ) -> Result<usize, Expect> {
        if stale {
            return Err(no("ETAG_MISMATCH"));
        }
        change(&mut self.appts[i], self.now).map(|()| i).map_err(no)
    }

    fn take(&mut self, want: Want, state: State, drive: bool) -> Result<usize, Expect> {
        let visit = spans(want.kind, want.start).0;
        let rooms = ROOMS[want.clinic];
        let new = |provider: usize| Appt {
            version: 1,
            state,
            patient: want.patient,
            kind: want.kind,
            clinic: want.clinic,
            provider,
            room: usize::MAX,
            start: want.start,
            hold_expires: (state == State::Held).then_some(self.now + HOLD),
            calendar_version: self.calendars.versions[provider],
            fee_start: want.start,
            fee_due: false,
            copay: if KINDS[want.kind].copay { Copay::Pending } else { Copay::NotRequired },
            charged: false,
            driven_until: drive.then_some(self.now + LEASE),
            judge_at: None,
            displaced: false,
            reasons: vec![],
        };
        let asked = want.provider.map_or((0..PROVIDERS).collect(), |p| vec![p]);
        let fit: Vec<_> = asked.into_iter().filter(|p| self.calendars.allow(*p, visit)).map(new).collect();
        if fit.is_empty() {
            let mut must = want.provider.map_or(BTreeSet::new(), |p| self.clashes(&new(p), &[], None));
            must.insert(BLACKOUT);
            return Err(Expect::Refused(must, self.unswept()));
        }
        let mut clashes = BTreeSet::new();
        for mut new in fit {
            clashes = self.clashes(&new, rooms, None);
            if clashes.is_empty() {
                self.clear_the_way(&new, self.rooms_to_clear(&new, rooms, None));
                new.room = self.free_room(&new, rooms, None).expect("there is no clash");
                self.appts.push(new);
                let i = self.appts.len() - 1;
                if drive {
                    self.attempt(i);
                }
                return Ok(i);
            }
            // What no other provider can mend.
            if ["PATIENT_BUSY", "TOO_MANY_HOLDS", "ROOM_TAKEN"].iter().any(|rule| clashes.contains(rule)) {
                break;
            }
        }
        Err(Expect::Refused(clashes, BTreeSet::new()))
    }

    fn attempt(&mut self, i: usize) {
        self.attempted += 1;
        self.attempts.insert(i, self.attempted);
    }

    fn book_hold(&mut self, i: usize, answer: Answer) -> (Expect, Kept) {
        let a = &self.appts[i];
        let mut version = a.calendar_version;
        if a.state == State::Held && self.seen[a.provider] > version {
            if !self.calendars.allow(a.provider, a.visit()) {
                return (no(BLACKOUT), Kept::Nothing);
            }
            version = self.calendars.versions[a.provider];
        }
        if a.state != State::Held || a.is_over(self.now) {
            let reason = match a.state {
                State::Held | State::Expired | State::Declined => "HOLD_EXPIRED",
                State::Released if !a.reasons.is_empty() => "OVERTAKEN",
                _ => "WRONG_STATE",
            };
            return (no(reason), Kept::Nothing);
        }
        let free = a.driven_until.is_none_or(|end| end <= self.now) || a.copay == Copay::ActionRequired;
        if !free {
            return (self.settled(i, answer), Kept::Receipt(i));
        }
        let a = &mut self.appts[i];
        a.driven_until = Some(self.now + LEASE);
        a.calendar_version = a.calendar_version.max(version);
        if a.copay != Copay::NotRequired {
            a.copay = Copay::Pending;
        }
        self.attempt(i);
        (self.drive(i, false, answer), Kept::Receipt(i))
    }

    fn ask(&mut self, i: usize, answer: Answer) -> Reply {
        let standing = |model: &Self| model.till.charges.get(&i).map(|(_, standing)| *standing);
        let before = standing(self);
        let attempt = self.attempts[&i];
        self.asked.insert(attempt);
        let reply = self.till.ask(i, attempt, answer);
        match standing(self) {
            after if after == before => {}
            Some(Standing::Authorized) => self.told.push(Event::Authorized(i)),
            Some(Standing::Declined) => self.told.push(Event::Failed(i)),
            _ => {}
        }
        reply
    }

    fn drive(&mut self, i: usize, created: bool, answer: Answer) -> Expect {
        let a = &self.appts[i];
        if a.state != State::Held || !self.attempts.contains_key(&i) {
            return self.shown(i);
        }
        if a.copay == Copay::NotRequired {
            return self.confirm(i, Copay::NotRequired, false);
        }
        let reply = self.ask(i, answer);
        let (a, now) = (&mut self.appts[i], self.now);
        match reply {
            Reply::Authorized => return self.confirm(i, Copay::Authorized, true),
            Reply::NotDue => return self.confirm(i, Copay::NotRequired, false),
            Reply::ActionRequired => a.note(Copay::ActionRequired, true, Some(now + ASK_AGAIN)),
            Reply::Busy => a.note(Copay::Pending, true, Some(now + RETRY)),
            Reply::Unknown => a.note(Copay::Pending, false, Some(now + RETRY)),
            Reply::Declined => {
                a.note(Copay::Declined, false, None);
                return no("PAYMENT_DECLINED");
            }
            Reply::Refused => {
                if created {
                    a.become_(State::Released)
                } else {
                    a.note(Copay::Pending, false, None)
                }
                return no("REMOTE");
            }
            Reply::Dead => return no("INTERNAL"),
        }
        self.shown(i)
    }

    fn confirm(&mut self, i: usize, copay: Copay, charged: bool) -> Expect {
        let a = &mut self.appts[i];
        match a.state {
            State::Held if a.is_over(self.now) => {
                a.expire();
                return no("HOLD_EXPIRED");
            }
            State::Held => {
                a.become_(State::Booked);
                (a.copay, a.charged) = (copay, a.charged || charged);
            }
            _ => {}
        }
        self.shown(i)
    }

    /// How the call that drives a booking was answered, or where it stands.
    fn settled(&mut self, i: usize, answer: Answer) -> Expect {
        let a = &self.appts[i];
        match (a.state, a.copay) {
            (State::Held, Copay::ActionRequired) => self.drive(i, false, answer),
            (State::Held, Copay::Declined) => no("PAYMENT_DECLINED"),
            (State::Expired | State::Declined, _) => no("HOLD_EXPIRED"),
            (State::Released, _) => no(if a.reasons.is_empty() { "WRONG_STATE" } else { "OVERTAKEN" }),
            _ => self.shown(i),
        }
    }

    fn check_in(&mut self, i: usize, stale: bool) -> Result<usize, Expect> {
        if stale {
            return Err(no("ETAG_MISMATCH"));
        }
        let (a, now) = (self.appts[i].clone(), self.now);
        if !matches!(a.state, State::Booked | State::Displaced | State::NoShow) {
            return Err(no("WRONG_STATE"));
        }
        if local_day(a.clinic, now) != local_day(a.clinic, a.start) {
            return Err(no("NOT_VISIT_DAY"));
        }
        if a.state == State::NoShow {
            // The time was free for others meanwhile.
            let clashes = self.clashes(&a, &[a.room], Some(i));
            if !clashes.is_empty() {
                return Err(Expect::Refused(clashes, self.unswept()));
            }
            self.clear_the_way(&a, &[a.room]);
            self.appts[i].fee_due = false;
        }
        self.appts[i].become_(State::CheckedIn);
        Ok(i)
    }

    fn reschedule(
        &mut self,
        i: usize,
        stale: bool,
        clinic: Option<usize>,
        provider: Option<usize>,
        start: At,
    ) -> Result<usize, Expect> {
        let before = self.appts[i].clone();
        if !matches!(before.state, State::Booked | State::Displaced) {
            return Err(no("WRONG_STATE"));
        }
        let mut after = Appt {
            state: State::Booked,
            version: before.version + 1,
            clinic: clinic.unwrap_or(before.clinic),
            provider: provider.unwrap_or(before.provider),
            start,
            judge_at: None,
            displaced: false,
            reasons: vec![],
            ..before.clone()
        };
        after.calendar_version = self.calendars.versions[after.provider];
        let free = before.state == State::Displaced || before.timely(self.now);
        after.fee_start = if free { start } else { start.min(before.fee_start) };
        if !self.calendars.allow(after.provider, after.visit()) {
            let mut must = self.clashes(&after, &[], Some(i));
            must.insert(BLACKOUT);
            return Err(Expect::Refused(must, self.unswept()));
        }
        if stale {
            return Err(no("ETAG_MISMATCH"));
        }
        // It stays in its room where it can.
        let mut rooms = ROOMS[after.clinic].to_vec();
        rooms.sort_by_key(|room| *room != before.room);
        let clashes = self.clashes(&after, &rooms, Some(i));
        if !clashes.is_empty() {
            return Err(Expect::Refused(clashes, BTreeSet::new()));
        }
        self.clear_the_way(&after, self.rooms_to_clear(&after, &rooms, Some(i)));
        after.room = self.free_room(&after, &rooms, Some(i)).expect("there is no clash");
        self.appts[i] = after;
        Ok(i)
    }
}
