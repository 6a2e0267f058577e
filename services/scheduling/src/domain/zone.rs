//! Wall clocks: from a local day and minute to an instant, and back.
//!
//! 09:00 stays 09:00 on both sides of a clock change; a time inside the spring gap moves forward by the gap; a repeated autumn
//! time means its first occurrence.

use chrono::{Datelike as _, NaiveDate, NaiveDateTime, Offset as _, SecondsFormat, TimeDelta, TimeZone as _};
use chrono_tz::Tz;

use super::span::{self, Minute, Span};
use super::{Days, shift};

/// Minutes of a day without a clock change.
pub const DAY: Minute = 24 * 60;
/// Days are numbered from 1970-01-01, as minutes are.
const EPOCH_DAY: i32 = 719_163;
/// Zones change their offset at most once in this time.
const PROBE: Minute = DAY;

/// The instant at which clocks of `zone` show `minute` (0 to 1440, 1440 = the next midnight) on `date`.
pub fn at(zone: Tz, date: NaiveDate, minute: u16) -> Minute {
    let wall = NaiveDateTime::from(date) + TimeDelta::minutes(i64::from(minute));
    let instant = zone.from_local_datetime(&wall).earliest().map(|t| t.timestamp());
    instant.unwrap_or_else(|| wall.and_utc().timestamp() - offset_before_gap(zone, wall)).div_euclid(60)
}

/// UTC offset in seconds that held until the gap that swallowed `wall`.
fn offset_before_gap(zone: Tz, wall: NaiveDateTime) -> i64 {
    const STEP: TimeDelta = TimeDelta::minutes(15);
    // Offsets change by whole quarters of an hour; the longest gap is the one day that Samoa skipped.
    let earlier = (1..=200).find_map(|n| zone.from_local_datetime(&(wall - STEP * n)).latest());
    earlier.map_or(0, |t| i64::from(t.offset().fix().local_minus_utc()))
}

/// Minutes that clocks of `zone` are ahead of UTC.
pub fn offset(zone: Tz, at: Minute) -> Minute {
    let seconds = zone.offset_from_utc_datetime(&span::instant(at).naive_utc()).fix().local_minus_utc();
    i64::from(seconds).div_euclid(60)
}

/// The local day that `at` lies on.
pub fn date(zone: Tz, at: Minute) -> NaiveDate {
    span::instant(at).with_timezone(&zone).date_naive()
}

/// The minute of the local day that clocks show.
pub fn minute_of_day(zone: Tz, at: Minute) -> Minute {
    (at + offset(zone, at)).rem_euclid(DAY)
}

/// RFC 3339 with the offset, such as `2026-11-23T09:00:00-06:00`.
pub fn rfc3339(zone: Tz, at: Minute) -> String {
    span::instant(at).with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// A span as staff read it, such as `2026-11-23 09:00 to 12:00`, with the date of the end when it is another.
pub fn clock(zone: Tz, span: Span) -> String {
    let (start, end) =
        (span::instant(span.start).with_timezone(&zone), span::instant(span.end).with_timezone(&zone));
    let format = if start.date_naive() == end.date_naive() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    format!("{} to {}", start.format("%Y-%m-%d %H:%M"), end.format(format))
}

/// From the first midnight to the one after the last day.
pub fn whole_days(zone: Tz, days: &Days) -> Span {
    Span::new(at(zone, *days.start(), 0), at(zone, shift(*days.end(), 1), 0))
}

/// Part of a local day during which clocks run evenly: a whole day, or one side of a clock change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The local day.
    pub date: NaiveDate,
    /// When it lasts.
    pub span: Span,
    /// The instant at which these clocks showed, or would have shown, 00:00: `t - midnight` is the minute of the day at `t`.
    pub midnight: Minute,
}

/// The stretches of `days`, in order of time.
pub fn stretches(zone: Tz, days: &Days) -> Vec<Stretch> {
    let range = whole_days(zone, days);
    let mut found = vec![];
    let mut from = range.start;
    let mut current = offset(zone, from);
    while from < range.end {
        let until = next_change(zone, from, current, range.end);
        let mut start = from;
        while start < until {
            let day = (start + current).div_euclid(DAY);
            let midnight = day * DAY - current;
            let end = until.min(midnight + DAY);
            let date =
                i32::try_from(day).ok().and_then(|d| NaiveDate::from_num_days_from_ce_opt(d + EPOCH_DAY));
            found.extend(date.map(|date| Stretch { date, span: Span::new(start, end), midnight }));
            start = end;
        }
        (from, current) = (until, offset(zone, until));
    }
    found
}

/// The first instant after `from` at which `zone` leaves the offset `current`, or `end`.
pub fn next_change(zone: Tz, from: Minute, current: Minute, end: Minute) -> Minute {
    let mut same = from;
    while same < end {
        let probe = (same + PROBE).min(end);
        if offset(zone, probe) != current {
            let (mut low, mut high) = (same, probe);
            while high - low > 1 {
                let middle = low.midpoint(high);
                if offset(zone, middle) == current { low = middle } else { high = middle }
            }
            return high;
        }
        same = probe;
    }
    end
}

/// The day of the week, 1 = Monday to 7 = Sunday.
pub fn weekday(date: NaiveDate) -> u8 {
    date.weekday().number_from_monday() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn shows(zone: Tz, date: &str, hour: u16, minute: u16) -> String {
        rfc3339(zone, at(zone, day(date), hour * 60 + minute))
    }

    const NEW_YORK: Tz = Tz::America__New_York;

    #[test]
    fn nine_stays_nine_on_both_sides_of_both_changes() {
        for (date, shown) in [
            ("2026-03-07", "2026-03-07T09:00:00-05:00"),
            ("2026-03-08", "2026-03-08T09:00:00-04:00"),
            ("2026-10-31", "2026-10-31T09:00:00-04:00"),
            ("2026-11-01", "2026-11-01T09:00:00-05:00"),
        ] {
            assert_eq!(shows(NEW_YORK, date, 9, 0), shown);
        }
    }

    #[test]
    fn a_time_inside_the_spring_gap_moves_forward_by_the_gap() {
        assert_eq!(shows(NEW_YORK, "2026-03-08", 2, 30), "2026-03-08T03:30:00-04:00");
        assert_eq!(shows(Tz::Australia__Lord_Howe, "2026-10-04", 2, 15), "2026-10-04T02:45:00+11:00");
    }

    #[test]
    fn a_repeated_autumn_time_means_its_first_occurrence() {
        assert_eq!(shows(NEW_YORK, "2026-11-01", 1, 30), "2026-11-01T01:30:00-04:00");
        assert_eq!(shows(Tz::Europe__London, "2026-10-25", 1, 30), "2026-10-25T01:30:00+01:00");
    }

    #[test]
    fn a_night_is_as_long_as_it_really_is() {
        let night = |date| at(NEW_YORK, day(date), 390) - at(NEW_YORK, day(date), 30);
        assert_eq!((night("2026-03-08"), night("2026-06-01"), night("2026-11-01")), (5 * 60, 6 * 60, 7 * 60));
    }

    #[test]
    fn stretches_cover_their_days_without_a_hole_and_tell_the_wall_clock() {
        for zone in [
            NEW_YORK,
            Tz::Australia__Lord_Howe,
            Tz::Asia__Kolkata,
            Tz::Africa__Casablanca,
            Tz::America__St_Johns,
        ] {
            let days = day("2026-01-01")..=day("2027-12-31");
            let stretches = stretches(zone, &days);
            let range = whole_days(zone, &days);
            assert_eq!(stretches.first().unwrap().span.start, range.start);
            assert_eq!(stretches.last().unwrap().span.end, range.end);
            assert!(stretches.windows(2).all(|w| w[0].span.end == w[1].span.start));
            for s in stretches {
                for t in [s.span.start, s.span.end - 1] {
                    assert_eq!(
                        (date(zone, t), minute_of_day(zone, t)),
                        (s.date, t - s.midnight),
                        "{zone} {s:?}"
                    );
                }
            }
        }
    }
}
