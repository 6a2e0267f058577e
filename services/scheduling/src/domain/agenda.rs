//! A provider's calendar as people read it: every rule expanded, and what is left.

use chrono_tz::Tz;
use kit::ids::ClinicId;
use proto::clinic::scheduling::v1::CalendarEntryKind as Kind;
use uuid::Uuid;

use super::Days;
use super::calendar::{Exception, ExceptionKind};
use super::network::{Member, Network, Site, Taken};
use super::span::{Span, Spans};
use super::zone;

/// One stretch of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub span: Span,
    /// What.
    pub kind: Kind,
    /// Where; `None` = everywhere.
    pub clinic: Option<ClinicId>,
    /// The clinic's zone.
    pub time_zone: Option<Tz>,
    /// The template, exception, blackout or appointment it comes from.
    pub source: Option<Uuid>,
}

/// Everything in a provider's calendar on `days`, at one clinic or everywhere, by start and kind.
pub fn agenda(network: &Network, member: &Member, only: Option<ClinicId>, days: &Days) -> Vec<Entry> {
    let calendar = &member.calendar;
    // A visit stays where it was booked when no rule brings the provider there any more.
    let booked = network.taken(member.provider.id).into_iter().flat_map(Taken::iter);
    let booked = booked.filter_map(|busy| network.clinic_of(busy.room_id));
    let mut sites: Vec<&Site> = calendar.clinics().chain(booked).filter_map(|id| network.site(id)).collect();
    sites.sort_unstable_by_key(|site| site.clinic.id);
    sites.dedup_by_key(|site| site.clinic.id);
    sites.retain(|site| only.is_none_or(|id| id == site.clinic.id));
    let mut entries: Vec<Entry> = sites.iter().flat_map(|site| at(network, member, site, days)).collect();
    // What holds at every clinic is told once, over the days as all clocks of the calendar count them.
    let zones = sites.iter().map(|site| zone::whole_days(site.clinic.time_zone, days));
    let hull = zones.reduce(|a, b| Span::new(a.start.min(b.start), a.end.max(b.end)));
    let hull = hull.unwrap_or_else(|| zone::whole_days(Tz::UTC, days));
    let everywhere = calendar.exceptions.iter().filter(|e| e.clinic_id.is_none());
    entries.extend(everywhere.map(|e| Entry {
        span: e.span.overlap(hull),
        kind: kind(e),
        clinic: None,
        time_zone: None,
        source: Some(e.id.uuid()),
    }));
    entries.retain(|entry| !entry.span.is_empty());
    entries.sort_unstable_by_key(|e| (e.span.start, e.kind, e.span.end, e.clinic, e.source));
    entries
}

fn kind(exception: &Exception) -> Kind {
    match exception.kind {
        ExceptionKind::TimeOff => Kind::TimeOff,
        ExceptionKind::ExtraHours => Kind::ExtraHours,
    }
}

fn at(network: &Network, member: &Member, site: &Site, days: &Days) -> Vec<Entry> {
    let id = site.clinic.id;
    let range = zone::whole_days(site.clinic.time_zone, days);
    let entry = |kind: Kind, span: Span, source: Option<Uuid>| Entry {
        span: span.overlap(range),
        kind,
        clinic: Some(id),
        time_zone: Some(site.clinic.time_zone),
        source,
    };
    let templates = member.calendar.templates.iter().filter(|t| t.clinic_id == id);
    let shifts = templates.flat_map(|t| {
        t.shifts(days).map(|span| entry(Kind::Shift, span, Some(t.id.uuid()))).collect::<Vec<_>>()
    });
    let exceptions = member.calendar.exceptions.iter().filter(|e| e.clinic_id == Some(id));
    let exceptions = exceptions.map(|e| entry(kind(e), e.span, Some(e.id.uuid())));
    let blackouts = site.blackouts.iter();
    let blackouts = blackouts.map(|b| entry(Kind::Blackout, b.at(site.clinic.time_zone), Some(b.id.uuid())));
    let taken = network.taken(member.provider.id).into_iter().flat_map(|taken| taken.meeting(range));
    let here = taken.clone().filter(|b| network.clinic_of(b.room_id) == Some(id));
    let busy = here.map(|b| entry(Kind::Busy, b.occupied, Some(b.appointment_id.uuid())));
    let free = network.working(member, site, days).subtract(&taken.map(|b| b.occupied).collect::<Spans>());
    let free = free.iter().map(|span| entry(Kind::Free, span, None)).collect::<Vec<_>>();
    shifts.chain(exceptions).chain(blackouts).chain(busy).chain(free).collect()
}
