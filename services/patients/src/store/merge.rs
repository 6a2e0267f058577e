//! SQL of merges: who was merged into whom.

use kit::ids::PatientId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::sealed;
use crate::domain::{Merge, Patient};
use crate::error::Error;
use crate::seal::Keys;

/// Locks two patients against other changes, in order of their ids so that two merges cannot wait for each other, and reads them.
pub async fn lock_both(
    tx: &mut PgConnection,
    keys: &Keys,
    first: PatientId,
    second: PatientId,
) -> Result<(Patient, Patient), Error> {
    let ids = [first.uuid(), second.uuid()];
    sqlx::query!("select id from patients.patient where id = any($1) order by id for update", &ids)
        .fetch_all(&mut *tx)
        .await?;
    Ok((super::get(tx, keys, first).await?, super::get(tx, keys, second).await?))
}

/// Records a merge: `merged` and all who were merged into it now answer for `survivor`, who is found by their names, too.
pub async fn record(
    tx: &mut PgConnection,
    survivor: PatientId,
    merged: &Patient,
    Merge { reason, merged_by, merge_time, .. }: &Merge,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into patients.merge (merged_id, survivor_id, reason, merged_by, merge_time)
         values ($1, $2, $3, $4, $5)",
        merged.id.uuid(),
        survivor.uuid(),
        reason,
        merged_by,
        merge_time
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update patients.patient s set also_known = btrim(s.also_known || ' ' || m.search_name || ' ' || m.also_known)
         from patients.patient m where s.id = $1 and m.id = $2",
        survivor.uuid(),
        merged.id.uuid()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update patients.patient set merged_into = $1 where id = $2 or merged_into = $2",
        survivor.uuid(),
        merged.id.uuid()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update patients.patient set version = $2, update_time = $3 where id = $1",
        merged.id.uuid(),
        merged.version,
        merged.update_time
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Everyone who was merged into `survivor`, or into someone who was, oldest first.
pub async fn history(conn: &mut PgConnection, keys: &Keys, survivor: PatientId) -> Result<Vec<Merge>, Error> {
    let rows = sqlx::query!(
        r#"select m.merged_id, p.mrn_sealed as "mrn!", m.reason, m.merged_by, m.merge_time
           from patients.patient p join patients.merge m on m.merged_id = p.id
           where p.merged_into = $1 order by m.merge_time, m.merged_id"#,
        survivor.uuid()
    )
    .fetch_all(conn)
    .await?;
    let merge = |id: Uuid, mrn: &[u8], reason, merged_by, merge_time| -> Result<Merge, Error> {
        let mrn = sealed::open_mrn(keys, id.into(), mrn)?;
        Ok(Merge { merged: id.into(), mrn, reason, merged_by, merge_time })
    };
    rows.into_iter().map(|r| merge(r.merged_id, &r.mrn, r.reason, r.merged_by, r.merge_time)).collect()
}

/// Whether both ids answer for one patient.
pub async fn is_same_person(conn: &mut PgConnection, one: PatientId, other: PatientId) -> sqlx::Result<bool> {
    let answering = sqlx::query_scalar!(
        r#"select distinct coalesce(merged_into, id) as "id!" from patients.patient where id in ($1, $2)"#,
        one.uuid(),
        other.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let known = sqlx::query_scalar!(
        r#"select count(*) as "count!" from patients.patient where id in ($1, $2)"#,
        one.uuid(),
        other.uuid()
    )
    .fetch_one(conn)
    .await?;
    Ok(answering.len() == 1 && known == 2)
}
