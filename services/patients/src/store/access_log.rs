//! SQL of the access log: rows are appended at the ends of their chains, and never touched again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kit::ids::PatientId;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{AccessAction, AccessPurpose};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::{Access, Broken, Chain, Entry, Look, chain_of};

/// Rows read at a time when chains are checked.
const CHECKED_AT_ONCE: i64 = 5_000;

/// Appends one row for each patient of each look. Call it last: the chains' ends stay locked until the transaction ends.
pub async fn append(
    tx: &mut PgConnection,
    access: &Access,
    looks: &[Look],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let mut ends = lock_ends(tx, looks).await?;
    let trace_id = trace_id();
    for look in looks {
        let mut entries = Vec::with_capacity(look.patients.len());
        for patient in &look.patients {
            let chain = chain_of(*patient);
            let end = ends.get_mut(&chain).ok_or(sqlx::Error::RowNotFound)?;
            let mut entry = Entry {
                chain,
                sequence: end.0 + 1,
                patient: *patient,
                access_time: now,
                actor: access.actor.clone(),
                actor_role: access.role,
                action: look.action,
                method: access.method.to_owned(),
                fields: look.fields.iter().map(|f| (*f).to_owned()).collect(),
                purpose: access.purpose,
                break_glass_reason: access.break_glass_reason.clone(),
                trace_id: trace_id.clone(),
                previous_hash: end.1.clone(),
                hash: vec![],
            };
            entry.hash = entry.hash();
            *end = (entry.sequence, entry.hash.clone());
            entries.push(entry);
        }
        insert(tx, look, &entries).await?;
    }
    move_ends(tx, ends).await
}

/// Sequence and hash of the last row of every chain that `looks` touch. Locked in order, so that two appends cannot wait for each
/// other.
async fn lock_ends(tx: &mut PgConnection, looks: &[Look]) -> sqlx::Result<BTreeMap<i16, (i64, Vec<u8>)>> {
    let chains: Vec<i16> = looks.iter().flat_map(|look| &look.patients).map(|p| chain_of(*p)).collect();
    let rows = sqlx::query!(
        "select chain, sequence, hash from patients.access_chain where chain = any($1) order by chain for update",
        &chains
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.chain, (row.sequence, row.hash))).collect())
}

async fn insert(tx: &mut PgConnection, look: &Look, entries: &[Entry]) -> sqlx::Result<()> {
    let Some(first) = entries.first() else { return Ok(()) };
    let chains: Vec<_> = entries.iter().map(|e| e.chain).collect();
    let sequences: Vec<_> = entries.iter().map(|e| e.sequence).collect();
    let patients: Vec<_> = entries.iter().map(|e| e.patient.uuid()).collect();
    let previous: Vec<_> = entries.iter().map(|e| e.previous_hash.clone()).collect();
    let hashes: Vec<_> = entries.iter().map(|e| e.hash.clone()).collect();
    sqlx::query!(
        "insert into patients.access_log
            (chain, sequence, patient_id, previous_hash, hash, access_time, actor, actor_role, action, method, fields,
             purpose, break_glass_reason, trace_id)
         select chain, sequence, patient, previous, hash, $6, $7, $8, $9, $10, $11, $12, $13, $14
         from unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[])
              as row (chain, sequence, patient, previous, hash)",
        &chains,
        &sequences,
        &patients,
        &previous,
        &hashes,
        first.access_time,
        first.actor,
        first.actor_role.as_str_name(),
        look.action.as_str_name(),
        first.method,
        &first.fields,
        first.purpose.as_str_name(),
        first.break_glass_reason,
        first.trace_id,
    )
    .execute(tx)
    .await
    .map(drop)
}

async fn move_ends(tx: &mut PgConnection, ends: BTreeMap<i16, (i64, Vec<u8>)>) -> sqlx::Result<()> {
    let chains: Vec<_> = ends.keys().copied().collect();
    let (sequences, hashes): (Vec<_>, Vec<_>) = ends.into_values().unzip();
    sqlx::query!(
        "update patients.access_chain c set sequence = e.sequence, hash = e.hash
         from unnest($1::smallint[], $2::bigint[], $3::bytea[]) as e (chain, sequence, hash)
         where c.chain = e.chain",
        &chains,
        &sequences,
        &hashes,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The trace id of the present call, from `00-<trace>-<span>-<flags>`.
fn trace_id() -> String {
    let traceparent = kit::telemetry::current_traceparent().unwrap_or_default();
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

/// Which rows to list; `None` and empty = any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this patient and of those merged into it.
    pub patient: Option<PatientId>,
    /// Not before this.
    pub from: Option<DateTime<Utc>>,
    /// Before this.
    pub until: Option<DateTime<Utc>>,
    /// Of this actor.
    pub actor: String,
    /// Break-glass access only.
    pub break_glass_only: bool,
}

/// Place of a row in the list: time, chain, sequence.
pub type Key = (DateTime<Utc>, i16, i64);

/// Rows, newest first, then by chain and sequence.
pub async fn list(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<Key>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let patients = match filter.patient {
        None => None,
        Some(patient) => Some(
            sqlx::query_scalar!(
                "select id from patients.patient where id = $1 or merged_into = $1",
                patient.uuid()
            )
            .fetch_all(&mut *conn)
            .await?,
        ),
    };
    let (time, chain, sequence) = match after {
        Some((time, chain, sequence)) => (Some(time), Some(chain), Some(sequence)),
        None => (None, None, None),
    };
    let rows = sqlx::query_as!(
        Row,
        "select chain, sequence, patient_id, access_time, actor, actor_role, action, method, fields, purpose,
                break_glass_reason, trace_id, previous_hash, hash
         from patients.access_log
         where ($1::uuid[] is null or patient_id = any($1))
           and ($2::timestamptz is null or access_time >= $2)
           and ($3::timestamptz is null or access_time < $3)
           and ($4 = '' or actor = $4)
           and (not $5 or break_glass_reason <> '')
           and ($6::timestamptz is null
                or access_time < $6
                or (access_time = $6 and (chain, sequence) > ($7::smallint, $8::bigint)))
         order by access_time desc, chain, sequence
         limit $9",
        patients.as_deref(),
        filter.from,
        filter.until,
        filter.actor,
        filter.break_glass_only,
        time,
        chain,
        sequence,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Row::entry).collect())
}

/// The row as it stands.
struct Row {
    chain: i16,
    sequence: i64,
    patient_id: Uuid,
    access_time: DateTime<Utc>,
    actor: String,
    actor_role: String,
    action: String,
    method: String,
    fields: Vec<String>,
    purpose: String,
    break_glass_reason: String,
    trace_id: String,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl Row {
    fn entry(self) -> Entry {
        Entry {
            chain: self.chain,
            sequence: self.sequence,
            patient: self.patient_id.into(),
            access_time: self.access_time,
            actor: self.actor,
            actor_role: Role::from_str_name(&self.actor_role).unwrap_or_default(),
            action: AccessAction::from_str_name(&self.action).unwrap_or_default(),
            method: self.method,
            fields: self.fields,
            purpose: AccessPurpose::from_str_name(&self.purpose).unwrap_or_default(),
            break_glass_reason: self.break_glass_reason,
            trace_id: self.trace_id,
            previous_hash: self.previous_hash,
            hash: self.hash,
        }
    }
}

/// What a look at the whole log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Rows that are as they were written, up to the first that is not.
    pub rows: i64,
    /// The first row that is not, by chain and place.
    pub broken: Option<Broken>,
}

/// Checks every row of every chain, as all of them stood at one moment; ends at the first that is not as it was written. `tx` must
/// not have read anything yet.
pub async fn verify(tx: &mut PgConnection) -> sqlx::Result<Verified> {
    // Rows appended meanwhile are neither read nor missed.
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
    let ends = sqlx::query!("select chain, sequence, hash from patients.access_chain order by chain")
        .fetch_all(&mut *tx)
        .await?;
    let mut rows = 0;
    for number in 0..i16::from(crate::access::CHAINS) {
        let mut chain = Chain::new(number);
        let mut read = 0;
        loop {
            let batch = sqlx::query_as!(
                Row,
                "select chain, sequence, patient_id, access_time, actor, actor_role, action, method, fields, purpose,
                        break_glass_reason, trace_id, previous_hash, hash
                 from patients.access_log where chain = $1 and sequence > $2 order by sequence limit $3",
                number,
                read,
                CHECKED_AT_ONCE
            )
            .fetch_all(&mut *tx)
            .await?;
            let Some(last) = batch.last() else { break };
            read = last.sequence;
            for row in batch {
                if let Err(broken) = chain.follow(&row.entry()) {
                    return Ok(Verified { rows, broken: Some(broken) });
                }
                rows += 1;
            }
        }
        let end = ends.iter().find(|end| end.chain == number).map(|end| (end.sequence, end.hash.as_slice()));
        if let Err(broken) = chain.end(end) {
            return Ok(Verified { rows, broken: Some(broken) });
        }
    }
    Ok(Verified { rows, broken: None })
}
