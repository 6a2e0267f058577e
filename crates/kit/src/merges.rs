//! Patients whose records were merged: whose a record is that names one of them.
//!
//! Each schema has a table of who was merged into whom, kept from patients' events, and two SQL functions on it: `survivor(id)`,
//! and `ids_of(id)` for lists. A record that still names the merged patient, because it was written before the merge was heard of
//! or must not be rewritten, belongs to the survivor all the same.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use prost::Name as _;
use proto::clinic::patients::v1::{PatientChange, PatientChanged};
use sqlx::PgConnection;

use crate::auth::Caller;
use crate::db::Db;
use crate::ids::{Id, PatientId};
use crate::messaging::inbox::{Handler, Incoming, Subscription};
use crate::platform::Platform;
use crate::status::Error;

/// Follows merges until the platform stops: for services to which patients has nothing else to tell.
pub fn follow(platform: &Platform) {
    let subjects = vec![PatientChanged::full_name()];
    let subscription = Subscription { context: "patients", consumer: platform.name, subjects };
    platform.follow(subscription, Arc::new(Follower));
}

/// Keeps the table.
#[derive(Debug)]
pub struct Follower;

#[async_trait]
impl Handler for Follower {
    async fn handle(&self, tx: &mut PgConnection, event: &Incoming) -> anyhow::Result<()> {
        if let Some(changed) = event.decode::<PatientChanged>()?
            && let Some((merged, survivor)) = told(&changed)?
        {
            note(tx, merged, survivor).await?;
        }
        Ok(())
    }
}

/// Who was merged into whom, if that is what the event tells.
pub fn told(changed: &PatientChanged) -> anyhow::Result<Option<(PatientId, PatientId)>> {
    if changed.change() != PatientChange::Merged {
        return Ok(None);
    }
    let merged = changed.patient_id.parse().context("patient_id")?;
    let survivor = changed.merged_into_id.parse().context("merged_into_id")?;
    Ok(Some((merged, survivor)))
}

/// Notes that `merged` was merged into `survivor`. Links of a chain may be told in any order, and again.
pub async fn note(tx: &mut PgConnection, merged: PatientId, survivor: PatientId) -> sqlx::Result<()> {
    // Two links noted at once would not see each other. Readers do not wait.
    sqlx::query("lock table merged in share row exclusive mode").execute(&mut *tx).await?;
    sqlx::query(
        "insert into merged (merged_id, survivor_id) values ($1, survivor($2)) on conflict (merged_id) do nothing",
    )
    .bind(merged)
    .bind(survivor)
    .execute(&mut *tx)
    .await?;
    sqlx::query("update merged set survivor_id = survivor($1) where survivor_id = $1")
        .bind(merged)
        .execute(tx)
        .await
        .map(drop)
}

/// Who answers for `patient`: the same, unless merged.
pub async fn survivor(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<PatientId> {
    sqlx::query_scalar("select survivor($1)").bind(patient).fetch_one(conn).await
}

/// As [`see`], on a connection that only a refusal is worth.
pub async fn see_in<I: Id>(db: &Db, caller: &Caller, patient: PatientId, id: I) -> Result<(), Error> {
    if caller.may_see(patient) {
        return Ok(());
    }
    see(&mut *db.pool().acquire().await?, caller, patient, id).await
}

/// As [`Caller::see`], where all ids of one person are that patient's own.
pub async fn see<I: Id>(
    conn: &mut PgConnection,
    caller: &Caller,
    patient: PatientId,
    id: I,
) -> Result<(), Error> {
    let (Err(refused), Some(own)) = (caller.see(patient, id), caller.only_patient()) else { return Ok(()) };
    if is_same_person(conn, own, patient).await? { Ok(()) } else { Err(refused) }
}

/// Whether both ids name one person.
pub async fn is_same_person(conn: &mut PgConnection, one: PatientId, other: PatientId) -> sqlx::Result<bool> {
    sqlx::query_scalar("select survivor($1) = survivor($2)").bind(one).bind(other).fetch_one(conn).await
}
