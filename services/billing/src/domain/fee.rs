//! Fees of a clinic.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kit::ids::{ClinicId, ServiceTypeId};

/// Fees a clinic may have.
pub const MOST_PER_CLINIC: usize = 1_000;
/// Fees one call may set.
pub const MOST_PER_CALL: usize = 100;

/// How far the last time zone is behind UTC: while it is still a day there, that day is not over.
const LAST_ZONE_BEHIND: TimeDelta = TimeDelta::hours(12);

/// What one service type costs from one visit date on. Amounts in minor units; `None` = nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fee {
    /// What.
    pub service_type: ServiceTypeId,
    /// First visit date it holds for.
    pub effective_from: NaiveDate,
    /// First visit date it no longer holds for, when a later fee is known.
    pub effective_until: Option<NaiveDate>,
    /// Taken at booking.
    pub copay: Option<i64>,
    /// For a late cancellation or a missed visit.
    pub no_show: Option<i64>,
}

/// The fees of one clinic.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Whose.
    pub clinic: ClinicId,
    /// By service type, then date.
    pub fees: Vec<Fee>,
    /// Counts changes; 0 = it never had fees.
    pub version: i64,
    /// When it last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Schedule {
    /// Names this state of the schedule; empty = it has no fees yet.
    pub fn etag(&self) -> String {
        if self.version == 0 { String::new() } else { self.version.to_string() }
    }
}

/// The earliest date that is not over in every time zone.
pub fn earliest_open_date(now: DateTime<Utc>) -> NaiveDate {
    (now - LAST_ZONE_BEHIND).date_naive()
}
