//! VTIMEZONE (RFC 5545, section 3.6.5): how a zone's clocks run over the time of a feed, so that a reader needs no zone data of
//! its own. Made from the very data that shifts are expanded by.

use chrono::{NaiveDateTime, Offset as _, TimeZone as _};
use chrono_tz::{OffsetComponents as _, Tz, TzOffset};
use kit::ical::{Lines, local, offset};

use crate::domain::span::{Minute, Span, instant};
use crate::domain::zone;

/// A stretch of time in which clocks run evenly.
struct Observance {
    /// What the clocks showed before as it began: its DTSTART.
    onset: NaiveDateTime,
    /// Minutes ahead of UTC until then.
    before: Minute,
    /// And since.
    offset: TzOffset,
}

/// Observances that began in the same way.
struct Rule<'a> {
    first: &'a Observance,
    later: Vec<NaiveDateTime>,
}

/// Writes the clocks of `zone` over `span`, both ends included.
pub(super) fn write(out: &mut Lines, zone: Tz, span: Span) {
    let observances = observances(zone, span);
    // Ireland and Morocco count the time when clocks are back as the exception, and save negatively.
    let negative = observances.iter().any(|o| o.offset.dst_offset().num_minutes() < 0);
    let mut rules: Vec<Rule<'_>> = vec![];
    for observance in &observances {
        match rules.iter_mut().find(|rule| rule.first.is_like(observance)) {
            Some(rule) => rule.later.push(observance.onset),
            None => rules.push(Rule { first: observance, later: vec![] }),
        }
    }
    out.put("BEGIN", "VTIMEZONE");
    out.put("TZID", zone.name());
    for Rule { first, later } in rules {
        let kind = if first.is_daylight(negative) { "DAYLIGHT" } else { "STANDARD" };
        out.put("BEGIN", kind);
        out.put("DTSTART", &local(first.onset));
        out.put("TZOFFSETFROM", &offset(first.before));
        out.put("TZOFFSETTO", &offset(first.minutes()));
        out.text("TZNAME", &first.offset.to_string());
        later.into_iter().for_each(|onset| out.put("RDATE", &local(onset)));
        out.put("END", kind);
    }
    out.put("END", "VTIMEZONE");
}

impl Observance {
    fn minutes(&self) -> Minute {
        i64::from(self.offset.fix().local_minus_utc()).div_euclid(60)
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.before, self.offset) == (other.before, other.offset)
    }

    fn is_daylight(&self, negative: bool) -> bool {
        let saved = self.offset.dst_offset().num_minutes();
        if negative { saved == 0 } else { saved > 0 }
    }
}

/// In order of time. The first is the one in force as `span` starts; as nothing before it is told, it begins with the epoch and
/// changes nothing.
fn observances(zone: Tz, span: Span) -> Vec<Observance> {
    let began = |at: Minute, shown: Minute, before: Minute| Observance {
        onset: instant(shown).naive_utc(),
        before,
        offset: zone.offset_from_utc_datetime(&instant(at).naive_utc()),
    };
    let end = span.end.max(span.start) + 1;
    let mut current = zone::offset(zone, span.start);
    let mut found = vec![began(span.start, 0, current)];
    let mut at = zone::next_change(zone, span.start, current, end);
    while at < end {
        found.push(began(at, at + current, current));
        current = zone::offset(zone, at);
        at = zone::next_change(zone, at, current, end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shift;

    /// The VTIMEZONE over the year 2027, a line per observance: kind, onsets, from, to, name.
    fn year(zone: Tz) -> Vec<String> {
        let first = chrono::NaiveDate::from_ymd_opt(2027, 1, 1).unwrap();
        let span = zone::whole_days(zone, &(first..=shift(first, 364)));
        let mut lines = Lines::default();
        write(&mut lines, zone, span);
        let text = lines.finish();
        assert!(text.starts_with(&format!("BEGIN:VTIMEZONE\r\nTZID:{}\r\n", zone.name())), "{text}");
        let mut found = vec![];
        for part in text.split("BEGIN:").skip(2) {
            let mut fields = part.lines();
            let kind = fields.next().unwrap().to_owned();
            let values = fields.take_while(|l| !l.starts_with("END")).map(|l| l.split_once(':').unwrap().1);
            found.push(values.fold(kind, |all, value| all + " " + value));
        }
        found
    }

    #[test]
    fn new_york_and_london_have_one_change_each_way() {
        let expected = [
            "STANDARD 19700101T000000 -0500 -0500 EST",
            "DAYLIGHT 20270314T020000 -0500 -0400 EDT",
            "STANDARD 20271107T020000 -0400 -0500 EST",
        ];
        assert_eq!(year(Tz::America__New_York), expected);
        let expected = [
            "STANDARD 19700101T000000 +0000 +0000 GMT",
            "DAYLIGHT 20270328T010000 +0000 +0100 BST",
            "STANDARD 20271031T020000 +0100 +0000 GMT",
        ];
        assert_eq!(year(Tz::Europe__London), expected);
    }

    #[test]
    fn half_hours_are_told_where_clocks_move_by_them_or_stand_by_them() {
        let expected = [
            "DAYLIGHT 19700101T000000 +1100 +1100 +11",
            "STANDARD 20270404T020000 +1100 +1030 +1030",
            "DAYLIGHT 20271003T020000 +1030 +1100 +11",
        ];
        assert_eq!(year(Tz::Australia__Lord_Howe), expected);
        assert_eq!(year(Tz::Asia__Kolkata), ["STANDARD 19700101T000000 +0530 +0530 IST"]);
        let expected = [
            "STANDARD 19700101T000000 -0330 -0330 NST",
            "DAYLIGHT 20270314T020000 -0330 -0230 NDT",
            "STANDARD 20271107T020000 -0230 -0330 NST",
        ];
        assert_eq!(year(Tz::America__St_Johns), expected);
    }

    #[test]
    fn where_the_saving_is_negative_the_clocks_ahead_are_daylight_time_all_the_same() {
        let expected = [
            "DAYLIGHT 19700101T000000 +0100 +0100 +01",
            "STANDARD 20270207T030000 +0100 +0000 +00",
            "DAYLIGHT 20270314T020000 +0000 +0100 +01",
        ];
        assert_eq!(year(Tz::Africa__Casablanca), expected);
        let kinds: Vec<_> = year(Tz::Europe__Dublin).into_iter().map(|o| o[..8].to_owned()).collect();
        assert_eq!(kinds, ["STANDARD", "DAYLIGHT", "STANDARD"]);
    }

    #[test]
    fn changes_of_several_years_that_are_alike_are_told_together() {
        let day = |text: &str| text.parse().unwrap();
        let span = zone::whole_days(Tz::America__New_York, &(day("2026-01-01")..=day("2028-12-31")));
        let mut lines = Lines::default();
        write(&mut lines, Tz::America__New_York, span);
        let text = lines.finish();
        assert_eq!(text.matches("BEGIN:").count(), 4, "{text}");
        assert!(text.contains("DTSTART:20260308T020000\r\nTZOFFSETFROM:-0500\r\nTZOFFSETTO:-0400\r\nTZNAME:EDT\r\nRDATE:20270314T020000\r\nRDATE:20280312T020000\r\n"));
    }
}
