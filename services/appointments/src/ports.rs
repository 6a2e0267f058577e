//! The other services, as booking needs them: one trait each, one adapter over gRPC.

use async_trait::async_trait;
use kit::client::Outbound;
use kit::ids::PatientId;
use kit::status::{Error as KitError, reason};
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::billing::v1::{AuthorizeCopayRequest, Charge};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{AccessPurpose, GetPatientRequest, PatientView};
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::{CheckSlotRequest, CheckSlotResponse, SearchAvailabilityRequest, Slot};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::Error;

/// Judges slots against the schedule.
#[async_trait]
pub trait Scheduling: Send + Sync {
    /// Whether a slot is inside the schedule, for whom, and in which rooms.
    async fn check_slot(&self, request: CheckSlotRequest) -> Result<CheckSlotResponse, Error>;
    /// One page of free slots.
    async fn search(&self, request: SearchAvailabilityRequest) -> Result<Vec<Slot>, Error>;
}

/// What came of asking for a co-pay.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// Authorized, or waiting for the patient to confirm.
    Charge(Box<Charge>),
    /// The visit's fee has no co-pay after all.
    NotDue,
    /// The card was declined, with the provider's word for why.
    Declined(String),
    /// The hold ended meanwhile.
    HoldExpired,
    /// Nothing was tried, for a reason that the caller can mend: no card, no fee.
    Refused(Box<Status>),
    /// The outcome is not known: ask again with the same attempt.
    Unknown,
}

/// Authorizes co-pays.
#[async_trait]
pub trait Billing: Send + Sync {
    /// Authorizes the co-pay of a hold.
    async fn authorize(&self, request: AuthorizeCopayRequest) -> Authorization;
}

/// Knows patients.
#[async_trait]
pub trait Patients: Send + Sync {
    /// Whether there is such a patient.
    async fn exists(&self, patient: PatientId) -> Result<bool, Error>;
}

/// The other services over gRPC.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Channel to scheduling.
    pub scheduling: Outbound,
    /// Channel to patients.
    pub patients: Outbound,
    /// Channel to billing.
    pub billing: Outbound,
}

#[async_trait]
impl Scheduling for Remote {
    async fn check_slot(&self, request: CheckSlotRequest) -> Result<CheckSlotResponse, Error> {
        let mut client = AvailabilityServiceClient::new(self.scheduling.clone());
        client
            .check_slot(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| passed_on(status, "scheduling"))
    }

    async fn search(&self, request: SearchAvailabilityRequest) -> Result<Vec<Slot>, Error> {
        let mut client = AvailabilityServiceClient::new(self.scheduling.clone());
        let answer = client.search_availability(request).await;
        answer.map(|found| found.into_inner().slots).map_err(|status| passed_on(status, "scheduling"))
    }
}

#[async_trait]
impl Patients for Remote {
    async fn exists(&self, patient: PatientId) -> Result<bool, Error> {
        let request = GetPatientRequest {
            patient_id: patient.to_string(),
            view: PatientView::Reference as i32,
            purpose: AccessPurpose::Scheduling as i32,
            ..Default::default()
        };
        match PatientServiceClient::new(self.patients.clone()).get_patient(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(passed_on(status, "patients")),
        }
    }
}

#[async_trait]
impl Billing for Remote {
    async fn authorize(&self, request: AuthorizeCopayRequest) -> Authorization {
        let status = match BillingServiceClient::new(self.billing.clone()).authorize_copay(request).await {
            Ok(charge) => return Authorization::Charge(Box::new(charge.into_inner())),
            Err(status) => status,
        };
        match (status.code(), reason(&status).as_str()) {
            (_, "PAYMENT_DECLINED") => {
                Authorization::Declined(kit::status::meta(&status, "decline_code").unwrap_or_default())
            }
            (_, "COPAY_NOT_DUE") => Authorization::NotDue,
            (_, "HOLD_EXPIRED") => Authorization::HoldExpired,
            (Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument, _) => {
                Authorization::Refused(Box::new(as_our_own(&status)))
            }
            _ => {
                tracing::warn!(code = ?status.code(), message = status.message(), "an authorization's outcome is unknown");
                Authorization::Unknown
            }
        }
    }
}

/// A refusal that is about the caller's own request goes back to the caller; anything else is that service's outage.
fn passed_on(status: Status, who: &'static str) -> Error {
    match status.code() {
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::DeadlineExceeded => {
            Error::Remote(Box::new(as_our_own(&status)))
        }
        code => {
            tracing::warn!(?code, message = status.message(), who, "another service failed");
            Error::Kit(KitError::Unavailable { what: who })
        }
    }
}

/// The same refusal under this service's domain, as the contract has it.
fn as_our_own(status: &Status) -> Status {
    let mut details = status.get_error_details();
    if let Some(info) = details.error_info().cloned() {
        details.set_error_info(info.reason, crate::DOMAIN, info.metadata);
    }
    Status::with_error_details(status.code(), status.message(), details)
}
