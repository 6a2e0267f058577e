//! Feeds as a stranger reads them: parsed by another's parser, and each time worked out from the file's own VTIMEZONE, by
//! RFC 5545 alone and without zone data. What comes out must be the instants that went in.

use chrono::{NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::TZ_VARIANTS;
use icalendar::parser::{Component, Property, read_calendar, unfold};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::domain::span::Minute;
use crate::domain::zone;

/// A file, read.
struct Reader {
    zones: Vec<(String, Vec<Onset>)>,
    events: Vec<(NaiveDateTime, NaiveDateTime)>,
}

/// One onset of an observance: the UTC time at which it begins, and the offset it brings.
struct Onset {
    at: NaiveDateTime,
    from: TimeDelta,
    to: TimeDelta,
}

fn value<'a>(component: &'a Component<'_>, name: &str) -> &'a str {
    component.find_prop(name).unwrap_or_else(|| panic!("{name} in {component:?}")).val.as_str()
}

fn moment(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y%m%dT%H%M%S").unwrap()
}

fn utc_offset(text: &str) -> TimeDelta {
    let (sign, digits) = text.split_at(1);
    let minutes = digits[..2].parse::<i64>().unwrap() * 60 + digits[2..].parse::<i64>().unwrap();
    TimeDelta::minutes(if sign == "-" { -minutes } else { minutes })
}

fn onsets(timezone: &Component<'_>) -> Vec<Onset> {
    let of = |observance: &Component<'_>| -> Vec<Onset> {
        assert!(["STANDARD", "DAYLIGHT"].contains(&observance.name.as_str()));
        let [from, to] = ["TZOFFSETFROM", "TZOFFSETTO"].map(|name| utc_offset(value(observance, name)));
        let starts = observance.properties.iter().filter(|p| ["DTSTART", "RDATE"].contains(&p.name.as_str()));
        starts.map(|p| Onset { at: moment(p.val.as_str()) - from, from, to }).collect()
    };
    let mut all: Vec<Onset> = timezone.components.iter().flat_map(of).collect();
    all.sort_by_key(|onset| onset.at);
    assert!(all.windows(2).all(|w| w[0].to == w[1].from), "each change begins where the last one led");
    all
}

impl Reader {
    fn read(text: &str) -> Self {
        let text = unfold(text);
        let calendar = read_calendar(&text).unwrap();
        let named = |name: &'static str| calendar.components.iter().filter(move |c| c.name == name);
        let zones = named("VTIMEZONE").map(|zone| (value(zone, "TZID").to_owned(), onsets(zone))).collect();
        let mut reader = Self { zones, events: vec![] };
        for event in named("VEVENT") {
            let ends = ["DTSTART", "DTEND"].map(|name| reader.instant(event.find_prop(name).unwrap()));
            reader.events.push(ends.into());
        }
        reader
    }

    fn instant(&self, property: &Property<'_>) -> NaiveDateTime {
        let shown = moment(property.val.as_str());
        let Some(zone) = property.params.iter().find(|p| p.key == "TZID").and_then(|p| p.val.as_ref()) else {
            assert!(property.val.as_str().ends_with('Z'), "{property:?}");
            return shown;
        };
        let [(_, onsets)] = &self.zones.iter().filter(|(id, _)| id == zone.as_str()).collect::<Vec<_>>()[..]
        else {
            panic!("{zone} must be told once");
        };
        // Every instant at which these clocks show it; the first is meant.
        let ends = onsets.iter().skip(1).map(|o| o.at).chain([NaiveDateTime::MAX]);
        let shows = onsets.iter().zip(ends).map(|(o, end)| (o, shown - o.to, end));
        shows
            .filter(|(o, at, end)| o.at <= *at && at < end)
            .map(|(_, at, _)| at)
            .min()
            .expect("shown once at least")
    }
}

fn feed(spans: impl IntoIterator<Item = (Span, Tz)>) -> Feed {
    let event = |(n, (span, zone)): (usize, (Span, Tz))| Event {
        uid: Uuid::from_u128(n as u128),
        summary: "Booked".into(),
        location: String::new(),
        busy: true,
        time: Time::Exact(span, zone),
    };
    Feed {
        name: "Dr. Osei".into(),
        home: Tz::UTC,
        events: spans.into_iter().enumerate().map(event).collect(),
    }
}

/// Whether a stranger reads back exactly these times.
fn survives(spans: &[(Span, Tz)]) -> bool {
    let text = feed(spans.iter().copied()).text(DateTime::UNIX_EPOCH);
    let expected = spans.iter().map(|(s, _)| (instant(s.start).naive_utc(), instant(s.end).naive_utc()));
    Reader::read(&text).events.into_iter().eq(expected)
}

/// From the first day of 2026 to the last of 2028 in UTC.
fn years() -> Span {
    let day = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
    zone::whole_days(Tz::UTC, &(day(2026, 1, 1)..=day(2028, 12, 31)))
}

/// Each zone that changes its clocks in these years, with the changes.
fn changing() -> Vec<(Tz, Vec<Minute>)> {
    let changes = |zone: Tz| -> Vec<Minute> {
        let Span { start, end } = years();
        let next = |at: &Minute| Some(zone::next_change(zone, *at, zone::offset(zone, *at), end));
        std::iter::successors(Some(start), next).skip(1).take_while(|at| *at < end).collect()
    };
    TZ_VARIANTS.into_iter().map(|zone| (zone, changes(zone))).filter(|(_, all)| !all.is_empty()).collect()
}

#[test]
fn around_every_change_of_every_zone_from_2026_to_2028_a_stranger_reads_the_instants_that_were_meant() {
    const AROUND: Minute = 150;
    let zones = changing();
    assert!(zones.len() > 100, "zones with summer time are many");
    for (zone, changes) in zones {
        let starts = changes.iter().flat_map(|change| (change - AROUND..=change + AROUND).step_by(15));
        let spans: Vec<_> = starts.map(|start| (Span::new(start, start + 30), zone)).collect();
        assert!(survives(&spans), "{zone}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn calendars_of_many_zones_read_as_they_were_meant(
        picked in prop::collection::vec((select(&TZ_VARIANTS[..]), 0..1_570_000i64, 1..600_000i64), 1..12)
    ) {
        let spans = picked.into_iter().map(|(zone, start, length)| {
            let start = years().start + start;
            (Span::new(start, start + length), zone)
        });
        prop_assert!(survives(&spans.collect::<Vec<_>>()));
    }
}

#[test]
fn a_time_that_clocks_show_twice_is_told_in_utc_when_the_second_is_meant() {
    let zone = Tz::America__New_York;
    let first = minute(zone.with_ymd_and_hms(2026, 11, 1, 1, 30, 0).earliest().unwrap().to_utc());
    let second = first + 60;
    let text = feed([(Span::new(first, second), zone), (Span::new(first, first + 15), zone)])
        .text(DateTime::UNIX_EPOCH);
    assert!(text.contains("DTSTART:20261101T053000Z\r\nDTEND:20261101T063000Z\r\n"), "{text}");
    assert!(text.contains("DTSTART;TZID=America/New_York:20261101T013000\r\n"), "{text}");
}

#[test]
fn a_whole_file_reads_as_it_should() {
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    let closed = Event {
        uid: Uuid::nil(),
        summary: "Thanksgiving, and the day after; \"bridge\"".into(),
        location: "1 Lake St\nChicago, IL".into(),
        busy: false,
        time: Time::Days(day("2026-11-26")..=day("2026-11-27")),
    };
    let feed = Feed { name: "Lakeside: closed".into(), home: Tz::America__Chicago, events: vec![closed] };
    let expected = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//clinic//scheduling//EN",
        "CALSCALE:GREGORIAN",
        "X-WR-CALNAME:Lakeside: closed",
        "X-WR-TIMEZONE:America/Chicago",
        "REFRESH-INTERVAL;VALUE=DURATION:PT15M",
        "X-PUBLISHED-TTL:PT15M",
        "BEGIN:VEVENT",
        "UID:00000000-0000-0000-0000-000000000000@clinic",
        "DTSTAMP:20261122T120000Z",
        "DTSTART;VALUE=DATE:20261126",
        "DTEND;VALUE=DATE:20261128",
        "SUMMARY:Thanksgiving\\, and the day after\\; \"bridge\"",
        "LOCATION:1 Lake St\\nChicago\\, IL",
        "STATUS:CONFIRMED",
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
        "END:VCALENDAR",
        "",
    ];
    assert_eq!(feed.text(now).split("\r\n").collect::<Vec<_>>(), expected);
}

#[test]
fn a_calendar_without_events_still_has_the_component_that_a_file_needs() {
    let text = feed([]).text(DateTime::UNIX_EPOCH);
    assert_eq!(Reader::read(&text).zones.len(), 1);
}
