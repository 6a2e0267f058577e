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
pub const KEPT_UP_FOR: TimeDelta = TimeDelta::days(7);
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
            // Its end is told before it is made anew.
            (State::Authorized, None) if self.capture_before.is_some_and(|end| end <= now) => None,
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

#[cfg(test)]
mod tests {
    use kit::ids::{AppointmentId, ClinicId, PatientId, PaymentMethodId, ServiceTypeId};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::charge::{Happened, Standing, Step};

    const AMOUNT: i64 = 2_500;

    fn visit(appointment: AppointmentId, start: DateTime<Utc>) -> Visit {
        let (patient, clinic, service_type) = (PatientId::new(), ClinicId::new(), ServiceTypeId::new());
        Visit {
            appointment,
            version: 2,
            patient,
            clinic,
            service_type,
            start,
            ended: None,
            fee_reversed: false,
        }
    }

    proptest! {
        /// Nobody tells of anything here but how the visit ended.
        #[test]
        fn by_its_plan_alone_a_reservation_stands_at_every_visits_start_and_is_captured_in_time(
            minutes_ahead in 0..180 * 24 * 60_i64,
            booked_hours in 2..=168_i64,
            renewed_hours in 2..=168_i64,
            closed_after in 30..10 * 24 * 60_i64,
        ) {
            const MOST_LOOKS: usize = 300;
            const ATTENDED: Ended = Ended { how: Ending::Attended, fee: 0 };
            let booked = DateTime::<Utc>::UNIX_EPOCH;
            let currency = "USD".parse().expect("a currency");
            let mut charge = Charge::copay(AppointmentId::new(), AMOUNT, currency, booked);
            let mut visit = visit(charge.appointment, booked + TimeDelta::minutes(minutes_ahead));
            let close = visit.start + TimeDelta::minutes(closed_after);
            charge.ask(PaymentMethodId::new());
            charge.provider_reference = Some("pi_1".into());
            charge.learn(&reserved(booked, booked_hours), None, booked);

            let (mut now, mut told, mut looks) = (booked, vec![], 0);
            while visit.ended.is_none() || charge.next_look(&visit, now).is_some() {
                let next = charge.next_look(&visit, now).unwrap_or(DateTime::<Utc>::MAX_UTC).max(now);
                if now <= visit.start && visit.start < next {
                    prop_assert!(charge.capture_before.is_some_and(|end| visit.start < end), "{charge:?}");
                }
                if visit.ended.is_none() && close <= next {
                    now = close;
                    visit.ended = Some(ATTENDED);
                    told.extend(charge.follow(ATTENDED));
                    continue;
                }
                now = next;
                looks += 1;
                prop_assert!(looks <= MOST_LOOKS, "{charge:?}");
                if charge.renews(&visit, now) {
                    charge.ask(PaymentMethodId::new());
                }
                let end = charge.capture_before;
                let standing = match charge.step(now) {
                    Some(Step::Authorize) => reserved(now, renewed_hours),
                    Some(Step::Capture(amount)) => {
                        prop_assert!(end.is_some_and(|end| now < end), "a capture too late");
                        Standing::Taken { amount }
                    }
                    Some(Step::LookUp) if end.is_some_and(|end| end <= now) => Standing::Released,
                    // In its last moments: the next look finds it gone.
                    Some(Step::LookUp) => {
                        now = end.expect("only what ends is looked at");
                        Standing::Released
                    }
                    step => unreachable!("{step:?} of {charge:?}"),
                };
                charge.provider_reference = Some("pi_1".into());
                told.extend(charge.learn(&standing, visit.ended, now));
            }
            prop_assert_eq!((charge.state, charge.captured), (State::Captured, AMOUNT));
            for (at, happened) in told.iter().enumerate() {
                if matches!(happened, Happened::Lapsed { .. }) {
                    prop_assert_eq!(&told[at + 1], &Happened::Authorized { renewal: true });
                }
            }
        }
    }

    fn reserved(at: DateTime<Utc>, hours: i64) -> Standing {
        Standing::Reserved { amount: AMOUNT, capture_before: Some(at + TimeDelta::hours(hours)) }
    }
}
