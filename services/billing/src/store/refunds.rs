//! Refunds and their parts. The visit of the charge is locked before any of them is changed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ChargeId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::charge::Kind;
use crate::domain::refund::{Cause, Refund, RefundState};

/// Adds a refund.
pub async fn insert(tx: &mut PgConnection, refund: &Refund) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.refund (id, charge_id, amount, state, cause, reason, requested_by, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        refund.id,
        refund.charge.uuid(),
        refund.amount,
        refund.state.word(),
        refund.cause.word(),
        refund.reason,
        refund.requested_by,
        refund.created_at,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// What of a refund one payment gives back.
#[derive(Clone, Debug)]
pub struct Part {
    /// Of which refund.
    pub refund: Uuid,
    /// From 1.
    pub number: i32,
    /// The payment that gives.
    pub payment: String,
    /// Minor units.
    pub amount: i64,
    /// How far it is.
    pub state: RefundState,
    /// The idempotency key it is asked for with.
    pub key: String,
    /// When the provider was first asked with that key.
    pub asked_at: Option<DateTime<Utc>>,
    /// The provider's refund.
    pub reference: Option<String>,
    /// Looks taken since the last change.
    pub tries: i32,
}

struct PartRow {
    refund_id: Uuid,
    number: i32,
    payment_reference: String,
    amount: i64,
    state: String,
    key: String,
    asked_at: Option<DateTime<Utc>>,
    provider_reference: Option<String>,
    tries: i32,
}

impl TryFrom<PartRow> for Part {
    type Error = sqlx::Error;

    fn try_from(row: PartRow) -> sqlx::Result<Self> {
        Ok(Self {
            refund: row.refund_id,
            number: row.number,
            payment: row.payment_reference,
            amount: row.amount,
            state: super::word(RefundState::of_word, &row.state)?,
            key: row.key,
            asked_at: row.asked_at,
            reference: row.provider_reference,
            tries: row.tries,
        })
    }
}

/// Adds a part; a worker asks the provider for it at once unless it is known there already.
pub async fn insert_part(tx: &mut PgConnection, part: &Part) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.refund_part (refund_id, number, payment_reference, amount, state, key, provider_reference, due_at)
         values ($1, $2, $3, $4, $5, $6, $7, case when $5 = 'PENDING' then clock.now() end)",
        part.refund,
        part.number,
        part.payment,
        part.amount,
        part.state.word(),
        part.key,
        part.reference,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// What each payment gives back for a charge, failures left out.
pub async fn given(conn: &mut PgConnection, charge: ChargeId) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select part.payment_reference, sum(part.amount)::bigint as "amount!"
         from billing.refund_part part join billing.refund on refund.id = part.refund_id
         where refund.charge_id = $1 and part.state <> 'FAILED'
         group by part.payment_reference"#,
        charge.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.payment_reference, row.amount)).collect())
}

/// What banks have confirmed as given back on a charge.
pub async fn confirmed(conn: &mut PgConnection, charge: ChargeId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(part.amount), 0)::bigint as "amount!"
         from billing.refund_part part join billing.refund on refund.id = part.refund_id
         where refund.charge_id = $1 and part.state = 'SUCCEEDED'"#,
        charge.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// The refunds of charges, oldest first.
pub async fn of_charges(conn: &mut PgConnection, charges: &[ChargeId]) -> sqlx::Result<Vec<Refund>> {
    let ids: Vec<Uuid> = charges.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select refund.*,
             (select part.provider_reference from billing.refund_part part
              where part.refund_id = refund.id order by part.number limit 1) as "provider_reference?"
         from billing.refund where refund.charge_id = any($1) order by refund.created_at, refund.id"#,
        &ids,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Refund {
                id: row.id,
                charge: row.charge_id.into(),
                amount: row.amount,
                state: super::word(RefundState::of_word, &row.state)?,
                cause: super::word(Cause::of_word, &row.cause)?,
                reason: row.reason,
                requested_by: row.requested_by,
                provider_reference: row.provider_reference,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Claims up to `limit` parts that are due, for `lease`.
pub async fn claim(conn: &mut PgConnection, limit: i64, lease: Duration) -> sqlx::Result<Vec<(Uuid, i32)>> {
    let rows = sqlx::query!(
        "update billing.refund_part set due_at = clock.now() + make_interval(secs => $2), tries = tries + 1,
             asked_at = coalesce(asked_at, clock.now())
         where (refund_id, number) in (
             select refund_id, number from billing.refund_part where due_at <= clock.now()
             order by due_at limit $1 for update skip locked
         )
         returning refund_id, number",
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.refund_id, row.number)).collect())
}

/// A part with where it belongs: the appointment and kind of its charge, by which both are locked.
pub async fn part(
    conn: &mut PgConnection,
    (refund, number): (Uuid, i32),
) -> sqlx::Result<Option<(Part, AppointmentId, Kind)>> {
    let row = sqlx::query!(
        "select charge.appointment_id, charge.kind
         from billing.refund_part part
         join billing.refund on refund.id = part.refund_id
         join billing.charge on charge.id = refund.charge_id
         where part.refund_id = $1 and part.number = $2",
        refund,
        number,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let part = sqlx::query_as!(
        PartRow,
        "select refund_id, number, payment_reference, amount, state, key, asked_at, provider_reference, tries
         from billing.refund_part where refund_id = $1 and number = $2",
        refund,
        number,
    )
    .fetch_one(conn)
    .await?;
    Ok(Some((part.try_into()?, row.appointment_id.into(), super::word(Kind::of_word, &row.kind)?)))
}

/// The part that the provider calls `reference`, or that was asked for with `key`.
pub async fn find(
    conn: &mut PgConnection,
    reference: &str,
    key: Option<&str>,
) -> sqlx::Result<Option<(Uuid, i32)>> {
    let row = sqlx::query!(
        "select refund_id, number from billing.refund_part where provider_reference = $1 or key = $2
         order by provider_reference = $1 desc nulls last limit 1",
        reference,
        key,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.refund_id, row.number)))
}

/// Writes a part back; a worker looks at it after `due`, `None` = never.
pub async fn save_part(
    tx: &mut PgConnection,
    part: &Part,
    failure: Option<&str>,
    due: Option<Duration>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.refund_part set state = $3, provider_reference = $4, failure_code = $5, missing_since = null,
             due_at = clock.now() + make_interval(secs => $6)
         where refund_id = $1 and number = $2",
        part.refund,
        part.number,
        part.state.word(),
        part.reference,
        failure,
        due.map(|due| due.as_secs_f64()),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Has a worker look at a part again after `due`, unless it has been settled. Not a change of it.
pub async fn postpone(conn: &mut PgConnection, part: &Part, due: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.refund_part set due_at = clock.now() + make_interval(secs => $3)
         where refund_id = $1 and number = $2 and state = 'PENDING'",
        part.refund,
        part.number,
        due.as_secs_f64(),
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Has a worker look again after `due` at a part whose refund the provider does not know; answers since when it does not.
pub async fn missing(
    conn: &mut PgConnection,
    part: &Part,
    due: Duration,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"update billing.refund_part set missing_since = coalesce(missing_since, clock.now()),
             due_at = clock.now() + make_interval(secs => $3)
         where refund_id = $1 and number = $2 and state = 'PENDING'
         returning missing_since as "since!""#,
        part.refund,
        part.number,
        due.as_secs_f64(),
    )
    .fetch_optional(conn)
    .await
}

/// Has a part asked for with another key at once, unless it has been answered.
pub async fn rekey(conn: &mut PgConnection, part: &Part, key: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.refund_part set key = $3, asked_at = null, due_at = clock.now()
         where refund_id = $1 and number = $2 and state = 'PENDING' and provider_reference is null and key = $4",
        part.refund,
        part.number,
        key,
        part.key,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Makes a failed part of `refund`, which others outlive, a failed refund of its own, for all to see what failed.
pub async fn part_ways(tx: &mut PgConnection, part: &Part) -> sqlx::Result<()> {
    let apart = Uuid::now_v7();
    sqlx::query!(
        "insert into billing.refund (id, charge_id, amount, state, cause, reason, requested_by, created_at)
         select $2, charge_id, $3, 'FAILED', cause, reason, requested_by, created_at from billing.refund where id = $1",
        part.refund,
        apart,
        part.amount,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update billing.refund_part set refund_id = $3, number = 1 where refund_id = $1 and number = $2",
        part.refund,
        part.number,
        apart,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update billing.refund set amount = amount - $2 where id = $1", part.refund, part.amount)
        .execute(tx)
        .await
        .map(drop)
}

/// How far the parts of a refund are, the one it is asked for included.
pub async fn states(conn: &mut PgConnection, refund: Uuid) -> sqlx::Result<Vec<RefundState>> {
    let words = sqlx::query_scalar!("select state from billing.refund_part where refund_id = $1", refund);
    let words = words.fetch_all(conn).await?;
    words.iter().map(|word| super::word(RefundState::of_word, word)).collect()
}

/// Sets how far a refund is; its amount and cause when that is news.
pub async fn set_state(
    tx: &mut PgConnection,
    refund: Uuid,
    state: RefundState,
) -> sqlx::Result<Option<(i64, Cause)>> {
    let row = sqlx::query!(
        "update billing.refund set state = $2 where id = $1 and state <> $2 returning amount, cause",
        refund,
        state.word(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok((row.amount, super::word(Cause::of_word, &row.cause)?))).transpose()
}
