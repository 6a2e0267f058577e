//! What a feed shows: the network as search sees it, from yesterday on. No patient, no service, no cause of time off.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{ClinicId, ProviderId};
use uuid::Uuid;

use super::{Event, Feed, Time};
use crate::domain::calendar::{BlackoutSpan, ExceptionKind};
use crate::domain::catalog::Clinic;
use crate::domain::network::{Network, Taken};
use crate::domain::span::{Minute, Span, minute};
use crate::domain::{Days, shift, zone};

/// Days before today that a feed reaches back, on the clinic's calendar.
const PAST_DAYS: i64 = 1;
/// Days after today that it reaches ahead.
const FUTURE_DAYS: i64 = 180;

/// Events by their start, each once: time off at every clinic is found at each.
#[derive(Default)]
struct Events(BTreeMap<(Minute, Uuid), Event>);

impl Events {
    fn add(&mut self, start: Minute, event: Event) {
        self.0.entry((start, event.uid)).or_insert(event);
    }

    fn feed(self, name: String, home: Tz) -> Feed {
        Feed { name, home, events: self.0.into_values().collect() }
    }
}

/// A provider's working time, time off and booked time; `None` = no such provider.
pub fn of_provider(network: &Network, id: ProviderId, now: DateTime<Utc>) -> Option<Feed> {
    let member = network.member(id)?;
    let clinics: BTreeSet<ClinicId> = member.calendar.clinics().collect();
    let sites: Vec<_> = clinics.into_iter().filter_map(|clinic| network.site(clinic)).collect();
    let home = sites.first().map_or(Tz::UTC, |site| site.clinic.time_zone);
    let mut events = Events::default();
    for site in &sites {
        let clinic = &site.clinic;
        let (days, range) = reach(clinic.time_zone, now);
        // A day more at both ends, so that a night there is whole.
        let wider = shift(*days.start(), -1)..=shift(*days.end(), 1);
        for span in network.working(member, site, &wider).meeting(range) {
            let what = format!("{} {}", clinic.id, span.start);
            let event = Event {
                uid: Uuid::new_v5(&id.uuid(), what.as_bytes()),
                summary: format!("Working at {}", clinic.name),
                location: place(clinic),
                busy: false,
                time: Time::Exact(*span, clinic.time_zone),
            };
            events.add(span.start, event);
        }
        let off = member.calendar.exceptions_at(clinic.id, ExceptionKind::TimeOff);
        for off in off.filter(|e| meet(e.span, range)) {
            let event = Event {
                uid: Uuid::new_v5(&id.uuid(), off.id.uuid().as_bytes()),
                summary: "Off".to_owned(),
                location: off.clinic_id.map(|_| place(clinic)).unwrap_or_default(),
                busy: true,
                time: Time::Exact(off.span, clinic.time_zone),
            };
            events.add(off.span.start, event);
        }
    }
    for taken in network.taken(id).into_iter().flat_map(Taken::iter) {
        let clinic =
            network.clinic_of(taken.room_id).and_then(|id| network.site(id)).map(|site| &site.clinic);
        let zone = clinic.map_or(home, |clinic| clinic.time_zone);
        if meet(taken.occupied, reach(zone, now).1) {
            let event = Event {
                // Of the provider as well: the same visit with another is another event.
                uid: Uuid::new_v5(&id.uuid(), taken.appointment_id.uuid().as_bytes()),
                summary: "Booked".to_owned(),
                location: clinic.map(place).unwrap_or_default(),
                busy: true,
                time: Time::Exact(taken.occupied, zone),
            };
            events.add(taken.occupied.start, event);
        }
    }
    Some(events.feed(member.provider.name.clone(), home))
}

/// When a clinic is closed; `None` = no such clinic.
pub fn of_clinic(network: &Network, id: ClinicId, now: DateTime<Utc>) -> Option<Feed> {
    let site = network.site(id)?;
    let zone = site.clinic.time_zone;
    let (_, range) = reach(zone, now);
    let mut events = Events::default();
    for blackout in &site.blackouts {
        let span = blackout.at(zone);
        if meet(span, range) {
            let event = Event {
                // Of the clinic as well: a closure of the network is an event in each clinic's calendar.
                uid: Uuid::new_v5(&id.uuid(), blackout.id.uuid().as_bytes()),
                summary: blackout.name.clone(),
                location: place(&site.clinic),
                busy: false,
                time: match &blackout.span {
                    BlackoutSpan::Days(days) => Time::Days(days.clone()),
                    BlackoutSpan::Exact(span) => Time::Exact(*span, zone),
                },
            };
            events.add(span.start, event);
        }
    }
    Some(events.feed(format!("{}: closed", site.clinic.name), zone))
}

/// The days that a feed shows at a clinic in `zone`.
fn reach(zone: Tz, now: DateTime<Utc>) -> (Days, Span) {
    let today = zone::date(zone, minute(now));
    let days = shift(today, -PAST_DAYS)..=shift(today, FUTURE_DAYS);
    let range = zone::whole_days(zone, &days);
    (days, range)
}

fn meet(one: Span, other: Span) -> bool {
    !one.overlap(other).is_empty()
}

/// The clinic's address, or its name while it has none.
fn place(clinic: &Clinic) -> String {
    if clinic.address.is_empty() { clinic.name.clone() } else { clinic.address.clone() }
}
