//! Reconciliations: the lock that only one holds, what the provider listed to it, and its report.

use chrono::{DateTime, Utc};
use kit::ids::ChargeId;
use sqlx::PgConnection;
use uuid::Uuid;

/// Held by the session that reconciles, and gone with it.
const LOCK: i64 = 0x7265_636f_6e63;

/// Takes the lock for as long as the connection lives; false = another one has it.
pub async fn lock(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "had!""#, LOCK).fetch_one(conn).await
}

/// Gives the lock back.
pub async fn unlock(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!("select pg_advisory_unlock($1)", LOCK).fetch_one(conn).await.map(drop)
}

/// Forgets what was listed.
pub async fn clear(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("delete from billing.reconciliation_seen").execute(conn).await.map(drop)
}

/// Remembers what was listed.
pub async fn saw(conn: &mut PgConnection, references: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.reconciliation_seen select unnest($1::text[]) on conflict do nothing",
        references,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Charges made in a time whose payment was not listed, and those whose payment the provider has said not to know, after `after`:
/// charge and payment.
pub async fn unseen_charges(
    conn: &mut PgConnection,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    after: Option<ChargeId>,
    limit: i64,
) -> sqlx::Result<Vec<(ChargeId, String)>> {
    let rows = sqlx::query!(
        r#"select id, provider_reference as "payment!" from billing.charge
         where ((created_at >= $1 and created_at < $2) or missing_since is not null) and provider_reference is not null
             and ($3::uuid is null or id > $3)
             and not exists (select from billing.reconciliation_seen where reference = provider_reference)
         order by id limit $4"#,
        from,
        until,
        after.map(ChargeId::uuid),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.payment)).collect())
}

/// Refunds asked for in a time that were not listed, after `after`: the provider's refund, and the charge.
pub async fn unseen_refunds(
    conn: &mut PgConnection,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    after: &str,
    limit: i64,
) -> sqlx::Result<Vec<(String, ChargeId)>> {
    let rows = sqlx::query!(
        r#"select part.provider_reference as "reference!", refund.charge_id
         from billing.refund join billing.refund_part part on part.refund_id = refund.id
         where refund.created_at >= $1 and refund.created_at < $2 and part.provider_reference > $3
             and not exists (select from billing.reconciliation_seen where reference = part.provider_reference)
         order by part.provider_reference limit $4"#,
        from,
        until,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.reference, row.charge_id.into())).collect())
}

/// How many charges were made in a time.
pub async fn charges_made(
    conn: &mut PgConnection,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from billing.charge where created_at >= $1 and created_at < $2"#,
        from,
        until,
    )
    .fetch_one(conn)
    .await
}

/// A report as it is kept.
pub struct Kept<'a> {
    /// Which.
    pub id: Uuid,
    /// By the clock, not by a caller.
    pub scheduled: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// Differences.
    pub found: i64,
    /// Those put right.
    pub repaired: i64,
    /// For people.
    pub text: &'a str,
    /// The contract's message, encoded.
    pub report: &'a [u8],
}

/// Keeps a report.
pub async fn insert(conn: &mut PgConnection, kept: &Kept<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.reconciliation (id, scheduled, started_at, ended_at, found, repaired, text, report)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        kept.id,
        kept.scheduled,
        kept.started_at,
        kept.ended_at,
        kept.found,
        kept.repaired,
        kept.text,
        kept.report,
    )
    .execute(conn)
    .await
    .map(drop)
}
