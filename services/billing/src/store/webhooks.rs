//! What the provider told.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::gateway::Event;

/// Remembers an event of the provider, to be applied when it is `news`; false when it was told before.
pub async fn put(
    conn: &mut PgConnection,
    event: &Event,
    news: bool,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "insert into billing.webhook_event (provider_id, kind, payment_reference, refund_reference, received_at, due_at)
         values ($1, $2, $3, $4, $5, case when $6 then clock.now() end)
         on conflict do nothing",
        event.id,
        event.kind,
        event.payment,
        event.refund,
        now,
        news,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Takes up to `limit` events about payments that are to be applied; answers kind and payment of each. They are applied when the
/// transaction commits.
pub async fn take_payments(tx: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        r#"update billing.webhook_event set due_at = null
         where provider_id in (
             select provider_id from billing.webhook_event where due_at <= clock.now() and refund_reference is null
             order by due_at limit $1 for update skip locked
         )
         returning kind, payment_reference as "payment_reference!""#,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.kind, row.payment_reference)).collect())
}

/// An event about a refund.
#[derive(Clone, Debug)]
pub struct OfRefund {
    /// The event.
    pub id: String,
    /// The provider's refund.
    pub refund: String,
    /// How often it was tried to apply.
    pub tries: i32,
}

/// Claims up to `limit` events about refunds that are to be applied, for `lease`.
pub async fn claim_refunds(
    conn: &mut PgConnection,
    limit: i64,
    lease: Duration,
) -> sqlx::Result<Vec<OfRefund>> {
    sqlx::query_as!(
        OfRefund,
        r#"update billing.webhook_event set due_at = clock.now() + make_interval(secs => $2), tries = tries + 1
         where provider_id in (
             select provider_id from billing.webhook_event where due_at <= clock.now() and refund_reference is not null
             order by due_at limit $1 for update skip locked
         )
         returning provider_id as id, refund_reference as "refund!", tries"#,
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(conn)
    .await
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
