//! Refusals in the payment protocol's own shape.

use serde_json::{Map, Value, json};

/// One refusal: an HTTP status and the `error` object.
pub(crate) struct ApiError {
    pub(crate) status: u16,
    fields: Map<String, Value>,
    /// Whether work began: only then is the answer kept under the idempotency key.
    pub(crate) executed: bool,
}

impl ApiError {
    fn new(status: u16, kind: &str, code: Option<&str>, message: String) -> Self {
        let mut error = Self { status, fields: Map::new(), executed: false };
        error.fields.insert("type".into(), kind.into());
        error.fields.insert("message".into(), message.into());
        if let Some(code) = code {
            error.fields.insert("code".into(), code.into());
        }
        error
    }

    /// 400: a parameter is missing, malformed or out of range.
    pub(crate) fn param(code: &str, param: &str, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", Some(code), message.into()).with("param", param)
    }

    /// 400: a parameter names something that does not exist.
    pub(crate) fn no_such(noun: &str, id: &str, param: &str) -> Self {
        Self::param("resource_missing", param, format!("No such {noun}: '{id}'"))
    }

    /// 404: the path names something that does not exist.
    pub(crate) fn not_found(noun: &str, id: &str) -> Self {
        Self { status: 404, ..Self::no_such(noun, id, "id") }
    }

    /// 400: the object is in no state for this.
    pub(crate) fn state(code: &str, message: impl Into<String>) -> Self {
        Self { executed: true, ..Self::new(400, "invalid_request_error", Some(code), message.into()) }
    }

    /// 402: the card said no.
    pub(crate) fn card(code: &str, decline_code: Option<&str>, message: &str) -> Self {
        let error = Self::new(402, "card_error", Some(code), message.to_owned());
        let error = Self { executed: true, ..error };
        match decline_code {
            Some(decline_code) => error.with("decline_code", decline_code),
            None => error,
        }
    }

    /// 401: no key, or not ours.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(401, "invalid_request_error", None, message.to_owned())
    }

    /// 400: the idempotency key belongs to another request.
    pub(crate) fn key_reused(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. \
             Try using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(400, "idempotency_error", None, message)
    }

    /// 400: the idempotency key belongs to a request to another path.
    pub(crate) fn key_of_other_endpoint(key: &str, path: &str, first: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used for the same endpoint they were first used for \
             ('{path}' vs '{first}'). Try using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(400, "idempotency_error", None, message)
    }

    /// 409: another request with this key is still running.
    pub(crate) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key: {key}. Please try again later."
        );
        Self::new(409, "invalid_request_error", Some("idempotency_key_in_use"), message)
    }

    /// 500: the provider's own trouble.
    pub(crate) fn broken() -> Self {
        Self::new(500, "api_error", None, "An unknown error occurred.".into())
    }

    /// 500: trouble after work began.
    pub(crate) fn broken_at_work() -> Self {
        Self { executed: true, ..Self::broken() }
    }

    /// Adds a field, such as the intent the refusal is about.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// The bare error object, as `last_payment_error` keeps it.
    pub(crate) fn details(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    /// The body that travels.
    pub(crate) fn body(&self) -> Value {
        json!({ "error": self.fields })
    }
}
