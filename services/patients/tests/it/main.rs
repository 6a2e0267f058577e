//! The patients service on real servers, called over gRPC.

mod access_log;
mod consent;
mod export;
mod intake;
mod merge;
mod registration;
mod sealing;
mod search;

use kit::client::Outbound;
use kit::config::Service;
use kit::ids::PatientId;
use patients::Config;
use patients::config::Region;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{GetPatientRequest, Patient, RegisterPatientRequest};
use proto::google::r#type::Date;
use testkit::Servers;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) type Client = PatientServiceClient<Outbound>;

/// A running service and the servers below it.
pub(crate) struct Suite {
    pub(crate) servers: Servers,
    url: String,
}

impl Suite {
    pub(crate) async fn start() -> Self {
        let servers = Servers::start().await;
        let url = replica(&servers).await;
        Self { servers, url }
    }

    /// Starts one more replica, and answers calls to it at the desk.
    pub(crate) async fn replica(&self) -> Client {
        let url = replica(&self.servers).await;
        PatientServiceClient::new(self.servers.client(&url, Role::FrontDesk, "ana"))
    }

    pub(crate) fn call_as(&self, role: Role, subject: &str) -> Client {
        PatientServiceClient::new(self.servers.client(&self.url, role, subject))
    }

    pub(crate) fn desk(&self) -> Client {
        self.call_as(Role::FrontDesk, "ana")
    }

    pub(crate) fn patient(&self, id: &str) -> Client {
        self.call_as(Role::Patient, id)
    }

    /// Registers `patient` at the desk.
    pub(crate) async fn registered(&self, patient: Patient) -> Patient {
        let request = RegisterPatientRequest { patient: Some(patient), ..Default::default() };
        let response = self.desk().register_patient(request).await.expect("registered").into_inner();
        response.patient.expect("the patient")
    }
}

pub(crate) fn config(servers: &Servers) -> Config {
    let service: Service = servers.service(patients::NAME);
    Config { service, default_region: "US".parse::<Region>().expect("a country"), keys: None }
}

/// Starts a service on `servers`; answers its URL.
async fn replica(servers: &Servers) -> String {
    let (listener, url) = testkit::listener().await;
    let run = patients::run(listener, config(servers), servers.clock.clone(), servers.stop.clone());
    tokio::spawn(async move { run.await.expect("the service runs until it is stopped") });
    url
}

/// Someone with a name of their own and a phone.
pub(crate) fn someone(given_name: &str, family_name: &str, phone: &str) -> Patient {
    Patient {
        given_name: given_name.to_owned(),
        family_name: family_name.to_owned(),
        birth_date: Some(Date { year: 1980, month: 2, day: 29 }),
        phone: phone.to_owned(),
        language: "es-MX".to_owned(),
        time_zone: "America/Chicago".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn get(id: &str) -> GetPatientRequest {
    GetPatientRequest { patient_id: id.to_owned(), ..Default::default() }
}

pub(crate) fn nobody() -> String {
    PatientId::new().to_string()
}

/// Asserts code and reason.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = answer.expect_err(reason);
    assert_eq!(
        (status.code(), kit::status::reason(&status).as_str()),
        (code, reason),
        "{}",
        status.message()
    );
    status
}

/// The fields that an INVALID_ARGUMENT names.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    let detail = status.get_details_bad_request().expect("a BadRequest");
    detail.field_violations.into_iter().map(|v| v.field).collect()
}
