//! The other services, as booking needs them: one trait each, one adapter over gRPC.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use kit::client::Outbound;
use kit::ids::{PatientId, PaymentMethodId, ServiceTypeId};
use kit::status::{Error as KitError, reason};
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::billing::v1::{
    AuthorizeCopayRequest, Charge, GetPatientAccountRequest, PaymentMethodState,
};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{AccessPurpose, GetPatientRequest, PatientView};
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use proto::clinic::scheduling::v1::{
    CheckSlotRequest, CheckSlotResponse, GetClinicRequest, GetProviderRequest, GetServiceTypeRequest,
    SearchAvailabilityRequest, SearchAvailabilityResponse, ServiceType,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::error::Error;

/// Questions about the catalog that one call asks at a time.
const AT_A_TIME: usize = 8;

/// Judges slots against the schedule.
#[async_trait]
pub trait Scheduling: Send + Sync {
    /// Whether a slot is inside the schedule, for whom, and in which rooms.
    async fn check_slot(&self, request: CheckSlotRequest) -> Result<CheckSlotResponse, Error>;
    /// One page of free slots.
    async fn search(&self, request: SearchAvailabilityRequest) -> Result<SearchAvailabilityResponse, Error>;
    /// A kind of visit; NOT_FOUND for it, or for the first of the clinics and providers that does not exist.
    async fn service_type(
        &self,
        id: ServiceTypeId,
        clinics: &[Uuid],
        providers: &[Uuid],
    ) -> Result<ServiceType, Error>;
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
    /// Whether the patient has a card on file that can be charged: this one, or any.
    async fn has_card(&self, patient: PatientId, card: Option<PaymentMethodId>) -> Result<bool, Error>;
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

    async fn search(&self, request: SearchAvailabilityRequest) -> Result<SearchAvailabilityResponse, Error> {
        let mut client = AvailabilityServiceClient::new(self.scheduling.clone());
        let answer = client.search_availability(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| passed_on(status, "scheduling"))
    }

    async fn service_type(
        &self,
        id: ServiceTypeId,
        clinics: &[Uuid],
        providers: &[Uuid],
    ) -> Result<ServiceType, Error> {
        let asked = async {
            let catalog = CatalogServiceClient::new(self.scheduling.clone());
            let request = GetServiceTypeRequest { service_type_id: id.to_string() };
            let found = catalog.clone().get_service_type(request).await?.into_inner();
            let all = clinics.iter().map(|id| (true, id)).chain(providers.iter().map(|id| (false, id)));
            futures::stream::iter(all.map(Ok))
                .try_for_each_concurrent(AT_A_TIME, |(is_clinic, id)| {
                    let mut catalog = catalog.clone();
                    let id = id.to_string();
                    async move {
                        if is_clinic {
                            catalog.get_clinic(GetClinicRequest { clinic_id: id }).await.map(drop)
                        } else {
                            catalog.get_provider(GetProviderRequest { provider_id: id }).await.map(drop)
                        }
                    }
                })
                .await?;
            Ok(found)
        };
        asked.await.map_err(|status| passed_on(status, "scheduling"))
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

    async fn has_card(&self, patient: PatientId, card: Option<PaymentMethodId>) -> Result<bool, Error> {
        let request = GetPatientAccountRequest { patient_id: patient.to_string(), ..Default::default() };
        let account = BillingServiceClient::new(self.billing.clone()).get_patient_account(request).await;
        let cards = match account {
            Ok(account) => account.into_inner().payment_methods,
            Err(status) if status.code() == Code::NotFound => vec![],
            Err(status) => return Err(passed_on(status, "billing")),
        };
        let card = card.map(|card| card.to_string());
        Ok(cards.iter().any(|known| {
            known.state() == PaymentMethodState::Active && card.as_ref().is_none_or(|card| *card == known.id)
        }))
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
