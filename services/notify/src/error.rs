//! What a call can fail with.

use chrono::TimeDelta;
use kit::ids::{AppointmentId, MessageId, PatientId};
use kit::status::Fault;
use tonic::{Code, Status};

/// Everything that notify answers when it says no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What any service can have.
    #[error(transparent)]
    Kit(#[from] kit::status::Error),
    /// The chosen id is in use.
    #[error("there is a message of this id")]
    MessageExists(MessageId),
    /// No agreement to texts is on file, or it was withdrawn.
    #[error("the patient has not agreed to texts")]
    NoConsent(PatientId),
    /// Neither phone nor e-mail, or not the one asked for.
    #[error("there is no number or address to send this to")]
    NoContact(PatientId),
    /// It is outside 08:00 to 21:00 at the recipient.
    #[error("it is night at the recipient; texts may come from 08:00 to 21:00")]
    QuietHours(PatientId),
    /// The visit is cancelled or over.
    #[error("the visit is cancelled or over")]
    WrongState(AppointmentId),
    /// The patient has got as many texts as a day or a week may bring.
    #[error("the patient has got as many texts as a day or a week may bring")]
    CapReached {
        /// Until the next may be sent.
        wait: TimeDelta,
    },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Kit(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        let fault = match error {
            Error::Kit(error) => return error.into_status(crate::DOMAIN),
            Error::MessageExists(id) => {
                Fault::new(Code::AlreadyExists, "MESSAGE_EXISTS", said).resource("Message", id.to_string())
            }
            Error::NoConsent(id) => Fault::precondition("NO_CONSENT", said, id.to_string()),
            Error::NoContact(id) => Fault::precondition("NO_CONTACT", said, id.to_string()),
            Error::QuietHours(id) => Fault::precondition("QUIET_HOURS", said, id.to_string()),
            Error::WrongState(id) => Fault::precondition("WRONG_STATE", said, id.to_string()),
            Error::CapReached { wait } => Fault::new(Code::ResourceExhausted, "CAP_REACHED", said)
                .retry_after(wait.to_std().unwrap_or_default()),
        };
        fault.into_status(crate::DOMAIN)
    }
}
