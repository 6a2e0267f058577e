//! Published forms, and intakes: what one patient is asked before one visit, and how far that is.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, FormId, IntakeId, PatientId};
use proto::clinic::patients::v1::IntakeState;
use serde::{Deserialize, Serialize};

/// A form as it is published.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Name for staff.
    pub name: String,
    /// The questions, see [`super::form::Questions`].
    pub schema_json: String,
    /// BCP 47 tag of the schema's own texts.
    pub language: String,
    /// The texts in other languages.
    pub translations: Vec<Translation>,
}

/// A form's texts in one more language.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Translation {
    /// BCP 47.
    pub language: String,
    /// Text by its place in the schema, a JSON Pointer.
    pub texts: BTreeMap<String, String>,
}

/// One published version of a form. Never changes.
#[derive(Clone, Debug)]
pub struct Form {
    /// The form, the same for all versions.
    pub id: FormId,
    /// From 1; the etag too.
    pub version: i32,
    /// What was published. Lists leave the schema and the translations empty.
    pub form: Draft,
    /// When.
    pub publish_time: DateTime<Utc>,
    /// By whom: the token's subject.
    pub published_by: String,
}

/// One patient's intake for one visit, without the answers.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Its id.
    pub id: IntakeId,
    /// The visit.
    pub appointment: AppointmentId,
    /// Who is asked.
    pub patient: PatientId,
    /// By which form.
    pub form: FormId,
    /// In which version of it.
    pub form_version: i32,
    /// How far it is.
    pub state: IntakeState,
    /// Counts the changes, from 1.
    pub version: i64,
    /// When opened.
    pub create_time: DateTime<Utc>,
    /// When last changed.
    pub update_time: DateTime<Utc>,
    /// When submitted.
    pub submit_time: Option<DateTime<Utc>>,
}

impl Intake {
    /// Whether answers are still taken.
    pub fn is_open(&self) -> bool {
        match self.state {
            IntakeState::Open | IntakeState::Draft => true,
            IntakeState::Submitted | IntakeState::Closed | IntakeState::Unspecified => false,
        }
    }
}
