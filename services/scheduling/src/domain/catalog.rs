//! What can be booked: clinics, rooms, providers, service types.

use chrono_tz::Tz;
use kit::ids::{ClinicId, FormId, ProviderId, RoomId, ServiceTypeId};
use serde::{Deserialize, Serialize};

use super::span::Spans;
use super::{Days, calendar, shift, zone};

/// A place where visits happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Clinic {
    /// Its id.
    pub id: ClinicId,
    /// What patients know it by.
    pub name: String,
    /// Rules everything scheduled there.
    pub time_zone: Tz,
    /// When it is open; never overlapping.
    pub opening_hours: Vec<OpeningHours>,
    /// E.164; empty = none.
    pub phone: String,
    /// Lines; empty = none.
    pub address: String,
    /// Takes no new bookings.
    pub retired: bool,
    /// Counts its states from 1.
    pub version: i64,
}

/// One span in which a clinic is open, each week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningHours {
    /// 1 = Monday to 7 = Sunday: the day it starts on.
    pub day: u8,
    /// Minute of that day.
    pub open: u16,
    /// Minute of that day, exclusive; at or before `open` = on the next day.
    pub close: u16,
}

impl OpeningHours {
    /// Minutes from the week's Monday midnight to opening and to closing.
    fn of_week(self) -> (i64, i64) {
        let day = (i64::from(self.day) - 1) * zone::DAY;
        let next = if self.close <= self.open { zone::DAY } else { 0 };
        (day + i64::from(self.open), day + next + i64::from(self.close))
    }

    /// Whether two spans share time in any week.
    pub fn overlaps(self, other: Self) -> bool {
        const WEEK: i64 = 7 * zone::DAY;
        let ((a, b), (c, d)) = (self.of_week(), other.of_week());
        [-WEEK, 0, WEEK].iter().any(|w| a < d + w && c + w < b)
    }
}

impl Clinic {
    /// When it is open on `days`, nights that began the day before included.
    pub fn open(&self, days: &Days) -> Spans {
        let from = shift(*days.start(), -1);
        from.iter_days()
            .take_while(|d| d <= days.end())
            .flat_map(|date| {
                let today = self.opening_hours.iter().filter(move |h| h.day == zone::weekday(date));
                today.map(move |h| calendar::shift_on(self.time_zone, date, h.open, h.close))
            })
            .collect()
    }
}

/// A room of a clinic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its id.
    pub id: RoomId,
    /// Where it is.
    pub clinic_id: ClinicId,
    /// What staff call it.
    pub name: String,
    /// What it offers.
    pub features: Vec<String>,
    /// Takes no new bookings.
    pub retired: bool,
    /// Counts its states from 1.
    pub version: i64,
}

impl Room {
    /// Whether it has all that `service` needs.
    pub fn suits(&self, service: &ServiceType) -> bool {
        service.room_features.iter().all(|f| self.features.contains(f))
    }
}

/// Someone patients have visits with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// As patients know it.
    pub name: String,
    /// Field of work; empty = not shown.
    pub specialty: String,
    /// BCP 47.
    pub languages: Vec<String>,
    /// What it offers; empty = everything.
    pub service_type_ids: Vec<ServiceTypeId>,
    /// Takes no new bookings.
    pub retired: bool,
    /// Counts the states of this entry from 1.
    pub version: i64,
    /// Counts the states of its calendar from 1.
    pub calendar_version: i64,
}

impl Provider {
    /// Whether patients can have this kind of visit with the provider.
    pub fn offers(&self, service: ServiceTypeId) -> bool {
        self.service_type_ids.is_empty() || self.service_type_ids.contains(&service)
    }
}

/// A kind of visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceType {
    /// Its id.
    pub id: ServiceTypeId,
    /// As patients know it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Length of the visit.
    pub duration_minutes: i32,
    /// The provider is kept free so long before.
    pub buffer_before_minutes: i32,
    /// The provider is kept free so long after.
    pub buffer_after_minutes: i32,
    /// Starts are offered every so many minutes from midnight; 0 = `duration_minutes`. See [`Self::step`].
    pub step_minutes: i32,
    /// Least time between booking and start.
    pub minimum_notice_minutes: i32,
    /// Days after today on which starts are offered.
    pub booking_horizon_days: i32,
    /// What the room must have.
    pub room_features: Vec<String>,
    /// To be submitted before check-in.
    pub intake_form_id: Option<FormId>,
    /// A co-pay is authorized first.
    pub copay_required: bool,
    /// Takes no new bookings.
    pub retired: bool,
    /// Counts its states from 1.
    pub version: i64,
}

impl ServiceType {
    /// Whether every slot of the one is a slot of the other.
    pub fn offers_the_same_time_as(&self, other: &Self) -> bool {
        let time = |s: &Self| {
            (
                [s.duration_minutes, s.buffer_before_minutes, s.buffer_after_minutes, s.step_minutes],
                [s.minimum_notice_minutes, s.booking_horizon_days],
                s.room_features.clone(),
                s.retired,
            )
        };
        time(self) == time(other)
    }

    /// Length of the visit with its buffers.
    pub fn occupied_minutes(&self) -> i64 {
        i64::from(self.buffer_before_minutes + self.duration_minutes + self.buffer_after_minutes)
    }

    /// Minutes from one start on offer to the next.
    pub fn step(&self) -> i64 {
        i64::from(if self.step_minutes == 0 { self.duration_minutes } else { self.step_minutes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_hours_overlap_across_the_end_of_the_week() {
        let hours = |day, open, close| OpeningHours { day, open, close };
        let sunday_night = hours(7, 22 * 60, 6 * 60);
        assert!(sunday_night.overlaps(hours(1, 5 * 60, 9 * 60)));
        assert!(!sunday_night.overlaps(hours(1, 6 * 60, 9 * 60)));
        assert!(hours(1, 0, 0).overlaps(hours(1, 600, 660)));
        assert!(!hours(1, 540, 720).overlaps(hours(1, 720, 1020)));
    }
}
