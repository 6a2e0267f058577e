//! Whom texts come from, and the visits that they confirm and cancel.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kit::client::Outbound;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, PatientId};
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::{
    Appointment, AppointmentState, CancelAppointmentRequest, CancelledBy, GetAppointmentRequest,
    RescheduleAppointmentRequest,
};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{
    AccessPurpose, SearchPatientsRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
};
use tonic::Code;
use uuid::Uuid;

use crate::domain::notice::Alternative;

/// Patients at one number at most; who shares a phone with more is not found by it.
const MOST_PATIENTS: i32 = 20;
/// Characters of a decision's words that the patients service takes.
const WORDING: usize = 1000;
/// Reasons of the appointments service: someone was faster.
const TAKEN: [&str; 2] = ["SLOT_TAKEN", "ROOM_TAKEN"];

/// Someone who is reached at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub patient: PatientId,
    /// BCP 47; empty = the network's default.
    pub language: String,
}

/// What a patient decided about texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whether texts may come.
    pub granted: bool,
    /// The words it was said in.
    pub wording: String,
    /// Who said it: the patient, or the carrier.
    pub source: SmsConsentSource,
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

    /// Cancels a visit for its patient, once for each `request`; `None` = it is no longer to be cancelled. An error is worth another
    /// try.
    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<Option<Cancelled>>;

    /// Moves a displaced visit to a time that its patient chose, once for each `request`. An error is worth another try.
    async fn move_to(
        &self,
        appointment: AppointmentId,
        to: Alternative,
        request: Uuid,
    ) -> anyhow::Result<Moved>;
}

/// A cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// It was late, and costs a fee.
    pub late_fee: bool,
}

/// What came of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The visit has the time.
    Done,
    /// The time is not to be had any more.
    Taken,
    /// The visit is displaced no longer.
    Gone,
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
            source: wish.source.into(),
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

    async fn visit(&self, appointment: AppointmentId) -> anyhow::Result<Option<Appointment>> {
        let request = GetAppointmentRequest { appointment_id: appointment.to_string(), ..Default::default() };
        match self.0.clone().get_appointment(request).await {
            Ok(found) => Ok(Some(found.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status).context("asking the appointments service"),
        }
    }
}

#[async_trait]
impl Visits for VisitsRpc {
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool> {
        let found = self.visit(appointment).await?;
        Ok(found.is_some_and(|visit| visit.state() == AppointmentState::Booked))
    }

    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<Option<Cancelled>> {
        let request = CancelAppointmentRequest {
            request_id: request.to_string(),
            appointment_id: appointment.to_string(),
            etag: String::new(),
            cancelled_by: CancelledBy::Patient.into(),
        };
        match self.0.clone().cancel_appointment(request).await {
            Ok(visit) => {
                let late_fee = visit.get_ref().cancellation.is_some_and(|cancellation| cancellation.fee_due);
                Ok(Some(Cancelled { late_fee }))
            }
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => Ok(None),
            Err(status) => Err(status).context("cancelling at the appointments service"),
        }
    }

    async fn move_to(
        &self,
        appointment: AppointmentId,
        to: Alternative,
        request: Uuid,
    ) -> anyhow::Result<Moved> {
        let Some(visit) = self.visit(appointment).await? else { return Ok(Moved::Gone) };
        let start = timestamp(to.start);
        let begins = visit.interval.and_then(|interval| interval.start_time);
        match visit.state() {
            AppointmentState::Displaced => {}
            // By an earlier try, whose answer was lost.
            AppointmentState::Booked
                if begins == Some(start) && visit.provider_id == to.provider.to_string() =>
            {
                return Ok(Moved::Done);
            }
            _ => return Ok(Moved::Gone),
        }
        let request = RescheduleAppointmentRequest {
            request_id: request.to_string(),
            appointment_id: appointment.to_string(),
            etag: visit.etag,
            provider_id: to.provider.to_string(),
            start_time: Some(start),
            ..Default::default()
        };
        match self.0.clone().reschedule_appointment(request).await {
            Ok(_) => Ok(Moved::Done),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(Moved::Taken),
            Err(status) if TAKEN.contains(&reason(&status).as_str()) => Ok(Moved::Taken),
            Err(status) => Err(status).context("moving at the appointments service"),
        }
    }
}
