//! Attempts: each time the provider is asked to reserve or to take money of a charge.

use chrono::{DateTime, Utc};
use kit::ids::{ChargeId, PaymentMethodId, RequestId};
use sqlx::PgConnection;

use crate::domain::charge::Charge;

/// One time the provider is asked.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Of which charge.
    pub charge: ChargeId,
    /// From 1.
    pub number: i32,
    /// The caller's name for it; `None` = it has none, or billing asks of its own accord.
    pub request: Option<RequestId>,
    /// Hash of the caller's request; empty = there is no caller.
    pub fingerprint: Vec<u8>,
    /// The card.
    pub card: PaymentMethodId,
    /// The patient is not there to confirm.
    pub off_session: bool,
    /// The payment to be cancelled before.
    pub replaces: Option<String>,
}

/// What the provider needs to be told for the newest attempt of a charge.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The provider's customer.
    pub customer: String,
    /// The provider's card.
    pub provider_card: String,
    /// The patient is not there to confirm.
    pub off_session: bool,
    /// The payment to be cancelled before.
    pub replaces: Option<String>,
    /// When the attempt began, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// The database's clock.
    pub now: DateTime<Utc>,
}

/// Adds an attempt, begun now.
pub async fn insert(tx: &mut PgConnection, attempt: &Attempt) -> sqlx::Result<Asking> {
    sqlx::query_as!(
        Asking,
        r#"with attempt as (
             insert into billing.attempt (charge_id, number, request_id, fingerprint, payment_method_id, off_session, replaces,
                 created_at)
             values ($1, $2, $3, $4, $5, $6, $7, clock.now())
             returning *
         )
         select customer.provider_id as customer, card.provider_id as provider_card, attempt.off_session, attempt.replaces,
             attempt.created_at, attempt.created_at as now
         from attempt
         join billing.payment_method card on card.id = attempt.payment_method_id
         join billing.customer on customer.patient_id = card.patient_id"#,
        attempt.charge.uuid(),
        attempt.number,
        attempt.request.map(RequestId::uuid),
        attempt.fingerprint,
        attempt.card.uuid(),
        attempt.off_session,
        attempt.replaces,
    )
    .fetch_one(tx)
    .await
}

/// The newest attempt of a charge.
pub async fn newest(conn: &mut PgConnection, charge: &Charge) -> sqlx::Result<Asking> {
    sqlx::query_as!(
        Asking,
        r#"select customer.provider_id as customer, card.provider_id as provider_card, attempt.off_session, attempt.replaces,
             attempt.created_at, clock.now() as "now!"
         from billing.attempt
         join billing.payment_method card on card.id = attempt.payment_method_id
         join billing.customer on customer.patient_id = card.patient_id
         where attempt.charge_id = $1 and attempt.number = $2"#,
        charge.id.uuid(),
        charge.attempt,
    )
    .fetch_one(conn)
    .await
}

/// Remembers why the newest attempt was declined, or that it was not after all, for repeats of the same request.
pub async fn save_decline(tx: &mut PgConnection, charge: &Charge) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.attempt set decline_code = $3 where charge_id = $1 and number = $2",
        charge.id.uuid(),
        charge.attempt,
        charge.decline_code,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The attempt that a caller named `request` before: its fingerprint, and why it was declined.
pub async fn of_request(
    conn: &mut PgConnection,
    request: RequestId,
) -> sqlx::Result<Option<(Vec<u8>, Option<String>)>> {
    let row = sqlx::query!(
        "select fingerprint, decline_code from billing.attempt where request_id = $1",
        request.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.fingerprint, row.decline_code)))
}
