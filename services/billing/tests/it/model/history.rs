//! Invented histories: who books what when, and how it goes on.

use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Cards of a history's patients. The first three always pay, one of them takes its time with refunds; the next two pay at booking
/// and are refused when the patient is away; then one that asks each time, and one that never pays.
pub(super) const CARDS: [&str; 7] = [
    "pm_card_visa",
    "pm_card_mastercard",
    "pm_card_pendingRefund",
    "pm_card_laterDeclined",
    "pm_card_laterExpired",
    "pm_card_authenticationRequired",
    "pm_card_chargeCustomerFail",
];
/// How many of [`CARDS`] pay whatever happens.
const SOUND_CARDS: usize = 3;

/// Visits of one history.
const VISITS: usize = 12;
/// Days within which they are booked, and from there until they are.
const BOOKED_WITHIN: i64 = 5;
const AHEAD_DAYS: i64 = 60;
const DAY: i64 = 24 * 60;

/// How a visit goes on once it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    HoldEnds,
    Attended,
    CancelledInTime,
    CancelledLate,
    NoShow,
    /// The patient came after the visit had been closed as missed, and was seen.
    LateArrival,
}

/// What is done next about a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Book,
    Reschedule,
    /// The end of the hold or the visit, as its [`Fate`] says.
    End,
    /// The patient who missed the visit comes.
    Come,
    /// The visit that began late is closed.
    Close,
    /// Staff gives something back.
    Refund,
}

/// One visit. Minutes count from the beginning of the history.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Which of [`CARDS`]; each patient has one.
    pub(super) card: usize,
    pub(super) fate: Fate,
    pub(super) start: i64,
    /// Where it is moved to, if it is.
    pub(super) moved: Option<i64>,
    /// Share of what was taken that staff gives back, in percent.
    pub(super) refund: Option<i64>,
}

impl Plan {
    /// Whether whatever is due can be taken.
    pub(super) fn pays(&self) -> bool {
        self.card < SOUND_CARDS
    }
}

/// A whole history: visits, and what is done about which of them when, in order.
#[derive(Debug)]
pub(super) struct History {
    pub(super) visits: Vec<Plan>,
    pub(super) steps: Vec<(TimeDelta, usize, Step)>,
    /// Draws what is decided on the way: kills, repeats, delays.
    pub(super) draws: StdRng,
}

impl History {
    pub(super) fn of(seed: u64) -> Self {
        let mut draws = StdRng::seed_from_u64(seed);
        let mut steps = vec![];
        let visits = (0..VISITS)
            .map(|visit| {
                let (plan, own) = invent(&mut draws);
                steps.extend(own.into_iter().map(|(at, step)| (TimeDelta::minutes(at), visit, step)));
                plan
            })
            .collect();
        steps.sort_by_key(|(at, visit, _)| (*at, *visit));
        Self { visits, steps, draws }
    }
}

fn invent(draws: &mut StdRng) -> (Plan, Vec<(i64, Step)>) {
    use Fate::{Attended, CancelledInTime, CancelledLate, HoldEnds, LateArrival, NoShow};
    let fates = [HoldEnds, Attended, Attended, Attended, CancelledInTime, CancelledLate, NoShow, LateArrival];
    let fate = *fates.choose(draws).expect("there are some");
    let card = draws.random_range(0..CARDS.len());
    let booked = draws.random_range(0..BOOKED_WITHIN * DAY);
    let mut start = booked + draws.random_range(4 * 60..AHEAD_DAYS * DAY);
    let first = start;
    let mut steps = vec![(booked, Step::Book)];
    let moved = (fate != HoldEnds && draws.random_bool(0.2)).then(|| {
        let at = draws.random_range(booked + 10..start - 3 * 60);
        steps.push((at, Step::Reschedule));
        start = at + draws.random_range(4 * 60..20 * DAY);
        start
    });
    let since = steps.last().map_or(booked, |(at, _)| *at) + 5;
    let end = match fate {
        HoldEnds => since,
        CancelledInTime => draws.random_range(since..start - 2 * 60),
        CancelledLate => start - draws.random_range(1..2 * 60),
        // Most visits are closed on their day; some are forgotten for a while.
        Attended if draws.random_bool(0.2) => start + draws.random_range(DAY..6 * DAY),
        Attended | NoShow | LateArrival => start + draws.random_range(30..120),
    };
    steps.push((end, Step::End));
    let mut over = end;
    if fate == LateArrival {
        steps.extend([(end + 20, Step::Come), (end + 60, Step::Close)]);
        over = end + 60;
    }
    let refund = draws.random_bool(0.4).then(|| *[40, 100].choose(draws).expect("there are some"));
    if refund.is_some() {
        steps.push((over + draws.random_range(DAY..4 * DAY), Step::Refund));
    }
    (Plan { card, fate, start: first, moved, refund }, steps)
}
