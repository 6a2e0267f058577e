//! Disputes as the ledger has them. The visit of the charge is locked before any of them is changed.

use chrono::{DateTime, Utc};
use kit::ids::ChargeId;
use sqlx::PgConnection;

/// What the ledger has as withdrawn by a dispute, minor units; `None` = it does not know it.
pub async fn withdrawn(conn: &mut PgConnection, reference: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select withdrawn_amount from billing.dispute where provider_reference = $1",
        reference
    )
    .fetch_optional(conn)
    .await
}

/// Remembers what a dispute about `charge` has withdrawn in all.
pub async fn put(
    tx: &mut PgConnection,
    reference: &str,
    charge: ChargeId,
    withdrawn: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.dispute (provider_reference, charge_id, withdrawn_amount, updated_at)
         values ($1, $2, $3, $4)
         on conflict (provider_reference) do update set
             withdrawn_amount = excluded.withdrawn_amount, updated_at = excluded.updated_at",
        reference,
        charge.uuid(),
        withdrawn,
        now,
    )
    .execute(tx)
    .await
    .map(drop)
}
