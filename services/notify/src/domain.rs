//! When reminders are due and what is still worth sending. No I/O, no clock.
//!
//! Leads are elapsed hours: a day before a visit on the morning after a clock change is 24 hours, not the same wall-clock time.
//! Quiet hours are the recipient's wall clock.

pub mod notice;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId, PatientId};
use proto::clinic::appointments::v1::AppointmentState;
use proto::clinic::notify::v1::{DropReason, ReminderKind};

/// Texts may come from this time of day on…
const DAY_BEGINS: NaiveTime = NaiveTime::from_hms_opt(8, 0, 0).expect("a time of day");
/// …until before this one.
const DAY_ENDS: NaiveTime = NaiveTime::from_hms_opt(21, 0, 0).expect("a time of day");
/// What would fall outside moves back to this: early enough that a queue can drain before the day ends.
const EVENING: NaiveTime = NaiveTime::from_hms_opt(20, 0, 0).expect("a time of day");

/// Where the recipient lives is asked so long before a reminder's moment: it may have to come an evening earlier there, which is 13
/// hours at most, over a change of clocks 14.
const LOOK_AHEAD: TimeDelta = TimeDelta::hours(15);

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
    /// When it starts.
    pub start: DateTime<Utc>,
    /// When it ends.
    pub end: DateTime<Utc>,
    /// The clinic's time zone.
    pub zone: Tz,
    /// Where it stands.
    pub state: AppointmentState,
    /// An intake form belongs to it.
    pub has_form: bool,
}

impl Visit {
    /// Booked, and not cancelled, displaced, begun or over.
    pub fn standing(&self) -> bool {
        self.state == AppointmentState::Booked
    }
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

/// When a reminder planned at `now` is looked at first: early enough to find out where the recipient lives and to move it there.
pub fn first_look(kind: ReminderKind, start: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    now.max(start - timing(kind).lead - LOOK_AHEAD)
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

/// Judges, at `now`, a reminder that was planned at `planned`, for a recipient in `zone`, who may live elsewhere than the clinic.
pub fn judge(
    kind: ReminderKind,
    start: DateTime<Utc>,
    planned: DateTime<Utc>,
    now: DateTime<Utc>,
    zone: Tz,
) -> Judgement {
    match plan(kind, start, planned, zone) {
        Plan::Dropped(reason) => return Judgement::Drop(reason),
        Plan::Due(due) if now < due => return Judgement::Wait(due),
        Plan::Due(_) => {}
    }
    let latest = start - timing(kind).sent_notice;
    if now > latest {
        return Judgement::Drop(DropReason::TooLate);
    }
    if !is_quiet(now, zone) {
        return Judgement::Send;
    }
    // Held up into the night, or the recipient has moved meanwhile.
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

    const LONG_AGO: TimeDelta = TimeDelta::days(9);

    /// As judged so long before the visit, which was booked long ago.
    fn judged(kind: ReminderKind, start: DateTime<Utc>, before: TimeDelta, zone: Tz) -> Judgement {
        judge(kind, start, start - LONG_AGO, start - before, zone)
    }

    #[test]
    fn where_it_is_night_at_the_recipient_a_reminder_comes_the_evening_before() {
        // 09:00 in New York is 06:00 in Los Angeles: two hours before is four in the morning there.
        let start = at("2026-06-10T09:00:00-04:00");
        let look = start - first_look(ReminderKind::Hours2, start, start - LONG_AGO);
        let evening = at("2026-06-09T20:00:00-07:00");
        assert!(start - look <= evening);
        assert_eq!(judged(ReminderKind::Hours2, start, look, Los_Angeles), Judgement::Wait(evening));
        assert_eq!(judged(ReminderKind::Hours2, start, start - evening, Los_Angeles), Judgement::Send);
        let day_before = at("2026-06-08T20:00:00-07:00");
        assert_eq!(
            judged(ReminderKind::Hours24, start, TimeDelta::hours(39), Los_Angeles),
            Judgement::Wait(day_before)
        );
        assert_eq!(judged(ReminderKind::Hours24, start, TimeDelta::hours(24), New_York), Judgement::Send);
    }

    #[test]
    fn what_was_held_up_into_the_night_waits_for_the_morning_while_that_helps() {
        let start = at("2026-06-10T22:00:00-04:00");
        let night = TimeDelta::hours(24 - 1);
        let morning = at("2026-06-10T08:00:00-04:00");
        assert_eq!(judged(ReminderKind::Hours24, start, night, New_York), Judgement::Wait(morning));
        let start = at("2026-06-10T09:00:00-04:00");
        let dropped = Judgement::Drop(DropReason::QuietHours);
        assert_eq!(judged(ReminderKind::Hours2, start, TimeDelta::minutes(65), Los_Angeles), dropped);
    }

    #[test]
    fn a_visit_booked_in_the_evening_before_has_no_evening_to_move_to() {
        let start = at("2026-06-10T09:00:00-04:00");
        let booked = at("2026-06-09T20:30:00-04:00");
        let judged = |zone| judge(ReminderKind::Hours2, start, booked, booked, zone);
        assert_eq!(judged(New_York), Judgement::Drop(DropReason::QuietHours));
        // In Los Angeles it is half past five in the afternoon.
        assert_eq!(judged(Los_Angeles), Judgement::Wait(at("2026-06-09T20:00:00-07:00")));
    }

    #[test]
    fn what_was_held_up_too_long_is_not_sent() {
        let start = at("2026-06-10T14:00:00-04:00");
        let late = Judgement::Drop(DropReason::TooLate);
        let judged = |kind, before| judged(kind, start, before, New_York);
        assert_eq!(judged(ReminderKind::Hours24, TimeDelta::hours(11)), late);
        assert_eq!(judged(ReminderKind::Hours2, TimeDelta::minutes(31)), Judgement::Send);
        assert_eq!(judged(ReminderKind::Hours2, TimeDelta::minutes(29)), late);
    }

    proptest! {
        #[test]
        fn nothing_is_planned_at_night_late_or_before_it_was_known(
            zone in prop::sample::select(vec![New_York, Los_Angeles, Tz::Pacific__Apia, Tz::Australia__Lord_Howe]),
            now in 1_760_000_000_i64..1_800_000_000,
            ahead in 0_i64..5_000_000,
            waited in 0_i64..6_000_000,
            kind in prop::sample::select(KINDS.to_vec()),
        ) {
            let now = DateTime::from_timestamp(now, 0).expect("in range");
            let start = now + TimeDelta::seconds(ahead);
            if let Plan::Due(due) = plan(kind, start, now, zone) {
                prop_assert!(due >= now && !is_quiet(due, zone));
                prop_assert!(due <= start - timing(kind).lead || due == now);
                prop_assert!(first_look(kind, start, now) <= due);
            }
            let later = now + TimeDelta::seconds(waited);
            match judge(kind, start, now, later, zone) {
                Judgement::Send => prop_assert!(!is_quiet(later, zone) && later < start),
                Judgement::Wait(until) => {
                    prop_assert!(until > later && until < start && !is_quiet(until, zone));
                }
                Judgement::Drop(_) => {}
            }
        }
    }
}
