//! Reading appointments.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::ids::AppointmentId;
use kit::merges;
use kit::page::Page;
use kit::status::Error as KitError;
use uuid::Uuid;

use super::App;
use crate::domain::Reservation;
use crate::error::Error;
use crate::store::{self, Change, Filter};

/// Sort key of a list: start, then id.
pub type SortKey = (DateTime<Utc>, Uuid);

/// What a list asks for.
#[derive(Debug)]
pub struct List {
    /// Which appointments.
    pub filter: Filter,
    /// Latest start first.
    pub latest_first: bool,
    /// Which page.
    pub page: Page<SortKey>,
}

impl App {
    /// The row, whoever asks.
    pub(super) async fn load(&self, id: AppointmentId) -> Result<Reservation, Error> {
        let mut conn = self.db.pool().acquire().await?;
        store::get(&mut conn, id).await?.ok_or_else(|| KitError::not_found(id).into())
    }

    /// One appointment, if it is the caller's to see; with its history when asked for.
    pub async fn get(
        &self,
        caller: &Caller,
        id: AppointmentId,
        with_history: bool,
    ) -> Result<(Reservation, Vec<Change>), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let row = store::get(&mut conn, id).await?.ok_or_else(|| KitError::not_found(id))?;
        merges::see(&mut conn, caller, row.patient_id, id).await?;
        let history = if with_history { store::history(&mut conn, id).await? } else { vec![] };
        Ok((row, history))
    }

    /// Appointments by (start, id), and the token of the next page.
    pub async fn list(&self, list: &List) -> Result<(Vec<Reservation>, String), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let rows =
            store::list(&mut conn, &list.filter, list.latest_first, list.page.after, list.page.limit())
                .await?;
        Ok(list.page.cut(rows, |row| (row.start, row.id.uuid())))
    }
}
