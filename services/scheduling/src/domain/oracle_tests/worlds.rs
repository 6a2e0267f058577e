//! A small world: a network as it is stored, and a question to it. Its parts are told apart by number.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use kit::ids::{ProviderId, WeeklyTemplateId};
use uuid::Uuid;

use super::oracle::DAY;
use super::recurrence::Recurrence;
use crate::domain::calendar::WeeklyTemplate;
use crate::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
use crate::domain::network::{Busy, Calendar, Catalog, Network};
use crate::domain::rule::Rule;
use crate::domain::search::Query;
use crate::domain::span::{Minute, Span};
use crate::domain::{GRID_MINUTES, shift};

/// Everything is planned on it.
pub(super) const GRID: Minute = GRID_MINUTES as Minute;

// Where the numbers of parts begin.
pub(super) const SERVICE: u128 = 1;
pub(super) const CLINIC: u128 = 10;
pub(super) const ROOM: u128 = 20;
pub(super) const PROVIDER: u128 = 30;
pub(super) const TEMPLATE: u128 = 40;

/// An id of any kind, in the order of numbers.
pub(super) fn id<I: From<Uuid>>(n: u128) -> I {
    I::from(Uuid::from_u128(n))
}

/// A network as it is stored, and a question to it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) catalog: Catalog,
    /// Of every provider.
    pub(super) calendars: BTreeMap<ProviderId, Calendar>,
    /// What the templates' rules mean.
    pub(super) recurrences: HashMap<WeeklyTemplateId, Recurrence>,
    /// Of every provider.
    pub(super) busy: BTreeMap<ProviderId, Vec<Busy>>,
    pub(super) query: Query,
    pub(super) now: DateTime<Utc>,
    /// How the network came to be what it is.
    pub(super) past: Past,
}

/// What a network went through before it is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It was made on the day of the search.
    New,
    /// It was made on the day before.
    Yesterdays,
    /// On the day before it was made of something else, and has followed each change since.
    Changed,
}

impl World {
    /// The service type asked for.
    pub(super) fn service(&self) -> &ServiceType {
        self.catalog.service_types.iter().find(|s| s.id == self.query.service_type).unwrap()
    }

    /// What is searched.
    pub(super) fn network(&self) -> Network {
        let (today, yesterday) = (self.now.date_naive(), shift(self.now.date_naive(), -1));
        match self.past {
            Past::New => self.network_on(today),
            Past::Yesterdays => self.network_on(yesterday),
            Past::Changed => {
                let mut network = self.earlier().network_on(yesterday).rolled(today);
                network.set_catalog(self.catalog.clone());
                self.teach(&mut network);
                network
            }
        }
    }

    fn network_on(&self, today: NaiveDate) -> Network {
        let mut network = Network::new(today);
        network.set_catalog(self.catalog.clone());
        self.teach(&mut network);
        network
    }

    fn teach(&self, network: &mut Network) {
        for (provider, calendar) in &self.calendars {
            network.set_calendar(*provider, calendar.clone());
            network.set_busy(*provider, self.busy[provider].clone());
        }
    }

    /// The same clinics, rooms and providers with other hours, and with visits that were since moved.
    fn earlier(&self) -> Self {
        const MOVED: Minute = 7 * GRID;
        let mut earlier = self.clone();
        earlier.catalog.blackouts.clear();
        for clinic in &mut earlier.catalog.clinics {
            (clinic.time_zone, clinic.opening_hours) = (Tz::UTC, vec![]);
        }
        for calendar in earlier.calendars.values_mut() {
            calendar.exceptions.clear();
            calendar.templates.truncate(1);
        }
        for busy in earlier.busy.values_mut().flatten() {
            busy.occupied = Span::new(busy.occupied.start - MOVED, busy.occupied.end - MOVED);
            busy.visit = Span::new(busy.visit.start - MOVED, busy.visit.end - MOVED);
        }
        earlier
    }
}

pub(super) fn clinic(n: u128, time_zone: Tz, opening_hours: Vec<OpeningHours>) -> Clinic {
    Clinic {
        id: id(n),
        name: String::new(),
        time_zone,
        opening_hours,
        phone: String::new(),
        address: String::new(),
        retired: false,
        version: 1,
    }
}

pub(super) fn room(n: u128, clinic: u128) -> Room {
    let clinic_id = id(clinic);
    Room { id: id(n), clinic_id, name: String::new(), features: vec![], retired: false, version: 1 }
}

pub(super) fn provider(n: u128) -> Provider {
    Provider {
        id: id(n),
        name: String::new(),
        specialty: String::new(),
        languages: vec![],
        service_type_ids: vec![],
        retired: false,
        version: 1,
        calendar_version: 1,
    }
}

/// Half an hour, every half hour, at any time within two years.
pub(super) fn service(n: u128) -> ServiceType {
    ServiceType {
        id: id(n),
        name: String::new(),
        description: String::new(),
        duration_minutes: 30,
        buffer_before_minutes: 0,
        buffer_after_minutes: 0,
        step_minutes: 0,
        minimum_notice_minutes: 0,
        booking_horizon_days: 730,
        room_features: vec![],
        intake_form_id: None,
        copay_required: false,
        retired: false,
        version: 1,
    }
}

/// A shift by `recurrence`, to `end`.
pub(super) fn template(
    n: u128,
    provider: u128,
    clinic: u128,
    recurrence: &Recurrence,
    end: u16,
) -> WeeklyTemplate {
    WeeklyTemplate {
        id: id(n),
        provider_id: id(provider),
        clinic_id: id(clinic),
        rule: Rule::parse(&recurrence.text()).unwrap(),
        start_minute: recurrence.minute,
        end_minute: end,
        first_date: None,
        last_date: None,
        calendar_version: 1,
        version: 1,
    }
}

/// All slots of `days`.
pub(super) fn query(first: Option<NaiveDate>, last: Option<NaiveDate>) -> Query {
    Query {
        service_type: id(SERVICE),
        clinics: vec![],
        providers: vec![],
        first,
        last,
        from_minute: 0,
        before_minute: DAY as u16,
        weekdays: vec![],
        any_provider: false,
    }
}
