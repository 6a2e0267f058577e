//! What stands sealed in the tables: MRN and contact of a patient; how they get there, and how they move to another key.

use std::path::Path;

use anyhow::Context as _;
use kit::db::Db;
use kit::ids::PatientId;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Contact, E164};
use crate::error::Error;
use crate::seal::{Keys, Place};

/// What the sealed checks of keys say.
const CHECK: &[u8] = b"patients";
/// The number under which the check of the hashing key stands.
const HASH_CHECK: i64 = 0;
/// Every sealed value begins with more than this: rows that sort before it are not sealed yet.
const FIRST_PREFIX: [u8; 4] = [0, 0, 0, 0];

/// A patient's values as they stand in the tables.
pub(super) struct Sealed {
    pub(super) mrn: Vec<u8>,
    pub(super) mrn_hash: Vec<u8>,
    pub(super) contact: Vec<u8>,
    pub(super) phone_hash: Option<Vec<u8>>,
    pub(super) email_hash: Option<Vec<u8>>,
}

/// What is inside a sealed contact, as JSON.
#[derive(Serialize, Deserialize)]
struct Inside {
    phone: String,
    email: String,
    language: String,
    time_zone: String,
}

impl Sealed {
    /// Seals `mrn` and `contact` of one patient with the newest key.
    pub(super) fn new(keys: &Keys, id: PatientId, mrn: &str, contact: &Contact) -> Result<Self, Error> {
        let inside = Inside {
            phone: contact.phone.as_ref().map(|phone| phone.as_str().to_owned()).unwrap_or_default(),
            email: contact.email.clone(),
            language: contact.language.clone(),
            time_zone: contact.time_zone.clone(),
        };
        let json = serde_json::to_vec(&inside).map_err(kit::status::Error::internal)?;
        let (id, email) = (id.uuid(), contact.email.to_lowercase());
        // In this order: a key that comes in between leaves the older one on the contact, by which rows to seal anew are found.
        Ok(Self {
            contact: keys.seal(contact_of(&id), &json).map_err(kit::status::Error::from)?,
            mrn: keys.seal(mrn_of(&id), mrn.as_bytes()).map_err(kit::status::Error::from)?,
            mrn_hash: mrn_hash(keys, mrn),
            phone_hash: contact.phone.as_ref().map(|phone| phone_hash(keys, phone)),
            email_hash: (!email.is_empty()).then(|| keys.hash("email", email.as_bytes())),
        })
    }
}

fn contact_of(id: &Uuid) -> Place<'_> {
    Place { table: "contact", column: "sealed", row: id.as_bytes() }
}

fn mrn_of(id: &Uuid) -> Place<'_> {
    Place { table: "patient", column: "mrn_sealed", row: id.as_bytes() }
}

/// By which a number is found.
pub(super) fn phone_hash(keys: &Keys, phone: &E164) -> Vec<u8> {
    keys.hash("phone", phone.as_str().as_bytes())
}

/// By which an MRN is found.
pub(super) fn mrn_hash(keys: &Keys, mrn: &str) -> Vec<u8> {
    keys.hash("mrn", mrn.as_bytes())
}

/// Opens a patient's contact.
pub(super) fn open_contact(keys: &Keys, id: PatientId, sealed: &[u8]) -> Result<Contact, Error> {
    let json = keys.open(contact_of(&id.uuid()), sealed).map_err(kit::status::Error::from)?;
    let Inside { phone, email, language, time_zone } =
        serde_json::from_slice(&json).map_err(kit::status::Error::internal)?;
    Ok(Contact { phone: E164::stored(phone), email, language, time_zone })
}

/// Opens a patient's MRN.
pub(super) fn open_mrn(keys: &Keys, id: PatientId, sealed: &[u8]) -> Result<String, Error> {
    let mrn = keys.open(mrn_of(&id.uuid()), sealed).map_err(kit::status::Error::from)?;
    String::from_utf8(mrn).map_err(|error| kit::status::Error::internal(error).into())
}

/// The keys in `file`, made on the first start of all; refused when they are not those that the data was sealed with.
pub async fn keys(db: &Db, file: &Path) -> anyhow::Result<Keys> {
    let mut tx = db.begin().await?;
    sqlx::query!("lock table patients.key_check in share row exclusive mode").execute(&mut *tx).await?;
    let sealed_before = sqlx::query_scalar!("select 1 from patients.key_check limit 1")
        .fetch_optional(&mut *tx)
        .await?
        .is_some();
    let keys = if sealed_before || file.exists() {
        Keys::read(file).context(
            "patient data was sealed with keys that are not there: put the file back; nothing was changed",
        )?
    } else {
        Keys::create(file)?
    };
    check(&mut tx, &keys).await?;
    tx.commit().await?;
    Ok(keys)
}

/// Fails unless `keys` has every key that is in use, each under its number; notes those that are new.
pub async fn check(tx: &mut PgConnection, keys: &Keys) -> anyhow::Result<()> {
    let (ids, file) = keys.ids();
    let noted = sqlx::query!("select key_id, value from patients.key_check").fetch_all(&mut *tx).await?;
    let hash = keys.hash("check", CHECK);
    for check in &noted {
        let good = if check.key_id == HASH_CHECK {
            check.value == hash
        } else {
            let id = check.key_id.to_be_bytes();
            keys.open(check_of(&id), &check.value)?;
            true
        };
        anyhow::ensure!(
            good,
            "the key `hash` in {} is another than the one patients were registered with: put the right file back; \
             nothing was changed",
            file.display()
        );
    }
    let known = |id: i64| noted.iter().any(|check| check.key_id == id);
    let mut new = vec![(HASH_CHECK, hash)];
    for id in ids {
        let (number, row) = (i64::from(id), i64::from(id).to_be_bytes());
        new.push((number, keys.seal_with(id, check_of(&row), CHECK)?));
    }
    for (id, value) in new.into_iter().filter(|(id, _)| !known(*id)) {
        sqlx::query!(
            "insert into patients.key_check (key_id, value) values ($1, $2) on conflict do nothing",
            id,
            value
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

fn check_of(id: &[u8]) -> Place<'_> {
    Place { table: "key_check", column: "value", row: id }
}

/// Which rows to seal anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are in plain text.
    Plain,
    /// Those, and all that an older key than the newest sealed.
    Older,
}

/// Seals at most `limit` rows with the newest key and answers how many; rows that others hold are left for later. A value that does
/// not open is logged and stays as it is.
pub async fn reseal(tx: &mut PgConnection, keys: &Keys, which: Which, limit: i64) -> Result<usize, Error> {
    let below = match which {
        Which::Plain => FIRST_PREFIX.to_vec(),
        Which::Older => keys.newest_prefix(),
    };
    let rows = sqlx::query!(
        r#"select p.id, p.mrn as plain_mrn, p.mrn_sealed, c.sealed, c.phone, c.email, c.language, c.time_zone
           from patients.contact c
           join patients.patient p on p.id = c.patient_id
           where coalesce(substring(c.sealed from 1 for 4), ''::bytea) < $1
           order by coalesce(substring(c.sealed from 1 for 4), ''::bytea)
           limit $2
           for update skip locked"#,
        below,
        limit
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut ids = vec![];
    let (mut mrns, mut mrn_hashes, mut contacts) = (vec![], vec![], vec![]);
    let (mut phone_hashes, mut email_hashes) = (vec![], vec![]);
    for row in rows {
        let id: PatientId = row.id.into();
        let contact = match &row.sealed {
            Some(sealed) => open_contact(keys, id, sealed),
            None => Ok(Contact {
                phone: E164::stored(row.phone.unwrap_or_default()),
                email: row.email.unwrap_or_default(),
                language: row.language.unwrap_or_default(),
                time_zone: row.time_zone.unwrap_or_default(),
            }),
        };
        let mrn = match &row.mrn_sealed {
            Some(sealed) => open_mrn(keys, id, sealed),
            None => Ok(row.plain_mrn.unwrap_or_default()),
        };
        let sealed = contact.and_then(|contact| Sealed::new(keys, id, &mrn?, &contact));
        match sealed {
            Ok(sealed) => {
                ids.push(row.id);
                mrns.push(sealed.mrn);
                mrn_hashes.push(sealed.mrn_hash);
                contacts.push(sealed.contact);
                phone_hashes.push(sealed.phone_hash);
                email_hashes.push(sealed.email_hash);
            }
            Err(error) => {
                let cause = anyhow::Error::new(error);
                tracing::error!(patient = %id, cause = format!("{cause:#}"), "a patient's data cannot be sealed anew");
            }
        }
    }
    sqlx::query!(
        "update patients.patient p set mrn = null, mrn_sealed = new.mrn, mrn_hash = new.mrn_hash
         from unnest($1::uuid[], $2::bytea[], $3::bytea[]) as new (id, mrn, mrn_hash) where p.id = new.id",
        &ids,
        &mrns,
        &mrn_hashes
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update patients.contact c
         set sealed = new.sealed, phone_hash = new.phone_hash, email_hash = new.email_hash,
             phone = null, email = null, language = null, time_zone = null
         from unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[])
              as new (id, sealed, phone_hash, email_hash)
         where c.patient_id = new.id",
        &ids,
        &contacts,
        &phone_hashes as &[Option<Vec<u8>>],
        &email_hashes as &[Option<Vec<u8>>]
    )
    .execute(tx)
    .await?;
    Ok(ids.len())
}
