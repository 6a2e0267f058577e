//! Who asks for visits, what suits them, and what becomes of it: drawn from a seed, for each patient from dice of its own, so that a
//! quarter with a waitlist and one without have the same patients. [`assumptions`] says all of it in words.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use scheduling::domain::span::Minute;
use scheduling::domain::zone;

use super::{DAY, HOUR, PROVIDERS, Quarter, ZONE};

/// Patients who ask on a working day, on average.
const ASK_PER_DAY: f64 = 115.0;
/// Days before the simulation begins in which patients have asked who plan ahead, and who want to come soon: on its first morning they
/// get times one after another, as far as they still want one.
const EARLIER_DAYS: (u64, u64) = (42, 7);
/// Minutes of the day between which they do.
const ASKING: (u16, u16) = (8 * 60, 18 * 60);
/// Share of visits that take 30 minutes; the others take 15.
const LONG: f64 = 0.4;
/// Share of patients who want to come soon; the others plan ahead.
const SOON: f64 = 0.55;
/// Days ahead of which planned visits may be, and in how many days from there they must be.
const PLANNED_AHEAD: (i64, i64) = (14, 42);
const PLANNED_WITHIN: i64 = 7;
/// Hours that a patient who wants to come soon needs to come, each as often as it stands here.
const NOTICE_HOURS: [Minute; 8] = [1, 4, 4, 24, 24, 24, 48, 48];
/// Hours that one who plans ahead needs.
const PLANNED_NOTICE_HOURS: Minute = 24;
/// Days after asking up to which it is soon enough for one who wants to come soon.
const CONTENT_DAYS: (i64, i64) = (3, 8);
/// Days after which such a patient does not come at all.
const PATIENT_DAYS: (i64, i64) = (7, 28);
/// Share who come to one provider only.
const NAMES_PROVIDER: f64 = 0.5;
/// Share who come in the morning only, and in the afternoon only.
const MORNING: f64 = 0.25;
const AFTERNOON: f64 = 0.25;
const NOON: u16 = 12 * 60;
/// Share of those who found no time, or none soon enough, who join the waitlist if there is one.
const JOINS: f64 = 0.6;
/// Share of those who ask once more, and after how many days.
const ASKS_AGAIN: f64 = 0.3;
const ASKS_AGAIN_DAYS: (i64, i64) = (1, 5);
/// Chances of a booked visit, in percent: at least, more for each day ahead, at most.
const CANCELLED: [f64; 3] = [6.0, 0.8, 25.0];
const MOVED: [f64; 3] = [2.0, 0.4, 10.0];
const MISSED: [f64; 3] = [3.0, 0.3, 10.0];
/// How long before the start visits are given up: percent, from hours, to hours. The rest: at any time since they were booked.
const LEADS: [(u32, Minute, Minute); 3] = [(25, 1, 24), (30, 24, 72), (25, 72, 168)];
/// Patients are up between these minutes of the day.
const AWAKE: (Minute, Minute) = (7 * HOUR, 22 * HOUR);
/// Share of offers that are not answered, the mean of the minutes until the others are, and the minutes after which nobody answers.
const SILENT: f64 = 0.25;
const ANSWER_MINUTES: f64 = 5.0;
const ANSWER_AT_MOST: Minute = 14;
/// Share of offers far enough ahead that are accepted by those who answer.
const ACCEPTED: f64 = 0.8;

/// What dice are thrown for.
#[derive(Clone, Copy)]
enum Throw {
    Arrivals,
    Person,
    Fate(u64),
    Answer(u64),
}

/// Someone who asks for a visit.
#[derive(Clone, Debug)]
pub(super) struct Patient {
    pub(super) number: usize,
    pub(super) asks_at: Minute,
    /// 30 minutes instead of 15.
    pub(super) long: bool,
    /// Wants to come soon.
    pub(super) soon: bool,
    /// Not before.
    from: Minute,
    /// Time to get there.
    notice: Minute,
    /// Soon enough until then.
    pub(super) content_until: Minute,
    /// Too late after that.
    pub(super) patient_until: Minute,
    /// With this one only.
    pub(super) provider: Option<usize>,
    /// Minutes of the day from which and before which a visit may start.
    pub(super) hours: (u16, u16),
    pub(super) joins: bool,
    pub(super) asks_again_at: Option<Minute>,
}

/// What becomes of a booked visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Attended,
    Missed,
    Cancelled(Minute),
    Moved(Minute),
}

fn dice(seed: u64, patient: usize, throw: Throw) -> StdRng {
    let throw = match throw {
        Throw::Arrivals => 0,
        Throw::Person => 1,
        Throw::Fate(placement) => 2 + 2 * placement,
        Throw::Answer(offer) => 3 + 2 * offer,
    };
    StdRng::seed_from_u64((seed << 40) ^ ((patient as u64) << 16) ^ throw)
}

/// Everyone who asks for time of a quarter, in the order in which they do.
pub(super) fn patients(seed: u64, quarter: &Quarter) -> Vec<Patient> {
    let mut dice = dice(seed, 0, Throw::Arrivals);
    let chance = ASK_PER_DAY / f64::from(ASKING.1 - ASKING.0);
    let mut asked = vec![];
    for day in quarter.workdays_since(EARLIER_DAYS.0) {
        let minutes = (ASKING.0..ASKING.1).map(|minute| zone::at(ZONE, day, minute));
        asked.extend(minutes.filter(|_| dice.random_bool(chance)));
    }
    let person = |(number, at)| Patient::draw(seed, number, at);
    asked.into_iter().enumerate().map(person).collect()
}

impl Patient {
    fn draw(seed: u64, number: usize, asks_at: Minute) -> Self {
        let mut dice = dice(seed, number, Throw::Person);
        let long = dice.random_bool(LONG);
        let soon = dice.random_bool(SOON);
        let mut days = |range: (i64, i64)| dice.random_range(range.0 * DAY..=range.1 * DAY);
        let (ahead, content, patient) = (days(PLANNED_AHEAD), days(CONTENT_DAYS), days(PATIENT_DAYS));
        let again = days(ASKS_AGAIN_DAYS);
        let notice = NOTICE_HOURS[dice.random_range(0..NOTICE_HOURS.len())] * HOUR;
        let named = dice.random_range(0..PROVIDERS);
        let provider = dice.random_bool(NAMES_PROVIDER).then_some(named);
        let half = dice.random_range(0.0..1.0);
        let hours = match half {
            h if h < MORNING => (0, NOON),
            h if h < MORNING + AFTERNOON => (NOON, 24 * 60),
            _ => (0, 24 * 60),
        };
        let (joins, asks_again) = (dice.random_bool(JOINS), dice.random_bool(ASKS_AGAIN));
        let (from, notice, content_until, patient_until) = if soon {
            (asks_at, notice, asks_at + content.min(patient), asks_at + patient)
        } else {
            let until = asks_at + ahead + PLANNED_WITHIN * DAY;
            (asks_at + ahead, PLANNED_NOTICE_HOURS * HOUR, until, until)
        };
        let asks_again_at = asks_again.then_some(asks_at + again);
        Self {
            number,
            asks_at,
            long,
            soon,
            from,
            notice,
            content_until,
            patient_until,
            provider,
            hours,
            joins,
            asks_again_at,
        }
    }

    /// When the patient asks in a simulation that begins at `begin`; `None` = what was asked for before is settled.
    pub(super) fn asks(&self, begin: Minute) -> Option<Minute> {
        let days = if self.soon { EARLIER_DAYS.1 } else { EARLIER_DAYS.0 };
        let earliest = begin - days as Minute * DAY;
        let pending = earliest <= self.asks_at && begin + DAY <= self.patient_until;
        (begin <= self.asks_at || pending).then_some(self.asks_at.max(begin))
    }

    /// The first minute at which a visit may start that is arranged now.
    pub(super) fn earliest(&self, now: Minute) -> Minute {
        (now + self.notice).max(self.from)
    }

    /// What becomes of a visit that is arranged now, which is the patient's `placement`th.
    pub(super) fn fate(&self, seed: u64, placement: u64, now: Minute, start: Minute) -> Fate {
        let mut dice = dice(seed, self.number, Throw::Fate(placement));
        let days = (start - now) as f64 / DAY as f64;
        let chance = |[least, more, most]: [f64; 3]| (least + more * days).min(most);
        let (cancelled, moved, missed) = (chance(CANCELLED), chance(MOVED), chance(MISSED));
        let lot = dice.random_range(0.0..100.0);
        let mut lead = dice.random_range(0..100);
        let mut at = dice.random_range(now..start.max(now + 1));
        for (percent, from, to) in LEADS {
            let before = start - dice.random_range(from * HOUR..to * HOUR);
            if lead < percent {
                at = if before > now { before } else { at };
                break;
            }
            lead -= percent;
        }
        let at = awake(at, dice.random_range(0..HOUR)).min(start - 1).max(now + 1);
        match lot {
            _ if at >= start => Fate::Attended,
            lot if lot < cancelled => Fate::Cancelled(at),
            lot if lot < cancelled + moved => Fate::Moved(at),
            lot if lot < cancelled + moved + missed => Fate::Missed,
            _ => Fate::Attended,
        }
    }

    /// When the patient answers the `offer`th offer, made now, and how; `None` = not in time.
    pub(super) fn answer(&self, seed: u64, offer: u64, now: Minute, start: Minute) -> Option<(Minute, bool)> {
        let mut dice = dice(seed, self.number, Throw::Answer(offer));
        let silent = dice.random_bool(SILENT);
        let lot: f64 = dice.random_range(0.0..1.0);
        let after = 1 + (-ANSWER_MINUTES * (1.0 - lot).ln()) as Minute;
        let wants = dice.random_bool(ACCEPTED) && start >= self.earliest(now);
        (!silent && after <= ANSWER_AT_MOST).then_some((now + after, wants))
    }
}

/// The first minute from `at` on at which patients are up, some minutes after they rose.
fn awake(at: Minute, yawn: Minute) -> Minute {
    let of_day = zone::minute_of_day(ZONE, at);
    match of_day {
        early if early < AWAKE.0 => at + AWAKE.0 - early + yawn,
        late if late >= AWAKE.1 => at + DAY - late + AWAKE.0 + yawn,
        _ => at,
    }
}

/// What is assumed, in sentences.
pub(super) fn assumptions() -> Vec<String> {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let chances = |[least, more, most]: [f64; 3]| {
        format!("{least}% and {more}% more for each day ahead, at most {most}%")
    };
    let leads = LEADS.map(|(share, from, to)| format!("{share}% between {from} and {to} hours before it"));
    let anytime = 100 - LEADS.iter().map(|lead| lead.0).sum::<u32>();
    let notice = |hours| NOTICE_HOURS.iter().filter(|h| **h == hours).count() * 100 / NOTICE_HOURS.len();
    vec![
        format!(
            "{ASK_PER_DAY} patients ask on a working day, at random between 8:00 and 18:00. {} need 30 minutes, the others 15. Two weeks \
             that do not count come first, in which nobody can join the waitlist; they begin with those who had asked in the {} weeks \
             before and still want a time.",
            percent(LONG),
            EARLIER_DAYS.0 / 7
        ),
        format!(
            "{} want to come soon: it is soon enough up to {} to {} days after asking, and after {} to {} days they do not come at \
             all. They need 1 hour's notice ({}%), 4 hours' ({}%), a day's ({}%) or two days' ({}%). The others plan ahead: any time \
             within {PLANNED_WITHIN} days from a day {} to {} days ahead.",
            percent(SOON),
            CONTENT_DAYS.0,
            CONTENT_DAYS.1,
            PATIENT_DAYS.0,
            PATIENT_DAYS.1,
            notice(1),
            notice(4),
            notice(24),
            notice(48),
            PLANNED_AHEAD.0,
            PLANNED_AHEAD.1,
        ),
        format!(
            "{} come to one provider only; {} in the morning only and {} in the afternoon only. Everyone books the first free time \
             that suits.",
            percent(NAMES_PROVIDER),
            percent(MORNING),
            percent(AFTERNOON)
        ),
        format!(
            "Of those who find no time, or none soon enough, {} ask once more {} to {} days later, and {} join the waitlist where \
             there is one, with the visit they hold to be replaced. Whoever has no visit then, leaves.",
            percent(ASKS_AGAIN),
            ASKS_AGAIN_DAYS.0,
            ASKS_AGAIN_DAYS.1,
            percent(JOINS)
        ),
        format!(
            "A visit is cancelled with a chance of {}; moved by its patient to the first time that suits one to {} days after it with a \
             chance of {}; missed with a chance of {}. Who moves and finds none cancels; who cancels does not ask again.",
            chances(CANCELLED),
            super::story::MOVES_WITHIN / DAY + 1,
            chances(MOVED),
            chances(MISSED)
        ),
        format!(
            "Visits are given up {}, and {anytime}% at any time since they were booked, as are those booked later than that; never between \
             22:00 and 7:00.",
            leads.join(", ")
        ),
        format!(
            "{} of the offers are not answered; the others after {ANSWER_MINUTES} minutes on average, those that would take more than \
             {ANSWER_AT_MOST} not in time. Offers nearer than the patient's notice are declined, of the others {} are accepted.",
            percent(SILENT),
            percent(ACCEPTED)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_the_same_whatever_became_of_the_others() {
        let quarter = Quarter { weeks: 2 };
        let (one, other) = (patients(7, &quarter), patients(7, &quarter));
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        assert_ne!(format!("{one:?}"), format!("{:?}", patients(8, &quarter)));
        let (now, start) = (one[0].asks_at, one[0].asks_at + 9 * DAY);
        assert_eq!(one[0].fate(7, 1, now, start), other[0].fate(7, 1, now, start));
    }

    #[test]
    fn nobody_asks_in_vain_for_what_is_over() {
        let quarter = Quarter { weeks: 1 };
        let (patients, begin) = (patients(5, &quarter), quarter.begin());
        let earlier: Vec<_> = patients.iter().filter(|patient| patient.asks_at < begin).collect();
        let pending = earlier.iter().filter(|patient| patient.asks(begin) == Some(begin));
        assert!((1..earlier.len()).contains(&pending.clone().count()));
        assert!(pending.clone().all(|patient| begin < patient.patient_until));
    }

    #[test]
    fn visits_are_given_up_before_they_start_and_by_day() {
        let quarter = Quarter { weeks: 1 };
        for patient in patients(3, &quarter) {
            let (now, start) = (patient.asks_at, zone::at(ZONE, quarter.last(), 8 * 60));
            let (Fate::Cancelled(at) | Fate::Moved(at)) = patient.fate(3, 1, now, start) else { continue };
            let of_day = zone::minute_of_day(ZONE, at);
            assert!(now < at && at < start && (AWAKE.0..AWAKE.1).contains(&of_day), "{at}");
        }
    }
}
