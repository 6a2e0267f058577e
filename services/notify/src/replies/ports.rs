//! Whom texts come from, and the visits that they confirm and cancel.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kit::client::Outbound;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, PatientId};
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::{
    AppointmentState, CancelAppointmentRequest, CancelledBy, GetAppointmentRequest,
};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{
    AccessPurpose, SearchPatientsRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
};
use tonic::Code;
use uuid::Uuid;

/// Patients at one number at most; who shares a phone with more is not found by it.
const MOST_PATIENTS: i32 = 20;
/// Characters of a decision's words that the patients service takes.
const WORDING: usize = 1000;

/// Someone who is reached at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub patient: PatientId,
    /// BCP 47; empty = the network's default.
    pub language: String,
}

/// What a patient decided about texts, by text.
#[derive(Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whether texts may come.
    pub granted: bool,
    /// The words it was said in.
    pub wording: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Makes the call safe to repeat.
    pub request: Uuid,
}

/// Who knows whom a number belongs to, and what they agreed to.
#[async_trait]
pub trait Holders: Send + Sync {
    /// The patients whose present number `phone` is, E.164. An error is worth another try.
    async fn at(&self, phone: &str) -> anyhow::Result<Vec<Holder>>;

    /// Records what a patient decided. An error is worth another try.
    async fn decide(&self, patient: PatientId, wish: &Wish) -> anyhow::Result<()>;
}

/// Who keeps the visits.
#[async_trait]
pub trait Visits: Send + Sync {
    /// Whether a visit is booked. An error is worth another try.
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool>;

    /// Cancels a visit for its patient, once for each `request`; false = it is no longer to be cancelled. An error is worth another
    /// try.
    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<bool>;
}

/// The patients service over gRPC.
#[derive(Clone, Debug)]
pub struct HoldersRpc(PatientServiceClient<Outbound>);

impl HoldersRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self(PatientServiceClient::new(outbound))
    }
}

#[async_trait]
impl Holders for HoldersRpc {
    async fn at(&self, phone: &str) -> anyhow::Result<Vec<Holder>> {
        let request = SearchPatientsRequest {
            phone: phone.to_owned(),
            page_size: MOST_PATIENTS,
            purpose: AccessPurpose::Notification.into(),
            ..Default::default()
        };
        let found = match self.0.clone().search_patients(request).await {
            Ok(found) => found.into_inner(),
            // A short code, or a sender that is no number at all: it belongs to nobody.
            Err(status) if status.code() == Code::InvalidArgument => return Ok(vec![]),
            Err(status) => return Err(status).context("asking the patients service for a number"),
        };
        let holder = |patient: proto::clinic::patients::v1::Patient| {
            let id = patient.id.parse().context("a patient's id")?;
            Ok(Holder { patient: id, language: patient.language })
        };
        // The survivor of a merge is found by the numbers that merged records had, too.
        let reached = found.matches.into_iter().filter_map(|found| found.patient);
        reached.filter(|patient| patient.phone == phone).map(holder).collect()
    }

    async fn decide(&self, patient: PatientId, wish: &Wish) -> anyhow::Result<()> {
        let state = if wish.granted { SmsConsentState::Granted } else { SmsConsentState::Revoked };
        let wording: String = wish.wording.chars().take(WORDING).collect();
        let request = SetSmsConsentRequest {
            request_id: wish.request.to_string(),
            patient_id: patient.to_string(),
            state: state.into(),
            source: SmsConsentSource::InboundSms.into(),
            wording,
            decide_time: Some(timestamp(wish.at)),
            ..Default::default()
        };
        match self.0.clone().set_sms_consent(request).await {
            Ok(_) => Ok(()),
            // Merged, or without a number by now: there is nothing left to decide.
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => Ok(()),
            Err(status) => Err(status).context("telling the patients service of a decision"),
        }
    }
}

/// The appointments service over gRPC.
#[derive(Clone, Debug)]
pub struct VisitsRpc(BookingServiceClient<Outbound>);

impl VisitsRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self(BookingServiceClient::new(outbound))
    }
}

#[async_trait]
impl Visits for VisitsRpc {
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool> {
        let request = GetAppointmentRequest { appointment_id: appointment.to_string(), ..Default::default() };
        match self.0.clone().get_appointment(request).await {
            Ok(found) => Ok(found.get_ref().state() == AppointmentState::Booked),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status).context("asking the appointments service"),
        }
    }

    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<bool> {
        let request = CancelAppointmentRequest {
            request_id: request.to_string(),
            appointment_id: appointment.to_string(),
            etag: String::new(),
            cancelled_by: CancelledBy::Patient.into(),
        };
        match self.0.clone().cancel_appointment(request).await {
            Ok(_) => Ok(true),
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => Ok(false),
            Err(status) => Err(status).context("cancelling at the appointments service"),
        }
    }
}
