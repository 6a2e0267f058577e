//! What can go wrong, and how callers are told. No message names a value, only fields.

use kit::ids::{IntakeId, PatientId};
use kit::status::Fault;
use proto::clinic::patients::v1::IntakeState;
use tonic::{Code, Status};

/// Everything a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What any service can answer.
    #[error(transparent)]
    Kit(#[from] kit::status::Error),
    /// The chosen id is in use.
    #[error("a patient with this id is registered already")]
    PatientExists(PatientId),
    /// Another patient has the MRN.
    #[error("another patient has this MRN")]
    MrnExists,
    /// A manager or admin gave no reason.
    #[error("managers and admins see patient data only with a break_glass_reason")]
    BreakGlassRequired,
    /// A service asked for more than contact data, or searched by more than the phone.
    #[error("services see contact data only, and search by phone alone")]
    ViewNotAllowed,
    /// A service asked for answers.
    #[error("services do not see answers")]
    AnswersNotAllowed,
    /// An intake that takes no answers any more.
    #[error("the intake was submitted, or its visit is over or called off")]
    WrongState {
        /// Which intake.
        id: IntakeId,
        /// Its state.
        state: IntakeState,
    },
    /// Consent to texts without a number to text.
    #[error("there is no phone number that texts could be sent to")]
    NoPhone(PatientId),
    /// The patient was merged into another.
    #[error("this patient was merged into another; change that one")]
    Merged(PatientId),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Kit(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let fault = match error {
            Error::Kit(error) => return error.into_status(crate::DOMAIN),
            Error::PatientExists(id) => {
                Fault::new(Code::AlreadyExists, "PATIENT_EXISTS", message).resource("Patient", id.to_string())
            }
            Error::MrnExists => {
                Fault::new(Code::AlreadyExists, "MRN_EXISTS", message).resource("Patient", "")
            }
            Error::BreakGlassRequired => Fault::new(Code::PermissionDenied, "BREAK_GLASS_REQUIRED", message),
            Error::ViewNotAllowed => Fault::new(Code::PermissionDenied, "VIEW_NOT_ALLOWED", message),
            Error::AnswersNotAllowed => Fault::new(Code::PermissionDenied, "VIEW_NOT_ALLOWED", message),
            Error::WrongState { id, state } => Fault::precondition("WRONG_STATE", message, id.to_string())
                .meta("state", state.as_str_name().trim_start_matches("INTAKE_STATE_")),
            Error::Merged(id) => Fault::precondition("WRONG_STATE", message, id.to_string()),
            Error::NoPhone(id) => Fault::precondition("NO_PHONE", message, id.to_string()),
        };
        fault.into_status(crate::DOMAIN)
    }
}
