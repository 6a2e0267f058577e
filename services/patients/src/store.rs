//! All SQL on patients, contact and consent; the access log's is in [`access_log`].
//!
//! The table `contact` is read and written here and in [`sealed`], which knows what its values hold.

pub mod access_log;
pub mod intake;
pub mod merge;
pub mod sealed;
pub mod search;

use chrono::{DateTime, NaiveDate, Utc};
use kit::ids::PatientId;
use kit::status::Error as KitError;
use proto::clinic::patients::v1::{SmsConsentSource, SmsConsentState};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Consent, Identity, Patient};
use crate::error::Error;
use crate::seal::Keys;

/// Registers a patient at version 1; refuses an id or MRN in use. The check is no constraint violation, as the server's log
/// would then show the value.
pub async fn insert(tx: &mut PgConnection, keys: &Keys, patient: &Patient) -> Result<(), Error> {
    let Patient { id, identity, contact, create_time, .. } = patient;
    let sealed = sealed::Sealed::new(keys, *id, &identity.mrn, contact)?;
    let inserted = sqlx::query!(
        "insert into patients.patient
            (id, mrn_sealed, mrn_hash, given_name, family_name, search_name, birth_date, create_time, update_time)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         on conflict do nothing",
        id.uuid(),
        sealed.mrn,
        sealed.mrn_hash,
        identity.given_name,
        identity.family_name,
        identity.search_name(),
        identity.birth_date,
        create_time,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 0 {
        let known = sqlx::query_scalar!("select 1 from patients.patient where id = $1", id.uuid())
            .fetch_optional(&mut *tx)
            .await?
            .is_some();
        return Err(if known { Error::PatientExists(*id) } else { Error::MrnExists });
    }
    sqlx::query!(
        "insert into patients.contact (patient_id, sealed, phone_hash, email_hash) values ($1, $2, $3, $4)",
        id.uuid(),
        sealed.contact,
        sealed.phone_hash,
        sealed.email_hash,
    )
    .execute(&mut *tx)
    .await?;
    search::know_words(tx, &identity.search_name()).await?;
    Ok(())
}

/// An MRN that nobody has.
pub async fn assign_mrn(tx: &mut PgConnection, keys: &Keys) -> Result<String, Error> {
    loop {
        let next = sqlx::query_scalar!(
            r#"select 'P' || lpad(nextval('patients.mrn_number')::text, 8, '0') as "mrn!""#
        )
        .fetch_one(&mut *tx)
        .await?;
        // Taken by a patient who came with an MRN of the same shape: the next one.
        if !has_mrn(tx, keys, &next, None).await? {
            return Ok(next);
        }
    }
}

/// Whether another patient than `but` has the MRN.
async fn has_mrn(
    tx: &mut PgConnection,
    keys: &Keys,
    mrn: &str,
    but: Option<PatientId>,
) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        "select 1 from patients.patient where mrn_hash = $1 and id is distinct from $2",
        sealed::mrn_hash(keys, mrn),
        but.map(Uuid::from)
    );
    Ok(found.fetch_optional(tx).await?.is_some())
}

/// Writes a patient's present identity, contact and version.
pub async fn update(tx: &mut PgConnection, keys: &Keys, patient: &Patient) -> Result<(), Error> {
    let Patient { id, identity, contact, .. } = patient;
    if has_mrn(tx, keys, &identity.mrn, Some(*id)).await? {
        return Err(Error::MrnExists);
    }
    let sealed = sealed::Sealed::new(keys, *id, &identity.mrn, contact)?;
    sqlx::query!(
        "update patients.patient
         set mrn = null, mrn_sealed = $2, mrn_hash = $3, given_name = $4, family_name = $5, search_name = $6,
             birth_date = $7, version = $8, update_time = $9
         where id = $1",
        id.uuid(),
        sealed.mrn,
        sealed.mrn_hash,
        identity.given_name,
        identity.family_name,
        identity.search_name(),
        identity.birth_date,
        patient.version,
        patient.update_time,
    )
    .execute(&mut *tx)
    .await
    .map_err(mrn_raced)?;
    sqlx::query!(
        "update patients.contact
         set sealed = $2, phone_hash = $3, email_hash = $4, phone = null, email = null, language = null,
             time_zone = null
         where patient_id = $1",
        id.uuid(),
        sealed.contact,
        sealed.phone_hash,
        sealed.email_hash,
    )
    .execute(&mut *tx)
    .await?;
    search::know_words(tx, &identity.search_name()).await?;
    Ok(())
}

/// Two updates to the same MRN at the same moment: the later one meets the constraint.
fn mrn_raced(error: sqlx::Error) -> Error {
    let constraint = error.as_database_error().and_then(|e| e.constraint());
    if constraint == Some("patient_mrn_hash_unique") { Error::MrnExists } else { error.into() }
}

/// Locks a patient against other changes, and reads it.
pub async fn lock(tx: &mut PgConnection, keys: &Keys, id: PatientId) -> Result<Patient, Error> {
    sqlx::query!("select id from patients.patient where id = $1 for update", id.uuid())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| KitError::not_found(id))?;
    get(tx, keys, id).await
}

/// Reads one patient.
pub async fn get(conn: &mut PgConnection, keys: &Keys, id: PatientId) -> Result<Patient, Error> {
    load(conn, keys, &[id.uuid()]).await?.pop().ok_or_else(|| KitError::not_found(id).into())
}

/// Reads those of the patients that exist, in no order.
pub async fn load(conn: &mut PgConnection, keys: &Keys, ids: &[Uuid]) -> Result<Vec<Patient>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select p.id, p.mrn_sealed as "mrn!", p.given_name, p.family_name, p.birth_date, p.version, p.create_time, p.update_time,
                  p.merged_into,
                  c.sealed as "contact!",
                  s.state as "state?", s.source as "source?", s.wording as "wording?",
                  s.wording_language as "wording_language?", s.decide_time as "decide_time?",
                  s.record_time as "record_time?", s.recorded_by as "recorded_by?"
           from patients.patient p
           join patients.contact c on c.patient_id = p.id
           left join lateral (
               select * from patients.sms_consent
               where patient_id = p.id and effective order by position desc limit 1
           ) s on true
           where p.id = any($1)"#,
        ids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| row.patient(keys)).collect()
}

/// Ids of patients who were not merged into others, in order, from the one after `after`; nil = from the first.
pub async fn registered(conn: &mut PgConnection, after: Uuid, limit: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select id from patients.patient where merged_into is null and id > $1 order by id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// A patient with contact and the decision in force, if there is one.
struct Row {
    id: Uuid,
    mrn: Vec<u8>,
    given_name: String,
    family_name: String,
    birth_date: NaiveDate,
    version: i64,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
    merged_into: Option<Uuid>,
    contact: Vec<u8>,
    state: Option<String>,
    source: Option<String>,
    wording: Option<String>,
    wording_language: Option<String>,
    decide_time: Option<DateTime<Utc>>,
    record_time: Option<DateTime<Utc>>,
    recorded_by: Option<String>,
}

impl Row {
    fn patient(self, keys: &Keys) -> Result<Patient, Error> {
        let id = self.id.into();
        Ok(Patient {
            id,
            consent: self.consent(),
            contact: sealed::open_contact(keys, id, &self.contact)?,
            identity: Identity {
                mrn: sealed::open_mrn(keys, id, &self.mrn)?,
                given_name: self.given_name,
                family_name: self.family_name,
                birth_date: self.birth_date,
            },
            version: self.version,
            create_time: self.create_time,
            update_time: self.update_time,
            merged_into: self.merged_into.map(PatientId::from),
        })
    }

    fn consent(&self) -> Option<Consent> {
        Some(Consent {
            state: SmsConsentState::from_str_name(self.state.as_deref()?)?,
            source: SmsConsentSource::from_str_name(self.source.as_deref()?)?,
            wording: self.wording.clone()?,
            wording_language: self.wording_language.clone()?,
            decide_time: self.decide_time?,
            record_time: self.record_time?,
            recorded_by: self.recorded_by.clone()?,
            effective: true,
        })
    }
}

/// Records a decision about texts.
pub async fn insert_consent(
    tx: &mut PgConnection,
    patient: PatientId,
    consent: &Consent,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into patients.sms_consent
            (patient_id, state, source, wording, wording_language, decide_time, record_time, recorded_by, effective)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        patient.uuid(),
        consent.state.as_str_name(),
        consent.source.as_str_name(),
        consent.wording,
        consent.wording_language,
        consent.decide_time,
        consent.record_time,
        consent.recorded_by,
        consent.effective,
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Every decision about texts, newest first.
pub async fn consent_history(conn: &mut PgConnection, patient: PatientId) -> sqlx::Result<Vec<Consent>> {
    let rows = sqlx::query!(
        "select state, source, wording, wording_language, decide_time, record_time, recorded_by, effective
         from patients.sms_consent where patient_id = $1 order by position desc",
        patient.uuid()
    )
    .fetch_all(conn)
    .await?;
    let history = rows.into_iter().map(|row| Consent {
        state: SmsConsentState::from_str_name(&row.state).unwrap_or_default(),
        source: SmsConsentSource::from_str_name(&row.source).unwrap_or_default(),
        wording: row.wording,
        wording_language: row.wording_language,
        decide_time: row.decide_time,
        record_time: row.record_time,
        recorded_by: row.recorded_by,
        effective: row.effective,
    });
    Ok(history.collect())
}

/// Raises a patient's version without touching identity or contact.
pub async fn raise_version(
    tx: &mut PgConnection,
    patient: PatientId,
    now: DateTime<Utc>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        "update patients.patient set version = version + 1, update_time = $2 where id = $1 returning version",
        patient.uuid(),
        now
    )
    .fetch_one(tx)
    .await
}
