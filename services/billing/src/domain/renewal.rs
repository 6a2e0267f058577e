//! When a reservation is looked at, captured, and made anew.
//!
//! A reservation dies of age, after about a week when the patient made it and sooner when the clinic did; the provider says when.
//! So a far visit's co-pay is reserved at booking, which proves the card, and once more shortly before the visit.

use chrono::{DateTime, TimeDelta, Utc};

use super::charge::{Charge, Kind, State};
use super::visit::{Ended, Ending, Visit};

/// How long before a visit its co-pay is reserved anew, where the reservation at hand will not do.
pub const AHEAD: TimeDelta = TimeDelta::hours(48);
/// How long after its start a visit has usually been closed: a reservation that lives until then will do.
const CLOSED_WITHIN: TimeDelta = TimeDelta::hours(24);
/// How long after its start a visit that nobody closes has its reservation renewed.
const KEPT_UP_FOR: TimeDelta = TimeDelta::days(7);
/// Captures are not asked for in a reservation's last moments: the answer could come after its end.
const LAST_MOMENTS: TimeDelta = TimeDelta::minutes(1);
/// Pause between looks at a reservation of which the provider does not say how long it lives.
const UNDATED_LOOK: TimeDelta = TimeDelta::hours(24);

impl Charge {
    /// Whether the co-pay is to be reserved anew now, with the card on file while the patient is away.
    pub fn renews(&self, visit: &Visit, now: DateTime<Utc>) -> bool {
        self.renewal(visit, now).is_some_and(|from| from <= now)
    }

    /// When this charge is to be looked at next although nobody tells of news; `None` = never.
    pub fn next_look(&self, visit: &Visit, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = match self.state {
            State::Authorized => Some(self.capture_before.unwrap_or(now + UNDATED_LOOK)),
            _ if self.pending() => Some(now),
            _ => None,
        };
        end.into_iter().chain(self.renewal(visit, now)).min()
    }

    /// Whether the reservation ends before a capture would be answered.
    pub(super) fn too_late(&self, now: DateTime<Utc>) -> bool {
        self.capture_before.is_some_and(|end| end - LAST_MOMENTS <= now)
    }

    /// From when on the co-pay is to be reserved anew; `None` = not as things stand.
    fn renewal(&self, visit: &Visit, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.kind != Kind::Copay || self.owed > 0 {
            return None;
        }
        let from = visit.start - AHEAD;
        match (self.state, visit.ended) {
            (State::Authorized, None) => {
                let lasts = self.capture_before.is_none_or(|end| end >= visit.start + CLOSED_WITHIN);
                // One that was made for the visit lives as long as it can; then it lapses and is renewed.
                let made_for_it = self.authorized_at.is_some_and(|at| at >= from);
                (!lasts && !made_for_it).then_some(from)
            }
            (State::Lapsed, None) => (now < visit.start + KEPT_UP_FOR).then_some(from),
            // The money is due, and no patient is there any more to confirm anything.
            (State::Lapsed | State::RequiresAction, Some(Ended { how: Ending::Attended, .. })) => Some(now),
            _ => None,
        }
    }
}
