//! What a call can fail with.

use tonic::Status;

/// Everything notify answers is an error that any service can have.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] kit::status::Error);

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.0.into_status(crate::DOMAIN)
    }
}
