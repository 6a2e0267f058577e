//! What happens to a canary: she is registered, twice, looked at by everybody, corrected, merged; her visits and the mistakes made
//! with her data have files of their own.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use kit::clock::Clock;
use prost::Message;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1 as pb;
use testkit::Servers;
use testkit::network::{Network, ZONE};
use testkit::suite::Desk;
use tonic::{Response, Status};
use uuid::Uuid;

use super::needles::{
    BORN, EMAIL, FAMILY_NAME, GIVEN_NAME, MRN, NEW_EMAIL, NEW_PHONE, OTHER_FAMILY_NAME, OTHER_MRN,
    OTHER_PHONE, PHONE,
};
use super::outputs::Output;
use crate::process::{Up, http};

/// Why managers and officers look.
pub(super) const REASON: &str = "complaint about a lost record";

/// A suite, and what came out of it.
pub(super) struct Story<'a> {
    pub(super) up: &'a Up,
    pub(super) servers: &'a Servers,
    pub(super) outputs: Vec<Output>,
    /// Methods that were called and answered, as `PatientService/GetPatient`.
    pub(super) answered: BTreeSet<String>,
    ahead: TimeDelta,
}

/// Who calls.
pub(super) struct Caller {
    name: &'static str,
    pub(super) desk: Desk,
}

impl<'a> Story<'a> {
    pub(super) fn new(up: &'a Up, servers: &'a Servers) -> Self {
        Self { up, servers, outputs: vec![], answered: BTreeSet::new(), ahead: TimeDelta::zero() }
    }

    pub(super) fn caller(&self, role: Role, subject: &str) -> Caller {
        let name = role.as_str_name().trim_start_matches("ROLE_");
        Caller { name, desk: self.up.desk_of(role, subject) }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        Clock::System.now() + self.ahead
    }

    pub(super) async fn advance_to(&mut self, instant: DateTime<Utc>) {
        let by = instant - self.now();
        let body = format!(r#"{{"advance_secs": {}}}"#, by.num_seconds());
        let (status, answer) =
            http("POST", &format!("{}/sandbox/clock", self.up.url("sandbox")), &body).await;
        assert_eq!(status, 200, "{answer}");
        self.ahead += by;
    }

    /// Keeps what a call answered.
    pub(super) async fn told<M: Message>(
        &mut self,
        method: &str,
        caller: &Caller,
        call: impl Future<Output = Result<Response<M>, Status>>,
    ) -> Result<M, Status> {
        match call.await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let place = format!("answer {method} to {}", caller.name);
                self.outputs.push(Output::new(place, answer.encode_to_vec()));
                self.answered.insert(method.to_owned());
                Ok(answer)
            }
            Err(status) => {
                let place = format!("error of {method} to {}", caller.name);
                self.outputs.push(Output::of_error(place, &status));
                Err(status)
            }
        }
    }

    async fn registered(&mut self, patient: pb::Patient) -> Result<pb::RegisterPatientResponse, Status> {
        let desk = self.caller(Role::FrontDesk, "ana");
        let request = pb::RegisterPatientRequest {
            request_id: id(),
            patient: Some(patient),
            ..pb::RegisterPatientRequest::default()
        };
        let mut client = desk.desk.patients();
        let first = self
            .told("PatientService/RegisterPatient", &desk, client.register_patient(request.clone()))
            .await?;
        // Answered once more, from what was kept.
        self.told("PatientService/RegisterPatient", &desk, client.register_patient(request)).await?;
        Ok(first)
    }

    /// All of it; the canary's id.
    pub(super) async fn told_whole(&mut self) {
        let admin = self.caller(Role::Admin, "officer");
        let network = Network::build(&admin.desk, self.now()).await;
        let patient = self.records().await;
        self.visits(&network, &patient).await;
        self.mistakes(&patient).await;
        self.faults(&patient).await;
        self.log(&patient).await;
    }

    /// Registered twice, looked at by everybody, corrected, merged. Answers the id that remains.
    async fn records(&mut self) -> String {
        let first = self.registered(canary()).await.expect("registered").patient.expect("the patient");
        let twice = pb::Patient {
            mrn: OTHER_MRN.into(),
            family_name: OTHER_FAMILY_NAME.into(),
            phone: OTHER_PHONE.into(),
            ..canary()
        };
        let twice = self.registered(twice).await.expect("registered");
        assert!(!twice.likely_duplicates.is_empty(), "she is known already");
        let twice = twice.patient.expect("the patient");

        let changed = pb::Patient {
            id: first.id.clone(),
            etag: first.etag.clone(),
            phone: NEW_PHONE.into(),
            email: NEW_EMAIL.into(),
            ..pb::Patient::default()
        };
        let update = pb::UpdatePatientRequest {
            request_id: id(),
            patient: Some(changed),
            ..pb::UpdatePatientRequest::default()
        };
        let own = self.caller(Role::Patient, &first.id);
        let updated =
            self.told("PatientService/UpdatePatient", &own, own.desk.patients().update_patient(update)).await;
        let updated = updated.expect("moved");

        let manager = self.caller(Role::Manager, "max");
        let merge = pb::MergePatientsRequest {
            request_id: id(),
            surviving_patient_id: first.id.clone(),
            merged_patient_id: twice.id,
            surviving_etag: updated.etag,
            merged_etag: twice.etag,
            reason: "same person, seen with passport".into(),
        };
        let merged = self
            .told("PatientService/MergePatients", &manager, manager.desk.patients().merge_patients(merge))
            .await;
        merged.expect("merged");

        let consent = pb::SetSmsConsentRequest {
            request_id: id(),
            patient_id: first.id.clone(),
            state: pb::SmsConsentState::Granted.into(),
            source: pb::SmsConsentSource::Portal.into(),
            wording: "Text me about my visits".into(),
            wording_language: "en".into(),
            decide_time: None,
        };
        let consented = self
            .told("PatientService/SetSmsConsent", &own, own.desk.patients().set_sms_consent(consent))
            .await;
        consented.expect("granted");
        self.looks(&first.id).await;
        first.id
    }

    /// Every view and every search, by every role that may.
    async fn looks(&mut self, patient: &str) {
        let roles = [
            (Role::Patient, patient),
            (Role::FrontDesk, "ana"),
            (Role::Provider, "dr-lee"),
            (Role::Billing, "bea"),
            (Role::Manager, "max"),
            (Role::Admin, "officer"),
            (Role::Service, "notify"),
        ];
        let views = [
            pb::PatientView::Reference,
            pb::PatientView::Contact,
            pb::PatientView::Full,
            pb::PatientView::History,
        ];
        for (role, subject) in roles {
            let caller = self.caller(role, subject);
            for view in views {
                let request = pb::GetPatientRequest {
                    patient_id: patient.to_owned(),
                    view: view.into(),
                    break_glass_reason: REASON.into(),
                    ..pb::GetPatientRequest::default()
                };
                let mut client = caller.desk.patients();
                let _ = self.told("PatientService/GetPatient", &caller, client.get_patient(request)).await;
            }
            let searches = [
                pb::SearchPatientsRequest { query: "Vandersloot Zephyrin".into(), ..Default::default() },
                pb::SearchPatientsRequest { query: "quackenbusch".into(), ..Default::default() },
                pb::SearchPatientsRequest { phone: NEW_PHONE.into(), ..Default::default() },
                pb::SearchPatientsRequest { mrn: MRN.into(), ..Default::default() },
                pb::SearchPatientsRequest { birth_date: Some(BORN), ..Default::default() },
            ];
            for search in searches {
                let search = pb::SearchPatientsRequest { break_glass_reason: REASON.into(), ..search };
                let mut client = caller.desk.patients();
                let _ =
                    self.told("PatientService/SearchPatients", &caller, client.search_patients(search)).await;
            }
        }
        let admin = self.caller(Role::Admin, "exporter");
        let request = pb::ExportPatientsRequest {
            break_glass_reason: REASON.into(),
            ..pb::ExportPatientsRequest::default()
        };
        let mut client = admin.desk.patients();
        let _ = self.told("PatientService/ExportPatients", &admin, client.export_patients(request)).await;
        let other = self.caller(Role::Patient, &id());
        let request = pb::GetPatientRequest { patient_id: patient.to_owned(), ..Default::default() };
        let mut client = other.desk.patients();
        self.told("PatientService/GetPatient", &other, client.get_patient(request))
            .await
            .expect_err("hidden");
    }

    /// The privacy officer reads who looked, and so does she herself.
    async fn log(&mut self, patient: &str) {
        for (role, subject) in [(Role::Admin, "officer"), (Role::Patient, patient)] {
            let caller = self.caller(role, subject);
            let request = pb::ListAccessLogRequest {
                patient_id: patient.to_owned(),
                page_size: 500,
                ..pb::ListAccessLogRequest::default()
            };
            let mut client = caller.desk.patients();
            let listed =
                self.told("PatientService/ListAccessLog", &caller, client.list_access_log(request)).await;
            assert!(!listed.expect("listed").entries.is_empty());
        }
    }

    /// The texts that reached her, and all others; the metrics of every server; an unknown page.
    pub(super) async fn pages(&mut self) {
        let sandbox = self.up.url("sandbox");
        let (_, messages) = http("GET", &format!("{sandbox}/sandbox/messages"), "").await;
        let messages: Vec<serde_json::Value> = serde_json::from_str(&messages).expect("a list");
        assert!(!messages.is_empty());
        for message in &messages {
            self.outputs.push(Output::new("text's number", message["to"].to_string()));
            self.outputs.push(Output::new("text's words", message["body"].to_string()));
        }
        let (_, intents) = http("GET", &format!("{sandbox}/sandbox/payment_intents"), "").await;
        self.outputs.push(Output::new("payment provider", intents));
        for server in ["gateway", "scheduling", "appointments", "patients", "billing", "notify"] {
            let url = format!("{}/metrics", self.up.url(server));
            let (_, metrics) = http("GET", &url, "").await;
            self.outputs.push(Output::new(format!("metrics of {server}"), metrics));
        }
        let lost = format!("{}/patients/{EMAIL}?name=Zephyrine", self.up.url("gateway"));
        let (_, page) = http("GET", &lost, "").await;
        self.outputs.push(Output::new("error of the gateway's pages", page));
    }
}

/// She herself, as the desk registers her.
pub(super) fn canary() -> pb::Patient {
    pb::Patient {
        mrn: MRN.into(),
        given_name: GIVEN_NAME.into(),
        family_name: FAMILY_NAME.into(),
        birth_date: Some(BORN),
        phone: PHONE.into(),
        email: EMAIL.into(),
        language: "en".into(),
        time_zone: ZONE.name().into(),
        ..pb::Patient::default()
    }
}

pub(super) fn id() -> String {
    Uuid::now_v7().to_string()
}
