//! The ledger and what is read from it.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, ChargeId, PatientId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::charge::Charge;
use crate::domain::ledger::{Entry, EntryKind};

/// Posts an entry of a charge: what it debits and what it credits.
pub async fn post(
    tx: &mut PgConnection,
    charge: &Charge,
    entry: &Entry,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "with entry as (
             insert into billing.journal (id, charge_id, kind, currency, posted_at) values ($1, $2, $3, $4, $5)
         )
         insert into billing.posting (entry_id, account, amount) values ($1, $6, $8), ($1, $7, -$8::bigint)",
        Uuid::now_v7(),
        charge.id.uuid(),
        entry.kind.word(),
        charge.currency.code(),
        now,
        entry.debit.word(),
        entry.credit.word(),
        entry.amount,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// What a charge has earned and not taken back.
pub async fn earned(conn: &mut PgConnection, charge: ChargeId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(-sum(posting.amount), 0)::bigint as "earned!"
         from billing.journal join billing.posting on posting.entry_id = journal.id
         where journal.charge_id = $1 and posting.account in ('COPAY_REVENUE', 'FEE_REVENUE')"#,
        charge.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// Makes all that a transaction reads come from one moment. Its first statement.
pub async fn freeze(tx: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(tx).await.map(drop)
}

/// What a patient owes, merged records included; below zero = is owed.
pub async fn balance(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(posting.amount), 0)::bigint as "balance!"
         from billing.visit
         join billing.charge using (appointment_id)
         join billing.journal on journal.charge_id = charge.id
         join billing.posting on posting.entry_id = journal.id and posting.account = 'RECEIVABLE'
         where visit.patient_id = any(billing.ids_of($1))"#,
        patient.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// What is reserved on a patient's cards, merged records included.
pub async fn authorized(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(charge.authorized_amount), 0)::bigint as "authorized!"
         from billing.charge join billing.visit on visit.appointment_id = charge.appointment_id
         where visit.patient_id = any(billing.ids_of($1))"#,
        patient.uuid(),
    )
    .fetch_one(conn)
    .await
}

/// One line of a patient's statement.
#[derive(Clone, Debug)]
pub struct Line {
    /// The entry.
    pub id: Uuid,
    /// Its charge.
    pub charge: ChargeId,
    /// The visit.
    pub appointment: AppointmentId,
    /// What it is.
    pub kind: EntryKind,
    /// By how much it changed what the patient owes, minor units.
    pub amount: i64,
    /// What the patient owed after it, minor units.
    pub balance_after: i64,
    /// When posted.
    pub posted_at: DateTime<Utc>,
}

/// A patient's statement, merged records included, within a time, newest first, after `after` (instant and id of the last line seen).
pub async fn statement(
    conn: &mut PgConnection,
    patient: PatientId,
    (from, until): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Line>> {
    let rows = sqlx::query!(
        r#"select id, charge_id, appointment_id, kind, amount as "amount!", balance_after as "balance_after!", posted_at
         from (
             select line.*, (sum(amount) over (order by posted_at, id))::bigint as balance_after
             from (
                 select journal.id, journal.charge_id, charge.appointment_id, journal.kind, journal.posted_at, posting.amount
                 from billing.visit
                 join billing.charge using (appointment_id)
                 join billing.journal on journal.charge_id = charge.id
                 join billing.posting on posting.entry_id = journal.id and posting.account = 'RECEIVABLE'
                 where visit.patient_id = any(billing.ids_of($1))
             ) line
         ) statement
         where ($2::timestamptz is null or posted_at >= $2)
             and ($3::timestamptz is null or posted_at < $3)
             and ($4::timestamptz is null or (posted_at, id) < ($4, $5::uuid))
         order by posted_at desc, id desc
         limit $6"#,
        patient.uuid(),
        from,
        until,
        after.map(|(at, _)| at),
        after.map(|(_, id)| id),
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Line {
                id: row.id,
                charge: row.charge_id.into(),
                appointment: row.appointment_id.into(),
                kind: super::word(EntryKind::of_word, &row.kind)?,
                amount: row.amount,
                balance_after: row.balance_after,
                posted_at: row.posted_at,
            })
        })
        .collect()
}
