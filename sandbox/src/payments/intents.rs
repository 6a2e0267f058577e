//! Payment intents: authorize, capture, cancel, lapse.

use serde_json::{Value, json};

use super::{
    api::Call,
    cards::{self, Answer},
    customers,
    error::ApiError,
    objects::{Charge, Customer, IntentStatus, PaymentIntent, PaymentMethod, PaymentMethodDetails},
};

/// Smallest and largest amount, in minor units, as the provider has them for US dollars.
const AMOUNT: (i64, i64) = (50, 99_999_999);
/// How long an authorization lives when the customer is present: 7 days.
const ON_SESSION_SECS: i64 = 7 * 24 * 60 * 60;
/// How long a Visa authorization lives when the merchant initiates it: 4 days and 18 hours.
const OFF_SESSION_VISA_SECS: i64 = (4 * 24 + 18) * 60 * 60;

pub(super) const NOT_AUTHENTICATED: &str =
    "The provided PaymentMethod has failed authentication. Provide a new PaymentMethod to attempt it again.";

pub(super) fn create(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let metadata = call.metadata()?;
    call.required("amount")?;
    let amount = call.integer("amount")?.unwrap_or_default();
    check_amount(amount)?;
    let currency = call.required("currency")?.to_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_lowercase()) {
        let message = format!("Invalid currency: {currency}");
        return Err(ApiError::param("parameter_invalid", "currency", message));
    }
    let capture_method = call.choice("capture_method", &["automatic_async", "automatic", "manual"])?;
    let confirmation_method = call.choice("confirmation_method", &["automatic", "manual"])?;
    let (confirm, off_session) = (call.flag("confirm")?, call.flag("off_session")?);
    if off_session && !confirm {
        let message = "You can only set off_session when confirm is true.";
        return Err(ApiError::param("parameter_invalid", "off_session", message));
    }
    if confirm {
        call.required("payment_method")?;
    }
    if let Some(id) = call.form.get("customer") {
        call.existing::<Customer>("customer", id, "customer")?;
    }
    let setup_future_usage = future_usage(call)?;
    let method = match call.form.get("payment_method") {
        Some(id) => Some(usable(call, id, call.form.get("customer"))?.id),
        None => None,
    };
    let id = call.new_id("pi_");
    let status = if method.is_some() {
        IntentStatus::RequiresConfirmation
    } else {
        IntentStatus::RequiresPaymentMethod
    };
    let intent = PaymentIntent {
        client_secret: format!("{id}_secret_sandbox"),
        id,
        amount,
        amount_capturable: 0,
        amount_received: 0,
        canceled_at: None,
        cancellation_reason: None,
        capture_method,
        confirmation_method,
        created: call.now,
        currency,
        customer: call.text("customer"),
        description: call.text("description"),
        last_payment_error: None,
        latest_charge: None,
        livemode: false,
        metadata,
        next_action: None,
        payment_method: method,
        payment_method_types: vec!["card".into()],
        setup_future_usage,
        status,
    };
    call.store.put(&intent);
    call.emit("payment_intent.created", &intent);
    let intent = if confirm { attempt(call, intent, off_session, false)? } else { intent };
    call.answer(&intent)
}

pub(super) fn retrieve(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<PaymentIntent>("payment_intent")?)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let customer = call.form.get("customer");
    call.list(
        |intent: &PaymentIntent| intent.created,
        |intent| customer.is_none_or(|id| intent.customer.as_deref() == Some(id)),
    )
}

pub(super) fn confirm(call: &mut Call<'_>) -> Result<Value, ApiError> {
    use IntentStatus::{RequiresConfirmation, RequiresPaymentMethod};
    let mut intent: PaymentIntent = call.found("payment_intent")?;
    expect(call, &intent, "confirmed", &[RequiresPaymentMethod, RequiresConfirmation])?;
    let off_session = call.flag("off_session")?;
    if let Some(usage) = future_usage(call)? {
        intent.setup_future_usage = Some(usage);
    }
    if let Some(id) = call.form.get("payment_method") {
        intent.payment_method = Some(usable(call, id, intent.customer.as_deref())?.id);
    }
    let intent = attempt(call, intent, off_session, false)?;
    call.answer(&intent)
}

pub(super) fn capture(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let mut intent: PaymentIntent = call.found("payment_intent")?;
    let metadata = call.metadata()?;
    expect(call, &intent, "captured", &[IntentStatus::RequiresCapture])?;
    let amount = call.integer("amount_to_capture")?.unwrap_or(intent.amount_capturable);
    if amount < 1 {
        let message = "Invalid positive integer: a capture is at least 1.";
        return Err(ApiError::param("parameter_invalid_integer", "amount_to_capture", message));
    }
    if amount > intent.amount_capturable {
        let message = "The payment could not be captured because the requested capture amount is greater than the \
                       authorized amount.";
        return Err(ApiError::param("amount_too_large", "amount_to_capture", message));
    }
    let mut charge = latest_charge(call, &intent)?;
    charge.captured = true;
    charge.amount_captured = amount;
    charge.release(intent.amount_capturable - amount);
    intent.amount_received = amount;
    intent.amount_capturable = 0;
    intent.status = IntentStatus::Succeeded;
    intent.metadata.extend(metadata);
    call.store.put(&charge);
    call.store.put(&intent);
    call.emit("charge.captured", &charge);
    call.emit("payment_intent.succeeded", &intent);
    call.answer(&intent)
}

pub(super) fn cancel(call: &mut Call<'_>) -> Result<Value, ApiError> {
    use IntentStatus::{RequiresAction, RequiresCapture, RequiresConfirmation, RequiresPaymentMethod};
    let intent: PaymentIntent = call.found("payment_intent")?;
    let reason = match call.form.get("cancellation_reason") {
        None => None,
        Some(_) => {
            let reasons = ["requested_by_customer", "duplicate", "fraudulent", "abandoned"];
            Some(call.choice("cancellation_reason", &reasons)?)
        }
    };
    let open = [RequiresPaymentMethod, RequiresCapture, RequiresConfirmation, RequiresAction];
    expect(call, &intent, "canceled", &open)?;
    let intent = end(call, intent, reason, "charge.refunded");
    call.answer(&intent)
}

/// Cancels every authorization whose `capture_before` has passed.
pub(super) fn lapse(call: &mut Call<'_>) {
    for id in call.store.lapsed(call.now) {
        if let Some(intent) = call.store.get::<PaymentIntent>(&id).cloned() {
            end(call, intent, Some("automatic".into()), "charge.expired");
        }
    }
}

/// Settles an authentication the cardholder was asked for.
pub(crate) fn authenticate(
    call: &mut Call<'_>,
    mut intent: PaymentIntent,
    succeeds: bool,
) -> Result<PaymentIntent, ApiError> {
    if succeeds {
        return attempt(call, intent, false, true);
    }
    let error = ApiError::state("payment_intent_authentication_failure", NOT_AUTHENTICATED);
    intent.status = IntentStatus::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.next_action = None;
    intent.last_payment_error = Some(error.details());
    call.store.put(&intent);
    call.emit("payment_intent.payment_failed", &intent);
    Ok(intent)
}

/// Asks the card for the money.
fn attempt(
    call: &mut Call<'_>,
    mut intent: PaymentIntent,
    off_session: bool,
    authenticated: bool,
) -> Result<PaymentIntent, ApiError> {
    let missing =
        || ApiError::param("parameter_missing", "payment_method", "A payment method is needed to confirm.");
    let id = intent.payment_method.clone().ok_or_else(missing)?;
    let method: PaymentMethod = call.existing("PaymentMethod", &id, "payment_method")?;
    let asks = match cards::answer(&method.card) {
        Answer::Approve | Answer::RefundPending | Answer::RefundFail => false,
        Answer::DeclineOffSession(code, decline_code, message) if off_session => {
            return Err(decline(call, intent, &method, ApiError::card(code, decline_code, message)));
        }
        Answer::DeclineOffSession(..) => false,
        Answer::Decline(code, decline_code, message) => {
            return Err(decline(call, intent, &method, ApiError::card(code, decline_code, message)));
        }
        Answer::DeclineCharge => {
            let (code, decline_code, message) = cards::DECLINED;
            return Err(decline(call, intent, &method, ApiError::card(code, decline_code, message)));
        }
        Answer::AuthenticateOnce => !(off_session && method.customer.is_some()),
        Answer::AuthenticateAlways => true,
    };
    if asks && off_session {
        let message = "Your card was declined. This transaction requires authentication.";
        let code = "authentication_required";
        return Err(decline(call, intent, &method, ApiError::card(code, Some(code), message)));
    }
    if asks && !authenticated {
        intent.status = IntentStatus::RequiresAction;
        intent.next_action = Some(json!({ "type": "use_stripe_sdk", "use_stripe_sdk": {} }));
        call.store.put(&intent);
        call.emit("payment_intent.requires_action", &intent);
        return Ok(intent);
    }
    approve(call, intent, method, off_session)
}

fn approve(
    call: &mut Call<'_>,
    mut intent: PaymentIntent,
    method: PaymentMethod,
    off_session: bool,
) -> Result<PaymentIntent, ApiError> {
    let manual = intent.capture_method == "manual";
    let mut charge = charge(call, &intent, &method);
    charge.paid = true;
    charge.status = "succeeded".into();
    intent.latest_charge = Some(charge.id.clone());
    intent.last_payment_error = None;
    intent.next_action = None;
    if manual {
        let life =
            if off_session && method.card.brand == "visa" { OFF_SESSION_VISA_SECS } else { ON_SESSION_SECS };
        charge.payment_method_details.card.capture_before = Some(call.now + life);
        intent.status = IntentStatus::RequiresCapture;
        intent.amount_capturable = intent.amount;
    } else {
        charge.captured = true;
        charge.amount_captured = charge.amount;
        intent.status = IntentStatus::Succeeded;
        intent.amount_received = intent.amount;
    }
    if let (Some(_), Some(customer)) = (&intent.setup_future_usage, &intent.customer) {
        customers::attach(call, method, &customer.clone())?;
    }
    call.store.put(&charge);
    call.store.put(&intent);
    call.emit("charge.succeeded", &charge);
    let kind = if manual { "payment_intent.amount_capturable_updated" } else { "payment_intent.succeeded" };
    call.emit(kind, &intent);
    Ok(intent)
}

/// Records the refusal, so that intent and charge tell of it, and gives it back with the intent in it.
fn decline(
    call: &mut Call<'_>,
    mut intent: PaymentIntent,
    method: &PaymentMethod,
    error: ApiError,
) -> ApiError {
    let details = error.details();
    let word = |field: &str| details[field].as_str().map(str::to_owned);
    let mut charge = charge(call, &intent, method);
    charge.failure_code = word("code");
    charge.failure_message = word("message");
    let error = error.with("charge", charge.id.clone());
    intent.status = IntentStatus::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.next_action = None;
    intent.latest_charge = Some(charge.id.clone());
    intent.last_payment_error = Some(error.details());
    call.store.put(&charge);
    call.store.put(&intent);
    call.emit("charge.failed", &charge);
    call.emit("payment_intent.payment_failed", &intent);
    match call.answer(&intent) {
        Ok(about) => error.with("payment_intent", about),
        Err(broken) => broken,
    }
}

/// A charge that has not succeeded yet.
fn charge(call: &mut Call<'_>, intent: &PaymentIntent, method: &PaymentMethod) -> Charge {
    Charge {
        id: call.new_id("ch_"),
        amount: intent.amount,
        amount_captured: 0,
        amount_refunded: 0,
        captured: false,
        created: call.now,
        currency: intent.currency.clone(),
        customer: intent.customer.clone(),
        disputed: false,
        failure_code: None,
        failure_message: None,
        livemode: false,
        metadata: intent.metadata.clone(),
        paid: false,
        payment_intent: intent.id.clone(),
        payment_method: method.id.clone(),
        payment_method_details: PaymentMethodDetails { r#type: "card".into(), card: method.card.clone() },
        refunded: false,
        status: "failed".into(),
    }
}

/// Ends an intent and lets go of what it held; `charge_event` says how.
fn end(
    call: &mut Call<'_>,
    mut intent: PaymentIntent,
    reason: Option<String>,
    charge_event: &str,
) -> PaymentIntent {
    if let Ok(mut charge) = latest_charge(call, &intent)
        && charge.hold().is_some()
    {
        charge.release(charge.amount);
        call.store.put(&charge);
        call.emit(charge_event, &charge);
    }
    intent.status = IntentStatus::Canceled;
    intent.canceled_at = Some(call.now);
    intent.cancellation_reason = reason;
    intent.amount_capturable = 0;
    intent.next_action = None;
    call.store.put(&intent);
    call.emit("payment_intent.canceled", &intent);
    intent
}

fn latest_charge(call: &Call<'_>, intent: &PaymentIntent) -> Result<Charge, ApiError> {
    let id = intent.latest_charge.as_deref().unwrap_or_default();
    call.existing("charge", id, "latest_charge")
}

fn check_amount(amount: i64) -> Result<(), ApiError> {
    let (least, most) = AMOUNT;
    if amount < 1 {
        let message = format!("Invalid positive integer: {amount}");
        return Err(ApiError::param("parameter_invalid_integer", "amount", message));
    }
    if amount < least {
        let message = format!("Amount must be at least {least} minor units.");
        return Err(ApiError::param("amount_too_small", "amount", message));
    }
    if amount > most {
        let message = format!("Amount must be no more than {most} minor units.");
        return Err(ApiError::param("amount_too_large", "amount", message));
    }
    Ok(())
}

fn future_usage(call: &Call<'_>) -> Result<Option<String>, ApiError> {
    match call.form.get("setup_future_usage") {
        None => Ok(None),
        Some(_) => call.choice("setup_future_usage", &["off_session", "on_session"]).map(Some),
    }
}

/// The payment method a parameter names, if this customer may pay with it.
fn usable(call: &mut Call<'_>, id: &str, customer: Option<&str>) -> Result<PaymentMethod, ApiError> {
    let method = cards::resolve(call, id)?;
    match method.customer.as_deref() {
        Some(owner) if Some(owner) != customer => {
            let message = format!("The PaymentMethod {id} belongs to another customer.");
            Err(ApiError::param("payment_method_invalid", "payment_method", message))
        }
        _ => Ok(method),
    }
}

fn expect(
    call: &Call<'_>,
    intent: &PaymentIntent,
    done: &str,
    allowed: &[IntentStatus],
) -> Result<(), ApiError> {
    if allowed.contains(&intent.status) {
        return Ok(());
    }
    let allowed: Vec<_> = allowed.iter().map(|status| status.name()).collect();
    let message = format!(
        "This PaymentIntent could not be {done} because it has a status of {}. Only a PaymentIntent with one of the \
         following statuses may be {done}: {}.",
        intent.status.name(),
        allowed.join(", ")
    );
    Err(ApiError::state("payment_intent_unexpected_state", message)
        .with("payment_intent", call.answer(intent)?))
}
