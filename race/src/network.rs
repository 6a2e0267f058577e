//! A network that is too small for those who want something of it: three clinics in two time zones, providers of whom some work at two
//! of them, two rooms each, three kinds of visit. Made over the suite's own calls.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use futures::stream;
use kit::client::Outbound;
use kit::fields::{date, time_of_day};
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::billing::v1::{Fee, SavePaymentMethodRequest, SetFeeScheduleRequest};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{Patient, RegisterPatientRequest};
use proto::clinic::scheduling::v1::calendar_service_client::CalendarServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use proto::clinic::scheduling::v1::{
    Clinic, CreateClinicRequest, CreateProviderRequest, CreateRoomRequest, CreateServiceTypeRequest,
    OpeningHours, Provider, PutWeeklyTemplateRequest, Room, ServiceType, WeeklyTemplate,
};
use proto::google::r#type::{DayOfWeek, Money};
use uuid::Uuid;

/// Time zones of the clinics.
const ZONES: [&str; 3] = ["America/Chicago", "America/New_York", "America/Chicago"];
/// Rooms of each clinic.
const ROOMS: usize = 2;
/// Where each provider works, by the clinics' places in [`ZONES`], each with the hours of the day there. Noon in Chicago is one
/// o'clock in New York: who works at two clinics goes from one to the other.
const PROVIDERS: [&[(usize, u16, u16)]; 6] = [
    &[(0, 0, 24)],
    &[(0, 0, 24)],
    &[(1, 0, 24)],
    &[(2, 0, 24)],
    &[(0, 0, 12), (1, 13, 24)],
    &[(2, 0, 12), (0, 12, 24)],
];
/// Kinds of visit: name, minutes, buffers before and after, co-pay.
const SERVICES: [(&str, i32, i32, i32, bool); 3] =
    [("Follow-up", 15, 0, 0, false), ("Procedure", 15, 5, 10, false), ("New patient visit", 30, 0, 0, true)];
/// The co-pay, and the fee of a late cancellation or a missed visit, in dollars.
const COPAY_DOLLARS: i64 = 40;
const FEE_DOLLARS: i64 = 25;
/// How far behind UTC the last time zone is: the earliest day from which a fee may be set is today there.
const LAST_ZONE_BEHIND: TimeDelta = TimeDelta::hours(12);
/// One patient in so many has a card that is saved and then declined.
const DECLINED: usize = 6;
/// Patients made at a time.
const AT_A_TIME: usize = 8;

/// Ids of what was made.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Network {
    pub clinics: Vec<Site>,
    pub providers: Vec<Uuid>,
    pub services: Vec<Uuid>,
    pub patients: Vec<Uuid>,
    /// Good cards of patients whose default card is declined.
    pub other_cards: HashMap<Uuid, Uuid>,
}

/// A clinic, its rooms, and the providers who work there.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Site {
    pub id: Uuid,
    pub rooms: Vec<Uuid>,
    pub providers: Vec<Uuid>,
}

impl Network {
    /// Makes it, as an administrator, with so many patients.
    pub async fn build(
        admin: &Outbound,
        desk: &Outbound,
        patients: usize,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let mut catalog = CatalogServiceClient::new(admin.clone());
        let mut clinics: Vec<Site> = vec![];
        for (n, zone) in ZONES.iter().enumerate() {
            let open = (1..=7).map(|day| OpeningHours {
                day: DayOfWeek::try_from(day).unwrap_or_default() as i32,
                open: Some(time_of_day(0)),
                close: Some(time_of_day(24 * 60)),
            });
            let clinic = Clinic {
                name: format!("Clinic {n}"),
                time_zone: (*zone).into(),
                opening_hours: open.collect(),
                phone: "+13125550199".into(),
                ..Default::default()
            };
            let request = CreateClinicRequest { clinic: Some(clinic), ..Default::default() };
            let id = catalog.create_clinic(request).await?.into_inner().id;
            let mut rooms = vec![];
            for room in 0..ROOMS {
                let room = Room { clinic_id: id.clone(), name: format!("{n}.{room}"), ..Default::default() };
                let request = CreateRoomRequest { room: Some(room), ..Default::default() };
                rooms.push(catalog.create_room(request).await?.into_inner().id.parse()?);
            }
            clinics.push(Site { id: id.parse()?, rooms, providers: vec![] });
        }
        let mut services: Vec<Uuid> = vec![];
        for (name, minutes, before, after, copay) in SERVICES {
            let service_type = ServiceType {
                name: name.into(),
                duration_minutes: minutes,
                buffer_before_minutes: before,
                buffer_after_minutes: after,
                step_minutes: 5,
                copay_required: copay,
                ..Default::default()
            };
            let request = CreateServiceTypeRequest { service_type: Some(service_type), ..Default::default() };
            services.push(catalog.create_service_type(request).await?.into_inner().id.parse()?);
        }
        let providers = providers(admin, &mut clinics, now).await?;
        fees(admin, &clinics, services[SERVICES.len() - 1], now).await?;
        let patients = stream::iter(0..patients).map(|n| patient(desk, n)).buffered(AT_A_TIME);
        let patients: Vec<anyhow::Result<(Uuid, Option<Uuid>)>> = patients.collect().await;
        let patients = patients.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let other_cards = patients.iter().filter_map(|(patient, card)| Some((*patient, (*card)?))).collect();
        let patients = patients.into_iter().map(|(patient, _)| patient).collect();
        Ok(Self { clinics, providers, services, patients, other_cards })
    }
}

async fn providers(admin: &Outbound, clinics: &mut [Site], now: DateTime<Utc>) -> anyhow::Result<Vec<Uuid>> {
    let (mut catalog, mut calendar) =
        (CatalogServiceClient::new(admin.clone()), CalendarServiceClient::new(admin.clone()));
    let day = (now - TimeDelta::days(7)).format("%Y%m%d");
    let mut providers = vec![];
    for (n, shifts) in PROVIDERS.iter().enumerate() {
        let provider = Provider { name: format!("Dr. {n}"), ..Default::default() };
        let request = CreateProviderRequest { provider: Some(provider), ..Default::default() };
        let id = catalog.create_provider(request).await?.into_inner().id;
        for &(at, from, until) in *shifts {
            let site = &mut clinics[at];
            site.providers.push(id.parse()?);
            let template = WeeklyTemplate {
                provider_id: id.clone(),
                clinic_id: site.id.to_string(),
                rule: format!("DTSTART;TZID={}:{day}T{from:02}0000\nRRULE:FREQ=DAILY", ZONES[at]),
                start_time: Some(time_of_day(from * 60)),
                end_time: Some(time_of_day(until * 60)),
                ..Default::default()
            };
            let request = PutWeeklyTemplateRequest { weekly_template: Some(template), ..Default::default() };
            calendar.put_weekly_template(request).await?;
        }
        providers.push(id.parse()?);
    }
    Ok(providers)
}

/// Fees that are in force on every visit's date: an override just after a clinic's midnight may name a start of the day before.
async fn fees(admin: &Outbound, clinics: &[Site], service: Uuid, now: DateTime<Utc>) -> anyhow::Result<()> {
    let dollars = |units| Some(Money { currency_code: "USD".into(), units, nanos: 0 });
    for site in clinics {
        let fee = Fee {
            service_type_id: service.to_string(),
            effective_from: Some(date((now - LAST_ZONE_BEHIND).date_naive())),
            copay_amount: dollars(COPAY_DOLLARS),
            no_show_fee_amount: dollars(FEE_DOLLARS),
            ..Default::default()
        };
        let request =
            SetFeeScheduleRequest { clinic_id: site.id.to_string(), fees: vec![fee], ..Default::default() };
        BillingServiceClient::new(admin.clone()).set_fee_schedule(request).await?;
    }
    Ok(())
}

/// Answers the patient, and a second card where the first is declined.
async fn patient(desk: &Outbound, n: usize) -> anyhow::Result<(Uuid, Option<Uuid>)> {
    let patient = Patient {
        given_name: "Racing".into(),
        family_name: format!("Patient {n}"),
        birth_date: Some(proto::google::r#type::Date { year: 1980, month: 2, day: 29 }),
        phone: "+13125550142".into(),
        language: "en".into(),
        time_zone: ZONES[0].into(),
        ..Default::default()
    };
    let request = RegisterPatientRequest { patient: Some(patient), ..Default::default() };
    let registered = PatientServiceClient::new(desk.clone()).register_patient(request).await?.into_inner();
    let id: Uuid = registered.patient.map(|p| p.id).unwrap_or_default().parse()?;
    if n % DECLINED < DECLINED - 1 {
        save_card(desk, id, "pm_card_visa", true).await?;
        return Ok((id, None));
    }
    save_card(desk, id, "pm_card_chargeCustomerFail", true).await?;
    Ok((id, Some(save_card(desk, id, "pm_card_mastercard", false).await?)))
}

async fn save_card(desk: &Outbound, patient: Uuid, token: &str, make_default: bool) -> anyhow::Result<Uuid> {
    let request = SavePaymentMethodRequest {
        patient_id: patient.to_string(),
        provider_token: token.into(),
        make_default,
        ..Default::default()
    };
    Ok(BillingServiceClient::new(desk.clone()).save_payment_method(request).await?.into_inner().id.parse()?)
}
