//! What is read: charges, and a patient's account.

use chrono::{DateTime, Utc};
use kit::ids::{ChargeId, PatientId};
use kit::merges;
use kit::page::Page;
use uuid::Uuid;

use super::App;
use crate::domain::card::Card;
use crate::domain::charge::Charge;
use crate::domain::refund::Refund;
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::store::charges::{self, Filter};
use crate::store::ledger::Line;
use crate::store::{cards, ledger, refunds};

/// Sort key of charges and of statement lines.
pub type Key = (DateTime<Utc>, Uuid);

/// A patient's account. Amounts in minor units of the network's currency.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who answers for it: the survivor of a merged patient.
    pub patient: PatientId,
    /// What the patient owes; below zero = is owed.
    pub balance: i64,
    /// What is reserved on the patient's cards.
    pub authorized: i64,
    /// The default first, then newest first.
    pub cards: Vec<Card>,
    /// The page of the statement.
    pub lines: Vec<Line>,
    /// For the next page; empty = this is the last.
    pub next_page_token: String,
}

impl App {
    /// One charge with its visit and refunds, as of one moment.
    pub async fn charge(&self, id: ChargeId) -> Result<(Charge, Visit, Vec<Refund>), Error> {
        let mut tx = self.db.begin().await?;
        ledger::freeze(&mut tx).await?;
        let found = charges::get_with_visit(&mut tx, id).await?;
        let (charge, visit) = found.ok_or_else(|| kit::status::Error::not_found(id))?;
        let refunds = refunds::of_charges(&mut tx, &[id]).await?;
        Ok((charge, visit, refunds))
    }

    /// A page of charges and their refunds, as of one moment, and the token for the next.
    pub async fn charges(
        &self,
        filter: &Filter,
        page: &Page<Key>,
    ) -> Result<(Vec<(Charge, Visit)>, Vec<Refund>, String), Error> {
        let mut tx = self.db.begin().await?;
        ledger::freeze(&mut tx).await?;
        let rows = charges::list(&mut tx, filter, page.after, page.limit()).await?;
        let (rows, next) = page.cut(rows, |(charge, _)| (charge.created_at, charge.id.uuid()));
        let ids: Vec<_> = rows.iter().map(|(charge, _)| charge.id).collect();
        let refunds = refunds::of_charges(&mut tx, &ids).await?;
        Ok((rows, refunds, next))
    }

    /// A patient's account, merged records included, as of one moment, with a page of the statement of `interval`.
    pub async fn account(
        &self,
        patient: PatientId,
        interval: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
        page: &Page<Key>,
    ) -> Result<Account, Error> {
        let mut tx = self.db.begin().await?;
        ledger::freeze(&mut tx).await?;
        let lines = ledger::statement(&mut tx, patient, interval, page.after, page.limit()).await?;
        let (lines, next_page_token) = page.cut(lines, |line| (line.posted_at, line.id));
        Ok(Account {
            patient: merges::survivor(&mut tx, patient).await?,
            balance: ledger::balance(&mut tx, patient).await?,
            authorized: ledger::authorized(&mut tx, patient).await?,
            cards: cards::of_patient(&mut tx, patient).await?,
            lines,
            next_page_token,
        })
    }
}
