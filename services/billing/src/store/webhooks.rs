//! What the provider told.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::ids::ChargeId;
use sqlx::PgConnection;

use crate::gateway::Event;

/// Remembers an event of the provider, to be applied; false when it was told before.
pub async fn put(conn: &mut PgConnection, event: &Event, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "insert into billing.webhook_event (provider_id, kind, payment_reference, refund_reference, dispute_reference, charge_id,
             received_at, due_at)
         values ($1, $2, $3, $4, $5, $6, $7, clock.now())
         on conflict do nothing",
        event.id,
        event.kind,
        event.payment,
        event.refund,
        event.dispute,
        event.charge.map(ChargeId::uuid),
        now,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// An event about a payment.
#[derive(Clone, Debug)]
pub struct OfPayment {
    /// The event.
    pub id: String,
    /// Such as `payment_intent.succeeded`.
    pub kind: String,
    /// The provider's payment.
    pub payment: String,
}

/// Takes up to `limit` events about payments that are to be applied. They are applied when the transaction commits.
pub async fn take_payments(tx: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<OfPayment>> {
    sqlx::query_as!(
        OfPayment,
        r#"update billing.webhook_event set due_at = null
         where provider_id in (
             select provider_id from billing.webhook_event
             where due_at <= clock.now() and refund_reference is null and dispute_reference is null and not stray
             order by due_at limit $1 for update skip locked
         )
         returning provider_id as id, kind, payment_reference as "payment!""#,
        limit,
    )
    .fetch_all(tx)
    .await
}

/// Has those of these events looked into by themselves after `due`, whose payment was made for a charge and is no charge's newest.
pub async fn set_strays_apart(tx: &mut PgConnection, events: &[String], due: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.webhook_event set stray = true, due_at = clock.now() + make_interval(secs => $2)
         where provider_id = any($1) and charge_id is not null
             and not exists (select from billing.charge where provider_reference = payment_reference)",
        events,
        due.as_secs_f64(),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// What an event that is looked into by itself is about.
#[derive(Clone, Debug)]
pub enum About {
    /// The provider's refund.
    Refund(String),
    /// The provider's dispute.
    Dispute(String),
    /// A payment that is no charge's newest, and the charge that it was made for.
    Stray(String, ChargeId),
}

/// An event that is looked into by itself.
#[derive(Clone, Debug)]
pub struct Told {
    /// The event.
    pub id: String,
    /// What it is about.
    pub about: About,
    /// How often it was tried to apply.
    pub tries: i32,
}

/// Claims up to `limit` events that are looked into by themselves, for `lease`.
pub async fn claim(conn: &mut PgConnection, limit: i64, lease: Duration) -> sqlx::Result<Vec<Told>> {
    let rows = sqlx::query!(
        "update billing.webhook_event set due_at = clock.now() + make_interval(secs => $2), tries = tries + 1
         where provider_id in (
             select provider_id from billing.webhook_event
             where due_at <= clock.now() and (refund_reference is not null or dispute_reference is not null or stray)
             order by due_at limit $1 for update skip locked
         )
         returning provider_id, refund_reference, dispute_reference, payment_reference, charge_id, tries",
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    let told = rows.into_iter().filter_map(|row| {
        let stray = || Some(About::Stray(row.payment_reference?, row.charge_id?.into()));
        let about = row.refund_reference.map(About::Refund);
        let about = about.or(row.dispute_reference.map(About::Dispute)).or_else(stray)?;
        Some(Told { id: row.provider_id, about, tries: row.tries })
    });
    Ok(told.collect())
}

/// Has an event applied after `due`; `None` = it has been.
pub async fn postpone(conn: &mut PgConnection, id: &str, due: Option<Duration>) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.webhook_event set due_at = clock.now() + make_interval(secs => $2) where provider_id = $1",
        id,
        due.map(|due| due.as_secs_f64()),
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Forgets the events received before `before`; answers how many.
pub async fn forget(conn: &mut PgConnection, before: DateTime<Utc>) -> sqlx::Result<u64> {
    let deleted = sqlx::query!("delete from billing.webhook_event where received_at < $1", before);
    Ok(deleted.execute(conn).await?.rows_affected())
}
