//! The provider's customers, and cards on file.
//!
//! A card belongs to one customer at the provider for good. So after a merge the rows stay as they are, and the survivor's cards
//! are those of all its ids; of their defaults one counts, its own before others.

use chrono::{DateTime, Utc};
use kit::ids::{PatientId, PaymentMethodId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::card::Card;

/// The provider's customer of a patient.
pub async fn customer(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select provider_id from billing.customer where patient_id = $1", patient.uuid())
        .fetch_optional(conn)
        .await
}

/// Remembers the provider's customer of a patient; the first one stays.
pub async fn put_customer(
    conn: &mut PgConnection,
    patient: PatientId,
    provider_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.customer (patient_id, provider_id, created_at) values ($1, $2, $3) on conflict do nothing",
        patient.uuid(),
        provider_id,
        now,
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Locks a patient's cards against other changes.
pub async fn lock(tx: &mut PgConnection, patient: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "select from billing.customer where patient_id = any(billing.ids_of($1)) order by patient_id for update",
        patient.uuid()
    )
    .execute(tx)
    .await
    .map(drop)
}

struct Row {
    id: Uuid,
    patient_id: Uuid,
    provider_id: String,
    setup_reference: String,
    confirmed: bool,
    brand: String,
    last4: String,
    expiry_month: i32,
    expiry_year: i32,
    is_default: bool,
    created_at: DateTime<Utc>,
}

impl From<Row> for Card {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            patient: row.patient_id.into(),
            provider_id: row.provider_id,
            setup_reference: row.setup_reference,
            confirmed: row.confirmed,
            brand: row.brand,
            last4: row.last4,
            expiry_month: row.expiry_month,
            expiry_year: row.expiry_year,
            is_default: row.is_default,
            created_at: row.created_at,
        }
    }
}

/// A patient's cards: the default first, then newest first.
pub async fn of_patient(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Vec<Card>> {
    let rows = sqlx::query_as!(
        Row,
        r#"with mine as (
               select *, billing.survivor(patient_id) as survivor from billing.payment_method
               where patient_id = any(billing.ids_of($1))
           )
           select id, survivor as "patient_id!", provider_id, setup_reference, confirmed, brand, last4, expiry_month, expiry_year,
                  id = first_value(id) over (
                      order by is_default desc, patient_id = survivor desc, created_at desc, id desc) and is_default
                      as "is_default!",
                  created_at
           from mine order by 10 desc, created_at desc, id desc"#,
        patient.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Card::from).collect())
}

/// Adds a card.
pub async fn insert(tx: &mut PgConnection, card: &Card) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into billing.payment_method (id, patient_id, provider_id, setup_reference, confirmed, brand, last4,
             expiry_month, expiry_year, is_default, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        card.id.uuid(),
        card.patient.uuid(),
        card.provider_id,
        card.setup_reference,
        card.confirmed,
        card.brand,
        card.last4,
        card.expiry_month,
        card.expiry_year,
        card.is_default,
        card.created_at,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Takes the default away from whichever of a patient's cards has it.
pub async fn clear_default(tx: &mut PgConnection, patient: PatientId) -> sqlx::Result<()> {
    sqlx::query!(
        "update billing.payment_method set is_default = false where patient_id = any(billing.ids_of($1)) and is_default",
        patient.uuid(),
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Makes a card the default, after [`clear_default`].
pub async fn make_default(tx: &mut PgConnection, id: PaymentMethodId) -> sqlx::Result<()> {
    sqlx::query!("update billing.payment_method set is_default = true where id = $1", id.uuid())
        .execute(tx)
        .await
        .map(drop)
}

/// The patient has confirmed the card.
pub async fn confirm(conn: &mut PgConnection, id: PaymentMethodId) -> sqlx::Result<()> {
    sqlx::query!("update billing.payment_method set confirmed = true where id = $1", id.uuid())
        .execute(conn)
        .await
        .map(drop)
}
