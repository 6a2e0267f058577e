//! From the wire to our values; every bad field is recorded, by its path in the request.

use chrono::NaiveDate;
use kit::fields::Fields;
use kit::ids::{BlackoutId, ClinicId, ExceptionId, ProviderId, RoomId, ServiceTypeId, WeeklyTemplateId};
use proto::clinic::scheduling::v1 as wire;
use proto::google::r#type::{Date, Interval, TimeOfDay};

use crate::domain::Days;
use crate::domain::GRID_MINUTES;
use crate::domain::calendar::{Blackout, BlackoutSpan, Exception, ExceptionKind, WeeklyTemplate};
use crate::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
use crate::domain::link::Subject;
use crate::domain::rule::Rule;
use crate::domain::span::{Minute, Span, minute};

/// Bounds of the contract.
const NAME: std::ops::RangeInclusive<usize> = 1..=100;
const SPANS_PER_DAY: usize = 7;
const FEATURES: usize = 20;
const LANGUAGES: usize = 10;
const OFFERED: usize = 100;
const INTERVAL_DAYS: i64 = 366;
const DAY: u16 = 24 * 60;
/// What `booking_horizon_days` left 0 means.
const DEFAULT_HORIZON_DAYS: i32 = 180;

/// Stands in for a rule that was refused, until the request is.
const REFUSED_RULE: &str = "DTSTART;TZID=UTC:20000101T000000\nRRULE:FREQ=DAILY";

/// A wall-clock time on the grid; `unset` when it may be left out.
pub(super) fn wall_time(f: &mut Fields, field: &str, time: Option<&TimeOfDay>, unset: Option<u16>) -> u16 {
    let value = match (time, unset) {
        (None, Some(unset)) => unset,
        (time, _) => f.minute_of_day(field, time),
    };
    f.ensure(i32::from(value) % GRID_MINUTES == 0, field, "must be a multiple of 5 minutes");
    value
}

/// An instant on the grid.
pub(super) fn grid_instant(f: &mut Fields, field: &str, time: Option<prost_types::Timestamp>) -> Minute {
    let instant = f.instant(field, time);
    let on_grid =
        instant.timestamp() % (i64::from(GRID_MINUTES) * 60) == 0 && instant.timestamp_subsec_nanos() == 0;
    f.ensure(on_grid, field, "must be a multiple of 5 minutes");
    minute(instant)
}

/// A date that may be left out.
pub(super) fn optional_date(f: &mut Fields, field: &str, date: Option<&Date>) -> Option<NaiveDate> {
    date.map(|date| f.date(field, Some(date)))
}

/// Both ends set, on the grid, not empty, at most a year.
fn interval(f: &mut Fields, field: &str, interval: Option<&Interval>) -> Span {
    let Some(interval) = interval else {
        f.refuse(field, "is required: an interval with both ends");
        return Span::new(0, 0);
    };
    let span = Span::new(
        grid_instant(f, &format!("{field}.start_time"), interval.start_time),
        grid_instant(f, &format!("{field}.end_time"), interval.end_time),
    );
    let set = interval.start_time.is_some() && interval.end_time.is_some();
    let length = span.end - span.start;
    let good = (1..=INTERVAL_DAYS * i64::from(DAY)).contains(&length);
    f.ensure(!set || good, field, "must end after it starts, and span at most 366 days");
    span
}

/// A run of days, at most 366.
pub(super) fn days(f: &mut Fields, field: &str, span: &wire::DateSpan) -> Days {
    let first = f.date(&format!("{field}.first_date"), span.first_date.as_ref());
    let last_field = format!("{field}.last_date");
    let last = optional_date(f, &last_field, span.last_date.as_ref()).unwrap_or(first);
    let good = (0..INTERVAL_DAYS).contains(&(last - first).num_days());
    f.ensure(good, &last_field, "must be the first date or up to 365 days later");
    first..=last
}

fn features(f: &mut Fields, field: &str, features: &[String]) -> Vec<String> {
    f.ensure(features.len() <= FEATURES, field, "must have at most 20 entries");
    for (i, feature) in features.iter().enumerate() {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=40).contains(&feature.len()) && feature.chars().all(word);
        f.ensure(good, &format!("{field}[{i}]"), "must be 1 to 40 lower-case letters, digits and hyphens");
    }
    features.to_vec()
}

fn phone(f: &mut Fields, field: &str, phone: &str) -> String {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let e164 = (8..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    f.ensure(phone.is_empty() || e164, field, "must be E.164 such as +13125550100, or empty");
    phone.to_owned()
}

fn opening_hours(f: &mut Fields, hours: &[wire::OpeningHours]) -> Vec<OpeningHours> {
    let mut all: Vec<OpeningHours> = vec![];
    for (i, span) in hours.iter().enumerate() {
        let field = format!("clinic.opening_hours[{i}]");
        f.ensure((1..=7).contains(&span.day), &format!("{field}.day"), "is required: a day of the week");
        let open = wall_time(f, &format!("{field}.open"), span.open.as_ref(), Some(0));
        f.ensure(open < DAY, &format!("{field}.open"), "must be before 24:00");
        let close = wall_time(f, &format!("{field}.close"), span.close.as_ref(), Some(DAY));
        let span = OpeningHours { day: u8::try_from(span.day).unwrap_or_default(), open, close };
        // A day that does not exist is refused above and overlaps nothing.
        if (1..=7).contains(&span.day) {
            f.ensure(!all.iter().any(|h| h.overlaps(span)), &field, "overlaps an earlier span");
            all.push(span);
        }
    }
    let crowded = all.iter().any(|h| all.iter().filter(|other| other.day == h.day).count() > SPANS_PER_DAY);
    f.ensure(!crowded, "clinic.opening_hours", "must have at most 7 spans per day");
    all
}

/// A clinic as it shall be.
pub(super) fn clinic(f: &mut Fields, id: ClinicId, version: i64, c: Option<&wire::Clinic>) -> Clinic {
    f.ensure(c.is_some(), "clinic", "is required");
    let c = c.cloned().unwrap_or_default();
    Clinic {
        id,
        name: f.text("clinic.name", &c.name, NAME),
        time_zone: f.time_zone("clinic.time_zone", &c.time_zone),
        opening_hours: opening_hours(f, &c.opening_hours),
        phone: phone(f, "clinic.phone", &c.phone),
        address: f.text("clinic.address", &c.address, 0..=300),
        retired: c.retired,
        version,
    }
}

/// A room as it shall be.
pub(super) fn room(f: &mut Fields, id: RoomId, version: i64, r: Option<&wire::Room>) -> Room {
    f.ensure(r.is_some(), "room", "is required");
    let r = r.cloned().unwrap_or_default();
    Room {
        id,
        clinic_id: f.id("room.clinic_id", &r.clinic_id),
        name: f.text("room.name", &r.name, NAME),
        features: features(f, "room.features", &r.features),
        retired: r.retired,
        version,
    }
}

/// A provider as it shall be; its calendar version is kept apart.
pub(super) fn provider(
    f: &mut Fields,
    id: ProviderId,
    version: i64,
    calendar_version: i64,
    p: Option<&wire::Provider>,
) -> Provider {
    f.ensure(p.is_some(), "provider", "is required");
    let p = p.cloned().unwrap_or_default();
    f.ensure(p.languages.len() <= LANGUAGES, "provider.languages", "must have at most 10 entries");
    for (i, tag) in p.languages.iter().enumerate() {
        let part =
            |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let good = tag.len() <= 35 && tag.split('-').all(part);
        f.ensure(good, &format!("provider.languages[{i}]"), "must be a BCP 47 tag such as en or es-MX");
    }
    f.ensure(
        p.service_type_ids.len() <= OFFERED,
        "provider.service_type_ids",
        "must have at most 100 entries",
    );
    Provider {
        id,
        name: f.text("provider.name", &p.name, NAME),
        specialty: f.text("provider.specialty", &p.specialty, 0..=100),
        languages: p.languages,
        service_type_ids: f.ids("provider.service_type_ids", &p.service_type_ids),
        retired: p.retired,
        version,
        calendar_version,
    }
}

/// A service type as it shall be.
pub(super) fn service_type(
    f: &mut Fields,
    id: ServiceTypeId,
    version: i64,
    s: Option<&wire::ServiceType>,
) -> ServiceType {
    f.ensure(s.is_some(), "service_type", "is required");
    let s = s.cloned().unwrap_or_default();
    let mut grid = |field: &str, value, bounds| {
        f.ensure(value % GRID_MINUTES == 0, field, "must be a multiple of 5");
        f.number(field, value, bounds)
    };
    let duration = grid("service_type.duration_minutes", s.duration_minutes, 5..=480);
    let before = grid("service_type.buffer_before_minutes", s.buffer_before_minutes, 0..=120);
    let after = grid("service_type.buffer_after_minutes", s.buffer_after_minutes, 0..=120);
    let step = match s.step_minutes {
        0 => 0,
        step => grid("service_type.step_minutes", step, 5..=480),
    };
    let horizon = match s.booking_horizon_days {
        0 => DEFAULT_HORIZON_DAYS,
        days => f.number("service_type.booking_horizon_days", days, 1..=730),
    };
    ServiceType {
        id,
        name: f.text("service_type.name", &s.name, NAME),
        description: f.text("service_type.description", &s.description, 0..=500),
        duration_minutes: duration,
        buffer_before_minutes: before,
        buffer_after_minutes: after,
        step_minutes: step,
        minimum_notice_minutes: f.number(
            "service_type.minimum_notice_minutes",
            s.minimum_notice_minutes,
            0..=43_200,
        ),
        booking_horizon_days: horizon,
        room_features: features(f, "service_type.room_features", &s.room_features),
        intake_form_id: f.optional_id("service_type.intake_form_id", &s.intake_form_id),
        copay_required: s.copay_required,
        retired: s.retired,
        version,
    }
}

/// A template as it shall be, and the etag it came with.
pub(super) fn template(f: &mut Fields, t: Option<&wire::WeeklyTemplate>) -> (WeeklyTemplate, String) {
    f.ensure(t.is_some(), "weekly_template", "is required");
    let t = t.cloned().unwrap_or_default();
    let id = f.optional_id("weekly_template.id", &t.id).unwrap_or_else(WeeklyTemplateId::new);
    let provider_id = f.id("weekly_template.provider_id", &t.provider_id);
    let clinic_id = f.id("weekly_template.clinic_id", &t.clinic_id);
    let start_minute = wall_time(f, "weekly_template.start_time", t.start_time.as_ref(), None);
    f.ensure(start_minute < DAY, "weekly_template.start_time", "must be before 24:00");
    let end_minute = wall_time(f, "weekly_template.end_time", t.end_time.as_ref(), None);
    let rule = match Rule::parse(&t.rule) {
        Ok(rule) => {
            let same = t.start_time.is_none() || rule.minute() == start_minute;
            f.ensure(same, "weekly_template.rule", "the time of day of DTSTART must be start_time");
            rule
        }
        Err(error) => {
            f.refuse("weekly_template.rule", error);
            Rule::parse(REFUSED_RULE).expect("a rule of our own that is good")
        }
    };
    let first_date = optional_date(f, "weekly_template.first_date", t.first_date.as_ref());
    let last_date = optional_date(f, "weekly_template.last_date", t.last_date.as_ref());
    let ordered = first_date.zip(last_date).is_none_or(|(first, last)| first <= last);
    f.ensure(ordered, "weekly_template.last_date", "must not be before first_date");
    let template = WeeklyTemplate {
        id,
        provider_id,
        clinic_id,
        rule,
        start_minute,
        end_minute,
        first_date,
        last_date,
        calendar_version: 0,
        version: 1,
    };
    (template, t.etag)
}

/// Which kind of exception; 0 = not said.
pub(super) fn exception_kind(f: &mut Fields, field: &str, kind: i32) -> Option<ExceptionKind> {
    match wire::ExceptionKind::try_from(kind) {
        Ok(wire::ExceptionKind::TimeOff) => Some(ExceptionKind::TimeOff),
        Ok(wire::ExceptionKind::ExtraHours) => Some(ExceptionKind::ExtraHours),
        Ok(wire::ExceptionKind::Unspecified) => None,
        Err(_) => {
            f.refuse(field, "must be time off or extra hours");
            None
        }
    }
}

/// An exception to add.
pub(super) fn exception(f: &mut Fields, id: ExceptionId, e: Option<&wire::CalendarException>) -> Exception {
    f.ensure(e.is_some(), "exception", "is required");
    let e = e.cloned().unwrap_or_default();
    let provider_id = f.id("exception.provider_id", &e.provider_id);
    let clinic_id = f.optional_id("exception.clinic_id", &e.clinic_id);
    let kind = exception_kind(f, "exception.kind", e.kind);
    f.ensure(e.kind != 0, "exception.kind", "is required: time off or extra hours");
    let somewhere = kind != Some(ExceptionKind::ExtraHours) || !e.clinic_id.is_empty();
    f.ensure(somewhere, "exception.clinic_id", "is required for extra hours");
    f.ensure(
        wire::ExceptionCause::try_from(e.cause).is_ok(),
        "exception.cause",
        "must be a known cause, or unset",
    );
    Exception {
        id,
        provider_id,
        clinic_id,
        kind: kind.unwrap_or(ExceptionKind::TimeOff),
        span: interval(f, "exception.interval", e.interval.as_ref()),
        cause: e.cause,
        calendar_version: 0,
    }
}

/// A blackout to add.
pub(super) fn blackout(f: &mut Fields, id: BlackoutId, b: Option<&wire::Blackout>) -> Blackout {
    f.ensure(b.is_some(), "blackout", "is required");
    let b = b.cloned().unwrap_or_default();
    let clinic_id = f.optional_id("blackout.clinic_id", &b.clinic_id);
    let name = f.text("blackout.name", &b.name, NAME);
    let span = match &b.span {
        Some(wire::blackout::Span::Days(span)) => BlackoutSpan::Days(days(f, "blackout.days", span)),
        Some(wire::blackout::Span::Interval(span)) => {
            BlackoutSpan::Exact(interval(f, "blackout.interval", Some(span)))
        }
        None => {
            f.refuse("blackout.days", "is required: days, or an interval");
            BlackoutSpan::Exact(Span::new(0, 0))
        }
    };
    Blackout { id, clinic_id, name, span }
}

/// At most `most` ids.
pub(super) fn ids<I: kit::ids::Id>(f: &mut Fields, field: &str, texts: &[String], most: usize) -> Vec<I> {
    if texts.len() > most {
        f.refuse(field, format!("must have at most {most} entries"));
        return vec![];
    }
    f.ids(field, texts)
}

/// What a link shall show.
pub(super) fn subject(
    f: &mut Fields,
    subject: Option<&wire::create_calendar_link_request::Subject>,
) -> Subject {
    use wire::create_calendar_link_request::Subject as Wire;
    match subject {
        Some(Wire::ProviderId(id)) => Subject::Provider(f.id("provider_id", id)),
        Some(Wire::ClinicId(id)) => Subject::Clinic(f.id("clinic_id", id)),
        None => {
            f.refuse("provider_id", "is required: a provider, or a clinic");
            Subject::Clinic(ClinicId::from(uuid::Uuid::nil()))
        }
    }
}
