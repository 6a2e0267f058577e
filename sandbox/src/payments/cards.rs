//! The provider's documented test cards (docs.stripe.com/testing) and how each behaves.
//!
//! A caller names one as a payment method (`pm_card_visa`), a token (`tok_visa`) or a number. Declined cards cannot be
//! attached to a customer either, as documented; `pm_card_chargeCustomerFail` can, and declines later. The `later…` cards are
//! this provider's own: approved while the customer is there, refused off session, so that a renewal can be.

use chrono::{DateTime, Datelike};

use super::{
    api::Call,
    error::ApiError,
    objects::{Card, PaymentMethod},
};

/// How a card answers.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Approve,
    /// Says no: error code, decline code, sentence.
    Decline(&'static str, Option<&'static str>, &'static str),
    /// Can be saved, then says no to every charge.
    DeclineCharge,
    /// Pays on session, and says no off session: error code, decline code, sentence.
    DeclineOffSession(&'static str, Option<&'static str>, &'static str),
    /// Pays, and gives money back only after a while.
    RefundPending,
    /// Pays, and turns out after a while to be unable to take money back.
    RefundFail,
    /// Asks for authentication when saved or paid with on session; afterwards pays off session.
    AuthenticateOnce,
    /// Asks for authentication every time, so that it can never pay off session.
    AuthenticateAlways,
}

struct TestCard {
    /// What follows `pm_card_` or `tok_`.
    name: &'static str,
    number: &'static str,
    brand: &'static str,
    answer: Answer,
}

const fn card(name: &'static str, number: &'static str, brand: &'static str, answer: Answer) -> TestCard {
    TestCard { name, number, brand, answer }
}

/// A plain refusal, as most banks give it.
pub(crate) const DECLINED: (&str, Option<&str>, &str) =
    ("card_declined", Some("generic_decline"), "Your card was declined.");

const fn declined(decline_code: &'static str, message: &'static str) -> Answer {
    Answer::Decline("card_declined", Some(decline_code), message)
}

const CARDS: &[TestCard] = &[
    card("visa", "4242424242424242", "visa", Answer::Approve),
    card("visa_debit", "4000056655665556", "visa", Answer::Approve),
    card("mastercard", "5555555555554444", "mastercard", Answer::Approve),
    card("amex", "378282246310005", "amex", Answer::Approve),
    card("discover", "6011111111111117", "discover", Answer::Approve),
    card("chargeDeclined", "4000000000000002", "visa", declined("generic_decline", DECLINED.2)),
    card(
        "chargeDeclinedInsufficientFunds",
        "4000000000009995",
        "visa",
        declined("insufficient_funds", "Your card has insufficient funds."),
    ),
    card("chargeDeclinedLostCard", "4000000000009987", "visa", declined("lost_card", DECLINED.2)),
    card("chargeDeclinedStolenCard", "4000000000009979", "visa", declined("stolen_card", DECLINED.2)),
    card(
        "chargeDeclinedVelocityLimitExceeded",
        "4000000000006975",
        "visa",
        declined("card_velocity_exceeded", DECLINED.2),
    ),
    card(
        "chargeDeclinedExpiredCard",
        "4000000000000069",
        "visa",
        Answer::Decline("expired_card", None, "Your card has expired."),
    ),
    card(
        "chargeDeclinedIncorrectCvc",
        "4000000000000127",
        "visa",
        Answer::Decline("incorrect_cvc", None, "Your card's security code is incorrect."),
    ),
    card(
        "chargeDeclinedProcessingError",
        "4000000000000119",
        "visa",
        Answer::Decline(
            "processing_error",
            None,
            "An error occurred while processing your card. Try again in a little bit.",
        ),
    ),
    card("chargeCustomerFail", "4000000000000341", "visa", Answer::DeclineCharge),
    card("pendingRefund", "4000000000007726", "visa", Answer::RefundPending),
    card("refundFail", "4000000000005126", "visa", Answer::RefundFail),
    card(
        "laterDeclined",
        "4000009990000013",
        "visa",
        Answer::DeclineOffSession(DECLINED.0, DECLINED.1, DECLINED.2),
    ),
    card(
        "laterInsufficientFunds",
        "4000009990000021",
        "visa",
        Answer::DeclineOffSession(
            "card_declined",
            Some("insufficient_funds"),
            "Your card has insufficient funds.",
        ),
    ),
    card(
        "laterExpired",
        "4000009990000039",
        "visa",
        Answer::DeclineOffSession("expired_card", None, "Your card has expired."),
    ),
    card("authenticationRequiredOnSetup", "4000002500003155", "visa", Answer::AuthenticateOnce),
    card("authenticationRequired", "4000002760003184", "visa", Answer::AuthenticateAlways),
    card("threeDSecure2Required", "4000000000003220", "visa", Answer::AuthenticateAlways),
];

/// Month and years from now of every test card's expiry.
const EXPIRY: (u32, i32) = (8, 3);

/// How the card behind a payment method answers.
pub(crate) fn answer(card: &Card) -> Answer {
    CARDS
        .iter()
        .find(|known| known.number.ends_with(&card.last4))
        .map_or(Answer::Approve, |known| known.answer)
}

/// The payment method a parameter names: an existing id, or a fresh one for a test card's name.
pub(crate) fn resolve(call: &mut Call<'_>, id: &str) -> Result<PaymentMethod, ApiError> {
    match id.strip_prefix("pm_card_") {
        Some(name) => named(call, name, id, "payment_method"),
        None => call.existing("PaymentMethod", id, "payment_method"),
    }
}

/// A payment method for `tok_…`.
pub(crate) fn from_token(call: &mut Call<'_>, token: &str) -> Result<PaymentMethod, ApiError> {
    named(call, token.strip_prefix("tok_").unwrap_or(token), token, "card[token]")
}

/// A payment method for a test card number; other numbers are refused, this provider takes no real cards.
pub(crate) fn from_number(call: &mut Call<'_>, number: &str) -> Result<PaymentMethod, ApiError> {
    let refused = "Your card was declined. Only the provider's test card numbers are taken here.";
    match CARDS.iter().find(|known| known.number == number) {
        Some(known) => Ok(make(call, known)),
        None => Err(ApiError::card("card_declined", Some("test_mode_live_card"), refused)),
    }
}

fn named(call: &mut Call<'_>, name: &str, id: &str, param: &str) -> Result<PaymentMethod, ApiError> {
    // Several declining cards have a second documented name with `visa_` in front.
    let short = name.strip_prefix("visa_").unwrap_or(name);
    match CARDS.iter().find(|known| known.name == name || known.name == short) {
        Some(known) => Ok(make(call, known)),
        None => Err(ApiError::no_such("PaymentMethod", id, param)),
    }
}

fn make(call: &mut Call<'_>, known: &TestCard) -> PaymentMethod {
    let this_year = DateTime::from_timestamp(call.now, 0).unwrap_or_default().year();
    let method = PaymentMethod {
        id: call.new_id("pm_"),
        created: call.now,
        r#type: "card".into(),
        card: Card {
            brand: known.brand.into(),
            last4: known.number[known.number.len() - 4..].into(),
            exp_month: EXPIRY.0,
            exp_year: this_year + EXPIRY.1,
            funding: "credit".into(),
            capture_before: None,
        },
        customer: None,
        livemode: false,
        metadata: call.form.map("metadata"),
    };
    call.store.put(&method);
    method
}
