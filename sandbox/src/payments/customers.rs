//! Customers and the cards attached to them.

use serde_json::Value;

use super::{
    api::Call,
    cards::{self, Answer},
    error::ApiError,
    objects::{Customer, PaymentMethod},
};

pub(super) fn create(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let metadata = call.metadata()?;
    let method = match call.form.get("payment_method") {
        Some(id) => Some(cards::resolve(call, id)?),
        None => None,
    };
    let customer = Customer {
        id: call.new_id("cus_"),
        created: call.now,
        email: call.text("email"),
        name: call.text("name"),
        phone: call.text("phone"),
        description: call.text("description"),
        livemode: false,
        metadata,
    };
    if let Some(method) = method {
        attach(call, method, &customer.id)?;
    }
    call.store.put(&customer);
    call.emit("customer.created", &customer);
    call.answer(&customer)
}

pub(super) fn retrieve(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<Customer>("customer")?)
}

pub(super) fn create_method(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.choice("type", &["card"])?;
    call.metadata()?;
    let method = match (call.form.get("card[token]"), call.form.get("card[number]")) {
        (Some(token), _) => cards::from_token(call, token)?,
        (None, Some(number)) => cards::from_number(call, number)?,
        (None, None) => {
            return Err(ApiError::param("parameter_missing", "card", "Missing required param: card."));
        }
    };
    call.answer(&method)
}

pub(super) fn retrieve_method(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<PaymentMethod>("PaymentMethod")?)
}

pub(super) fn list_methods(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let customer = call.form.get("customer");
    call.list(
        |method: &PaymentMethod| method.created,
        |method| {
            method.customer.is_some() && customer.is_none_or(|id| method.customer.as_deref() == Some(id))
        },
    )
}

pub(super) fn attach_method(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let customer: Customer = call.existing("customer", call.required("customer")?, "customer")?;
    let method = if call.id.starts_with("pm_card_") {
        cards::resolve(call, call.id)?
    } else {
        call.found("PaymentMethod")?
    };
    let method = attach(call, method, &customer.id)?;
    call.answer(&method)
}

pub(super) fn detach_method(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let mut method: PaymentMethod = call.found("PaymentMethod")?;
    method.customer = None;
    call.store.put(&method);
    call.emit("payment_method.detached", &method);
    call.answer(&method)
}

/// Ties a card to a customer, or fails as the bank's check of the card would.
pub(super) fn attach(
    call: &mut Call<'_>,
    mut method: PaymentMethod,
    customer: &str,
) -> Result<PaymentMethod, ApiError> {
    match method.customer.as_deref() {
        Some(owner) if owner == customer => return Ok(method),
        Some(_) => {
            let message = "The payment method you provided has already been attached to a customer.";
            return Err(ApiError::state("payment_method_unexpected_state", message));
        }
        None => {}
    }
    if let Answer::Decline(code, decline_code, message) = cards::answer(&method.card) {
        return Err(ApiError::card(code, decline_code, message));
    }
    method.customer = Some(customer.to_owned());
    call.store.put(&method);
    call.emit("payment_method.attached", &method);
    Ok(method)
}
