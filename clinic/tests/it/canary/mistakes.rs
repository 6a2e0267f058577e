//! Her data where it should not stand, and a database that fails in the middle: what is said about it must not repeat it.

use proto::clinic::appointments::v1 as visits;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as money;
use proto::clinic::notify::v1 as texts;
use proto::clinic::patients::v1::{self as pb, get_intake_request::Key};
use proto::google::r#type::Date;
use sqlx::AssertSqlSafe;
use tonic::Code;

use super::needles::{ANSWER, EMAIL, FAMILY_NAME, GIVEN_NAME, MRN, PHONE, REFUSED_NAME};
use super::outputs::Output;
use super::story::{Story, canary, id};

/// Calls one method after another with requests in which `text` stands, and keeps what each says.
macro_rules! wrong {
    ($story:ident, $client:expr, $($method:literal: $call:ident($request:expr)),+ $(,)?) => {
        $(match $client.$call($request).await {
            Ok(_) => {}
            Err(status) => $story.outputs.push(Output::of_error(concat!("error of ", $method), &status)),
        })+
    };
}

impl Story<'_> {
    /// Every field that takes no free text, with her data in it.
    pub(super) async fn mistakes(&mut self, patient: &str) {
        let before = self.outputs.len();
        let long = GIVEN_NAME.repeat(100);
        for text in [GIVEN_NAME, FAMILY_NAME, EMAIL, PHONE, MRN, "1931-07-23", ANSWER, &long] {
            self.wrong_records(text, patient).await;
            self.wrong_intake(text).await;
            self.wrong_visits(text).await;
        }
        assert!(self.outputs.len() > before + 100, "mistakes are refused");
    }

    async fn wrong_records(&mut self, text: &str, patient: &str) {
        let text = text.to_owned();
        let desk = self.up.desk_of(Role::FrontDesk, "ana");
        let mut client = desk.patients();
        let register = |given: pb::Patient| pb::RegisterPatientRequest {
            patient: Some(given),
            ..pb::RegisterPatientRequest::default()
        };
        let update = |given: pb::Patient, paths: Vec<String>| pb::UpdatePatientRequest {
            patient: Some(given),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..pb::UpdatePatientRequest::default()
        };
        let wrong = pb::Patient {
            mrn: format!("{text}/{text}"),
            given_name: format!("{text}\u{7}"),
            family_name: text.repeat(30),
            birth_date: Some(Date { year: 1931, month: 23, day: 7 }),
            phone: format!("x{text}"),
            email: text.replace('@', " at "),
            language: text.clone(),
            time_zone: text.clone(),
            ..pb::Patient::default()
        };
        let known = pb::Patient { id: patient.to_owned(), etag: text.clone(), ..wrong.clone() };
        let foreign_id = pb::RegisterPatientRequest {
            request_id: text.clone(),
            patient_id: text.clone(),
            ..register(canary())
        };
        wrong!(self, client,
            "PatientService/RegisterPatient": register_patient(register(wrong.clone())),
            "PatientService/RegisterPatient": register_patient(foreign_id),
            // The MRN is hers.
            "PatientService/RegisterPatient": register_patient(register(pb::Patient { phone: String::new(), ..canary() })),
            "PatientService/UpdatePatient": update_patient(update(wrong.clone(), vec![])),
            "PatientService/UpdatePatient": update_patient(update(known.clone(), vec![])),
            "PatientService/UpdatePatient": update_patient(update(known, vec![text.clone()])),
            "PatientService/GetPatient": get_patient(pb::GetPatientRequest {
                patient_id: text.clone(), ..Default::default()
            }),
            "PatientService/SearchPatients": search_patients(pb::SearchPatientsRequest {
                phone: format!("{text}!"), mrn: format!("{text}!"), page_token: text.clone(), ..Default::default()
            }),
            "PatientService/SearchPatients": search_patients(pb::SearchPatientsRequest {
                query: text.repeat(20), ..Default::default()
            }),
            "PatientService/SetSmsConsent": set_sms_consent(pb::SetSmsConsentRequest {
                request_id: text.clone(), patient_id: text.clone(), wording_language: text.clone(), ..Default::default()
            }),
        );
        let mut manager = self.up.desk_of(Role::Manager, "max").patients();
        let mut officer = self.up.desk_of(Role::Admin, "officer").patients();
        wrong!(self, manager,
            "PatientService/MergePatients": merge_patients(pb::MergePatientsRequest {
                surviving_patient_id: text.clone(), merged_patient_id: text.clone(), surviving_etag: text.clone(),
                merged_etag: text.clone(), reason: text.repeat(30), ..Default::default()
            }),
        );
        wrong!(self, officer,
            "PatientService/ListAccessLog": list_access_log(pb::ListAccessLogRequest {
                patient_id: text.clone(), page_token: text.clone(), ..Default::default()
            }),
            "PatientService/ListAccessLog": list_access_log(pb::ListAccessLogRequest {
                actor: text, ..Default::default()
            }),
        );
        // As a patient of that name: the token's subject is no id.
        let mut stranger = self.up.desk_of(Role::Patient, "stranger").patients();
        wrong!(self, stranger,
            "PatientService/GetPatient": get_patient(pb::GetPatientRequest {
                patient_id: patient.to_owned(), ..Default::default()
            }),
        );
    }

    async fn wrong_intake(&mut self, text: &str) {
        let text = text.to_owned();
        let mut client = self.up.desk_of(Role::FrontDesk, "ana").intakes();
        let mut admin = self.up.desk_of(Role::Admin, "officer").intakes();
        let form = pb::Form {
            name: text.repeat(20),
            schema_json: format!(r#"{{"type": "{text}"}}"#),
            language: text.clone(),
            etag: text.repeat(3),
            ..pb::Form::default()
        };
        wrong!(self, admin,
            "IntakeService/PublishForm": publish_form(pb::PublishFormRequest {
                form_id: text.clone(), form: Some(form), ..Default::default()
            }),
        );
        wrong!(self, client,
            "IntakeService/GetForm": get_form(pb::GetFormRequest { form_id: text.clone(), version: 0 }),
            "IntakeService/ListForms": list_forms(pb::ListFormsRequest {
                form_id: text.clone(), page_token: text.clone(), ..Default::default()
            }),
            "IntakeService/GetIntake": get_intake(pb::GetIntakeRequest {
                key: Some(Key::IntakeId(text.clone())), ..Default::default()
            }),
            "IntakeService/GetIntake": get_intake(pb::GetIntakeRequest {
                key: Some(Key::AppointmentId(text.clone())), ..Default::default()
            }),
            "IntakeService/SaveIntakeDraft": save_intake_draft(pb::SaveIntakeDraftRequest {
                intake_id: text.clone(), answers_json: text.clone(), etag: text.clone(), ..Default::default()
            }),
            "IntakeService/SaveIntakeDraft": save_intake_draft(pb::SaveIntakeDraftRequest {
                intake_id: id(), answers_json: format!(r#"{{"{text}": 1e999}}"#), etag: "1".into(), ..Default::default()
            }),
            "IntakeService/SubmitIntake": submit_intake(pb::SubmitIntakeRequest {
                intake_id: id(), answers_json: format!(r#"{{"{text}": "{text}""#), etag: "1".into(), ..Default::default()
            }),
        );
    }

    async fn wrong_visits(&mut self, text: &str) {
        let text = text.to_owned();
        let desk = self.up.desk_of(Role::FrontDesk, "ana");
        wrong!(self, desk.booking(),
            "BookingService/BookAppointment": book_appointment(visits::BookAppointmentRequest {
                request_id: text.clone(), patient_id: text.clone(), service_type_id: text.clone(),
                clinic_id: text.clone(), provider_id: text.clone(), payment_method_id: text.clone(), ..Default::default()
            }),
            "BookingService/HoldSlot": hold_slot(visits::HoldSlotRequest {
                patient_id: text.clone(), room_id: text.clone(), ..Default::default()
            }),
            "BookingService/GetAppointment": get_appointment(visits::GetAppointmentRequest {
                appointment_id: text.clone(), ..Default::default()
            }),
            "BookingService/ListAppointments": list_appointments(visits::ListAppointmentsRequest {
                patient_id: text.clone(), page_token: text.clone(), ..Default::default()
            }),
            "BookingService/CancelAppointment": cancel_appointment(visits::CancelAppointmentRequest {
                appointment_id: text.clone(), etag: text.clone(), ..Default::default()
            }),
        );
        wrong!(self, desk.billing(),
            "BillingService/ListCharges": list_charges(money::ListChargesRequest {
                patient_id: text.clone(), appointment_id: text.clone(), page_token: text.clone(), ..Default::default()
            }),
            "BillingService/SavePaymentMethod": save_payment_method(money::SavePaymentMethodRequest {
                patient_id: text.clone(), provider_token: text.clone(), ..Default::default()
            }),
        );
        wrong!(self, desk.notify(),
            "NotifyService/ListMessages": list_messages(texts::ListMessagesRequest {
                patient_id: text.clone(), appointment_id: text.clone(), page_token: text.clone(), ..Default::default()
            }),
            "NotifyService/GetMessage": get_message(texts::GetMessageRequest { message_id: text }),
        );
    }

    /// Reads and writes of her record while a table is gone, and while a rule of the database refuses the row.
    pub(super) async fn faults(&mut self, patient: &str) {
        let refuse = format!(
            "alter table patients.patient add constraint patient_refused check (given_name <> '{REFUSED_NAME}')"
        );
        self.sql(&refuse).await;
        let refused = pb::Patient { given_name: REFUSED_NAME.into(), mrn: String::new(), ..canary() };
        let mut client = self.up.desk_of(Role::FrontDesk, "ana").patients();
        let request =
            pb::RegisterPatientRequest { patient: Some(refused), ..pb::RegisterPatientRequest::default() };
        let status = client.register_patient(request).await.expect_err("the row is refused");
        assert_eq!(status.code(), Code::Internal);
        self.outputs.push(Output::of_error("error of PatientService/RegisterPatient", &status));
        self.sql("alter table patients.patient drop constraint patient_refused").await;

        self.sql("alter table patients.contact rename to contact_away").await;
        let search =
            pb::SearchPatientsRequest { phone: PHONE.into(), ..pb::SearchPatientsRequest::default() };
        let named =
            pb::SearchPatientsRequest { query: "zephyrine".into(), ..pb::SearchPatientsRequest::default() };
        let get =
            pb::GetPatientRequest { patient_id: patient.to_owned(), ..pb::GetPatientRequest::default() };
        let register = pb::RegisterPatientRequest {
            patient: Some(pb::Patient { mrn: String::new(), ..canary() }),
            ..Default::default()
        };
        let before = self.outputs.len();
        wrong!(self, client,
            "PatientService/SearchPatients": search_patients(search),
            "PatientService/SearchPatients": search_patients(named),
            "PatientService/GetPatient": get_patient(get),
            "PatientService/RegisterPatient": register_patient(register),
        );
        assert_eq!(self.outputs.len(), before + 4, "without a table everything fails");
        self.sql("alter table patients.contact_away rename to contact").await;
    }

    async fn sql(&self, statement: &str) {
        let mut admin = self.servers.admin().await;
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.expect(statement);
    }
}
