//! What the provider told.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Remembers an event of the provider; false when it was told before.
pub async fn put(
    tx: &mut PgConnection,
    provider_id: &str,
    kind: &str,
    payment: Option<&str>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "insert into billing.webhook_event (provider_id, kind, payment_reference, received_at) values ($1, $2, $3, $4)
         on conflict do nothing",
        provider_id,
        kind,
        payment,
        now,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Forgets the events received before `before`; answers how many.
pub async fn forget(conn: &mut PgConnection, before: DateTime<Utc>) -> sqlx::Result<u64> {
    let deleted = sqlx::query!("delete from billing.webhook_event where received_at < $1", before);
    Ok(deleted.execute(conn).await?.rows_affected())
}
