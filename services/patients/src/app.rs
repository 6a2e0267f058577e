//! The use cases. Those that change something work in the transaction of their request id; those that read open their own.

mod export;
pub mod intake;
mod keys;
mod merge;

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, SubsecRound as _, Utc};
use kit::clock::Clock;
use kit::db::{Db, Tx};
use kit::ids::PatientId;
use kit::page::Page;
use kit::status::Error as KitError;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    AccessAction, PatientChange, PatientView, SmsConsentSource, SmsConsentState,
};
use sqlx::Connection as _;
use uuid::Uuid;

pub use merge::Seen;

use crate::access::{Access, Entry, Look, fields_of};
use crate::domain::{Consent, Contact, E164, Identity, Match, Merge, Patient};
use crate::error::Error;
use crate::events;
use crate::seal::Keys;
use crate::store::access_log::{Filter, Key};
use crate::store::search::{self, Criteria, SamePerson};
use crate::store::{self, access_log};

/// Likely duplicates named at most.
const MAX_DUPLICATES: usize = 10;
/// Scores of a likely duplicate, in thousandths: for name and birth date, as far as the names are alike; for a shared phone or e-mail
/// address; and what each further agreement adds.
const SAME_NAME: f32 = 900.0;
const SAME_CONTACT: i32 = 500;
const ALSO_SAME: i32 = 100;

/// The service's state: its schema and the time.
#[derive(Clone, Debug)]
pub struct App {
    /// Its schema.
    pub db: Db,
    /// What its values are sealed with.
    pub keys: Keys,
    clock: Clock,
}

/// What a registration led to.
pub struct Registered {
    /// The patient.
    pub patient: Patient,
    /// Patients who are probably the same person, best match first.
    pub duplicates: Vec<Match>,
    /// How much of them the caller may see.
    pub duplicates_view: PatientView,
}

/// Fields to set; `None` = leave as it is.
#[derive(Clone, Default)]
pub struct Correction {
    /// MRN.
    pub mrn: Option<String>,
    /// Given names.
    pub given_name: Option<String>,
    /// Family names.
    pub family_name: Option<String>,
    /// Birth date.
    pub birth_date: Option<NaiveDate>,
    /// Phone; `Some(None)` clears it.
    pub phone: Option<Option<E164>>,
    /// E-mail address.
    pub email: Option<String>,
    /// Language.
    pub language: Option<String>,
    /// Time zone.
    pub time_zone: Option<String>,
}

impl Correction {
    /// Whether it touches what only staff may change.
    fn touches_identity(&self) -> bool {
        self.mrn.is_some()
            || self.given_name.is_some()
            || self.family_name.is_some()
            || self.birth_date.is_some()
    }

    /// Sets the fields in `patient` and names those whose value became another.
    fn apply(self, patient: &mut Patient) -> Vec<&'static str> {
        fn set<T: PartialEq>(name: &'static str, place: &mut T, value: Option<T>) -> Option<&'static str> {
            let value = value.filter(|v| v != place)?;
            *place = value;
            Some(name)
        }
        let Patient { identity: Identity { mrn, given_name, family_name, birth_date }, contact, .. } =
            patient;
        let Contact { phone, email, language, time_zone } = contact;
        [
            set("mrn", mrn, self.mrn),
            set("given_name", given_name, self.given_name),
            set("family_name", family_name, self.family_name),
            set("birth_date", birth_date, self.birth_date),
            set("phone", phone, self.phone),
            set("email", email, self.email),
            set("language", language, self.language),
            set("time_zone", time_zone, self.time_zone),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A decision about texts, as it was told.
pub struct Decision {
    /// What.
    pub state: SmsConsentState,
    /// How it reached us.
    pub source: SmsConsentSource,
    /// Words shown, told or sent.
    pub wording: String,
    /// Their language.
    pub wording_language: String,
    /// When; `None` = now.
    pub decide_time: Option<DateTime<Utc>>,
}

/// A patient and, when asked for, its history.
pub struct Shown {
    /// The patient.
    pub patient: Patient,
    /// Empty unless the view has it.
    pub history: History,
}

/// What a patient's record went through.
#[derive(Default)]
pub struct History {
    /// Every decision about texts, newest first.
    pub consents: Vec<Consent>,
    /// Everyone merged into the patient, oldest first.
    pub merges: Vec<Merge>,
}

impl App {
    /// The service on `db`.
    pub fn new(db: Db, keys: Keys, clock: Clock) -> Self {
        Self { db, keys, clock }
    }

    /// The present, as precise as it is stored.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }

    /// Registers a patient, or with `validate_only` does all but keep it. An empty MRN is assigned.
    pub async fn register(
        &self,
        tx: &mut Tx,
        access: &Access,
        (id, mut identity, contact): (PatientId, Identity, Contact),
        validate_only: bool,
    ) -> Result<Registered, Error> {
        let now = self.now();
        let mut trial = tx.begin().await?;
        if identity.mrn.is_empty() {
            identity.mrn = store::assign_mrn(&mut trial, &self.keys).await?;
        }
        let patient = Patient {
            id,
            identity,
            contact,
            consent: None,
            version: 1,
            create_time: now,
            update_time: now,
            merged_into: None,
        };
        store::insert(&mut trial, &self.keys, &patient).await?;
        events::patient_changed(&mut trial, &patient, PatientChange::Registered, &[]).await?;
        if validate_only {
            trial.rollback().await?
        } else {
            trial.commit().await?
        }
        let duplicates = self.duplicates(tx, &patient).await?;
        let duplicates_view = match access.role {
            Role::Manager | Role::Admin => PatientView::Reference,
            _ => PatientView::Full,
        };
        let created = Look {
            action: AccessAction::Create,
            fields: fields_of(PatientView::Full),
            patients: if validate_only { vec![] } else { vec![id] },
        };
        let compared = Look {
            action: AccessAction::Read,
            fields: fields_of(duplicates_view),
            patients: duplicates.iter().map(|m| m.patient.id).collect(),
        };
        access_log::append(tx, access, &[created, compared], now).await?;
        Ok(Registered { patient, duplicates, duplicates_view })
    }

    async fn duplicates(&self, tx: &mut Tx, patient: &Patient) -> Result<Vec<Match>, Error> {
        let found = search::duplicates(tx, &self.keys, patient).await?;
        let mut scored: Vec<_> =
            found.into_iter().map(|(id, same)| (duplicate_score(same), id, same)).collect();
        scored.sort_unstable_by_key(|(score, id, _)| (-score, *id));
        scored.truncate(MAX_DUPLICATES);
        let ids: Vec<_> = scored.iter().map(|(_, id, _)| *id).collect();
        let mut patients = by_id(store::load(tx, &self.keys, &ids).await?);
        let duplicate = |(score, id, same): (i32, Uuid, SamePerson)| {
            let fitting = [
                ("name", same.name),
                ("birth_date", same.birth_date),
                ("phone", same.phone),
                ("email", same.email),
            ];
            let matched_fields =
                fitting.into_iter().filter_map(|(name, fits)| fits.then_some(name)).collect();
            Some(Match { patient: patients.remove(&id)?, score, matched_fields })
        };
        Ok(scored.into_iter().filter_map(duplicate).collect())
    }

    /// Reads one patient, as much of it as `view` shows. A merged one is answered by its survivor, unless `as_merged`.
    pub async fn get(
        &self,
        access: &Access,
        id: PatientId,
        view: PatientView,
        as_merged: bool,
    ) -> Result<Shown, Error> {
        let mut tx = self.db.begin().await?;
        self.reach(&mut tx, access, id).await?;
        if view != PatientView::Reference {
            access.look()?;
        }
        let mut patient = store::get(&mut tx, &self.keys, id).await?;
        if let Some(survivor) = patient.merged_into.filter(|_| !as_merged) {
            patient = store::get(&mut tx, &self.keys, survivor).await?;
        }
        if view == PatientView::Reference {
            return Ok(Shown { patient, history: History::default() });
        }
        let history = match view {
            PatientView::History => History {
                consents: store::consent_history(&mut tx, patient.id).await?,
                merges: store::merge::history(&mut tx, &self.keys, patient.id).await?,
            },
            _ => History::default(),
        };
        access_log::append(&mut tx, access, &[Look::read(id, fields_of(view))], self.now()).await?;
        tx.commit().await?;
        Ok(Shown { patient, history })
    }

    /// Refuses a patient who reaches for another's record. Merged records of one person are one's own.
    async fn reach(&self, tx: &mut Tx, access: &Access, id: PatientId) -> Result<(), Error> {
        let Err(refused) = access.reach(id) else { return Ok(()) };
        match access.actor.parse() {
            Ok(own) if store::merge::is_same_person(tx, own, id).await? => Ok(()),
            _ => Err(refused),
        }
    }

    /// Corrects identity or contact. A new phone number ends the consent given for the old one.
    pub async fn update(
        &self,
        tx: &mut Tx,
        access: &Access,
        (id, etag): (PatientId, &str),
        correction: Correction,
    ) -> Result<Patient, Error> {
        self.reach(tx, access, id).await?;
        access.look()?;
        if access.is_patient() && correction.touches_identity() {
            return Err(KitError::RoleRequired.into());
        }
        let now = self.now();
        let mut patient = self.lock(tx, id).await?;
        if patient.version.to_string() != etag {
            return Err(KitError::EtagMismatch { kind: "Patient" }.into());
        }
        let changed = correction.apply(&mut patient);
        if changed.is_empty() {
            access_log::append(tx, access, &[Look::read(id, fields_of(PatientView::Full))], now).await?;
            return Ok(patient);
        }
        patient.version += 1;
        patient.update_time = now;
        events::patient_changed(tx, &patient, PatientChange::Updated, &changed).await?;
        let decided = patient.consent.as_ref().is_some_and(|c| c.state != SmsConsentState::NotAsked);
        if changed.contains(&"phone") && decided {
            let consent = Consent::not_asked(now, &access.actor);
            store::insert_consent(tx, id, &consent).await?;
            patient.version += 1;
            events::consent_changed(tx, id, patient.version, &consent).await?;
            patient.consent = Some(consent);
        }
        store::update(tx, &self.keys, &patient).await?;
        let look = Look { action: AccessAction::Update, fields: changed, patients: vec![id] };
        access_log::append(tx, access, &[look], now).await?;
        Ok(patient)
    }

    /// Locks a patient that can still change.
    async fn lock(&self, tx: &mut Tx, id: PatientId) -> Result<Patient, Error> {
        let patient = store::lock(tx, &self.keys, id).await?;
        if patient.merged_into.is_some() { Err(Error::Merged(id)) } else { Ok(patient) }
    }

    /// Finds patients, best match first.
    pub async fn search(
        &self,
        access: &Access,
        criteria: &Criteria,
        page: &Page<(i32, Uuid)>,
    ) -> Result<(Vec<Match>, String), Error> {
        access.look()?;
        let by_phone_alone =
            criteria.name.is_empty() && criteria.birth_date.is_none() && criteria.mrn.is_empty();
        if access.role == Role::Service && !by_phone_alone {
            return Err(Error::ViewNotAllowed);
        }
        let mut tx = self.db.begin().await?;
        let found = search::search(&mut tx, &self.keys, criteria, page.after, page.limit()).await?;
        let (found, next) = page.cut(found, |(id, score)| (*score, *id));
        let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        let mut patients = by_id(store::load(&mut tx, &self.keys, &ids).await?);
        let matched_fields = [
            ("name", !criteria.name.is_empty()),
            ("phone", criteria.phone.is_some()),
            ("birth_date", criteria.birth_date.is_some()),
            ("mrn", !criteria.mrn.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect::<Vec<_>>();
        let matches: Vec<_> = found
            .into_iter()
            .filter_map(|(id, score)| {
                Some(Match { patient: patients.remove(&id)?, score, matched_fields: matched_fields.clone() })
            })
            .collect();
        let look = Look {
            action: AccessAction::Read,
            fields: fields_of(access.view(PatientView::Unspecified)?),
            patients: matches.iter().map(|m| m.patient.id).collect(),
        };
        access_log::append(&mut tx, access, &[look], self.now()).await?;
        tx.commit().await?;
        Ok((matches, next))
    }

    /// Records a decision about texts and answers the one now in force.
    pub async fn set_consent(
        &self,
        tx: &mut Tx,
        access: &Access,
        id: PatientId,
        decision: Decision,
    ) -> Result<Consent, Error> {
        self.reach(tx, access, id).await?;
        let now = self.now();
        let patient = self.lock(tx, id).await?;
        if decision.state == SmsConsentState::Granted && patient.contact.phone.is_none() {
            return Err(Error::NoPhone(id));
        }
        let decide_time = decision.decide_time.unwrap_or(now);
        let consent = Consent {
            state: decision.state,
            source: decision.source,
            wording: decision.wording,
            wording_language: decision.wording_language,
            decide_time,
            record_time: now,
            recorded_by: access.actor.clone(),
            effective: patient.consent.as_ref().is_none_or(|current| current.yields_to(decide_time)),
        };
        store::insert_consent(tx, id, &consent).await?;
        if consent.effective {
            let version = store::raise_version(tx, id, now).await?;
            events::consent_changed(tx, id, version, &consent).await?;
        }
        let look = Look { action: AccessAction::Update, fields: vec!["sms_consent"], patients: vec![id] };
        access_log::append(tx, access, &[look], now).await?;
        Ok(if consent.effective { consent } else { patient.consent.unwrap_or(consent) })
    }

    /// Lists who looked at or changed patient data.
    pub async fn access_log(
        &self,
        access: &Access,
        filter: &Filter,
        page: &Page<Key>,
    ) -> Result<(Vec<Entry>, String), Error> {
        let mut tx = self.db.begin().await?;
        if let Some(patient) = filter.patient {
            self.reach(&mut tx, access, patient).await?;
            store::get(&mut tx, &self.keys, patient).await?;
        }
        let rows = access_log::list(&mut tx, filter, page.after, page.limit()).await?;
        let (entries, next) = page.cut(rows, |e| (e.access_time, e.chain, e.sequence));
        let mut patients: Vec<_> = entries.iter().map(|e| e.patient).chain(filter.patient).collect();
        patients.sort_unstable();
        patients.dedup();
        let look = Look { action: AccessAction::Read, fields: vec!["access_log"], patients };
        access_log::append(&mut tx, access, &[look], self.now()).await?;
        tx.commit().await?;
        Ok((entries, next))
    }

    /// An answer given before, with these fields of these patients, is shown again: that is a look, too.
    pub async fn shown_again(
        &self,
        access: &Access,
        patients: Vec<PatientId>,
        fields: Vec<&'static str>,
    ) -> Result<(), Error> {
        let look = Look { action: AccessAction::Read, fields, patients };
        let mut tx = self.db.begin().await?;
        access_log::append(&mut tx, access, &[look], self.now()).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn by_id(patients: Vec<Patient>) -> HashMap<Uuid, Patient> {
    patients.into_iter().map(|p| (p.id.uuid(), p)).collect()
}

/// How probably two patients who agree in this are one, in thousandths.
fn duplicate_score(same: SamePerson) -> i32 {
    let agreements = i32::from(same.phone) + i32::from(same.email);
    let score = if same.name && same.birth_date {
        (SAME_NAME * same.likeness) as i32 + ALSO_SAME * agreements
    } else {
        let more = agreements - 1 + i32::from(same.name) + i32::from(same.birth_date);
        SAME_CONTACT + ALSO_SAME * more
    };
    score.min(1000)
}
