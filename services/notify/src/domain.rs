//! When reminders are due and what is still worth sending. No I/O, no clock.
//!
//! Leads are elapsed hours: a day before a visit on the morning after a clock change is 24 hours, not the same wall-clock time.
//! Quiet hours are the recipient's wall clock.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, PatientId};
use proto::clinic::notify::v1::{DropReason, ReminderKind};

/// Texts may come from this time of day on…
const DAY_BEGINS: NaiveTime = NaiveTime::from_hms_opt(8, 0, 0).expect("a time of day");
/// …until before this one.
const DAY_ENDS: NaiveTime = NaiveTime::from_hms_opt(21, 0, 0).expect("a time of day");
/// What would fall outside moves back to this: early enough that a queue can drain before the day ends.
const EVENING: NaiveTime = NaiveTime::from_hms_opt(20, 0, 0).expect("a time of day");

/// Every kind of reminder.
pub const KINDS: [ReminderKind; 2] = [ReminderKind::Hours24, ReminderKind::Hours2];

/// A visit as its newest event left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Which.
    pub appointment: AppointmentId,
    /// Its version.
    pub version: i64,
    /// Whose.
    pub patient: PatientId,
    /// Where.
    pub clinic: ClinicId,
    /// When.
    pub start: DateTime<Utc>,
    /// The clinic's time zone.
    pub zone: Tz,
    /// Booked, and not cancelled, displaced, begun or over.
    pub standing: bool,
}

/// How long before the visit a kind of reminder has its place.
struct Timing {
    /// Its moment.
    lead: TimeDelta,
    /// A visit booked after that moment still gets it with this much time left. A day's notice is no news to someone who has just
    /// booked; that the visit is in an hour may be.
    booked_notice: TimeDelta,
    /// One that could not be sent in time is still sent with this much time left.
    sent_notice: TimeDelta,
}

fn timing(kind: ReminderKind) -> Timing {
    match kind {
        ReminderKind::Hours24 | ReminderKind::Unspecified => Timing {
            lead: TimeDelta::hours(24),
            booked_notice: TimeDelta::hours(24),
            sent_notice: TimeDelta::hours(12),
        },
        ReminderKind::Hours2 => Timing {
            lead: TimeDelta::hours(2),
            booked_notice: TimeDelta::minutes(30),
            sent_notice: TimeDelta::minutes(30),
        },
    }
}

/// What becomes of a reminder when its visit is booked or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is sent then.
    Due(DateTime<Utc>),
    /// It makes no sense.
    Dropped(DropReason),
}

/// Plans one reminder of a visit that starts at `start`, heard of at `now`, for a recipient in `zone`.
pub fn plan(kind: ReminderKind, start: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> Plan {
    let Timing { lead, booked_notice, .. } = timing(kind);
    let moment = start - lead;
    if moment < now {
        return match (start - now >= booked_notice, is_quiet(now, zone)) {
            (false, _) => Plan::Dropped(DropReason::TooLate),
            (true, true) => Plan::Dropped(DropReason::QuietHours),
            (true, false) => Plan::Due(now),
        };
    }
    let due = if is_quiet(moment, zone) { evening_before(moment, zone) } else { moment };
    if due < now { Plan::Dropped(DropReason::QuietHours) } else { Plan::Due(due) }
}

/// What the dispatcher does with a reminder whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Send it.
    Send,
    /// It is quiet at the recipient: look again then.
    Wait(DateTime<Utc>),
    /// It would mislead, or come too late.
    Drop(DropReason),
}

/// Judges a due reminder at `now` for a recipient in `zone`, who may live elsewhere than the clinic.
pub fn judge(kind: ReminderKind, start: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> Judgement {
    let latest = start - timing(kind).sent_notice;
    if now > latest {
        return Judgement::Drop(DropReason::TooLate);
    }
    if !is_quiet(now, zone) {
        return Judgement::Send;
    }
    let morning = next_morning(now, zone);
    if morning <= latest { Judgement::Wait(morning) } else { Judgement::Drop(DropReason::QuietHours) }
}

/// Whether no text may come at `at` in `zone`.
pub fn is_quiet(at: DateTime<Utc>, zone: Tz) -> bool {
    let time = at.with_timezone(&zone).time();
    !(DAY_BEGINS..DAY_ENDS).contains(&time)
}

/// The last evening before `at`, which is a quiet moment.
fn evening_before(at: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let local = at.with_timezone(&zone);
    let back = if local.time() < DAY_BEGINS { Days::new(1) } else { Days::new(0) };
    instant(local.date_naive() - back, EVENING, zone)
}

/// The first morning after `at`, which is a quiet moment.
fn next_morning(at: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let local = at.with_timezone(&zone);
    let on = if local.time() < DAY_BEGINS { Days::new(0) } else { Days::new(1) };
    instant(local.date_naive() + on, DAY_BEGINS, zone)
}

/// A wall-clock time as an instant. Should a zone ever skip it, the time as it would have been before the skip.
fn instant(day: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let local = day.and_time(time);
    let found = zone.from_local_datetime(&local).earliest();
    found.map_or_else(
        || {
            let hour = TimeDelta::hours(1);
            let before = zone.from_local_datetime(&(local - hour)).earliest();
            before.map_or_else(|| local.and_utc(), |at| at.to_utc() + hour)
        },
        |at| at.to_utc(),
    )
}

#[cfg(test)]
mod tests {
    use chrono_tz::America::{Los_Angeles, New_York};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_visit_next_week_is_reminded_of_a_day_and_two_hours_before() {
        let (start, now) = (at("2026-06-10T14:00:00-04:00"), at("2026-06-03T12:00:00-04:00"));
        assert_eq!(
            plan(ReminderKind::Hours24, start, now, New_York),
            Plan::Due(at("2026-06-09T14:00:00-04:00"))
        );
        assert_eq!(
            plan(ReminderKind::Hours2, start, now, New_York),
            Plan::Due(at("2026-06-10T12:00:00-04:00"))
        );
    }

    #[test]
    fn leads_are_elapsed_hours_across_a_clock_change() {
        // Clocks went from 02:00 to 03:00 on 8 March 2026, and from 02:00 back to 01:00 on 1 November.
        let now = at("2026-01-01T12:00:00Z");
        let spring = plan(ReminderKind::Hours24, at("2026-03-08T14:00:00-04:00"), now, New_York);
        assert_eq!(spring, Plan::Due(at("2026-03-07T13:00:00-05:00")));
        let autumn = plan(ReminderKind::Hours24, at("2026-11-01T14:00:00-05:00"), now, New_York);
        assert_eq!(autumn, Plan::Due(at("2026-10-31T15:00:00-04:00")));
    }

    #[test]
    fn late_bookings_get_what_still_helps() {
        let start = at("2026-06-10T14:00:00-04:00");
        let booked = |minutes: i64, kind| plan(kind, start, start - TimeDelta::minutes(minutes), New_York);
        let now = start - TimeDelta::minutes(90);
        assert_eq!(booked(90, ReminderKind::Hours24), Plan::Dropped(DropReason::TooLate));
        assert_eq!(booked(90, ReminderKind::Hours2), Plan::Due(now));
        assert_eq!(booked(20, ReminderKind::Hours24), Plan::Dropped(DropReason::TooLate));
        assert_eq!(booked(20, ReminderKind::Hours2), Plan::Dropped(DropReason::TooLate));
        assert_eq!(booked(24 * 60, ReminderKind::Hours24), Plan::Due(start - TimeDelta::hours(24)));
        assert_eq!(booked(24 * 60 - 1, ReminderKind::Hours24), Plan::Dropped(DropReason::TooLate));
    }

    #[test]
    fn what_would_come_at_night_comes_the_evening_before() {
        let (start, now) = (at("2026-06-10T09:00:00-04:00"), at("2026-06-03T12:00:00-04:00"));
        assert_eq!(
            plan(ReminderKind::Hours2, start, now, New_York),
            Plan::Due(at("2026-06-09T20:00:00-04:00"))
        );
        let late = at("2026-06-10T21:30:00-04:00");
        assert_eq!(
            plan(ReminderKind::Hours24, late, now, New_York),
            Plan::Due(at("2026-06-09T20:00:00-04:00"))
        );
    }

    #[test]
    fn a_reminder_without_a_sensible_evening_is_dropped() {
        let (start, now) = (at("2026-06-10T09:00:00-04:00"), at("2026-06-09T20:30:00-04:00"));
        let quiet = Plan::Dropped(DropReason::QuietHours);
        assert_eq!(plan(ReminderKind::Hours2, start, now, New_York), quiet);
        let night = at("2026-06-10T07:30:00-04:00");
        assert_eq!(plan(ReminderKind::Hours2, start, night, New_York), quiet);
    }

    #[test]
    fn the_recipients_own_morning_is_waited_for_while_it_helps() {
        // 09:00 in New York is 06:00 in Los Angeles.
        let start = at("2026-06-10T09:00:00-04:00");
        let now = start - TimeDelta::hours(24);
        let morning = at("2026-06-09T08:00:00-07:00");
        assert_eq!(judge(ReminderKind::Hours24, start, now, New_York), Judgement::Send);
        assert_eq!(judge(ReminderKind::Hours24, start, now, Los_Angeles), Judgement::Wait(morning));
        let soon = at("2026-06-10T08:15:00-04:00");
        let dropped = Judgement::Drop(DropReason::QuietHours);
        assert_eq!(judge(ReminderKind::Hours2, start, soon, Los_Angeles), dropped);
    }

    #[test]
    fn what_was_held_up_too_long_is_not_sent() {
        let start = at("2026-06-10T14:00:00-04:00");
        let late = Judgement::Drop(DropReason::TooLate);
        assert_eq!(judge(ReminderKind::Hours24, start, start - TimeDelta::hours(11), New_York), late);
        assert_eq!(
            judge(ReminderKind::Hours2, start, start - TimeDelta::minutes(31), New_York),
            Judgement::Send
        );
        assert_eq!(judge(ReminderKind::Hours2, start, start - TimeDelta::minutes(29), New_York), late);
    }

    proptest! {
        #[test]
        fn nothing_is_planned_at_night_late_or_before_it_was_known(
            zone in prop::sample::select(vec![New_York, Los_Angeles, Tz::Pacific__Apia, Tz::Australia__Lord_Howe]),
            now in 1_760_000_000_i64..1_800_000_000,
            ahead in 0_i64..5_000_000,
            kind in prop::sample::select(KINDS.to_vec()),
        ) {
            let now = DateTime::from_timestamp(now, 0).expect("in range");
            let start = now + TimeDelta::seconds(ahead);
            if let Plan::Due(due) = plan(kind, start, now, zone) {
                prop_assert!(due >= now && !is_quiet(due, zone));
                prop_assert!(due <= start - timing(kind).lead || due == now);
            }
            match judge(kind, start, now, zone) {
                Judgement::Send => prop_assert!(!is_quiet(now, zone)),
                Judgement::Wait(until) => {
                    prop_assert!(until > now && until < start && !is_quiet(until, zone));
                }
                Judgement::Drop(_) => {}
            }
        }
    }
}
