//! Disputes: cardholders who ask their bank for the money back. They come and end by control calls alone.

use serde_json::Value;

use super::{
    api::Call,
    error::ApiError,
    objects::{BalanceTransaction, Charge, Dispute, DisputeStatus, PaymentIntent},
};

/// What a cardholder may say; the first when nothing is said.
pub(crate) const REASONS: &[&str] = &[
    "fraudulent",
    "credit_not_processed",
    "duplicate",
    "general",
    "product_not_received",
    "product_unacceptable",
    "subscription_canceled",
    "unrecognized",
];

/// What the provider asks for a dispute, in minor units; it comes back with the money.
const FEE: i64 = 1_500;

pub(super) fn retrieve(call: &mut Call<'_>) -> Result<Value, ApiError> {
    call.answer(&call.found::<Dispute>("dispute")?)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Value, ApiError> {
    let (intent, charge) = (call.form.get("payment_intent"), call.form.get("charge"));
    call.list(
        |dispute: &Dispute| dispute.created,
        |dispute| {
            intent.is_none_or(|id| dispute.payment_intent == id)
                && charge.is_none_or(|id| dispute.charge == id)
        },
    )
}

/// Plays the cardholder: the money of a captured payment, or `amount` of it, is withdrawn until the bank decides. A payment is
/// disputed once.
pub(crate) fn open(
    call: &mut Call<'_>,
    intent: &PaymentIntent,
    amount: Option<i64>,
    reason: &str,
) -> Result<Dispute, ApiError> {
    let id = intent.latest_charge.as_deref().unwrap_or_default();
    let charge = call.store.get::<Charge>(id).filter(|charge| charge.captured && !charge.disputed).cloned();
    let Some(mut charge) = charge else {
        let message = "There is no captured charge that is not disputed yet.";
        return Err(ApiError::state("payment_intent_unexpected_state", message));
    };
    let left = charge.amount - charge.amount_refunded;
    let amount = amount.unwrap_or(left);
    if !(1..=left).contains(&amount) {
        let message = format!("A dispute of this charge is over 1 to {left}.");
        return Err(ApiError::param("parameter_invalid_integer", "amount", message));
    }
    charge.disputed = true;
    call.store.put(&charge);
    let mut dispute = Dispute {
        id: call.new_id("dp_"),
        amount,
        balance_transactions: vec![],
        charge: charge.id,
        created: call.now,
        currency: charge.currency,
        is_charge_refundable: false,
        livemode: false,
        metadata: Default::default(),
        payment_intent: intent.id.clone(),
        reason: reason.to_owned(),
        status: DisputeStatus::NeedsResponse,
    };
    move_funds(call, &mut dispute, -amount, FEE, "dispute");
    call.store.put(&dispute);
    call.emit("charge.dispute.created", &dispute);
    call.emit("charge.dispute.funds_withdrawn", &dispute);
    Ok(dispute)
}

/// Plays the bank: the merchant has `won`, and gets the money back, or lost it for good.
pub(crate) fn close(call: &mut Call<'_>, mut dispute: Dispute, won: bool) -> Dispute {
    dispute.status = if won { DisputeStatus::Won } else { DisputeStatus::Lost };
    if won {
        let amount = dispute.amount;
        move_funds(call, &mut dispute, amount, -FEE, "dispute_reversal");
    }
    call.store.put(&dispute);
    if won {
        call.emit("charge.dispute.funds_reinstated", &dispute);
    }
    call.emit("charge.dispute.closed", &dispute);
    dispute
}

fn move_funds(call: &mut Call<'_>, dispute: &mut Dispute, amount: i64, fee: i64, category: &str) {
    dispute.balance_transactions.push(BalanceTransaction {
        id: call.new_id("txn_"),
        object: "balance_transaction".into(),
        amount,
        created: call.now,
        currency: dispute.currency.clone(),
        fee,
        net: amount - fee,
        reporting_category: category.into(),
        source: dispute.id.clone(),
        r#type: "adjustment".into(),
    });
}
