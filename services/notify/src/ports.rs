//! What notify asks of others: whom to text, what the clinic is called, and to carry the text.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::client::Outbound;
use kit::ids::{AppointmentId, ClinicId, MessageId, PatientId};
use proto::clinic::notify::v1::FailureReason;
use proto::clinic::patients::v1::intake_service_client::IntakeServiceClient;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{
    AccessPurpose, GetIntakeRequest, GetPatientRequest, IntakeState, IntakeView, PatientView,
    SmsConsentState, get_intake_request,
};
use proto::clinic::scheduling::v1::GetClinicRequest;
use proto::clinic::scheduling::v1::catalog_service_client::CatalogServiceClient;
use tokio::sync::Mutex;
use tonic::Code;

use crate::invite::Method;

/// A clinic's name and phone are asked for again after this.
const CLINIC_TTL: Duration = Duration::from_secs(60);

/// Everything remote that notify stands on.
#[derive(Clone)]
pub struct Ports {
    /// The patients service.
    pub patients: Arc<dyn Patients>,
    /// The scheduling service.
    pub clinics: Arc<dyn Clinics>,
    /// The SMS provider.
    pub sms: Arc<dyn SmsGateway>,
    /// The mail relay; `None` = nothing goes by e-mail.
    pub mail: Option<Arc<dyn Mailer>>,
}

/// How to reach a patient now.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Contact {
    /// E.164; `None` = no phone.
    pub phone: Option<String>,
    /// Whether the patient has agreed to texts and not withdrawn.
    pub consented: bool,
    /// Whether the patient wants no texts, not even those asked for.
    pub withdrawn: bool,
    /// An address; `None` = no e-mail.
    pub email: Option<String>,
    /// BCP 47; empty = the network's default.
    pub language: String,
    /// Where the patient lives; `None` = as the visit's clinic.
    pub zone: Option<Tz>,
}

/// Who knows how to reach patients.
#[async_trait]
pub trait Patients: Send + Sync {
    /// How to reach `patient` now; `None` = there is no such patient. An error is worth another try.
    async fn contact(&self, patient: PatientId) -> anyhow::Result<Option<Contact>>;

    /// Whether an intake form of `appointment` waits to be submitted. An error is worth another try.
    async fn has_open_intake(&self, appointment: AppointmentId) -> anyhow::Result<bool>;
}

/// What a message says of a clinic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clinic {
    /// What patients know it by.
    pub name: String,
    /// E.164; empty = none.
    pub phone: String,
    /// Where it is, lines; empty = not said.
    pub address: String,
}

/// Who knows the clinics.
#[async_trait]
pub trait Clinics: Send + Sync {
    /// The clinic's name and phone. An error is worth another try.
    async fn clinic(&self, clinic: ClinicId) -> anyhow::Result<Clinic>;
}

/// One text to one number. Not printed by `Debug`: it would end in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Sms {
    /// Ours; the provider names it when it tells what became of the text.
    pub message: MessageId,
    /// E.164.
    pub to: String,
    /// The words.
    pub body: String,
    /// After this long the carrier need not deliver it any more.
    pub validity: Duration,
}

impl fmt::Debug for Sms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sms")
            .field("message", &self.message)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// What the provider made of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Took it, under this id.
    Taken(String),
    /// Refused it for good.
    Refused {
        /// Why.
        reason: FailureReason,
        /// The provider's error code.
        code: String,
    },
    /// Surely did not take it; another try may succeed.
    NotTaken(String),
    /// Nobody knows. Only the provider's list can tell.
    Unknown(String),
}

/// Who carries texts.
#[async_trait]
pub trait SmsGateway: Send + Sync {
    /// Hands over one text.
    async fn send(&self, sms: &Sms) -> Outcome;

    /// Ids of the texts with exactly this body to this number that the provider took at or after `since`, newest first.
    async fn taken(&self, to: &str, body: &str, since: DateTime<Utc>) -> anyhow::Result<Vec<String>>;

    /// The number that a text received came from, E.164; `None` = the provider does not know the text.
    async fn sender(&self, reference: &str) -> anyhow::Result<Option<String>>;
}

/// One e-mail to one address. Not printed by `Debug`: it would end in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    /// The message: the same at every try.
    pub id: MessageId,
    /// The address.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its words, plain text.
    pub body: String,
    /// When it is sent.
    pub date: DateTime<Utc>,
    /// The visit for calendar programs.
    pub invite: Option<Attached>,
}

/// An invitation as it is attached.
#[derive(Clone, PartialEq, Eq)]
pub struct Attached {
    /// What it asks for.
    pub method: Method,
    /// The file.
    pub file: String,
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who carries e-mails.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// The address they come from.
    fn from(&self) -> String;

    /// Hands over one e-mail. One that may or may not have been taken is handed over again under the same id.
    async fn send(&self, email: &Email) -> Outcome;
}

/// The patients service over gRPC.
#[derive(Clone, Debug)]
pub struct PatientsRpc {
    patients: PatientServiceClient<Outbound>,
    intakes: IntakeServiceClient<Outbound>,
}

impl PatientsRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self {
            patients: PatientServiceClient::new(outbound.clone()),
            intakes: IntakeServiceClient::new(outbound),
        }
    }
}

#[async_trait]
impl Patients for PatientsRpc {
    async fn contact(&self, patient: PatientId) -> anyhow::Result<Option<Contact>> {
        let request = GetPatientRequest {
            patient_id: patient.to_string(),
            view: PatientView::Contact.into(),
            purpose: AccessPurpose::Notification.into(),
            ..GetPatientRequest::default()
        };
        let patient = match self.patients.clone().get_patient(request).await {
            Ok(patient) => patient.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(status).context("asking the patients service"),
        };
        let state = patient.sms_consent.as_ref().map(|consent| consent.state()).unwrap_or_default();
        Ok(Some(Contact {
            phone: Some(patient.phone).filter(|phone| !phone.is_empty()),
            consented: state == SmsConsentState::Granted,
            withdrawn: state == SmsConsentState::Revoked,
            email: Some(patient.email).filter(|email| !email.is_empty()),
            language: patient.language,
            zone: patient.time_zone.parse().ok(),
        }))
    }

    async fn has_open_intake(&self, appointment: AppointmentId) -> anyhow::Result<bool> {
        let request = GetIntakeRequest {
            key: Some(get_intake_request::Key::AppointmentId(appointment.to_string())),
            view: IntakeView::Basic.into(),
            purpose: AccessPurpose::Notification.into(),
            ..GetIntakeRequest::default()
        };
        match self.intakes.clone().get_intake(request).await {
            Ok(intake) => {
                let state = intake.into_inner().state();
                Ok(matches!(state, IntakeState::Open | IntakeState::Draft))
            }
            // It asks for no form.
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status).context("asking the patients service for an intake"),
        }
    }
}

/// The scheduling service over gRPC, each clinic remembered for [`CLINIC_TTL`].
#[derive(Clone, Debug)]
pub struct ClinicsRpc {
    client: CatalogServiceClient<Outbound>,
    known: Arc<Mutex<HashMap<ClinicId, (Clinic, Instant)>>>,
}

impl ClinicsRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self { client: CatalogServiceClient::new(outbound), known: Arc::default() }
    }
}

#[async_trait]
impl Clinics for ClinicsRpc {
    async fn clinic(&self, clinic: ClinicId) -> anyhow::Result<Clinic> {
        let known = self.known.lock().await.get(&clinic).cloned();
        if let Some((found, asked)) = known
            && asked.elapsed() < CLINIC_TTL
        {
            return Ok(found);
        }
        let request = GetClinicRequest { clinic_id: clinic.to_string() };
        let answer =
            self.client.clone().get_clinic(request).await.context("asking the scheduling service")?;
        let answer = answer.into_inner();
        let found = Clinic { name: answer.name, phone: answer.phone, address: answer.address };
        self.known.lock().await.insert(clinic, (found.clone(), Instant::now()));
        Ok(found)
    }
}
