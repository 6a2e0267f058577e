//! What the others are told: that a patient changed, never to what.

pub mod intake;

use kit::fields::timestamp;
use kit::ids::PatientId;
use kit::messaging::outbox;
use proto::clinic::patients::v1::{IntakeCompleted, PatientChange, PatientChanged, SmsConsentChanged};
use sqlx::PgConnection;

use crate::domain::intake::Intake;
use crate::domain::{Consent, Patient};

/// The patient, at its present version, was registered, corrected or merged.
pub async fn patient_changed(
    tx: &mut PgConnection,
    patient: &Patient,
    change: PatientChange,
    changed_fields: &[&str],
) -> sqlx::Result<()> {
    let event = PatientChanged {
        patient_id: patient.id.to_string(),
        version: patient.version,
        change: change.into(),
        changed_fields: changed_fields.iter().map(|f| (*f).to_owned()).collect(),
        merged_into_id: patient.merged_into.map(|id| id.to_string()).unwrap_or_default(),
        has_phone: patient.contact.phone.is_some(),
        has_email: !patient.contact.email.is_empty(),
    };
    outbox::put(tx, patient.id, patient.version, &event).await
}

/// `consent` is in force since the patient's `version`.
pub async fn consent_changed(
    tx: &mut PgConnection,
    patient: PatientId,
    version: i64,
    consent: &Consent,
) -> sqlx::Result<()> {
    let event = SmsConsentChanged {
        patient_id: patient.to_string(),
        version,
        state: consent.state.into(),
        source: consent.source.into(),
        decide_time: Some(timestamp(consent.decide_time)),
    };
    outbox::put(tx, patient, version, &event).await
}

/// An intake was submitted.
pub async fn intake_completed(tx: &mut PgConnection, intake: &Intake) -> sqlx::Result<()> {
    /// It is submitted once.
    const VERSION: i64 = 1;
    let event = IntakeCompleted {
        intake_id: intake.id.to_string(),
        version: VERSION,
        appointment_id: intake.appointment.to_string(),
        patient_id: intake.patient.to_string(),
        form_id: intake.form.to_string(),
        form_version: intake.form_version,
        submit_time: intake.submit_time.map(timestamp),
    };
    outbox::put(tx, intake.id, VERSION, &event).await
}
