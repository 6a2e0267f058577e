//! When providers work: weekly templates, exceptions to them, blackouts; each gives the time it stands for.

use chrono::NaiveDate;
use chrono_tz::Tz;
use kit::ids::{BlackoutId, ClinicId, ExceptionId, ProviderId, WeeklyTemplateId};

use super::rule::Rule;
use super::span::{Minute, Span};
use super::{Days, shift, zone};

/// A shift from `start` to `end` of the wall clock that belongs to `date`; an end at or before the start lies on the next day.
pub fn shift_on(time_zone: Tz, date: NaiveDate, start: u16, end: u16) -> Span {
    let last = if end <= start { shift(date, 1) } else { date };
    Span::new(zone::at(time_zone, date, start), zone::at(time_zone, last, end))
}

/// A provider's recurring shift at one clinic.
#[derive(Clone, Debug, PartialEq)]
pub struct WeeklyTemplate {
    /// Its id.
    pub id: WeeklyTemplateId,
    /// Who works.
    pub provider_id: ProviderId,
    /// Where.
    pub clinic_id: ClinicId,
    /// On which days.
    pub rule: Rule,
    /// Minute of the clinic's day.
    pub start_minute: u16,
    /// Exclusive; at or before the start = on the next day.
    pub end_minute: u16,
    /// First day it applies to; `None` = the rule's own.
    pub first_date: Option<NaiveDate>,
    /// Last day a shift may start on; `None` = the rule's own.
    pub last_date: Option<NaiveDate>,
    /// The provider's when it was last written.
    pub calendar_version: i64,
    /// Counts its states from 1.
    pub version: i64,
}

impl WeeklyTemplate {
    /// The shifts that reach into `days`: those of the night before them included.
    pub fn shifts(&self, days: &Days) -> impl Iterator<Item = Span> + '_ {
        let from = shift(*days.start(), -1).max(self.first());
        let to = self.last_date.map_or(*days.end(), |last| last.min(*days.end()));
        let zone = self.rule.zone();
        self.rule.days(from, to).map(move |date| shift_on(zone, date, self.start_minute, self.end_minute))
    }

    /// From its first shift to its last; an end at [`Minute::MAX`] is none.
    pub fn reach(&self) -> Span {
        let zone = self.rule.zone();
        let on = |date| shift_on(zone, date, self.start_minute, self.end_minute);
        let last = [self.last_date, self.rule.last()].into_iter().flatten().min();
        Span::new(on(self.first()).start, last.map_or(Minute::MAX, |date| on(date).end))
    }

    fn first(&self) -> NaiveDate {
        self.first_date.map_or(self.rule.first(), |first| first.max(self.rule.first()))
    }
}

/// Takes time away or adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "scheduling.exception_kind", rename_all = "snake_case")]
pub enum ExceptionKind {
    /// Takes working time away; wins over extra hours.
    TimeOff,
    /// Adds working time.
    ExtraHours,
}

/// Time off or extra hours of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its id.
    pub id: ExceptionId,
    /// Whose.
    pub provider_id: ProviderId,
    /// Where; `None` = at every clinic (time off only).
    pub clinic_id: Option<ClinicId>,
    /// Away or more.
    pub kind: ExceptionKind,
    /// When.
    pub span: Span,
    /// The contract's number of why.
    pub cause: i32,
    /// The provider's when it was added.
    pub calendar_version: i64,
}

impl Exception {
    /// Whether it says something about this clinic.
    pub fn applies_at(&self, clinic: ClinicId) -> bool {
        self.clinic_id.is_none_or(|own| own == clinic)
    }
}

/// When a blackout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlackoutSpan {
    /// Whole days of each clinic concerned.
    Days(Days),
    /// The same instants everywhere.
    Exact(Span),
}

/// Time in which no visit is booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// Its id.
    pub id: BlackoutId,
    /// Which clinic; `None` = the whole network.
    pub clinic_id: Option<ClinicId>,
    /// Why, for staff.
    pub name: String,
    /// When.
    pub span: BlackoutSpan,
}

impl Blackout {
    /// Whether it closes this clinic.
    pub fn applies_at(&self, clinic: ClinicId) -> bool {
        self.clinic_id.is_none_or(|own| own == clinic)
    }

    /// When it is, at a clinic with this time zone.
    pub fn at(&self, time_zone: Tz) -> Span {
        match &self.span {
            BlackoutSpan::Days(days) => zone::whole_days(time_zone, days),
            BlackoutSpan::Exact(span) => *span,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(rule: &str, start: u16, end: u16, days: [&str; 2]) -> Vec<i64> {
        let template = WeeklyTemplate {
            id: WeeklyTemplateId::new(),
            provider_id: ProviderId::new(),
            clinic_id: ClinicId::new(),
            rule: Rule::parse(&format!("DTSTART;TZID=America/New_York:{rule}")).unwrap(),
            start_minute: start,
            end_minute: end,
            first_date: None,
            last_date: None,
            calendar_version: 1,
            version: 1,
        };
        let [from, to] = days.map(|d| d.parse().unwrap());
        template.shifts(&(from..=to)).map(|s| (s.end - s.start) / 60).collect()
    }

    #[test]
    fn an_overnight_shift_belongs_to_its_start_day_and_is_as_long_as_the_real_night() {
        let saturdays = "20260103T220000\nRRULE:FREQ=WEEKLY;BYDAY=SA";
        assert_eq!(hours(saturdays, 22 * 60, 6 * 60, ["2026-03-01", "2026-03-07"]), [8, 7]);
        assert_eq!(hours(saturdays, 22 * 60, 6 * 60, ["2026-11-01", "2026-11-01"]), [9]);
        assert_eq!(hours(saturdays, 22 * 60, 6 * 60, ["2026-11-02", "2026-11-06"]), Vec::<i64>::new());
    }

    #[test]
    fn a_night_of_six_hours_lasts_five_in_spring_and_seven_in_autumn() {
        let nights = "20260101T003000\nRRULE:FREQ=DAILY";
        assert_eq!(hours(nights, 30, 390, ["2026-03-08", "2026-03-08"]), [6, 5]);
        assert_eq!(hours(nights, 30, 390, ["2026-11-01", "2026-11-01"]), [6, 7]);
    }
}
