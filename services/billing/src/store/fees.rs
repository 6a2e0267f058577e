//! Fee schedules.

use chrono::{DateTime, NaiveDate, Utc};
use kit::ids::{ClinicId, ServiceTypeId};
use sqlx::PgConnection;

use crate::domain::fee::{Fee, Schedule};
use crate::domain::money::Currency;

/// A clinic's schedule, locked against other changes; made when it has none.
pub async fn lock_version(tx: &mut PgConnection, clinic: ClinicId, now: DateTime<Utc>) -> sqlx::Result<i64> {
    sqlx::query!(
        "insert into billing.fee_schedule (clinic_id, version, updated_at) values ($1, 0, $2) on conflict do nothing",
        clinic.uuid(),
        now,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_scalar!(
        "select version from billing.fee_schedule where clinic_id = $1 for update",
        clinic.uuid()
    )
    .fetch_one(tx)
    .await
}

/// Adds a fee, or replaces the one that begins on the same day.
pub async fn put(tx: &mut PgConnection, clinic: ClinicId, fee: &Fee, currency: Currency) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.fee (clinic_id, service_type_id, effective_from, copay_amount, no_show_fee_amount, currency)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (clinic_id, service_type_id, effective_from) do update set
             copay_amount = excluded.copay_amount,
             no_show_fee_amount = excluded.no_show_fee_amount,
             currency = excluded.currency",
        clinic.uuid(),
        fee.service_type.uuid(),
        fee.effective_from,
        fee.copay,
        fee.no_show,
        currency.code(),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// How many fees a clinic has.
pub async fn count(tx: &mut PgConnection, clinic: ClinicId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from billing.fee where clinic_id = $1"#, clinic.uuid())
        .fetch_one(tx)
        .await
}

/// Counts one more change of a clinic's fees.
pub async fn touch(tx: &mut PgConnection, clinic: ClinicId, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.fee_schedule set version = version + 1, updated_at = $2 where clinic_id = $1",
        clinic.uuid(),
        now,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Which of a clinic's fees to read.
#[derive(Clone, Copy, Debug)]
pub enum Span {
    /// The one in force on a day, and all that come later.
    From(NaiveDate),
    /// The one in force on a day.
    On(NaiveDate),
}

/// A clinic's fees in `span`, of one service type or of all.
pub async fn schedule(
    conn: &mut PgConnection,
    clinic: ClinicId,
    service_type: Option<ServiceTypeId>,
    span: Span,
) -> sqlx::Result<Schedule> {
    let (date, later) = match span {
        Span::From(date) => (date, true),
        Span::On(date) => (date, false),
    };
    let head = sqlx::query!(
        "select version, updated_at from billing.fee_schedule where clinic_id = $1",
        clinic.uuid()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let fees = sqlx::query!(
        r#"select service_type_id, effective_from, effective_until as "effective_until?", copay_amount, no_show_fee_amount
         from (
             select *, lead(effective_from) over (partition by service_type_id order by effective_from) as effective_until
             from billing.fee
             where clinic_id = $1 and ($2::uuid is null or service_type_id = $2)
         ) fee
         where (effective_until is null or effective_until > $3) and ($4 or effective_from <= $3)
         order by service_type_id, effective_from"#,
        clinic.uuid(),
        service_type.map(ServiceTypeId::uuid),
        date,
        later,
    )
    .map(|row| Fee {
        service_type: row.service_type_id.into(),
        effective_from: row.effective_from,
        effective_until: row.effective_until,
        copay: row.copay_amount,
        no_show: row.no_show_fee_amount,
    })
    .fetch_all(conn)
    .await?;
    let (version, updated_at) = head.map_or((0, None), |head| (head.version, Some(head.updated_at)));
    Ok(Schedule { clinic, fees, version, updated_at })
}

/// What a visit costs: the fee in force on its date, `None` = none is set.
pub async fn in_force(
    conn: &mut PgConnection,
    clinic: ClinicId,
    service_type: ServiceTypeId,
    visit_date: NaiveDate,
) -> sqlx::Result<Option<(Fee, Currency)>> {
    let row = sqlx::query!(
        "select effective_from, copay_amount, no_show_fee_amount, currency from billing.fee
         where clinic_id = $1 and service_type_id = $2 and effective_from <= $3
         order by effective_from desc limit 1",
        clinic.uuid(),
        service_type.uuid(),
        visit_date,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let fee = Fee {
            service_type,
            effective_from: row.effective_from,
            effective_until: None,
            copay: row.copay_amount,
            no_show: row.no_show_fee_amount,
        };
        Ok((fee, super::currency(&row.currency)?))
    })
    .transpose()
}
