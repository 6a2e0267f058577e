//! What is done every so often by one replica at a time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Reads the provider's events for what no webhook brought.
pub const BACKFILL: &str = "WEBHOOK_BACKFILL";
/// Compares the provider's records with ours.
pub const RECONCILE: &str = "RECONCILIATION";

/// Begins a chore if it has not begun for `every`; answers when this was, by the database's clock, and what is done already.
pub async fn begin(
    conn: &mut PgConnection,
    name: &str,
    every: Duration,
) -> sqlx::Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    let row = sqlx::query!(
        "update billing.chore set begun_at = clock.now()
         where name = $1 and begun_at <= clock.now() - make_interval(secs => $2)
         returning begun_at, done_until",
        name,
        every.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.begun_at, row.done_until)))
}

/// Remembers that a chore is done up to `until`.
pub async fn done(conn: &mut PgConnection, name: &str, until: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.chore set done_until = greatest(done_until, $2) where name = $1",
        name,
        until
    )
    .execute(conn)
    .await
    .map(drop)
}
