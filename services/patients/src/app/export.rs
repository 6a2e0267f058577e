//! Copying patients out of the system, a page at a time.

use kit::page::Page;
use proto::clinic::patients::v1::{AccessAction, PatientView};
use uuid::Uuid;

use super::App;
use crate::access::{Access, Look, fields_of};
use crate::domain::Patient;
use crate::error::Error;
use crate::store::{self, access_log};

impl App {
    /// The patients after the page before, in order of their ids, without those who were merged into others.
    pub async fn export(&self, access: &Access, page: &Page<Uuid>) -> Result<(Vec<Patient>, String), Error> {
        access.look()?;
        let mut tx = self.db.begin().await?;
        let ids = store::registered(&mut tx, page.after.unwrap_or_default(), page.limit()).await?;
        let (ids, next) = page.cut(ids, |id| *id);
        let mut patients = store::load(&mut tx, &self.keys, &ids).await?;
        patients.sort_unstable_by_key(|patient| patient.id.uuid());
        let look = Look {
            action: AccessAction::Export,
            fields: fields_of(PatientView::Full),
            patients: patients.iter().map(|patient| patient.id).collect(),
        };
        access_log::append(&mut tx, access, &[look], self.now()).await?;
        tx.commit().await?;
        Ok((patients, next))
    }
}
