//! What tests make of a network, how they write its times, and how they read what was told of it.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use kit::fields::{time_of_day, timestamp};
use kit::ids::{AppointmentId, PatientId};
use prost_types::Timestamp;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentFacts, AppointmentState};
use proto::clinic::scheduling::v1::{
    AddBlackoutRequest, AddExceptionRequest, Blackout, CalendarChanged, CalendarException, Clinic,
    CreateProviderRequest, CreateRoomRequest, CreateServiceTypeRequest, DateSpan, ExceptionKind,
    GetProviderRequest, ListProvidersRequest, OpeningHours, Provider, PutWeeklyTemplateRequest, Room,
    SearchAvailabilityRequest, SearchAvailabilityResponse, ServiceType, UpdateClinicRequest, WeeklyTemplate,
    blackout,
};
use proto::google::r#type::Interval;
use tonic::Status;

use super::Suite;

impl Suite {
    /// Open every day, 08:00 to 18:00.
    pub(crate) async fn clinic(&self, name: &str, zone: &str) -> Clinic {
        let mut request = super::clinic(name);
        request.clinic.as_mut().expect("a clinic to make").time_zone = zone.to_owned();
        self.catalog().create_clinic(request).await.expect("a clinic").into_inner()
    }

    pub(crate) async fn room(&self, clinic: &Clinic, features: &[&str]) -> Room {
        let features = features.iter().map(|f| (*f).to_owned()).collect();
        let room = Room { clinic_id: clinic.id.clone(), name: "1".into(), features, ..Default::default() };
        let request = CreateRoomRequest { room: Some(room), ..Default::default() };
        self.catalog().create_room(request).await.expect("a room").into_inner()
    }

    pub(crate) async fn provider(&self, name: &str) -> Provider {
        self.provider_of(name, &[]).await
    }

    pub(crate) async fn provider_of(&self, name: &str, services: &[&ServiceType]) -> Provider {
        let service_type_ids = services.iter().map(|s| s.id.clone()).collect();
        let provider = Provider { name: name.to_owned(), service_type_ids, ..Default::default() };
        let request = CreateProviderRequest { provider: Some(provider), ..Default::default() };
        self.catalog().create_provider(request).await.expect("a provider").into_inner()
    }

    pub(crate) async fn service(&self, service: ServiceType) -> ServiceType {
        let request = CreateServiceTypeRequest { service_type: Some(service), ..Default::default() };
        self.catalog().create_service_type(request).await.expect("a service type").into_inner()
    }

    pub(crate) async fn try_put(&self, template: &WeeklyTemplate) -> Result<WeeklyTemplate, Status> {
        let weekly_template = Some(template.clone());
        let request = PutWeeklyTemplateRequest { weekly_template, ..Default::default() };
        Ok(self.calendar().put_weekly_template(request).await?.into_inner())
    }

    pub(crate) async fn put(&self, template: &WeeklyTemplate) -> WeeklyTemplate {
        self.try_put(template).await.expect("a template")
    }

    pub(crate) async fn except(&self, exception: CalendarException) -> CalendarException {
        let request = AddExceptionRequest { exception: Some(exception), ..Default::default() };
        self.calendar().add_exception(request).await.expect("an exception").into_inner()
    }

    /// Closes a clinic, or with an empty id all of them.
    pub(crate) async fn close(&self, clinic_id: &str, span: blackout::Span) -> Blackout {
        let clinic_id = clinic_id.to_owned();
        let blackout = Blackout { clinic_id, name: "Closed".into(), span: Some(span), ..Default::default() };
        let request = AddBlackoutRequest { blackout: Some(blackout), ..Default::default() };
        self.calendar().add_blackout(request).await.expect("a blackout").into_inner()
    }

    pub(crate) async fn update_clinic(&self, clinic: Clinic) -> Clinic {
        let request = UpdateClinicRequest { clinic: Some(clinic), ..Default::default() };
        self.catalog().update_clinic(request).await.expect("the clinic changes").into_inner()
    }

    pub(crate) async fn find(&self, search: &SearchAvailabilityRequest) -> SearchAvailabilityResponse {
        self.availability().search_availability(search.clone()).await.expect("an answer").into_inner()
    }

    pub(crate) async fn calendar_version(&self, provider_id: &str) -> i64 {
        let request = GetProviderRequest { provider_id: provider_id.to_owned() };
        self.catalog().get_provider(request).await.expect("the provider").into_inner().calendar_version
    }

    /// What was told of calendars after the first `heard` events, which grow by it. Every version of every calendar is told once
    /// and in order, or the test fails.
    pub(crate) async fn told(&self, heard: &mut usize) -> Vec<CalendarChanged> {
        let request = ListProvidersRequest { include_retired: true, page_size: 500, ..Default::default() };
        let providers = self.catalog().list_providers(request).await.expect("a list").into_inner().providers;
        let all: i64 = providers.iter().map(|p| p.calendar_version).sum();
        let broker = self.servers.broker().await;
        let mut told: Vec<CalendarChanged> = testkit::collect(&broker, "scheduling", all as usize).await;
        let mut versions: HashMap<String, i64> = HashMap::new();
        for event in &told {
            let version = versions.entry(event.provider_id.clone()).or_default();
            *version += 1;
            assert_eq!(event.version, *version, "of provider {}", event.provider_id);
        }
        told.drain(..*heard);
        *heard += told.len();
        told
    }

    /// Tells, as appointments would, that someone booked. Answers the appointment.
    pub(crate) async fn book(&self, facts: AppointmentFacts) -> AppointmentId {
        let id = AppointmentId::new();
        let booked = AppointmentBooked {
            appointment_id: id.to_string(),
            version: 1,
            appointment: Some(facts),
            ..Default::default()
        };
        testkit::publish(&self.servers.broker().await, "appointments", id, 1, &booked).await;
        id
    }
}

/// A kind of visit that may be booked up to the last minute.
pub(crate) fn visit(name: &str, duration_minutes: i32) -> ServiceType {
    ServiceType { name: name.to_owned(), duration_minutes, ..Default::default() }
}

/// A shift between two times of a clinic's clock, such as `["09:00", "11:00"]`, on the days of `rrule` from 4 March 2030 on.
pub(crate) fn shift(
    clinic: &Clinic,
    provider: &Provider,
    rrule: &str,
    [start, end]: [&str; 2],
) -> WeeklyTemplate {
    let zone = &clinic.time_zone;
    let rule = format!("DTSTART;TZID={zone}:20300304T{}00\nRRULE:{rrule}", start.replace(':', ""));
    WeeklyTemplate {
        provider_id: provider.id.clone(),
        clinic_id: clinic.id.clone(),
        rule,
        start_time: Some(time_of_day(minute_of_day(start))),
        end_time: Some(time_of_day(minute_of_day(end))),
        ..Default::default()
    }
}

/// Opening hours on some days of the week, 1 = Monday.
pub(crate) fn open(days: impl IntoIterator<Item = i32>, [open, close]: [&str; 2]) -> Vec<OpeningHours> {
    let time = |text| Some(time_of_day(minute_of_day(text)));
    days.into_iter().map(|day| OpeningHours { day, open: time(open), close: time(close) }).collect()
}

fn minute_of_day(text: &str) -> u16 {
    let (hour, minute) = text.split_once(':').expect("a time such as 09:00");
    hour.parse::<u16>().expect("an hour") * 60 + minute.parse::<u16>().expect("a minute")
}

pub(crate) fn exception(
    clinic_id: &str,
    provider: &Provider,
    kind: ExceptionKind,
    interval: Interval,
) -> CalendarException {
    CalendarException {
        provider_id: provider.id.clone(),
        clinic_id: clinic_id.to_owned(),
        kind: kind.into(),
        interval: Some(interval),
        ..Default::default()
    }
}

/// The instant at which clocks of `zone` first show `text`, such as `2030-03-04 09:00`.
pub(crate) fn at(zone: &str, text: &str) -> DateTime<Utc> {
    let zone: Tz = zone.parse().expect("a zone");
    let wall = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").expect("a time");
    zone.from_local_datetime(&wall).earliest().expect("a time that clocks show").to_utc()
}

/// From one time to another of a day, on clocks of `zone`.
pub(crate) fn during(zone: &str, day: &str, [start, end]: [&str; 2]) -> Interval {
    let at = |time| Some(timestamp(at(zone, &format!("{day} {time}"))));
    Interval { start_time: at(start), end_time: at(end) }
}

/// A day of each clinic, such as `2030-03-11`.
pub(crate) fn whole_day(day: &str) -> blackout::Span {
    let day = kit::fields::date(day.parse().expect("a date"));
    blackout::Span::Days(DateSpan { first_date: Some(day), last_date: None })
}

/// Intervals on the clocks of `zone`, such as `2030-03-04 09:00-11:00`; nothing follows the hyphen of one without an end.
pub(crate) fn clocks<'a>(zone: &str, intervals: impl IntoIterator<Item = &'a Interval>) -> Vec<String> {
    let zone: Tz = zone.parse().expect("a zone");
    let show = |t: &Timestamp, format| {
        let instant = DateTime::from_timestamp(t.seconds, 0).expect("an instant");
        instant.with_timezone(&zone).format(format).to_string()
    };
    let show = |i: &Interval| {
        let start = show(i.start_time.as_ref().expect("a start"), "%Y-%m-%d %H:%M");
        format!("{start}-{}", i.end_time.map(|t| show(&t, "%H:%M")).unwrap_or_default())
    };
    intervals.into_iter().map(show).collect()
}

/// What appointments would tell about a visit that takes its time and nothing around it.
pub(crate) fn facts(room: &Room, provider_id: &str, interval: Interval) -> AppointmentFacts {
    AppointmentFacts {
        state: AppointmentState::Booked.into(),
        patient_id: PatientId::new().to_string(),
        clinic_id: room.clinic_id.clone(),
        provider_id: provider_id.to_owned(),
        room_id: room.id.clone(),
        interval: Some(interval),
        occupied_interval: Some(interval),
        ..Default::default()
    }
}
