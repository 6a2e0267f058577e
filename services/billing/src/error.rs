//! What can go wrong in billing, and how callers see it.

use kit::status::Fault;
use tonic::Status;

/// An error of billing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What any service may answer.
    #[error(transparent)]
    Kit(#[from] kit::status::Error),
    /// A fee is to begin on a day that is over in every time zone.
    #[error("fees begin today or later; {0} is over")]
    EffectiveDatePassed(chrono::NaiveDate),
    /// The card's bank said no.
    #[error("the card was declined ({code}); another card may do")]
    PaymentDeclined {
        /// Why, in the provider's words.
        code: String,
    },
    /// The patient has as many cards as a patient may have.
    #[error("the patient has {} cards on file, which is the most", crate::domain::card::MOST_PER_PATIENT)]
    TooManyPaymentMethods,
    /// There is no card that could be charged.
    #[error("the patient has no usable card on file")]
    PaymentMethodRequired,
    /// The hold ended, or its time is up.
    #[error("the hold has ended; nothing stays reserved on the card")]
    HoldExpired,
    /// The clinic has no fee for the visit's date.
    #[error("the clinic has set no fee for this service on the visit's date")]
    FeeNotSet,
    /// The visit's fee has no co-pay.
    #[error("this visit has no co-pay; book it without")]
    CopayNotDue,
    /// Nothing of the charge was taken, so nothing can be given back.
    #[error("the charge is {}: nothing is captured that could be given back", state.to_lowercase())]
    NothingCaptured {
        /// Upper-snake.
        state: &'static str,
    },
    /// More is to be given back than is left.
    #[error("less than this is captured and not given back yet")]
    RefundExceedsCapture,
    /// Another reconciliation runs.
    #[error("another reconciliation is running; its report comes first")]
    ReconciliationRunning,
    /// The charge is not in a state for this.
    #[error("the co-pay is {} already", state.to_lowercase())]
    WrongState {
        /// Upper-snake.
        state: &'static str,
    },
}

impl Error {
    /// The payment provider does not answer, or not in a way that says anything.
    pub fn provider_down() -> Self {
        Self::Kit(kit::status::Error::Unavailable { what: "the payment provider" })
    }
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
            Error::EffectiveDatePassed(_) => Fault::precondition("EFFECTIVE_DATE_PASSED", message, "fees"),
            Error::PaymentDeclined { code } => {
                Fault::precondition("PAYMENT_DECLINED", message, "payment_method").meta("decline_code", code)
            }
            Error::TooManyPaymentMethods => {
                Fault::precondition("TOO_MANY_PAYMENT_METHODS", message, "payment_method")
            }
            Error::PaymentMethodRequired => {
                Fault::precondition("PAYMENT_METHOD_REQUIRED", message, "payment_method")
            }
            Error::HoldExpired => Fault::precondition("HOLD_EXPIRED", message, "appointment"),
            Error::FeeNotSet => Fault::precondition("FEE_NOT_SET", message, "fee"),
            Error::CopayNotDue => Fault::precondition("COPAY_NOT_DUE", message, "fee"),
            Error::RefundExceedsCapture => Fault::precondition("REFUND_EXCEEDS_CAPTURE", message, "charge"),
            Error::ReconciliationRunning => {
                Fault::precondition("RECONCILIATION_RUNNING", message, "reconciliation")
            }
            Error::NothingCaptured { state } | Error::WrongState { state } => {
                Fault::precondition("WRONG_STATE", message, "charge").meta("state", state)
            }
        };
        fault.into_status(crate::DOMAIN)
    }
}
