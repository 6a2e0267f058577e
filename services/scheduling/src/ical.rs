//! Calendars as iCalendar files (RFC 5545), for calendar programs to subscribe to. Pure.
//!
//! | module | holds |
//! |---|---|
//! | [`contents`] | what a provider's and a clinic's feed show |
//! | [`timezone`] | VTIMEZONE from the zone data that everything is scheduled by |
//!
//! They are written with [`kit::ical`].
//!
//! Written here and not by a library: the one our tests read feeds with stamps every component it writes, VTIMEZONE too,
//! which may not have a DTSTAMP.

pub mod contents;
#[cfg(test)]
mod reader_tests;
mod timezone;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ical::{Lines, local, uid, utc, wall_clock};
use uuid::Uuid;

use crate::domain::span::{Span, instant, minute};
use crate::domain::{Days, shift};

/// How often a program should look again, as RFC 5545 spells it.
const REFRESH: &str = "PT15M";
/// Who wrote the file.
const PRODUCT: &str = "-//clinic//scheduling//EN";

/// A calendar to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// What programs call it.
    pub name: String,
    /// The zone it is shown in where the reader's own is not known.
    pub home: Tz,
    /// By start, each UID once.
    pub events: Vec<Event>,
}

/// One entry of a calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same for as long as it is the same event.
    pub uid: Uuid,
    /// What it is, in a few words.
    pub summary: String,
    /// Where; lines; empty = not shown.
    pub location: String,
    /// Whether it takes the reader's time when free time is looked for.
    pub busy: bool,
    /// When.
    pub time: Time,
}

/// When an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Time {
    /// Whole days, wherever the reader is.
    Days(Days),
    /// Instants, shown on the clocks of a zone.
    Exact(Span, Tz),
}

impl Feed {
    /// The file, written at `now`.
    pub fn text(&self, now: DateTime<Utc>) -> String {
        let mut out = Lines::default();
        out.put("BEGIN", "VCALENDAR");
        out.put("VERSION", "2.0");
        out.text("PRODID", PRODUCT);
        out.put("CALSCALE", "GREGORIAN");
        out.text("X-WR-CALNAME", &self.name);
        out.put("X-WR-TIMEZONE", self.home.name());
        out.put("REFRESH-INTERVAL;VALUE=DURATION", REFRESH);
        out.put("X-PUBLISHED-TTL", REFRESH);
        for (zone, span) in self.zones(Span::new(minute(now), minute(now))) {
            timezone::write(&mut out, zone, span);
        }
        let stamp = utc(now);
        self.events.iter().for_each(|event| event.write(&mut out, &stamp));
        out.put("END", "VCALENDAR");
        out.finish()
    }

    /// Each zone that is used, with the time over which its clocks must be known. A file without any component would be
    /// malformed, so one without events has the home zone.
    fn zones(&self, now: Span) -> Vec<(Tz, Span)> {
        let mut zones: Vec<(Tz, Span)> = vec![];
        for event in &self.events {
            let Time::Exact(span, zone) = event.time else { continue };
            match zones.iter_mut().find(|(known, _)| *known == zone) {
                Some((_, all)) => *all = Span::new(all.start.min(span.start), all.end.max(span.end)),
                None => zones.push((zone, span)),
            }
        }
        if self.events.is_empty() {
            zones.push((self.home, now));
        }
        zones
    }
}

impl Event {
    fn write(&self, out: &mut Lines, stamp: &str) {
        out.put("BEGIN", "VEVENT");
        out.put("UID", &uid(self.uid));
        out.put("DTSTAMP", stamp);
        self.time.write(out);
        out.text("SUMMARY", &self.summary);
        if !self.location.is_empty() {
            out.text("LOCATION", &self.location);
        }
        out.put("STATUS", "CONFIRMED");
        out.put("TRANSP", if self.busy { "OPAQUE" } else { "TRANSPARENT" });
        out.put("END", "VEVENT");
    }
}

impl Time {
    fn write(&self, out: &mut Lines) {
        match self {
            Self::Days(days) => {
                out.put("DTSTART;VALUE=DATE", &date(*days.start()));
                out.put("DTEND;VALUE=DATE", &date(shift(*days.end(), 1)));
            }
            Self::Exact(span, zone) => {
                let ends = [span.start, span.end].map(instant);
                let names = ["DTSTART", "DTEND"];
                // A wall-clock time that comes twice means its first occurrence (RFC 5545, section 3.3.5); the second can
                // only be told in UTC.
                match ends.map(|end| wall_clock(*zone, end)) {
                    [Some(start), Some(end)] => names.into_iter().zip([start, end]).for_each(|(name, at)| {
                        out.put(&format!("{name};TZID={}", zone.name()), &local(at));
                    }),
                    [None, _] | [_, None] => {
                        names.into_iter().zip(ends).for_each(|(name, at)| out.put(name, &utc(at)));
                    }
                }
            }
        }
    }
}

fn date(day: NaiveDate) -> String {
    day.format("%Y%m%d").to_string()
}
