//! Joining two records of one person.

use kit::db::Tx;
use kit::ids::PatientId;
use kit::status::Error as KitError;
use proto::clinic::patients::v1::{AccessAction, PatientChange, PatientView};

use super::App;
use crate::access::{Access, Look, fields_of};
use crate::domain::{Merge, Patient};
use crate::error::Error;
use crate::events;
use crate::store::{self, access_log};

/// A patient as the caller saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub id: PatientId,
    /// Its etag.
    pub etag: String,
}

impl App {
    /// Joins `duplicate` into `survivor`, who is answered. The access's break-glass reason says why they are one.
    pub async fn merge(
        &self,
        tx: &mut Tx,
        access: &Access,
        survivor: Seen,
        duplicate: Seen,
    ) -> Result<Patient, Error> {
        let now = self.now();
        let (mut patient, mut merged) =
            store::merge::lock_both(tx, &self.keys, survivor.id, duplicate.id).await?;
        for (found, seen) in [(&patient, &survivor), (&merged, &duplicate)] {
            if found.merged_into.is_some() {
                return Err(Error::Merged(found.id));
            }
            if found.version.to_string() != seen.etag {
                return Err(KitError::EtagMismatch { kind: "Patient" }.into());
            }
        }
        let changed = patient.take_over(&merged);
        patient.version += 1;
        patient.update_time = now;
        events::patient_changed(tx, &patient, PatientChange::Updated, &changed).await?;
        if let Some(mut consent) = patient.consent_of(&merged) {
            consent.record_time = now;
            store::insert_consent(tx, patient.id, &consent).await?;
            patient.version += 1;
            events::consent_changed(tx, patient.id, patient.version, &consent).await?;
            patient.consent = Some(consent);
        }
        store::update(tx, &self.keys, &patient).await?;
        merged.version += 1;
        merged.update_time = now;
        merged.merged_into = Some(patient.id);
        let merge = Merge {
            merged: merged.id,
            mrn: merged.identity.mrn.clone(),
            reason: access.break_glass_reason.clone(),
            merged_by: access.actor.clone(),
            merge_time: now,
        };
        store::merge::record(tx, patient.id, &merged, &merge).await?;
        events::patient_changed(tx, &merged, PatientChange::Merged, &[]).await?;
        let look = Look {
            action: AccessAction::Merge,
            fields: fields_of(PatientView::Full),
            patients: vec![patient.id, merged.id],
        };
        access_log::append(tx, access, &[look], now).await?;
        Ok(patient)
    }
}
