//! Forms and intakes: what tests of them share.

mod answers;
mod forms;
mod fuzz;
mod kept;
mod races;
mod visits;

use kit::client::Outbound;
use kit::ids::{AppointmentId, FormId};
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentFacts, AppointmentState};
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::intake_service_client::IntakeServiceClient;
use proto::clinic::patients::v1::{
    AccessLogEntry, Form, GetIntakeRequest, Intake, IntakeView, ListAccessLogRequest, Patient,
    PublishFormRequest, SaveIntakeDraftRequest, SubmitIntakeRequest, get_intake_request::Key,
};
use tonic::Status;

use crate::{Suite, someone};

pub(crate) type Client = IntakeServiceClient<Outbound>;

/// Allergies, a phone to call, and whether the patient smokes.
pub(crate) const SCHEMA: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["smokes", "allergies"],
    "additionalProperties": false,
    "properties": {
        "smokes": {"title": "Do you smoke?", "enum": ["yes", "no", "sometimes"]},
        "born": {"type": "string", "format": "date"},
        "call": {"type": "string", "pattern": "^[0-9-]{7,20}$"},
        "allergies": {"type": "array", "maxItems": 20, "items": {"$ref": "#/$defs/allergy"}}
    },
    "$defs": {
        "allergy": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"title": "To what?", "type": "string", "minLength": 2}, "since": {"type": "integer"}}
        }
    }
}"##;
/// What fits it.
pub(crate) const COMPLETE: &str = r#"{"smokes": "no", "allergies": [{"name": "zanthorrhoea"}]}"#;

impl Suite {
    pub(crate) fn intakes(&self, role: Role, subject: &str) -> Client {
        IntakeServiceClient::new(self.servers.client(&self.url, role, subject))
    }

    /// Publishes a form as the manager.
    pub(crate) async fn published(&self, schema_json: &str) -> Form {
        let request = PublishFormRequest { form: Some(form(schema_json)), ..PublishFormRequest::default() };
        self.intakes(Role::Manager, "max").publish_form(request).await.expect("published").into_inner()
    }

    /// A patient with a visit that asks for `form`, and the intake that was opened for it.
    pub(crate) async fn asked(&self, form: &str) -> (Patient, Intake) {
        let patient = self.registered(someone("Ada", "King", "202-555-0123")).await;
        let appointment = AppointmentId::new();
        self.tell(&booked(appointment, &patient.id, form, 1)).await;
        (patient, self.opened(appointment).await)
    }

    /// Tells of a booking, as appointments would.
    pub(crate) async fn tell(&self, event: &AppointmentBooked) {
        let id: AppointmentId = event.appointment_id.parse().expect("an id");
        testkit::publish(&self.servers.broker().await, "appointments", id, event.version, event).await;
    }

    /// Waits for the intake of a visit.
    pub(crate) async fn opened(&self, appointment: AppointmentId) -> Intake {
        let mut desk = self.intakes(Role::FrontDesk, "ana");
        testkit::until("the intake", async || {
            let request = by_appointment(&appointment.to_string());
            Some(desk.clone().get_intake(request).await.ok()?.into_inner())
        })
        .await;
        desk.get_intake(by_appointment(&appointment.to_string())).await.expect("opened").into_inner()
    }

    /// The rows of `patient`'s access log that tell of intakes, oldest first.
    pub(crate) async fn looks(&self, patient: &str) -> Vec<AccessLogEntry> {
        let request = ListAccessLogRequest { patient_id: patient.to_owned(), ..Default::default() };
        let log = self.patient(patient).list_access_log(request).await.expect("its log").into_inner();
        let mut rows: Vec<_> =
            log.entries.into_iter().filter(|e| e.fields.iter().any(|f| f.starts_with("intake"))).collect();
        rows.sort_by_key(|row| row.sequence);
        rows
    }
}

pub(crate) fn form(schema_json: &str) -> Form {
    Form {
        name: "Before your visit".to_owned(),
        schema_json: schema_json.to_owned(),
        language: "en".to_owned(),
        ..Form::default()
    }
}

pub(crate) fn facts(patient: &str, form: &str, state: AppointmentState) -> AppointmentFacts {
    AppointmentFacts {
        state: state.into(),
        patient_id: patient.to_owned(),
        intake_form_id: form.to_owned(),
        ..AppointmentFacts::default()
    }
}

pub(crate) fn booked(
    appointment: AppointmentId,
    patient: &str,
    form: &str,
    version: i64,
) -> AppointmentBooked {
    AppointmentBooked {
        appointment_id: appointment.to_string(),
        version,
        appointment: Some(facts(patient, form, AppointmentState::Booked)),
        ..AppointmentBooked::default()
    }
}

pub(crate) fn by_appointment(id: &str) -> GetIntakeRequest {
    GetIntakeRequest { key: Some(Key::AppointmentId(id.to_owned())), ..GetIntakeRequest::default() }
}

/// Everything of one intake.
pub(crate) fn full(id: &str) -> GetIntakeRequest {
    GetIntakeRequest {
        key: Some(Key::IntakeId(id.to_owned())),
        view: IntakeView::Full.into(),
        ..GetIntakeRequest::default()
    }
}

pub(crate) fn draft(intake: &Intake, answers_json: &str) -> SaveIntakeDraftRequest {
    SaveIntakeDraftRequest {
        intake_id: intake.id.clone(),
        answers_json: answers_json.to_owned(),
        etag: intake.etag.clone(),
        ..SaveIntakeDraftRequest::default()
    }
}

pub(crate) fn submit(intake: &Intake, answers_json: &str) -> SubmitIntakeRequest {
    SubmitIntakeRequest {
        intake_id: intake.id.clone(),
        answers_json: answers_json.to_owned(),
        etag: intake.etag.clone(),
        ..SubmitIntakeRequest::default()
    }
}

pub(crate) fn no_form() -> String {
    FormId::new().to_string()
}

/// Everything that an error tells its caller.
pub(crate) fn words(status: &Status) -> String {
    let details = String::from_utf8_lossy(status.details()).into_owned();
    format!("{} {details}", status.message())
}
