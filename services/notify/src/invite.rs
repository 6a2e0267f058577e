//! Invitations: the visit for calendar programs (RFC 5545, RFC 5546). Pure.

use chrono::{DateTime, NaiveDateTime, Offset as _, TimeZone as _, Utc};
use chrono_tz::{OffsetComponents as _, Tz};
use kit::ical::{self, Lines, local, uid, utc, wall_clock};
use kit::ids::AppointmentId;

/// Who wrote the file.
const PRODUCT: &str = "-//clinic//notify//EN";

/// What an invitation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Put the visit there, or move it.
    Request,
    /// Take it away.
    Cancel,
}

impl Method {
    /// As RFC 5546 spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "REQUEST",
            Self::Cancel => "CANCEL",
        }
    }
}

/// One visit as calendars show it.
#[derive(Clone, Debug)]
pub struct Invite<'a> {
    /// What is asked for.
    pub method: Method,
    /// The visit: the same UID for as long as it lives.
    pub appointment: AppointmentId,
    /// Its version: a later one replaces an earlier.
    pub version: i64,
    /// When it starts.
    pub start: DateTime<Utc>,
    /// When it ends.
    pub end: DateTime<Utc>,
    /// The clinic's zone, in which it is told.
    pub zone: Tz,
    /// What it is, in a few words.
    pub summary: &'a str,
    /// Where; empty = not said.
    pub location: &'a str,
    /// The sender's address.
    pub organizer: &'a str,
    /// The patient's.
    pub attendee: &'a str,
}

impl Invite<'_> {
    /// The file, written at `now`.
    pub fn text(&self, now: DateTime<Utc>) -> String {
        let mut out = Lines::default();
        out.put("BEGIN", "VCALENDAR");
        out.put("VERSION", "2.0");
        out.text("PRODID", PRODUCT);
        out.put("METHOD", self.method.name());
        let clocks = self.wall_clocks();
        if clocks.is_some() {
            self.write_zone(&mut out);
        }
        out.put("BEGIN", "VEVENT");
        out.put("UID", &uid(self.appointment));
        out.put("SEQUENCE", &self.version.to_string());
        out.put("DTSTAMP", &utc(now));
        match clocks {
            Some([start, end]) => {
                let zone = self.zone.name();
                out.put(&format!("DTSTART;TZID={zone}"), &local(start));
                out.put(&format!("DTEND;TZID={zone}"), &local(end));
            }
            None => {
                out.put("DTSTART", &utc(self.start));
                out.put("DTEND", &utc(self.end));
            }
        }
        out.text("SUMMARY", self.summary);
        if !self.location.is_empty() {
            out.text("LOCATION", self.location);
        }
        out.put("ORGANIZER", &format!("mailto:{}", self.organizer));
        out.put("ATTENDEE;PARTSTAT=ACCEPTED;RSVP=FALSE", &format!("mailto:{}", self.attendee));
        out.put("STATUS", if self.method == Method::Cancel { "CANCELLED" } else { "CONFIRMED" });
        out.put("END", "VEVENT");
        out.put("END", "VCALENDAR");
        out.finish()
    }

    /// What the clinic's clocks show at its start and end; `None` where they change in between, or show that time for the second time,
    /// which can only be told in UTC.
    fn wall_clocks(&self) -> Option<[NaiveDateTime; 2]> {
        let clocks = [wall_clock(self.zone, self.start)?, wall_clock(self.zone, self.end)?];
        (clocks[1] - clocks[0] == self.end - self.start).then_some(clocks)
    }

    /// VTIMEZONE over the visit: its clocks run evenly from start to end, so one observance, begun with the epoch, says all.
    fn write_zone(&self, out: &mut Lines) {
        let offset = self.zone.offset_from_utc_datetime(&self.start.naive_utc());
        let ahead = ical::offset(i64::from(offset.fix().local_minus_utc() / 60));
        let kind = if offset.dst_offset().num_minutes() > 0 { "DAYLIGHT" } else { "STANDARD" };
        out.put("BEGIN", "VTIMEZONE");
        out.put("TZID", self.zone.name());
        out.put("BEGIN", kind);
        out.put("DTSTART", "19700101T000000");
        out.put("TZOFFSETFROM", &ahead);
        out.put("TZOFFSETTO", &ahead);
        out.text("TZNAME", &offset.to_string());
        out.put("END", kind);
        out.put("END", "VTIMEZONE");
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use icalendar::{Calendar, CalendarComponent, Component as _, DatePerhapsTime};

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    fn invite(start: &str, end: &str) -> Invite<'static> {
        Invite {
            method: Method::Request,
            appointment: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"),
            version: 3,
            start: at(start),
            end: at(end),
            zone: Tz::America__New_York,
            summary: "Visit, Harbor Clinic",
            location: "1 Pier Road\nBoston",
            organizer: "clinic@clinic.example",
            attendee: "ana@mail.example",
        }
    }

    #[test]
    fn a_program_reads_the_visit_with_its_zone_uid_and_sequence() {
        let text =
            invite("2026-06-10T14:00:00-04:00", "2026-06-10T14:30:00-04:00").text(at("2026-06-01T12:00:00Z"));
        let calendar = Calendar::from_str(&text).expect("a calendar");
        assert_eq!(calendar.property_value("METHOD"), Some("REQUEST"));
        let event = calendar.components.iter().find_map(CalendarComponent::as_event).expect("an event");
        assert_eq!(event.get_uid(), Some("01890a5d-ac96-774b-bcce-b302099a8057@clinic"));
        assert_eq!((event.get_sequence(), event.get_summary()), (Some(3), Some("Visit, Harbor Clinic")));
        let start = event.get_start().expect("a start");
        let DatePerhapsTime::DateTime(start) = start else { panic!("a whole day") };
        assert_eq!(start.try_into_utc(), Some(at("2026-06-10T18:00:00Z")));
        let zone = "BEGIN:VTIMEZONE\r\nTZID:America/New_York\r\nBEGIN:DAYLIGHT\r\nDTSTART:19700101T000000\r\n\
                    TZOFFSETFROM:-0400\r\nTZOFFSETTO:-0400\r\nTZNAME:EDT\r\nEND:DAYLIGHT\r\nEND:VTIMEZONE\r\n";
        assert!(text.contains(zone), "{text}");
        assert!(text.contains("DTSTART;TZID=America/New_York:20260610T140000\r\n"));
        assert!(text.contains("LOCATION:1 Pier Road\\nBoston\r\n"));
    }

    #[test]
    fn a_cancelled_visit_is_taken_away_by_the_same_uid() {
        let booked = invite("2026-06-10T14:00:00-04:00", "2026-06-10T14:30:00-04:00");
        let text = Invite { method: Method::Cancel, version: 4, ..booked }.text(at("2026-06-02T12:00:00Z"));
        for line in [
            "METHOD:CANCEL",
            "STATUS:CANCELLED",
            "SEQUENCE:4",
            "UID:01890a5d-ac96-774b-bcce-b302099a8057@clinic",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{text}");
        }
    }

    #[test]
    fn what_clocks_cannot_tell_apart_is_told_in_utc() {
        // Half past one comes twice on 1 November 2026; the second one, and a visit that the change falls into.
        for (start, end) in [
            ("2026-11-01T01:30:00-05:00", "2026-11-01T01:45:00-05:00"),
            ("2026-11-01T01:45:00-04:00", "2026-11-01T01:15:00-05:00"),
        ] {
            let text = invite(start, end).text(at("2026-06-01T12:00:00Z"));
            assert!(text.contains("DTSTART:20261101T05") || text.contains("DTSTART:20261101T06"), "{text}");
            assert!(!text.contains("VTIMEZONE"));
        }
    }
}
