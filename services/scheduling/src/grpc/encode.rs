//! From our values to the wire.

use kit::fields;
use proto::clinic::scheduling::v1 as wire;
use proto::google::r#type::Interval;

use crate::app::etag;
use crate::domain::agenda::Entry;
use crate::domain::calendar::{Blackout, BlackoutSpan, Exception, ExceptionKind, WeeklyTemplate};
use crate::domain::catalog::{Clinic, Provider, Room, ServiceType};
use crate::domain::link::{Link, Subject};
use crate::domain::span::{Minute, Span, instant};
use crate::domain::zone;

/// An instant.
pub(crate) fn timestamp(minute: Minute) -> prost_types::Timestamp {
    fields::timestamp(instant(minute))
}

/// Both ends set.
pub(crate) fn interval(span: Span) -> Interval {
    Interval { start_time: Some(timestamp(span.start)), end_time: Some(timestamp(span.end)) }
}

/// Empty for none.
pub(crate) fn id<I: ToString>(id: Option<I>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// A clinic.
pub(crate) fn clinic(c: &Clinic) -> wire::Clinic {
    let opening = |h: &crate::domain::catalog::OpeningHours| wire::OpeningHours {
        day: i32::from(h.day),
        open: Some(fields::time_of_day(h.open)),
        close: Some(fields::time_of_day(h.close)),
    };
    wire::Clinic {
        id: c.id.to_string(),
        name: c.name.clone(),
        time_zone: c.time_zone.name().to_owned(),
        opening_hours: c.opening_hours.iter().map(opening).collect(),
        phone: c.phone.clone(),
        address: c.address.clone(),
        retired: c.retired,
        etag: etag(c.version),
    }
}

/// A room.
pub(crate) fn room(r: &Room) -> wire::Room {
    wire::Room {
        id: r.id.to_string(),
        clinic_id: r.clinic_id.to_string(),
        name: r.name.clone(),
        features: r.features.clone(),
        retired: r.retired,
        etag: etag(r.version),
    }
}

/// A provider.
pub(crate) fn provider(p: &Provider) -> wire::Provider {
    wire::Provider {
        id: p.id.to_string(),
        name: p.name.clone(),
        specialty: p.specialty.clone(),
        languages: p.languages.clone(),
        service_type_ids: p.service_type_ids.iter().map(ToString::to_string).collect(),
        retired: p.retired,
        calendar_version: p.calendar_version,
        etag: etag(p.version),
    }
}

/// A service type.
pub(crate) fn service_type(s: &ServiceType) -> wire::ServiceType {
    wire::ServiceType {
        id: s.id.to_string(),
        name: s.name.clone(),
        description: s.description.clone(),
        duration_minutes: s.duration_minutes,
        buffer_before_minutes: s.buffer_before_minutes,
        buffer_after_minutes: s.buffer_after_minutes,
        step_minutes: s.step_minutes,
        minimum_notice_minutes: s.minimum_notice_minutes,
        booking_horizon_days: s.booking_horizon_days,
        room_features: s.room_features.clone(),
        intake_form_id: id(s.intake_form_id),
        copay_required: s.copay_required,
        retired: s.retired,
        etag: etag(s.version),
    }
}

/// A weekly template.
pub(crate) fn template(t: &WeeklyTemplate) -> wire::WeeklyTemplate {
    wire::WeeklyTemplate {
        id: t.id.to_string(),
        provider_id: t.provider_id.to_string(),
        clinic_id: t.clinic_id.to_string(),
        rule: t.rule.text().to_owned(),
        start_time: Some(fields::time_of_day(t.start_minute)),
        end_time: Some(fields::time_of_day(t.end_minute)),
        first_date: t.first_date.map(fields::date),
        last_date: t.last_date.map(fields::date),
        calendar_version: t.calendar_version,
        etag: etag(t.version),
    }
}

/// An exception.
pub(crate) fn exception(e: &Exception) -> wire::CalendarException {
    let kind = match e.kind {
        ExceptionKind::TimeOff => wire::ExceptionKind::TimeOff,
        ExceptionKind::ExtraHours => wire::ExceptionKind::ExtraHours,
    };
    wire::CalendarException {
        id: e.id.to_string(),
        provider_id: e.provider_id.to_string(),
        clinic_id: id(e.clinic_id),
        kind: kind.into(),
        interval: Some(interval(e.span)),
        cause: e.cause,
        calendar_version: e.calendar_version,
    }
}

/// A blackout.
pub(crate) fn blackout(b: &Blackout) -> wire::Blackout {
    let span = match &b.span {
        BlackoutSpan::Days(days) => wire::blackout::Span::Days(wire::DateSpan {
            first_date: Some(fields::date(*days.start())),
            last_date: Some(fields::date(*days.end())),
        }),
        BlackoutSpan::Exact(span) => wire::blackout::Span::Interval(interval(*span)),
    };
    wire::Blackout {
        id: b.id.to_string(),
        clinic_id: id(b.clinic_id),
        name: b.name.clone(),
        span: Some(span),
    }
}

/// A link, without its address.
pub(crate) fn calendar_link(link: &Link) -> wire::CalendarLink {
    use wire::calendar_link::Subject as Wire;
    wire::CalendarLink {
        id: link.id.to_string(),
        subject: Some(match link.subject {
            Subject::Provider(id) => Wire::ProviderId(id.to_string()),
            Subject::Clinic(id) => Wire::ClinicId(id.to_string()),
        }),
        url: String::new(),
        create_time: Some(fields::timestamp(link.create_time)),
        revoke_time: link.revoke_time.map(fields::timestamp),
    }
}

/// An entry of a provider's calendar.
pub(crate) fn entry(e: Entry) -> wire::CalendarEntry {
    wire::CalendarEntry {
        kind: e.kind.into(),
        interval: Some(interval(e.span)),
        clinic_id: id(e.clinic),
        source_id: id(e.source),
        local_start: e.time_zone.map(|zone| zone::rfc3339(zone, e.span.start)).unwrap_or_default(),
    }
}
