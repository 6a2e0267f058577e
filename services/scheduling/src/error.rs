//! What can go wrong here, beyond what can go wrong anywhere.

use kit::ids::{Id, WeeklyTemplateId};
use kit::status::{Error as Common, Fault};
use tonic::{Code, Status};

use crate::DOMAIN;
use crate::domain::search::Unknown;

/// A refusal or a failure, as callers see it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the kind every service has.
    #[error(transparent)]
    Common(#[from] Common),
    /// The id that the caller chose is taken.
    #[error("this id is taken")]
    Exists {
        /// Such as `CLINIC_EXISTS`.
        reason: &'static str,
        /// Resource name, such as `Clinic`.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// Two templates would have the provider in two clinics at once.
    #[error(
        "template {} at {} and template {} at {} overlap, first on {first}: a provider is at one clinic at a time",
        ids[0], clinics[0], ids[1], clinics[1]
    )]
    TemplatesOverlap {
        /// The one that was put, and the other.
        ids: [WeeklyTemplateId; 2],
        /// Names of their clinics.
        clinics: [String; 2],
        /// The first time they share, on the clock of the first clinic.
        first: String,
    },
    /// A search to watch finds too much.
    #[error(
        "the search finds {found} slots and at most {most} can be watched: ask for fewer days, clinics or providers"
    )]
    TooManySlots {
        /// What it finds.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// A calendar has more in it than one answer carries.
    #[error("the calendar has {found} entries and an answer at most {most}: ask for fewer days")]
    TooManyEntries {
        /// What it has.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// One more than a provider may have.
    #[error(
        "a provider has at most {most} weekly templates: delete one that is over, or say more in one rule"
    )]
    TooManyTemplates {
        /// The bound.
        most: usize,
    },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Common(error.into())
    }
}

impl From<Unknown> for Error {
    fn from(unknown: Unknown) -> Self {
        Self::Common(match unknown {
            Unknown::ServiceType(id) => Common::not_found(id),
            Unknown::Clinic(id) => Common::not_found(id),
            Unknown::Provider(id) => Common::not_found(id),
            Unknown::Room(id) => Common::not_found(id),
        })
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Common(common) => common.into_status(DOMAIN),
            Error::Exists { reason, kind, id } => {
                Fault::new(Code::AlreadyExists, reason, message).resource(kind, id).into_status(DOMAIN)
            }
            Error::TemplatesOverlap { ids: [put, other], clinics: [_, clinic], .. } => {
                let subject = |id: WeeklyTemplateId| format!("WeeklyTemplate/{id}");
                Fault::precondition("TEMPLATES_OVERLAP", message, subject(put))
                    .and_rule("TEMPLATES_OVERLAP", subject(other), format!("is at {clinic} then"))
                    .into_status(DOMAIN)
            }
            Error::TooManySlots { .. } => {
                Fault::new(Code::ResourceExhausted, "TOO_MANY_SLOTS", message).into_status(DOMAIN)
            }
            Error::TooManyEntries { .. } => {
                Fault::new(Code::ResourceExhausted, "TOO_MANY_ENTRIES", message).into_status(DOMAIN)
            }
            Error::TooManyTemplates { .. } => {
                Fault::precondition("TOO_MANY_TEMPLATES", message, "WeeklyTemplate").into_status(DOMAIN)
            }
        }
    }
}

/// Tells an insert whose id is taken from one that failed; the constraints on ids are called `<table>_id_unique`.
pub fn exists<I: Id>(id: I, reason: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| {
        let taken =
            error.as_database_error().and_then(|e| e.constraint()).is_some_and(|c| c.ends_with("_id_unique"));
        if taken { Error::Exists { reason, kind: I::KIND, id: id.to_string() } } else { error.into() }
    }
}

/// A missing resource.
pub fn not_found<I: Id>(id: I) -> Error {
    Error::Common(Common::NotFound { kind: I::KIND, id: id.to_string() })
}
