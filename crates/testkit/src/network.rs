//! A small network for journeys: one clinic that is always open, one provider, two rooms, a free and a paid kind of visit, and
//! patients. Built over the suite's own RPCs.

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;
use kit::fields::{date, time_of_day, timestamp};
use proto::clinic::appointments::v1::BookAppointmentRequest;
use proto::clinic::billing::v1::{Fee, SavePaymentMethodRequest, SetFeeScheduleRequest};
use proto::clinic::patients::v1::{Patient, RegisterPatientRequest};
use proto::clinic::scheduling::v1::{
    AvailabilityQuery, Clinic, CreateClinicRequest, CreateProviderRequest, CreateRoomRequest,
    CreateServiceTypeRequest, OpeningHours, Provider, PutWeeklyTemplateRequest, Room,
    SearchAvailabilityRequest, ServiceType, Slot, WeeklyTemplate,
};
use proto::google::r#type::{DayOfWeek, Money};
use uuid::Uuid;

use crate::suite::Desk;

/// The time zone of the clinic.
pub const ZONE: Tz = Tz::America__Chicago;

/// Ids of what was made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Network {
    pub clinic: String,
    pub provider: String,
    pub rooms: Vec<String>,
    /// 15 minutes, no co-pay.
    pub free_visit: String,
    /// 30 minutes, with a co-pay of [`COPAY_CENTS`].
    pub paid_visit: String,
}

/// The co-pay of a paid visit, in cents.
pub const COPAY_CENTS: i64 = 2_500;

impl Network {
    /// Makes the network, as an administrator whose clock says `now`.
    pub async fn build(admin: &Desk, now: DateTime<Utc>) -> Self {
        let open = (1..=7).map(|day| OpeningHours {
            day: DayOfWeek::try_from(day).expect("a day") as i32,
            open: Some(time_of_day(0)),
            close: Some(time_of_day(24 * 60)),
        });
        let clinic = Clinic {
            name: "Test Clinic".into(),
            time_zone: ZONE.name().into(),
            opening_hours: open.collect(),
            phone: "+13125550199".into(),
            ..Default::default()
        };
        let request = CreateClinicRequest { clinic: Some(clinic), ..Default::default() };
        let clinic = admin.catalog().create_clinic(request).await.expect("a clinic").into_inner().id;
        let mut rooms = vec![];
        for name in ["A", "B"] {
            let room = Room { clinic_id: clinic.clone(), name: name.into(), ..Default::default() };
            let request = CreateRoomRequest { room: Some(room), ..Default::default() };
            rooms.push(admin.catalog().create_room(request).await.expect("a room").into_inner().id);
        }
        let free_visit = service_type(admin, "Follow-up", 15, false).await;
        let paid_visit = service_type(admin, "New patient visit", 30, true).await;
        let provider = provider(admin, &clinic, now).await;

        let cents = |n: i64| {
            Some(Money { currency_code: "USD".into(), units: n / 100, nanos: (n % 100) as i32 * 10_000_000 })
        };
        let fee = Fee {
            service_type_id: paid_visit.clone(),
            effective_from: Some(date((now - TimeDelta::hours(12)).date_naive())),
            copay_amount: cents(COPAY_CENTS),
            no_show_fee_amount: cents(COPAY_CENTS),
            ..Default::default()
        };
        let request =
            SetFeeScheduleRequest { clinic_id: clinic.clone(), fees: vec![fee], ..Default::default() };
        admin.billing().set_fee_schedule(request).await.expect("fees");
        Self { clinic, provider, rooms, free_visit, paid_visit }
    }

    /// A patient with a card by `token`, such as `pm_card_visa`; empty = without a card.
    pub async fn patient(&self, desk: &Desk, token: &str) -> String {
        let patient = Patient {
            given_name: "Test".into(),
            family_name: "Patient".into(),
            birth_date: Some(proto::google::r#type::Date { year: 1980, month: 2, day: 29 }),
            phone: "+13125550142".into(),
            language: "en".into(),
            time_zone: ZONE.name().into(),
            ..Default::default()
        };
        let request = RegisterPatientRequest { patient: Some(patient), ..Default::default() };
        let registered = desk.patients().register_patient(request).await.expect("a patient").into_inner();
        let id = registered.patient.expect("the patient").id;
        if !token.is_empty() {
            let request = SavePaymentMethodRequest {
                patient_id: id.clone(),
                provider_token: token.into(),
                make_default: true,
                ..Default::default()
            };
            desk.billing().save_payment_method(request).await.expect("a saved card");
        }
        id
    }

    /// Free slots of a kind of visit from `first` day to the day after it, earliest first.
    pub async fn slots(&self, desk: &Desk, service_type: &str, first: DateTime<Utc>) -> Vec<Slot> {
        let day = first.with_timezone(&ZONE).date_naive();
        let query = AvailabilityQuery {
            service_type_id: service_type.into(),
            clinic_ids: vec![self.clinic.clone()],
            first_date: Some(date(day)),
            last_date: Some(date(day + TimeDelta::days(1))),
            ..Default::default()
        };
        let request = SearchAvailabilityRequest { query: Some(query), page_size: 500, ..Default::default() };
        desk.availability().search_availability(request).await.expect("an answer").into_inner().slots
    }

    /// A request to book the provider at `start`.
    pub fn booking(&self, patient: &str, service_type: &str, start: DateTime<Utc>) -> BookAppointmentRequest {
        BookAppointmentRequest {
            request_id: Uuid::now_v7().to_string(),
            patient_id: patient.into(),
            service_type_id: service_type.into(),
            clinic_id: self.clinic.clone(),
            provider_id: self.provider.clone(),
            start_time: Some(timestamp(start)),
            ..Default::default()
        }
    }
}

/// A whole hour, so many days ahead of `now`.
pub fn in_days(now: DateTime<Utc>, days: i64) -> DateTime<Utc> {
    let hour = now.with_minute(0).and_then(|t| t.with_second(0)).and_then(|t| t.with_nanosecond(0));
    hour.expect("a whole hour") + TimeDelta::days(days)
}

async fn service_type(admin: &Desk, name: &str, duration_minutes: i32, copay_required: bool) -> String {
    let service_type =
        ServiceType { name: name.into(), duration_minutes, copay_required, ..Default::default() };
    let request = CreateServiceTypeRequest { service_type: Some(service_type), ..Default::default() };
    admin.catalog().create_service_type(request).await.expect("a service type").into_inner().id
}

async fn provider(admin: &Desk, clinic: &str, now: DateTime<Utc>) -> String {
    let provider = Provider { name: "Dr. Test".into(), ..Default::default() };
    let request = CreateProviderRequest { provider: Some(provider), ..Default::default() };
    let id = admin.catalog().create_provider(request).await.expect("a provider").into_inner().id;
    let day = (now - TimeDelta::days(7)).format("%Y%m%d");
    let template = WeeklyTemplate {
        provider_id: id.clone(),
        clinic_id: clinic.into(),
        rule: format!("DTSTART;TZID={ZONE}:{day}T000000\nRRULE:FREQ=DAILY"),
        start_time: Some(time_of_day(0)),
        end_time: Some(time_of_day(24 * 60)),
        ..Default::default()
    };
    let request = PutWeeklyTemplateRequest { weekly_template: Some(template), ..Default::default() };
    admin.calendar().put_weekly_template(request).await.expect("a week");
    id
}
