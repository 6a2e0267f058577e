//! Money given back, and reading charges and events.

use serde_json::Value;

use super::{
    api::Call,
    cards::{self, Answer},
    error::ApiError,
    objects::{Charge, Destination, Event, PaymentIntent, Reference, Refund, RefundStatus},
};

pub(super) fn create(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let metadata = call.metadata()?;
    if call.form.get("reason").is_some() {
        call.choice("reason", &["requested_by_customer", "duplicate", "fraudulent"])?;
    }
    let charge_id = match (call.form.get("charge"), call.form.get("payment_intent")) {
        (Some(charge), _) => charge.to_owned(),
        (None, Some(id)) => {
            let intent: PaymentIntent = call.existing("payment_intent", id, "payment_intent")?;
            intent.latest_charge.unwrap_or_default()
        }
        (None, None) => {
            let message =
                "One of the following params should be provided for this request: payment_intent or charge.";
            return Err(ApiError::param("parameter_missing", "payment_intent", message));
        }
    };
    let charge = call.store.get::<Charge>(&charge_id).cloned();
    let Some(mut charge) = charge.filter(|charge| charge.captured) else {
        let message = "There is no captured charge to refund.";
        return Err(ApiError::state("payment_intent_unexpected_state", message));
    };
    if charge.disputed {
        let message = format!("Charge {} has been charged back; cannot issue a refund.", charge.id);
        return Err(ApiError::state("charge_disputed", message));
    }
    let left = charge.amount - charge.amount_refunded;
    let amount = call.integer("amount")?.unwrap_or(left);
    if left == 0 {
        let message = format!("Charge {} has already been refunded.", charge.id);
        return Err(ApiError::state("charge_already_refunded", message));
    }
    if amount < 1 {
        let message = "Invalid positive integer: a refund is at least 1.";
        return Err(ApiError::param("parameter_invalid_integer", "amount", message));
    }
    if amount > left {
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).");
        return Err(ApiError::param("amount_too_large", "amount", message));
    }
    charge.release(amount);
    call.store.put(&charge);
    let mut destination_details = Destination::default();
    let (status, reference_status) = match cards::answer(&charge.payment_method_details.card) {
        Answer::RefundPending => (RefundStatus::Pending, Reference::Pending),
        Answer::RefundFail => (RefundStatus::Succeeded, Reference::Pending),
        _ => (RefundStatus::Succeeded, Reference::Available),
    };
    destination_details.card.reference_status = reference_status;
    let refund = Refund {
        id: call.new_id("re_"),
        amount,
        charge: charge.id.clone(),
        created: call.now,
        currency: charge.currency.clone(),
        destination_details,
        failure_reason: None,
        metadata,
        payment_intent: charge.payment_intent.clone(),
        reason: call.text("reason"),
        status,
    };
    call.store.put(&refund);
    call.emit("refund.created", &refund);
    call.emit("charge.refunded", &charge);
    call.answer(&refund)
}

/// Lets the banks answer that take their time.
pub(super) fn settle(call: &mut Call<'_>) {
    for id in call.store.answered(call.now) {
        let Some(mut refund) = call.store.get::<Refund>(&id).cloned() else { continue };
        let Some(mut charge) = call.store.get::<Charge>(&refund.charge).cloned() else { continue };
        let failed = matches!(cards::answer(&charge.payment_method_details.card), Answer::RefundFail);
        refund.destination_details.card.reference_status =
            if failed { Reference::Unavailable } else { Reference::Available };
        refund.status = if failed { RefundStatus::Failed } else { RefundStatus::Succeeded };
        if failed {
            refund.failure_reason = Some("expired_or_canceled_card".into());
            charge.take_back(refund.amount);
            call.store.put(&charge);
        }
        call.store.put(&refund);
        call.emit("refund.updated", &refund);
        if failed {
            call.emit("refund.failed", &refund);
        }
    }
}

pub(super) fn retrieve(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<Refund>("refund")?)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (intent, charge) = (call.form.get("payment_intent"), call.form.get("charge"));
    call.list(
        |refund: &Refund| refund.created,
        |refund| {
            intent.is_none_or(|id| refund.payment_intent == id) && charge.is_none_or(|id| refund.charge == id)
        },
    )
}

pub(super) fn retrieve_charge(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<Charge>("charge")?)
}

pub(super) fn list_charges(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (intent, customer) = (call.form.get("payment_intent"), call.form.get("customer"));
    call.list(
        |charge: &Charge| charge.created,
        |charge| {
            intent.is_none_or(|id| charge.payment_intent == id)
                && customer.is_none_or(|id| charge.customer.as_deref() == Some(id))
        },
    )
}

pub(super) fn retrieve_event(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<Event>("event")?)
}

pub(super) fn list_events(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let mut kinds = call.form.list("types");
    kinds.extend(call.form.get("type"));
    call.list(
        |event: &Event| event.created,
        |event| kinds.is_empty() || kinds.contains(&event.r#type.as_str()),
    )
}
