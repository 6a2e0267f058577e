//! Errors as callers see them: a gRPC code, an upper-snake reason, and the `google.rpc` details that let a program act.
//!
//! Public words only. The cause of an INTERNAL error is logged here, once, with a request id that the caller gets too.
//! Codes and details follow <https://google.aip.dev/193>.

use std::collections::HashMap;
use std::time::Duration;

use prost::{Message, Name};
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

/// How soon a caller may come back when a dependency is down.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bad fields that a status names at most. Details travel in a header, and many clients refuse headers above 8 KB.
const MOST_VIOLATIONS: usize = 50;
/// The same bound in bytes, for long paths and descriptions; base64 makes a third more of them.
const MOST_VIOLATION_BYTES: usize = 4 * 1024;
/// Bad fields that the sentence for people names; it travels in a header too.
const MOST_IN_MESSAGE: usize = 5;
/// Bytes of that sentence.
const MOST_MESSAGE_BYTES: usize = 1024;

/// One bad field: its path in the request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path from the request, such as `clinic.opening_hours[2].close`.
    pub field: String,
    /// A sentence that says what a good value is.
    pub description: String,
}

/// What can go wrong in any service. A service's own `Error` wraps it and adds what its rules say no to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One or more fields cannot be used; a status names 50 of them and counts the rest.
    #[error("{}", in_words(.0))]
    Invalid(Vec<Violation>),
    /// The record does not exist, or is not the caller's to see.
    #[error("there is no such {kind}")]
    NotFound {
        /// Resource name, such as `Appointment`.
        kind: &'static str,
        /// What the caller asked for.
        id: String,
    },
    /// The record changed since the caller read it.
    #[error("the {kind} changed since it was read; read it again and repeat")]
    EtagMismatch {
        /// Resource name.
        kind: &'static str,
    },
    /// The request id was used before with another body.
    #[error("this request id was used before with another request; use a fresh one")]
    RequestIdReused {
        /// The id.
        request_id: Uuid,
    },
    /// The caller's role may not do this.
    #[error("this needs another role")]
    RoleRequired,
    /// PostgreSQL, NATS, another service or a provider does not answer.
    #[error("{what} does not answer; try again shortly")]
    Unavailable {
        /// Which dependency, in public words.
        what: &'static str,
    },
    /// Our bug.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

impl Error {
    /// Wraps a cause that callers must not see.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// A missing record, named by its typed id.
    pub fn not_found<I: crate::ids::Id>(id: I) -> Self {
        Self::NotFound { kind: I::KIND, id: id.to_string() }
    }

    /// A single bad field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// The status for callers; `domain` is the answering service's, such as `billing.clinic`.
    pub fn into_status(self, domain: &'static str) -> Status {
        let message = self.to_string();
        match self {
            Self::Invalid(violations) => {
                let mut fault = Fault::new(Code::InvalidArgument, "INVALID_FIELD", message);
                for v in bounded(violations) {
                    fault.details.add_bad_request_violation(v.field, v.description);
                }
                fault.into_status(domain)
            }
            Self::NotFound { kind, id } => Fault::new(Code::NotFound, &not_found_reason(kind), message)
                .resource(kind, id)
                .into_status(domain),
            Self::EtagMismatch { .. } => {
                Fault::new(Code::Aborted, "ETAG_MISMATCH", message).into_status(domain)
            }
            Self::RequestIdReused { request_id } => {
                Fault::new(Code::AlreadyExists, "REQUEST_ID_REUSED", message)
                    .resource("Request", request_id.to_string())
                    .into_status(domain)
            }
            Self::RoleRequired => {
                Fault::new(Code::PermissionDenied, "ROLE_REQUIRED", message).into_status(domain)
            }
            Self::Unavailable { .. } => Fault::new(Code::Unavailable, "DEPENDENCY_DOWN", message)
                .retry_after(RETRY_AFTER)
                .into_status(domain),
            Self::Internal(cause) => internal(&cause, domain),
        }
    }
}

/// Database errors: lost connections are the dependency's, everything else that was not translated by constraint name is ours.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if crate::db::is_outage(&error) {
            tracing::warn!(error = %error, "the database does not answer");
            Self::Unavailable { what: "the database" }
        } else {
            Self::internal(error)
        }
    }
}

/// A status under construction. Services build their rule violations with it.
#[derive(Debug)]
pub struct Fault {
    code: Code,
    reason: String,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
    more: Vec<Any>,
}

impl Fault {
    /// A fault with an upper-snake `reason` and a sentence for people.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            metadata: HashMap::new(),
            details: ErrorDetails::new(),
            more: vec![],
        }
    }

    /// A rule that says no: FAILED_PRECONDITION, with the thing it is about.
    pub fn precondition(reason: &str, message: impl Into<String>, subject: impl Into<String>) -> Self {
        let mut fault = Self::new(Code::FailedPrecondition, reason, message);
        let description = fault.message.clone();
        fault.details.add_precondition_failure_violation(reason, subject, description);
        fault
    }

    /// Adds one more broken rule to a precondition fault.
    pub fn and_rule(
        mut self,
        reason: &str,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.details.add_precondition_failure_violation(reason, subject, description);
        self
    }

    /// Names the resource that the fault is about.
    pub fn resource(mut self, kind: &str, id: impl Into<String>) -> Self {
        let description = self.message.clone();
        self.details.set_resource_info(kind, id, "", description);
        self
    }

    /// Says when to come back.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Adds a machine-readable fact.
    pub fn meta(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a message of our own contract to the details.
    pub fn detail<M: Message + Name>(mut self, message: &M) -> Self {
        let type_url = format!("type.googleapis.com/{}", M::full_name());
        self.more.push(Any { type_url, value: message.encode_to_vec() });
        self
    }

    /// The finished status of the service whose errors live under `domain`.
    pub fn into_status(mut self, domain: &'static str) -> Status {
        self.details.set_error_info(self.reason, domain, self.metadata);
        let status = Status::with_error_details(self.code, self.message, self.details);
        if self.more.is_empty() {
            return status;
        }
        let mut whole = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
        whole.details.extend(self.more);
        Status::with_details(status.code(), status.message(), whole.encode_to_vec().into())
    }
}

/// The upper-snake reason of a status of ours; empty when it carries none.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The fact `key` that a status of ours carries, see [`Fault::meta`].
pub fn meta(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info().and_then(|mut info| info.metadata.remove(key))
}

/// Bad fields as a sentence.
fn in_words(violations: &[Violation]) -> String {
    let named = violations.iter().take(MOST_IN_MESSAGE).map(|v| format!("{} {}", v.field, v.description));
    let rest = violations.len().saturating_sub(MOST_IN_MESSAGE);
    let rest = (rest > 0).then(|| format!("and {rest} more"));
    let mut text = named.chain(rest).collect::<Vec<_>>().join("; ");
    if text.len() > MOST_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MOST_MESSAGE_BYTES));
        text.push('…');
    }
    text
}

/// As many bad fields as fit into a status; when some do not, a last entry counts those.
fn bounded(mut violations: Vec<Violation>) -> Vec<Violation> {
    let mut bytes = 0;
    let fits = |v: &&Violation| {
        bytes += v.field.len() + v.description.len();
        bytes <= MOST_VIOLATION_BYTES
    };
    let fit = violations.iter().take_while(fits).count();
    if fit < violations.len() || fit > MOST_VIOLATIONS {
        let rest = violations.split_off(fit.min(MOST_VIOLATIONS - 1)).len();
        let description = format!("bad fields beyond those named here: {rest}");
        violations.push(Violation { field: String::new(), description });
    }
    violations
}

fn internal(cause: &anyhow::Error, domain: &'static str) -> Status {
    let request = Uuid::now_v7().to_string();
    tracing::error!(%request, domain, cause = format!("{cause:#}"), "a request failed by our own fault");
    let mut fault =
        Fault::new(Code::Internal, "INTERNAL", format!("internal error; mention request {request}"));
    fault.details.set_request_info(request, "");
    fault.into_status(domain)
}

/// `WeeklyTemplate` -> `WEEKLY_TEMPLATE_NOT_FOUND`.
fn not_found_reason(kind: &str) -> String {
    let mut reason = String::new();
    for (i, c) in kind.chars().enumerate() {
        if i > 0 && c.is_ascii_uppercase() {
            reason.push('_');
        }
        reason.push(c.to_ascii_uppercase());
    }
    reason + "_NOT_FOUND"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        let bad = ["a", "b"].map(|f| Violation { field: f.into(), description: "must not be empty".into() });
        let status = Error::Invalid(bad.to_vec()).into_status("test.clinic");
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields: Vec<_> = status
            .get_details_bad_request()
            .expect("detail")
            .field_violations
            .into_iter()
            .map(|v| v.field)
            .collect();
        assert_eq!(fields, ["a", "b"]);
    }

    #[test]
    fn a_flood_of_bad_fields_is_cut_to_what_a_header_carries() {
        let refused = |count: usize, description: &str| {
            let bad =
                (0..count).map(|i| Violation { field: format!("f[{i}]"), description: description.into() });
            let status = Error::Invalid(bad.collect()).into_status("test.clinic");
            let header_bytes = status.details().len().div_ceil(3) * 4 + status.message().len();
            assert!(header_bytes < 8 * 1000, "{header_bytes}");
            let last = status.get_details_bad_request().and_then(|mut detail| {
                let count = detail.field_violations.len();
                Some((count, detail.field_violations.pop()?))
            });
            last.map(|(count, v)| (count, v.field, v.description)).expect("a violation")
        };
        let beyond = |count| (String::new(), format!("bad fields beyond those named here: {count}"));
        let (count, field, _) = refused(50, "must be 0");
        assert_eq!((count, field.as_str()), (50, "f[49]"));
        let (count, field, description) = refused(1_000, "must be 0");
        assert_eq!((count, (field, description)), (50, beyond(951)));
        let (count, field, description) = refused(40, &"n".repeat(295));
        assert_eq!((count, (field, description)), (14, beyond(27)));
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_inside() {
        let status = Error::internal(anyhow::anyhow!("secret table name")).into_status("test.clinic");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
        assert!(!format!("{status:?}").contains("secret"));
        assert!(status.get_details_request_info().is_some());
    }

    #[test]
    fn a_missing_record_names_its_kind() {
        let status = Error::not_found(crate::ids::WeeklyTemplateId::new()).into_status("scheduling.clinic");
        assert_eq!(reason(&status), "WEEKLY_TEMPLATE_NOT_FOUND");
    }
}
