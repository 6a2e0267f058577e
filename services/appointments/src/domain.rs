//! Appointments as values: states, what may follow what, and the rules that need no database.

pub mod matching;
pub mod waitlist;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, SubsecRound as _, TimeDelta, Utc};
use chrono_tz::Tz;
use kit::ids::{
    AppointmentId, ChargeId, ClinicId, FormId, PatientId, PaymentMethodId, ProviderId, RoomId, ServiceTypeId,
};
use uuid::Uuid;

/// A hold keeps its slot this long, to the whole second before.
pub const HOLD_TTL: Duration = Duration::from_mins(5);
/// How long whoever drives a booking has before a recovery worker takes over; longer than a call to billing may take.
pub const DRIVE_LEASE: Duration = Duration::from_secs(15);
/// A cancellation received at least this long before the start is timely.
pub const TIMELY: TimeDelta = TimeDelta::hours(2);

/// Where an appointment stands; the proto's `AppointmentState` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "appointments.state", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum State {
    Held,
    Offered,
    Booked,
    Displaced,
    CheckedIn,
    Completed,
    NoShow,
    Cancelled,
    Expired,
    Released,
    Declined,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Held,
        Self::Offered,
        Self::Booked,
        Self::Displaced,
        Self::CheckedIn,
        Self::Completed,
        Self::NoShow,
        Self::Cancelled,
        Self::Expired,
        Self::Released,
        Self::Declined,
    ];

    /// Whether provider and room are taken in this state.
    pub fn occupies(self) -> bool {
        match self {
            Self::Held | Self::Offered | Self::Booked | Self::Displaced | Self::CheckedIn => true,
            Self::Completed
            | Self::NoShow
            | Self::Cancelled
            | Self::Expired
            | Self::Released
            | Self::Declined => false,
        }
    }

    /// Whether `next` may follow.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Held => matches!(next, Self::Booked | Self::Expired | Self::Released | Self::Declined),
            Self::Offered => matches!(next, Self::Booked | Self::Expired | Self::Released | Self::Declined),
            Self::Booked => {
                matches!(next, Self::Displaced | Self::CheckedIn | Self::NoShow | Self::Cancelled)
            }
            Self::Displaced => {
                matches!(next, Self::Booked | Self::CheckedIn | Self::NoShow | Self::Cancelled)
            }
            Self::CheckedIn => next == Self::Completed,
            Self::NoShow => next == Self::CheckedIn,
            Self::Completed | Self::Cancelled | Self::Expired | Self::Released | Self::Declined => false,
        }
    }
}

/// Where the co-pay stands as far as the booking is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "appointments.copay", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract explains each")]
pub enum Copay {
    NotRequired,
    Pending,
    Authorized,
    Declined,
    ActionRequired,
}

/// A half-open stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub start: DateTime<Utc>,
    /// First instant after it.
    pub end: DateTime<Utc>,
}

/// One row: a hold, a booking, a visit.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract and the migration explain each")]
pub struct Reservation {
    pub id: AppointmentId,
    pub version: i64,
    pub state: State,
    pub patient_id: PatientId,
    pub service_type_id: ServiceTypeId,
    pub clinic_id: ClinicId,
    pub provider_id: ProviderId,
    pub room_id: RoomId,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub occupied_start: DateTime<Utc>,
    pub occupied_end: DateTime<Utc>,
    pub visit_date: NaiveDate,
    pub time_zone: String,
    pub calendar_version: i64,
    pub hold_expires_at: Option<DateTime<Utc>>,
    pub intake_form_id: Option<FormId>,
    pub fee_start: DateTime<Utc>,
    pub copay: Copay,
    pub charge_id: Option<ChargeId>,
    pub payment_method_id: Option<PaymentMethodId>,
    pub driven_until: Option<DateTime<Utc>>,
    pub attempt_id: Option<Uuid>,
    pub cancel_received_at: Option<DateTime<Utc>>,
    pub cancelled_by_clinic: Option<bool>,
    pub fee_due: bool,
    pub checked_in_at: Option<DateTime<Utc>>,
    pub closed_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub decline_code: String,
    pub displaced_at: Option<DateTime<Utc>>,
    pub displaced_reasons: Vec<String>,
    pub overridden: Vec<String>,
    pub judge_at: Option<i64>,
    pub work_list_at: Option<DateTime<Utc>>,
    /// When it was read or made, by the clock that all replicas share.
    pub read_at: DateTime<Utc>,
}

impl Reservation {
    /// Names this state of the row for optimistic updates.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }

    /// Whether a cancellation that reached us at `received` comes in time.
    pub fn timely(&self, received: DateTime<Utc>) -> bool {
        self.fee_start - received >= TIMELY
    }

    /// The start that decides whether a later cancellation is late, if the visit is moved to `start` by a call that reached us at
    /// `received`. A move with less than 2 hours to go does not win time; one that the clinic's own calendar made necessary does.
    pub fn fee_start_moved(&self, start: DateTime<Utc>, received: DateTime<Utc>) -> DateTime<Utc> {
        let free = self.state == State::Displaced || self.timely(received);
        if free { start } else { start.min(self.fee_start) }
    }

    /// Whether it is a hold whose time was up when it was read.
    pub fn is_over(&self) -> bool {
        self.hold_expires_at.is_some_and(|end| end <= self.read_at)
    }

    /// Whether its time is kept for a patient who has not decided yet.
    pub fn is_kept(&self) -> bool {
        matches!(self.state, State::Held | State::Offered)
    }

    /// A hold that ended because the calendar changed under it.
    pub fn is_overtaken(&self) -> bool {
        self.state == State::Released && !self.displaced_reasons.is_empty()
    }

    /// Whether it is displaced because the survivor of its merged patient has visits of its own in the way.
    pub fn waits_for_survivor(&self) -> bool {
        self.state == State::Displaced
            && self.displaced_reasons.iter().any(|reason| Conflict::is_own_rule(reason))
    }

    /// The same time as it would be taken again.
    pub fn again(&self) -> NewReservation {
        NewReservation {
            id: self.id,
            state: self.state,
            patient_id: self.patient_id,
            service_type_id: self.service_type_id,
            clinic_id: self.clinic_id,
            visit: self.visit(),
            occupied: self.occupied(),
            visit_date: self.visit_date,
            time_zone: self.time_zone.clone(),
            intake_form_id: self.intake_form_id,
            copay: self.copay,
            payment_method_id: self.payment_method_id,
            drive: false,
            overridden: self.overridden.clone(),
        }
    }

    /// The visit.
    pub fn visit(&self) -> Span {
        Span { start: self.start, end: self.end }
    }

    /// The visit with its buffers.
    pub fn occupied(&self) -> Span {
        Span { start: self.occupied_start, end: self.occupied_end }
    }

    /// Whether `now` is on the visit's own day at the clinic.
    pub fn is_visit_day(&self, now: DateTime<Utc>) -> bool {
        // The zone came from scheduling, which only knows zones of this same table.
        let zone: Tz = self.time_zone.parse().unwrap_or(Tz::UTC);
        now.with_timezone(&zone).date_naive() == self.visit_date
    }
}

/// A reservation about to be made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in Reservation")]
pub struct NewReservation {
    pub id: AppointmentId,
    pub state: State,
    pub patient_id: PatientId,
    pub service_type_id: ServiceTypeId,
    pub clinic_id: ClinicId,
    pub visit: Span,
    pub occupied: Span,
    pub visit_date: NaiveDate,
    pub time_zone: String,
    pub intake_form_id: Option<FormId>,
    pub copay: Copay,
    pub payment_method_id: Option<PaymentMethodId>,
    pub drive: bool,
    pub overridden: Vec<String>,
}

impl NewReservation {
    /// The row as it is made at `now`, with a provider whose calendar it was judged at, in a room.
    pub fn placed(
        self,
        (provider_id, calendar_version): (ProviderId, i64),
        room_id: RoomId,
        now: DateTime<Utc>,
    ) -> Reservation {
        let held = matches!(self.state, State::Held | State::Offered);
        Reservation {
            id: self.id,
            version: 1,
            state: self.state,
            patient_id: self.patient_id,
            service_type_id: self.service_type_id,
            clinic_id: self.clinic_id,
            provider_id,
            room_id,
            start: self.visit.start,
            end: self.visit.end,
            occupied_start: self.occupied.start,
            occupied_end: self.occupied.end,
            visit_date: self.visit_date,
            time_zone: self.time_zone,
            calendar_version,
            hold_expires_at: held.then(|| (now + HOLD_TTL).trunc_subsecs(0)),
            intake_form_id: self.intake_form_id,
            fee_start: self.visit.start,
            copay: self.copay,
            charge_id: None,
            payment_method_id: self.payment_method_id,
            driven_until: self.drive.then(|| now + DRIVE_LEASE),
            attempt_id: self.drive.then(Uuid::now_v7),
            cancel_received_at: None,
            cancelled_by_clinic: None,
            fee_due: false,
            checked_in_at: None,
            closed_at: None,
            created_at: now,
            updated_at: now,
            decline_code: String::new(),
            displaced_at: None,
            displaced_reasons: vec![],
            overridden: self.overridden,
            judge_at: None,
            work_list_at: None,
            read_at: now,
        }
    }
}

/// One of the rules that the database arbitrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// The provider is in another visit.
    Provider,
    /// The room is taken.
    Room,
    /// The patient is in another visit.
    Patient,
    /// The patient sees this provider less than 7 days from it.
    SevenDays,
    /// The patient has an open hold.
    OpenHold,
}

impl Conflict {
    /// The contract's word for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Provider => "SLOT_TAKEN",
            Self::Room => "ROOM_TAKEN",
            Self::Patient => "PATIENT_BUSY",
            Self::SevenDays => "WITHIN_7_DAYS",
            Self::OpenHold => "TOO_MANY_HOLDS",
        }
    }

    /// Whether `reason` is a rule about two visits of one patient, which merging two records may break.
    pub fn is_own_rule(reason: &str) -> bool {
        [Self::Patient, Self::SevenDays].iter().any(|rule| rule.reason() == reason)
    }
}

/// A rule that says no, and what it says no for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clash {
    /// Which rule.
    pub rule: Conflict,
    /// An appointment in the way; `None` = not to be told.
    pub with: Option<AppointmentId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_states_named_by_the_contract_follow_each_other() {
        let allowed: Vec<_> = State::ALL
            .into_iter()
            .flat_map(|from| {
                State::ALL.into_iter().filter(move |to| from.may_become(*to)).map(move |to| (from, to))
            })
            .collect();
        assert_eq!(allowed.len(), 4 + 4 + 4 + 4 + 1 + 1);
        assert!(allowed.iter().all(|(from, to)| from != to && *to != State::Held && *to != State::Offered));
    }

    #[test]
    fn nothing_follows_an_ended_appointment_but_a_late_arrival() {
        for state in State::ALL.into_iter().filter(|s| !s.occupies()) {
            let next: Vec<_> = State::ALL.into_iter().filter(|to| state.may_become(*to)).collect();
            assert_eq!(next, if state == State::NoShow { vec![State::CheckedIn] } else { vec![] });
        }
    }
}
