//! What can happen to appointments, as values: calls, other services' events, time, workers. Drawn so that most commands meet an
//! appointment they fit, and readable in a list.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use kit::ids::Id;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::neighbours::local_day;
use super::reference::Model;
use super::values::Appt;
use appointments::domain::{Copay, State};

/// An instant.
pub(crate) type At = DateTime<Utc>;

/// Patients, providers, clinics and kinds of visit are small numbers here.
pub(crate) const PATIENTS: usize = 3;
pub(crate) const PROVIDERS: usize = 2;
/// Each clinic's time zone: midnight of the second is in the middle of the slots.
pub(crate) const ZONES: [chrono_tz::Tz; 2] = [chrono_tz::America::New_York, chrono_tz::Asia::Tokyo];
/// Each clinic's rooms.
pub(crate) const ROOMS: [&[usize]; 2] = [&[0, 1], &[2]];
/// Kinds of visit: short; with buffers; with a co-pay.
pub(crate) const KINDS: [Kind; 3] = [
    Kind { minutes: 15, before: 0, after: 0, copay: false },
    Kind { minutes: 30, before: 5, after: 10, copay: false },
    Kind { minutes: 15, before: 0, after: 0, copay: true },
];

/// A kind of visit; minutes.
pub(crate) struct Kind {
    pub(crate) minutes: i64,
    pub(crate) before: i64,
    pub(crate) after: i64,
    pub(crate) copay: bool,
}

/// The id behind a small number: what a failing case prints is what the tables hold.
pub(crate) fn id<I: Id>(number: usize) -> I {
    Uuid::from_u128(number as u128 + 1).into()
}

/// The small number behind an id.
pub(crate) fn number(id: impl Into<Uuid>) -> usize {
    usize::try_from(id.into().as_u128() - 1).unwrap_or(usize::MAX)
}

/// A slot that someone wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) patient: usize,
    pub(crate) kind: usize,
    pub(crate) clinic: usize,
    /// `None` = any.
    pub(crate) provider: Option<usize>,
    pub(crate) start: At,
}

/// How billing takes the next question of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Authorized,
    Declined,
    ActionRequired,
    NotDue,
    /// Nothing can be tried: there is no card.
    Refused,
    /// It is still being decided.
    Busy,
    /// The answer is lost; this is what it was.
    Lost(Truth),
    /// Who asked dies of it, as if its process had been killed; this is what became of the question.
    Dies(Truth),
}

/// What billing did though nobody heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Nothing,
    Authorized,
    Declined,
}

/// One thing that happens. `which` = an appointment by order of making, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Time goes by.
    Pass(i64),
    /// Time goes by until then, unless it has.
    PassTo(At),
    Hold(Want),
    Book(Want, Answer),
    BookHold {
        which: usize,
        answer: Answer,
    },
    Release {
        which: usize,
        stale: bool,
    },
    Cancel {
        which: usize,
        stale: bool,
        by_clinic: bool,
    },
    CheckIn {
        which: usize,
        stale: bool,
    },
    Complete {
        which: usize,
        stale: bool,
        no_show: bool,
    },
    Reschedule {
        which: usize,
        stale: bool,
        clinic: Option<usize>,
        provider: Option<usize>,
        start: At,
    },
    /// The last call again, under its request id; or another call under it.
    Repeat {
        other_body: bool,
    },
    /// A provider's time is blocked; appointments hears of it now, or when it is told.
    Block {
        provider: usize,
        from: At,
        minutes: i64,
        told: bool,
    },
    /// The block made last is taken back.
    Unblock {
        provider: usize,
        told: bool,
    },
    /// A patient ends a card's own check.
    Settle {
        which: usize,
        passed: bool,
    },
    /// Some event that was sent so far is delivered: for the first time or again, in order or not.
    Deliver {
        event: usize,
    },
    /// The workers look once.
    Look(Answer),
    /// The process is replaced.
    Restart,
}

impl Command {
    /// The same when there are so many appointments and events less before those that it names.
    pub(crate) fn renumber(&mut self, appointments: usize, events: usize) {
        match self {
            Self::Deliver { event } => *event = event.saturating_sub(events),
            other => {
                if let Some(which) = other.which() {
                    *which = which.saturating_sub(appointments);
                }
            }
        }
    }

    /// The appointment that it names.
    pub(crate) fn which(&mut self) -> Option<&mut usize> {
        match self {
            Self::BookHold { which, .. }
            | Self::Release { which, .. }
            | Self::Cancel { which, .. }
            | Self::CheckIn { which, .. }
            | Self::Complete { which, .. }
            | Self::Reschedule { which, .. }
            | Self::Settle { which, .. } => Some(which),
            Self::Pass(_)
            | Self::PassTo(_)
            | Self::Hold(_)
            | Self::Book(..)
            | Self::Repeat { .. }
            | Self::Block { .. }
            | Self::Unblock { .. }
            | Self::Deliver { .. }
            | Self::Look(_)
            | Self::Restart => None,
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { patient, kind, clinic, provider, start } = self;
        let with = provider.map_or("any provider".to_owned(), |p| format!("provider {p}"));
        write!(f, "patient {patient}, kind {kind}, clinic {clinic}, {with}, {}", start.format("%d %H:%M"))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(secs) => write!(f, "{secs} s pass"),
            Self::PassTo(at) => write!(f, "time passes until {}", at.format("%d %H:%M:%S")),
            Self::Hold(want) => write!(f, "hold: {want}"),
            Self::Book(want, answer) => write!(f, "book: {want}; billing: {answer:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What may come next.
pub(crate) fn next(model: &Model) -> BoxedStrategy<Command> {
    let now = model.now;
    let held = || fitting(model, |a| a.state == State::Held);
    let standing = || fitting(model, |a| matches!(a.state, State::Booked | State::Displaced));
    // The workers look most where there is something to find.
    let open =
        model.appts.iter().any(|a| a.judge_at.is_some() || a.driven_until.is_some_and(|end| end <= now));
    let stale = || prop::bool::weighted(0.05);
    let told = || prop::bool::weighted(0.5);
    let mut all: Vec<(u32, BoxedStrategy<Command>)> = vec![
        (5, select(vec![4, 12, 60, 240, 300, 3_600, 86_400]).prop_map(Command::Pass).boxed()),
        (6, want(model).prop_map(Command::Hold).boxed()),
        (10, (want(model), answer()).prop_map(|(want, answer)| Command::Book(want, answer)).boxed()),
        (if open { 12 } else { 3 }, answer().prop_map(Command::Look).boxed()),
        (1, Just(Command::Restart).boxed()),
        (2, prop::bool::weighted(0.2).prop_map(|other_body| Command::Repeat { other_body }).boxed()),
    ];
    let mut with = |weight,
                    which: Option<BoxedStrategy<usize>>,
                    make: &dyn Fn(BoxedStrategy<usize>) -> BoxedStrategy<Command>| {
        all.extend(which.map(|which| (weight, make(which))));
    };
    with(6, held(), &|which| {
        (which, answer()).prop_map(|(which, answer)| Command::BookHold { which, answer }).boxed()
    });
    with(2, held(), &|which| {
        (which, stale()).prop_map(|(which, stale)| Command::Release { which, stale }).boxed()
    });
    with(3, standing(), &|which| {
        (which, stale(), any::<bool>())
            .prop_map(|(which, stale, by_clinic)| Command::Cancel { which, stale, by_clinic })
            .boxed()
    });
    let arriving = fitting(model, |a| {
        let expected = matches!(a.state, State::Booked | State::Displaced | State::NoShow);
        expected && local_day(a.clinic, a.start) == local_day(a.clinic, now)
    });
    with(5, arriving, &|which| {
        (which, stale()).prop_map(|(which, stale)| Command::CheckIn { which, stale }).boxed()
    });
    let closing = fitting(model, |a| match a.state {
        State::Booked | State::Displaced => a.start <= now,
        state => state == State::CheckedIn,
    });
    with(6, closing, &|which| {
        (which, stale(), prop::bool::weighted(0.7))
            .prop_map(|(which, stale, no_show)| Command::Complete { which, stale, no_show })
            .boxed()
    });
    let start = start(model);
    with(6, standing(), &|which| {
        let clinic = prop::option::weighted(0.3, 0..ZONES.len());
        let provider = prop::option::weighted(0.4, 0..PROVIDERS);
        (which, stale(), clinic, provider, start.clone())
            .prop_map(|(which, stale, clinic, provider, start)| Command::Reschedule {
                which,
                stale,
                clinic,
                provider,
                start,
            })
            .boxed()
    });
    let (ends, spans): (Vec<At>, Vec<_>) = model
        .appts
        .iter()
        .filter(|a| a.state.occupies() || a.state == State::NoShow)
        .map(|a| (a.start, (a.provider, a.start)))
        .unzip();
    if !ends.is_empty() {
        let moments = select(vec![-121, -119, -1, 1, 6]);
        let until = (select(ends), moments).prop_map(|(start, minutes)| {
            Command::PassTo(start + TimeDelta::minutes(minutes) + TimeDelta::seconds(30))
        });
        all.push((4, until.boxed()));
        let block = (select(spans), select(vec![15, 60]), told())
            .prop_map(|((provider, from), minutes, told)| Command::Block { provider, from, minutes, told });
        all.push((4, block.boxed()));
    }
    let blocked: Vec<_> = (0..PROVIDERS).filter(|p| !model.calendars.blocked[*p].is_empty()).collect();
    if !blocked.is_empty() {
        all.push((
            3,
            (select(blocked), told())
                .prop_map(|(provider, told)| Command::Unblock { provider, told })
                .boxed(),
        ));
    }
    if let Some(which) = fitting(model, |a| a.copay == Copay::ActionRequired) {
        let settle =
            (which, prop::bool::weighted(0.7)).prop_map(|(which, passed)| Command::Settle { which, passed });
        all.push((6, settle.boxed()));
    }
    if !model.told.is_empty() {
        let last = model.told.len() - 1;
        let event = prop_oneof![1 => 0..=last, 1 => last.saturating_sub(1)..=last];
        all.push((6, event.prop_map(|event| Command::Deliver { event }).boxed()));
    }
    if let Some(which) = fitting(model, |_| true) {
        // Whatever is done to whatever.
        let odd = (which, 0..4, any::<bool>()).prop_map(|(which, verb, flag)| match verb {
            0 => Command::BookHold { which, answer: Answer::Authorized },
            1 => Command::Release { which, stale: flag },
            2 => Command::CheckIn { which, stale: false },
            _ => Command::Complete { which, stale: false, no_show: flag },
        });
        all.push((2, odd.boxed()));
    }
    proptest::strategy::Union::new_weighted(all).boxed()
}

fn fitting(model: &Model, fit: impl Fn(&Appt) -> bool) -> Option<BoxedStrategy<usize>> {
    let fitting: Vec<_> = (0..model.appts.len()).filter(|i| fit(&model.appts[*i])).collect();
    (!fitting.is_empty()).then(|| select(fitting).boxed())
}

/// Few enough starts for visits to meet: quarters around the second clinic's midnight, some days ahead, and those known already.
fn start(model: &Model) -> BoxedStrategy<At> {
    let first = model.now.date_naive().and_hms_opt(14, 15, 0).expect("a time").and_utc();
    let fresh = (select(vec![0, 0, 0, 1, 6, 7]), 0..5_i64)
        .prop_map(move |(days, quarter)| first + TimeDelta::days(days) + TimeDelta::minutes(15 * quarter));
    let known: Vec<_> = model.appts.iter().map(|a| a.start).filter(|start| *start > model.now).collect();
    if known.is_empty() { fresh.boxed() } else { prop_oneof![3 => fresh, 2 => select(known)].boxed() }
}

fn want(model: &Model) -> BoxedStrategy<Want> {
    let kind = prop_oneof![2 => Just(0), 1 => Just(1), 4 => Just(2)];
    let provider = prop_oneof![4 => (0..PROVIDERS).prop_map(Some), 1 => Just(None)];
    (0..PATIENTS, kind, 0..ZONES.len(), provider, start(model))
        .prop_map(|(patient, kind, clinic, provider, start)| Want { patient, kind, clinic, provider, start })
        .boxed()
}

fn answer() -> BoxedStrategy<Answer> {
    let truth = || select(vec![Truth::Nothing, Truth::Authorized, Truth::Declined]);
    prop_oneof![
        6 => Just(Answer::Authorized),
        2 => Just(Answer::Declined),
        3 => Just(Answer::ActionRequired),
        1 => Just(Answer::NotDue),
        1 => Just(Answer::Refused),
        1 => Just(Answer::Busy),
        3 => truth().prop_map(Answer::Lost),
        2 => truth().prop_map(Answer::Dies),
    ]
    .boxed()
}
