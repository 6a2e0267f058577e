//! The waitlist as values: who waits for what, what was offered to whom, and how long it may take.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;
use kit::ids::{
    AppointmentId, ClinicId, OfferId, PatientId, PaymentMethodId, ProviderId, ServiceTypeId, WaitlistEntryId,
};
use uuid::Uuid;

use super::Span;

/// How long an offer holds its time, unless the service is told otherwise.
pub const OFFER_TTL: Duration = Duration::from_mins(crate::OFFER_MINUTES);
/// How long places are held instead of a displaced visit, unless the service is told otherwise.
pub const ALTERNATIVE_TTL: Duration = Duration::from_mins(crate::ALTERNATIVE_MINUTES);
/// Places that are held instead of a displaced visit: as many as one text can tell.
pub const ALTERNATIVES: usize = 3;
/// No offer is made for a start nearer than this: the patient has to read it, decide and come.
pub const LEAST_NOTICE: TimeDelta = TimeDelta::minutes(60);
/// Offers are made from the first to before the second of these hours, by the clinic's wall clock: those in which texts are sent.
pub const OFFER_HOURS: (u32, u32) = (8, 21);
/// Open entries that a patient may have.
pub const MOST_ENTRIES: i64 = 10;
/// Offers that a patient gets within [`OFFERS_WITHIN`]; whoever wanted none of three is not helped by a fourth text.
pub const MOST_OFFERS: i64 = 3;
/// See [`MOST_OFFERS`].
pub const OFFERS_WITHIN: TimeDelta = TimeDelta::hours(24);
/// Days over which the pace of offers is measured: four whole weeks, so that each day of the week counts alike.
pub const PACE_DAYS: i64 = 28;
/// The most days that an entry is told to expect.
const MOST_DAYS: f64 = 999.0;

/// Where an entry stands; the proto's `WaitlistEntryState` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "appointments.entry_state", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum EntryState {
    Waiting,
    Offered,
    Fulfilled,
    Left,
    Expired,
}

impl EntryState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Offered, Self::Fulfilled, Self::Left, Self::Expired];

    /// Whether it still waits.
    pub fn is_open(self) -> bool {
        match self {
            Self::Waiting | Self::Offered => true,
            Self::Fulfilled | Self::Left | Self::Expired => false,
        }
    }
}

/// Where an offer stands; the proto's `OfferState` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "appointments.offer_state", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum OfferState {
    Open,
    Accepted,
    Declined,
    Expired,
    Withdrawn,
}

impl OfferState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Open, Self::Accepted, Self::Declined, Self::Expired, Self::Withdrawn];
}

/// A patient who waits.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract's WaitlistEntry and the migration explain each")]
pub struct Entry {
    pub id: WaitlistEntryId,
    pub state: EntryState,
    pub patient_id: PatientId,
    pub service_type_id: ServiceTypeId,
    pub clinic_ids: Vec<Uuid>,
    pub provider_ids: Vec<Uuid>,
    pub first_date: NaiveDate,
    pub last_date: NaiveDate,
    pub from_minute: i16,
    pub before_minute: i16,
    pub weekdays: i16,
    pub priority: i16,
    pub priority_reason: String,
    pub auto_book: bool,
    pub payment_method_id: Option<PaymentMethodId>,
    pub replaces_id: Option<AppointmentId>,
    pub appointment_id: Option<AppointmentId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Entry {
    /// Whether a visit may start at `start`, by the days and times that suit.
    pub fn suits(&self, start: DateTime<Utc>, zone: Tz) -> bool {
        let local = start.with_timezone(&zone);
        let minute = (local.hour() * 60 + local.minute()) as i16;
        (self.first_date..=self.last_date).contains(&local.date_naive())
            && (self.from_minute..self.before_minute).contains(&minute)
            && self.weekdays & (1 << local.weekday().num_days_from_monday()) != 0
    }
}

/// Time held for a patient.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract's Offer and the migration explain each")]
pub struct Offer {
    pub id: OfferId,
    pub entry_id: Option<WaitlistEntryId>,
    pub state: OfferState,
    pub patient_id: PatientId,
    pub service_type_id: ServiceTypeId,
    pub clinic_id: ClinicId,
    pub provider_id: ProviderId,
    pub starts_at: DateTime<Utc>,
    pub replaces_id: Option<AppointmentId>,
    pub preference: Option<i16>,
    pub auto_book: bool,
    pub made_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl Offer {
    /// The appointment that holds its time.
    pub fn appointment(&self) -> AppointmentId {
        self.id.uuid().into()
    }

    /// The visit it led to.
    pub fn led_to(&self) -> Option<AppointmentId> {
        (self.state == OfferState::Accepted).then(|| self.replaces_id.unwrap_or(self.appointment()))
    }
}

/// How long a kind of visit is, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Provider's time before it.
    pub before: i32,
    /// The visit.
    pub visit: i32,
    /// Provider's time after it.
    pub after: i32,
}

impl Length {
    /// Of a visit that takes `occupied` of its provider.
    pub fn of(visit: Span, occupied: Span) -> Self {
        let minutes = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).num_minutes() as i32;
        Self {
            before: minutes(occupied.start, visit.start),
            visit: minutes(visit.start, visit.end),
            after: minutes(visit.end, occupied.end),
        }
    }
}

/// What an entry may hope for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Days until its turn.
    pub expected_days: i32,
    /// Percent.
    pub chance: i32,
}

/// From a place in the queue (1 = next), the offers made in [`PACE_DAYS`] days and the days left. `None` = none was made.
pub fn outlook(position: i64, offers: i64, days_left: i64) -> Option<Outlook> {
    if offers == 0 {
        return None;
    }
    let pace = offers as f64 / PACE_DAYS as f64;
    let expected_days = (position as f64 / pace).ceil().min(MOST_DAYS) as i32;
    let chance = at_least(position, pace * days_left.max(0) as f64) * 100.0;
    Some(Outlook { expected_days, chance: chance.round() as i32 })
}

/// How likely a Poisson variable of this mean is `least` or more.
fn at_least(least: i64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return if least <= 0 { 1.0 } else { 0.0 };
    }
    // Each term from the one before it, as logarithms: a term of a large mean is too small for a float.
    let mut term = -mean;
    let mut fewer = 0.0;
    for count in 0..least {
        fewer += term.exp();
        term += mean.ln() - ((count + 1) as f64).ln();
    }
    (1.0 - fewer).clamp(0.0, 1.0)
}

/// The first instant from `now` on at which an offer may be made at a clinic in `zone`.
pub fn next_offer_time(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let (open, close) = OFFER_HOURS;
    let local = now.with_timezone(&zone);
    if (open..close).contains(&local.hour()) {
        return now;
    }
    let tomorrow = if local.hour() < open { 0 } else { 1 };
    let day = local.date_naive() + TimeDelta::days(tomorrow);
    // No zone skips its morning; were there one, an hour later is asked again.
    day.and_hms_opt(open, 0, 0)
        .and_then(|at| at.and_local_timezone(zone).earliest())
        .map_or(now + TimeDelta::hours(1), |at| at.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    #[test]
    fn offers_wait_for_the_morning_at_the_clinic() {
        let zone = Tz::America__New_York;
        let cases = [
            ("2026-11-23T12:59:59Z", "2026-11-23T13:00:00Z"),
            ("2026-11-23T13:00:00Z", "2026-11-23T13:00:00Z"),
            ("2026-11-24T01:59:59Z", "2026-11-24T01:59:59Z"),
            ("2026-11-24T02:00:00Z", "2026-11-24T13:00:00Z"),
            // The night in which clocks go forward.
            ("2026-03-08T03:00:00Z", "2026-03-08T12:00:00Z"),
        ];
        for (now, then) in cases {
            assert_eq!(next_offer_time(at(now), zone), at(then), "{now}");
        }
    }

    #[test]
    fn the_outlook_follows_the_pace_and_the_place() {
        assert_eq!(outlook(1, 0, 90), None);
        // One offer a day: the next in line waits a day, and within one day it is 1 - 1/e.
        assert_eq!(outlook(1, 28, 1), Some(Outlook { expected_days: 1, chance: 63 }));
        assert_eq!(outlook(10, 28, 90), Some(Outlook { expected_days: 10, chance: 100 }));
        assert_eq!(outlook(10_000, 1, 90), Some(Outlook { expected_days: 999, chance: 0 }));
        assert_eq!(outlook(2_000, 28_000, 90), Some(Outlook { expected_days: 2, chance: 100 }));
        assert_eq!(outlook(1, 28, -3), Some(Outlook { expected_days: 1, chance: 0 }));
    }
}
