//! Between messages of the contract and domain values.

use chrono::{DateTime, NaiveDate, Utc};
use kit::fields::{Fields, date, timestamp};
use kit::ids::PatientId;
use kit::page::Page;
use phonenumber::country;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1 as pb;
use proto::clinic::patients::v1::{PatientView, SmsConsentSource};
use proto::google::r#type::Date;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::Entry;
use crate::app::{Correction, History};
use crate::domain::{
    Consent, Contact, E164, Identity, MAX_NAME, Match, Merge, Patient, is_born, is_email, is_language, is_mrn,
};

/// Characters of an etag: it is a version.
pub(super) const MAX_ETAG: usize = 20;

/// Fields that an update may name.
const PATHS: [&str; 8] =
    ["mrn", "given_name", "family_name", "birth_date", "phone", "email", "language", "time_zone"];

/// A value of an enum that this build knows.
pub(super) fn known<E: TryFrom<i32> + Default>(fields: &mut Fields, field: &str, value: i32) -> E {
    E::try_from(value).unwrap_or_else(|_| {
        fields.refuse(field, "must be a value of the contract");
        E::default()
    })
}

/// The page asked for; its bad fields are reported with the others.
pub(super) fn page<K: Serialize + DeserializeOwned>(fields: &mut Fields, size: i32, token: &str) -> Page<K> {
    Page::parse(size, token).unwrap_or_else(|error| {
        if let kit::status::Error::Invalid(bad) = error {
            bad.into_iter().for_each(|v| fields.refuse(v.field, v.description));
        }
        Page { size: 1, after: None }
    })
}

/// Why the role may not tell of a decision from this source; `None` = it may.
pub(super) fn source_refused(source: SmsConsentSource, role: Role) -> Option<&'static str> {
    match (source, role) {
        (SmsConsentSource::Unspecified, _) => Some("is required"),
        (SmsConsentSource::Portal, _) => None,
        (_, Role::Patient) => Some("must be PORTAL for a patient"),
        (SmsConsentSource::InboundSms | SmsConsentSource::Carrier, role) if role != Role::Service => {
            Some("only services tell of carrier words and refusals")
        }
        _ => None,
    }
}

/// Parses patient fields, collecting what is bad.
pub(super) struct Form<'a> {
    fields: &'a mut Fields,
    region: country::Id,
    now: DateTime<Utc>,
}

impl<'a> Form<'a> {
    pub(super) fn new(fields: &'a mut Fields, region: country::Id, now: DateTime<Utc>) -> Self {
        Self { fields, region, now }
    }

    /// Who, of a registration; the MRN may be left empty.
    pub(super) fn identity(&mut self, patient: &pb::Patient) -> Identity {
        Identity {
            mrn: self.optional_mrn("patient.mrn", &patient.mrn),
            given_name: self.fields.text("patient.given_name", &patient.given_name, 1..=MAX_NAME),
            family_name: self.fields.text("patient.family_name", &patient.family_name, 0..=MAX_NAME),
            birth_date: self.birth_date("patient.birth_date", patient.birth_date.as_ref()),
        }
    }

    pub(super) fn contact(&mut self, patient: &pb::Patient) -> Contact {
        Contact {
            phone: self.phone("patient.phone", &patient.phone),
            email: self.email("patient.email", &patient.email),
            language: self.language("patient.language", &patient.language),
            time_zone: self.time_zone("patient.time_zone", &patient.time_zone),
        }
    }

    /// What an update sets: the fields that `paths` name, or those that are not empty when it names none.
    pub(super) fn correction(&mut self, patient: &pb::Patient, paths: &[String]) -> Correction {
        for (i, path) in paths.iter().enumerate() {
            let problem = format!("must be one of {}", PATHS.join(", "));
            self.fields.ensure(PATHS.contains(&path.as_str()), &format!("update_mask.paths[{i}]"), &problem);
        }
        let p = patient;
        let filled = [
            !p.mrn.is_empty(),
            !p.given_name.is_empty(),
            !p.family_name.is_empty(),
            p.birth_date.is_some(),
            !p.phone.is_empty(),
            !p.email.is_empty(),
            !p.language.is_empty(),
            !p.time_zone.is_empty(),
        ];
        let named = PATHS.map(|path| paths.iter().any(|named| named == path));
        let [mrn, given_name, family_name, birth_date, phone, email, language, time_zone] =
            if paths.is_empty() { filled } else { named };
        Correction {
            mrn: mrn.then(|| self.mrn("patient.mrn", &p.mrn)),
            given_name: given_name
                .then(|| self.fields.text("patient.given_name", &p.given_name, 1..=MAX_NAME)),
            family_name: family_name
                .then(|| self.fields.text("patient.family_name", &p.family_name, 0..=MAX_NAME)),
            birth_date: birth_date.then(|| self.birth_date("patient.birth_date", p.birth_date.as_ref())),
            phone: phone.then(|| self.phone("patient.phone", &p.phone)),
            email: email.then(|| self.email("patient.email", &p.email)),
            language: language.then(|| self.language("patient.language", &p.language)),
            time_zone: time_zone.then(|| self.time_zone("patient.time_zone", &p.time_zone)),
        }
    }

    fn mrn(&mut self, field: &str, text: &str) -> String {
        self.fields.ensure(is_mrn(text), field, "must be 1 to 32 upper-case letters, digits or hyphens");
        text.to_owned()
    }

    pub(super) fn optional_mrn(&mut self, field: &str, text: &str) -> String {
        if text.is_empty() { String::new() } else { self.mrn(field, text) }
    }

    pub(super) fn birth_date(&mut self, field: &str, value: Option<&Date>) -> NaiveDate {
        let day = self.fields.date(field, value);
        self.fields.ensure(is_born(day, self.now), field, "must not be in the future");
        day
    }

    pub(super) fn phone(&mut self, field: &str, text: &str) -> Option<E164> {
        if text.is_empty() {
            return None;
        }
        let phone = E164::parse(text, self.region);
        self.fields.ensure(phone.is_some(), field, "must be a phone number, such as +1 202 555 0123");
        phone
    }

    fn email(&mut self, field: &str, text: &str) -> String {
        let text = text.trim();
        let good = text.is_empty() || is_email(text);
        self.fields.ensure(good, field, "must be an e-mail address of at most 254 characters");
        text.to_owned()
    }

    pub(super) fn language(&mut self, field: &str, text: &str) -> String {
        let good = text.is_empty() || is_language(text);
        self.fields.ensure(good, field, "must be a BCP 47 language tag, such as es or en-US");
        text.to_owned()
    }

    fn time_zone(&mut self, field: &str, text: &str) -> String {
        if text.is_empty() { String::new() } else { self.fields.time_zone(field, text).name().to_owned() }
    }

    /// An instant that has come.
    pub(super) fn past(&mut self, field: &str, value: prost_types::Timestamp) -> DateTime<Utc> {
        let instant = self.fields.instant(field, Some(value));
        self.fields.ensure(instant <= self.now, field, "must not be in the future");
        instant
    }
}

/// A patient as `view` shows it. `history` is shown in the history's view only.
pub(super) fn patient(patient: &Patient, view: PatientView, history: &History) -> pb::Patient {
    let reference = pb::Patient {
        id: patient.id.to_string(),
        etag: patient.version.to_string(),
        merged_into_id: patient.merged_into.map(|id| id.to_string()).unwrap_or_default(),
        ..pb::Patient::default()
    };
    if view == PatientView::Reference {
        return reference;
    }
    let Contact { phone, email, language, time_zone } = &patient.contact;
    let not_asked = || pb::SmsConsent {
        state: pb::SmsConsentState::NotAsked.into(),
        effective: true,
        decide_time: Some(timestamp(patient.create_time)),
        record_time: Some(timestamp(patient.create_time)),
        ..pb::SmsConsent::default()
    };
    let contact = pb::Patient {
        phone: phone.as_ref().map(|p| p.as_str().to_owned()).unwrap_or_default(),
        email: email.clone(),
        language: language.clone(),
        time_zone: time_zone.clone(),
        sms_consent: Some(patient.consent.as_ref().map_or_else(not_asked, consent)),
        ..reference
    };
    if view == PatientView::Contact {
        return contact;
    }
    let Identity { mrn, given_name, family_name, birth_date } = &patient.identity;
    pb::Patient {
        mrn: mrn.clone(),
        given_name: given_name.clone(),
        family_name: family_name.clone(),
        birth_date: Some(date(*birth_date)),
        merges: history.merges.iter().map(merge).collect(),
        sms_consent_history: history.consents.iter().map(consent).collect(),
        create_time: Some(timestamp(patient.create_time)),
        update_time: Some(timestamp(patient.update_time)),
        ..contact
    }
}

pub(super) fn patient_match(found: &Match, view: PatientView) -> pb::PatientMatch {
    pb::PatientMatch {
        patient: Some(patient(&found.patient, view, &History::default())),
        score: f64::from(found.score) / 1000.0,
        matched_fields: found.matched_fields.iter().map(|f| (*f).to_owned()).collect(),
    }
}

/// Every patient that an answer shows.
pub(super) fn shown_in(response: &pb::RegisterPatientResponse) -> Vec<PatientId> {
    let duplicates = response.likely_duplicates.iter().filter_map(|m| m.patient.as_ref());
    response.patient.iter().chain(duplicates).filter_map(|p| p.id.parse().ok()).collect()
}

fn merge(merge: &Merge) -> pb::PatientMerge {
    pb::PatientMerge {
        merged_patient_id: merge.merged.to_string(),
        merged_mrn: merge.mrn.clone(),
        reason: merge.reason.clone(),
        merged_by: merge.merged_by.clone(),
        merge_time: Some(timestamp(merge.merge_time)),
    }
}

pub(super) fn consent(consent: &Consent) -> pb::SmsConsent {
    pb::SmsConsent {
        state: consent.state.into(),
        source: consent.source.into(),
        wording: consent.wording.clone(),
        wording_language: consent.wording_language.clone(),
        decide_time: Some(timestamp(consent.decide_time)),
        record_time: Some(timestamp(consent.record_time)),
        recorded_by: consent.recorded_by.clone(),
        effective: consent.effective,
    }
}

pub(super) fn entry(entry: &Entry) -> pb::AccessLogEntry {
    pb::AccessLogEntry {
        chain: entry.chain.into(),
        sequence: entry.sequence,
        patient_id: entry.patient.to_string(),
        access_time: Some(timestamp(entry.access_time)),
        actor: entry.actor.clone(),
        actor_role: entry.actor_role.into(),
        action: entry.action.into(),
        method: entry.method.clone(),
        fields: entry.fields.clone(),
        purpose: entry.purpose.into(),
        break_glass_reason: entry.break_glass_reason.clone(),
        trace_id: entry.trace_id.clone(),
        previous_hash: entry.previous_hash.clone(),
        hash: entry.hash.clone(),
    }
}
