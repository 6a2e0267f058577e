//! Setup intents: saving a card for later without charging it.

use serde_json::{Value, json};

use super::{
    api::Call,
    cards::{self, Answer},
    customers,
    error::ApiError,
    objects::{Customer, IntentStatus, PaymentMethod, SetupIntent},
};

pub(super) fn create(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let metadata = call.metadata()?;
    let usage = call.choice("usage", &["off_session", "on_session"])?;
    let confirm = call.flag("confirm")?;
    if let Some(id) = call.form.get("customer") {
        call.existing::<Customer>("customer", id, "customer")?;
    }
    if confirm {
        call.required("payment_method")?;
    }
    let method = match call.form.get("payment_method") {
        Some(id) => Some(cards::resolve(call, id)?.id),
        None => None,
    };
    let id = call.new_id("seti_");
    let status = if method.is_some() {
        IntentStatus::RequiresConfirmation
    } else {
        IntentStatus::RequiresPaymentMethod
    };
    let intent = SetupIntent {
        client_secret: format!("{id}_secret_sandbox"),
        id,
        cancellation_reason: None,
        created: call.now,
        customer: call.text("customer"),
        last_setup_error: None,
        livemode: false,
        metadata,
        next_action: None,
        payment_method: method,
        payment_method_types: vec!["card".into()],
        status,
        usage,
    };
    call.store.put(&intent);
    call.emit("setup_intent.created", &intent);
    let intent = if confirm { attempt(call, intent, false)? } else { intent };
    call.answer(&intent)
}

pub(super) fn retrieve(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<SetupIntent>("setupintent")?)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (customer, method) = (call.form.get("customer"), call.form.get("payment_method"));
    let named = |asked: Option<&str>, has: &Option<String>| asked.is_none_or(|id| has.as_deref() == Some(id));
    call.list(
        |intent: &SetupIntent| intent.created,
        |intent| named(customer, &intent.customer) && named(method, &intent.payment_method),
    )
}

pub(super) fn confirm(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let mut intent: SetupIntent = call.found("setupintent")?;
    match intent.status {
        IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresConfirmation => {}
        status => {
            let message = format!("This SetupIntent could not be confirmed because it is {}.", status.name());
            return Err(ApiError::state("setup_intent_unexpected_state", message));
        }
    }
    if let Some(id) = call.form.get("payment_method") {
        intent.payment_method = Some(cards::resolve(call, id)?.id);
    }
    let intent = attempt(call, intent, false)?;
    call.answer(&intent)
}

/// Settles an authentication the cardholder was asked for.
pub(crate) fn authenticate(
    call: &mut Call<'_>,
    mut intent: SetupIntent,
    succeeds: bool,
) -> Result<SetupIntent, ApiError> {
    if succeeds {
        return attempt(call, intent, true);
    }
    intent.next_action = None;
    let error = ApiError::state("setup_intent_authentication_failure", super::intents::NOT_AUTHENTICATED);
    Ok(fail(call, intent, &error))
}

fn attempt(
    call: &mut Call<'_>,
    mut intent: SetupIntent,
    authenticated: bool,
) -> Result<SetupIntent, ApiError> {
    let missing =
        || ApiError::param("parameter_missing", "payment_method", "A payment method is needed to confirm.");
    let id = intent.payment_method.clone().ok_or_else(missing)?;
    let method: PaymentMethod = call.existing("PaymentMethod", &id, "payment_method")?;
    let asks = matches!(cards::answer(&method.card), Answer::AuthenticateOnce | Answer::AuthenticateAlways);
    if asks && !authenticated {
        intent.status = IntentStatus::RequiresAction;
        intent.next_action = Some(json!({ "type": "use_stripe_sdk", "use_stripe_sdk": {} }));
        call.store.put(&intent);
        call.emit("setup_intent.requires_action", &intent);
        return Ok(intent);
    }
    let saved = match (&intent.customer, cards::answer(&method.card)) {
        (_, Answer::Decline(code, decline_code, message)) => Err(ApiError::card(code, decline_code, message)),
        (Some(customer), _) => customers::attach(call, method, &customer.clone()).map(drop),
        (None, _) => Ok(()),
    };
    if let Err(error) = saved {
        let intent = fail(call, intent, &error);
        let about = call.answer(&intent)?;
        return Err(error.with("setup_intent", about));
    }
    intent.status = IntentStatus::Succeeded;
    intent.next_action = None;
    intent.last_setup_error = None;
    call.store.put(&intent);
    call.emit("setup_intent.succeeded", &intent);
    Ok(intent)
}

fn fail(call: &mut Call<'_>, mut intent: SetupIntent, error: &ApiError) -> SetupIntent {
    intent.status = IntentStatus::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.last_setup_error = Some(error.details());
    call.store.put(&intent);
    call.emit("setup_intent.setup_failed", &intent);
    intent
}
