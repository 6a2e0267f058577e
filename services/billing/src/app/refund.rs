//! Giving money back.
//!
//! As with charges the order is: write down what will be asked, commit, ask, then take over the answer with its event and ledger
//! entries in one transaction. What staff asks for, what a late patient gets back, and what was given back at the provider itself
//! all come together in [`App::take_over`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::db::Tx;
use kit::idempotency::{self, Attempt};
use kit::ids::{ChargeId, RequestId};
use kit::status::Error as KitError;
use proto::clinic::billing::v1 as pb;
use sqlx::PgConnection;
use uuid::Uuid;

use super::App;
use super::settle::{GIVEN_UP_AFTER, KEY_TRUST, MISSING_LOOK, after_change, pause, record};
use crate::domain::charge::{Charge, Happened, Kind, State};
use crate::domain::ledger;
use crate::domain::refund::{Cause, Refund, RefundState, sources, split};
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::gateway::{Failure, GivenBack, MISSING, RefundOrder};
use crate::store::refunds::{self, Part};
use crate::store::{charges, ledger as journal};
use crate::wire;

/// Pause between looks at a refund that its bank takes days for; the provider's webhook usually comes first.
const BANK_LOOK: Duration = Duration::from_secs(60 * 60);

/// What a refund of the provider is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was known as it stands.
    Known,
    /// It is known now.
    News,
    /// None of our payments gave it, or nothing was given.
    Foreign,
    /// Its payment is ours and still on its way.
    TooEarly,
}

/// Who asks for a refund, and why.
pub(super) struct Asked<'a> {
    pub(super) cause: Cause,
    pub(super) reason: &'a str,
    pub(super) by: &'a str,
}

impl App {
    /// Gives back `amount` of a charge, `None` = all that is left, and answers the charge with the refund on its way.
    pub async fn refund(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        request: &pb::RefundChargeRequest,
        id: ChargeId,
        amount: Option<i64>,
        reason: &str,
    ) -> Result<pb::Charge, Error> {
        let mut fresh =
            match idempotency::begin(&self.db, caller, "RefundCharge", request_id, request).await? {
                Attempt::Replayed(answer) => return Ok(answer),
                Attempt::Fresh(fresh) => fresh,
            };
        let tx = &mut *fresh.tx;
        let found = charges::get_with_visit(tx, id).await?.ok_or_else(|| KitError::not_found(id))?;
        let locked = charges::lock_with_visit(tx, found.0.appointment, found.0.kind).await?;
        let (mut charge, visit) = locked.ok_or_else(|| KitError::not_found(id))?;
        if request.etag != charge.revision.to_string() {
            return Err(KitError::EtagMismatch { kind: "Charge" }.into());
        }
        if charge.captured == 0 {
            return Err(Error::NothingCaptured { state: charge.state.word() });
        }
        let amount = amount.unwrap_or(charge.refundable());
        if !(1..=charge.refundable()).contains(&amount) {
            return Err(Error::RefundExceedsCapture);
        }
        let now = self.clock.now();
        let asked = Asked { cause: Cause::Staff, reason, by: &caller.subject };
        self.begin_refund(tx, &mut charge, amount, &asked, now).await?;
        let due = after_change(&charge, &visit, now);
        charges::save(tx, &mut charge, due, now).await?;
        let refunds = refunds::of_charges(tx, &[id]).await?;
        let answer = wire::charge(&charge, &visit, &refunds, false);
        fresh.finish(&answer).await?;
        self.books.notify_one();
        Ok(answer)
    }

    /// Writes a refund down; the caller saves the charge. The amount is at most what is left.
    pub(super) async fn begin_refund(
        &self,
        tx: &mut PgConnection,
        charge: &mut Charge,
        amount: i64,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let refund = Refund {
            id: Uuid::now_v7(),
            charge: charge.id,
            amount,
            state: RefundState::Pending,
            cause: asked.cause,
            reason: asked.reason.to_owned(),
            requested_by: asked.by.to_owned(),
            provider_reference: None,
            created_at: now,
        };
        refunds::insert(tx, &refund).await?;
        let given = refunds::given(tx, charge.id).await?;
        for (n, (payment, amount)) in (1..).zip(split(amount, &sources(charge, &given))) {
            let part = Part {
                refund: refund.id,
                number: n,
                payment,
                amount,
                state: RefundState::Pending,
                key: format!("refund-{}-{n}", refund.id),
                asked_at: None,
                reference: None,
                tries: 0,
            };
            refunds::insert_part(tx, &part).await?;
        }
        charge.refunded += amount;
        Ok(())
    }

    /// Takes the fee of a patient who came after all back, once it is settled: what was taken is given back, what is owed is not
    /// owed any more. A fee that is still on its way is left to settle, which leads here again.
    pub(super) async fn reverse_if_late(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        fee: &mut Charge,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if !visit.fee_reversed || fee.state != State::Captured {
            return Ok(());
        }
        let forgiven = fee.forgive();
        let left = fee.refundable();
        if forgiven.is_none() && left == 0 {
            return Ok(());
        }
        record(tx, visit, fee, forgiven.as_slice(), now).await?;
        if left > 0 {
            let asked = Asked { cause: Cause::FeeReversed, reason: "", by: "" };
            self.begin_refund(tx, fee, left, &asked, now).await?;
        }
        charges::save(tx, fee, None, now).await
    }

    /// Asks the provider for a part of a refund, or how it stands, and takes over the answer.
    pub(super) async fn drive_refund(&self, id: (Uuid, i32)) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let Some((part, appointment, kind)) = refunds::part(&mut conn, id).await? else { return Ok(()) };
        drop(conn);
        let answer = match &part.reference {
            Some(reference) => self.gateway.look_up_refund(reference).await.map(Some),
            None => self.ask_refund(&part, appointment, kind).await,
        };
        match answer {
            Ok(Some(given)) => self.take_over(&given, true).await.map(drop),
            // The old key is spent and made nothing: the next try asks with a new one.
            Ok(None) => {
                let mut conn = self.db.pool().acquire().await?;
                Ok(refunds::rekey(&mut conn, &part, &format!("{}-{}", part.key, part.tries)).await?)
            }
            Err(Failure::Refused { code } | Failure::Declined { code }) if part.reference.is_none() => {
                self.settle_part(&part, None, RefundState::Failed, &code, true).await.map(drop)
            }
            Err(Failure::Refused { code }) if code == MISSING => {
                let mut conn = self.db.pool().acquire().await?;
                let missing = refunds::missing(&mut conn, &part, MISSING_LOOK).await?;
                drop(conn);
                tracing::error!(refund = %part.refund, since = ?missing, "the provider does not know a refund");
                if missing.is_none_or(|since| self.clock.now() - since < GIVEN_UP_AFTER) {
                    return Ok(());
                }
                self.settle_part(&part, None, RefundState::Failed, MISSING, true).await.map(drop)
            }
            Err(failure) => {
                tracing::warn!(refund = %part.refund, tries = part.tries, error = %failure, "a refund waits for the provider");
                let mut conn = self.db.pool().acquire().await?;
                Ok(refunds::postpone(&mut conn, &part, pause(part.tries)).await?)
            }
        }
    }

    /// `None` = what was asked for with the part's key is known to have made nothing, and the key is too old to ask with.
    async fn ask_refund(
        &self,
        part: &Part,
        appointment: kit::ids::AppointmentId,
        kind: Kind,
    ) -> Result<Option<GivenBack>, Failure> {
        let lost = |error: sqlx::Error| Failure::Unknown(format!("the database does not answer: {error}"));
        let mut tx = self.db.begin().await.map_err(lost)?;
        let found = charges::lock_with_visit(&mut tx, appointment, kind).await.map_err(lost)?;
        let Some((charge, _)) = found else { return Ok(None) };
        let given = refunds::given(&mut tx, charge.id).await.map_err(lost)?;
        tx.rollback().await.map_err(lost)?;
        let left = sources(&charge, &given);
        let left = left.iter().find(|source| source.payment == part.payment).map_or(0, |source| source.left);
        let asked_at = part.asked_at.unwrap_or_else(|| self.clock.now());
        if self.clock.now() - asked_at >= KEY_TRUST {
            return self.gateway.find_refund(&part.payment, &part.key).await;
        }
        let order = RefundOrder {
            key: part.key.clone(),
            payment: part.payment.clone(),
            amount: part.amount,
            // This part is counted as given already.
            left: left + part.amount,
            charge: charge.id,
        };
        self.gateway.refund(&order).await.map(Some)
    }

    /// Takes over a refund as the provider tells it, by whomever it was asked for; without `keep` it only says what that would be.
    pub async fn take_over(&self, given: &GivenBack, keep: bool) -> Result<Taken, Error> {
        let mut conn = self.db.pool().acquire().await?;
        let known = refunds::find(&mut conn, &given.reference, given.key.as_deref()).await?;
        let part = match known {
            Some(id) => refunds::part(&mut conn, id).await?,
            None => None,
        };
        drop(conn);
        match part {
            Some((part, ..)) => {
                self.settle_part(&part, Some(&given.reference), given.state, &given.failure, keep).await
            }
            None => self.adopt(given, keep).await,
        }
    }

    /// Takes over how a part stands.
    async fn settle_part(
        &self,
        seen: &Part,
        reference: Option<&str>,
        state: RefundState,
        failure: &str,
        keep: bool,
    ) -> Result<Taken, Error> {
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let Some((_, appointment, kind)) = refunds::part(&mut tx, (seen.refund, seen.number)).await? else {
            return Ok(Taken::Known);
        };
        let found = charges::lock_with_visit(&mut tx, appointment, kind).await?;
        let Some((mut charge, visit)) = found else { return Ok(Taken::Known) };
        // Under the lock: someone else may have been faster.
        let found = refunds::part(&mut tx, (seen.refund, seen.number)).await?;
        let Some((mut part, ..)) = found.filter(|(part, ..)| part.key == seen.key) else {
            return Ok(Taken::Known);
        };
        let was = part.state;
        let named = part.reference.is_none() && reference.is_some();
        part.reference = part.reference.or_else(|| reference.map(str::to_owned));
        part.state = match (was, state) {
            (RefundState::Failed, _) | (RefundState::Succeeded, RefundState::Pending) => was,
            (RefundState::Pending | RefundState::Succeeded, told) => told,
        };
        let waits = (part.state == RefundState::Pending).then_some(BANK_LOOK);
        let failure = (part.state == RefundState::Failed).then_some(failure);
        refunds::save_part(&mut tx, &part, failure, waits).await?;
        if part.state == was {
            if named {
                charges::save(&mut tx, &mut charge, None, now).await?;
            }
            end(tx, keep).await?;
            return Ok(if named { Taken::News } else { Taken::Known });
        }
        match part.state {
            RefundState::Succeeded => {
                let earned = journal::earned(&mut tx, charge.id).await?;
                post(&mut tx, &charge, &ledger::given_back(kind, part.amount, earned), now).await?
            }
            RefundState::Failed => {
                let (was_given, anyway) = (was == RefundState::Succeeded, charge.without_cause(&visit));
                post(&mut tx, &charge, &ledger::refused(kind, part.amount, was_given, anyway), now).await?;
                charge.refund_failed(part.amount);
                if refunds::states(&mut tx, part.refund).await?.len() > 1 {
                    refunds::part_ways(&mut tx, &part).await?;
                } else {
                    refunds::set_state(&mut tx, part.refund, RefundState::Failed).await?;
                }
                let owed_to_patient = anyway.then_some(part.amount);
                let (id, refund) = (charge.id, part.refund);
                tracing::warn!(charge = %id, %refund, reason = failure, owed_to_patient, "a refund failed");
            }
            RefundState::Pending => {}
        }
        self.conclude_refund(&mut tx, &visit, &mut charge, part.refund, now).await?;
        charges::save(&mut tx, &mut charge, None, now).await?;
        end(tx, keep).await?;
        Ok(Taken::News)
    }

    /// Ends a refund whose parts have all succeeded, and the charge of which all was given back. The caller saves the charge.
    async fn conclude_refund(
        &self,
        tx: &mut PgConnection,
        visit: &Visit,
        charge: &mut Charge,
        refund: Uuid,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let states = refunds::states(tx, refund).await?;
        if !states.is_empty()
            && states.iter().all(|state| *state == RefundState::Succeeded)
            && let Some((amount, cause)) = refunds::set_state(tx, refund, RefundState::Succeeded).await?
        {
            let happened = Happened::Refunded { amount, forgiven: 0, cause };
            record(tx, visit, charge, &[happened], now).await?;
        }
        charge.given_back(refunds::confirmed(tx, charge.id).await?);
        Ok(())
    }

    /// Remembers a refund that was made at the provider itself.
    async fn adopt(&self, given: &GivenBack, keep: bool) -> Result<Taken, Error> {
        let Some(payment) = given.payment.as_deref().filter(|_| given.state != RefundState::Failed) else {
            return Ok(Taken::Foreign);
        };
        let now = self.clock.now();
        let mut tx = self.db.begin().await?;
        let Some((found, _)) = charges::that_took(&mut tx, payment).await? else { return Ok(Taken::Foreign) };
        if found.pending() || (found.kind == Kind::Copay && !found.gives_no_more()) {
            return Ok(Taken::TooEarly);
        }
        let kind = found.kind;
        let locked = charges::lock_with_visit(&mut tx, found.appointment, kind).await?;
        let Some((mut charge, visit)) = locked else { return Ok(Taken::Foreign) };
        if charge.pending() {
            return Ok(Taken::TooEarly);
        }
        if refunds::find(&mut tx, &given.reference, None).await?.is_some() {
            return Ok(Taken::Known);
        }
        let before = refunds::given(&mut tx, charge.id).await?;
        let known: i64 = before.iter().filter(|(from, _)| from == payment).map(|(_, amount)| amount).sum();
        let left = sources(&charge, &before);
        let left = left.iter().find(|source| source.payment == payment).map_or(0, |source| source.left);
        // More than the payment says it gave is what a capture or a cancellation released.
        let real = given.of_payment.is_none_or(|all| known + given.amount <= all);
        if !real || !(1..=left).contains(&given.amount) {
            return Ok(Taken::Foreign);
        }
        let refund = Refund {
            id: Uuid::now_v7(),
            charge: charge.id,
            amount: given.amount,
            state: RefundState::Pending,
            cause: Cause::Provider,
            reason: String::new(),
            requested_by: String::new(),
            provider_reference: None,
            created_at: now,
        };
        refunds::insert(&mut tx, &refund).await?;
        let part = Part {
            refund: refund.id,
            number: 1,
            payment: payment.to_owned(),
            amount: given.amount,
            state: given.state,
            key: format!("refund-{}-1", refund.id),
            asked_at: None,
            reference: Some(given.reference.clone()),
            tries: 0,
        };
        refunds::insert_part(&mut tx, &part).await?;
        charge.refunded += given.amount;
        if given.state == RefundState::Succeeded {
            let earned = journal::earned(&mut tx, charge.id).await?;
            post(&mut tx, &charge, &ledger::given_back(kind, given.amount, earned), now).await?;
        }
        self.conclude_refund(&mut tx, &visit, &mut charge, refund.id, now).await?;
        charges::save(&mut tx, &mut charge, None, now).await?;
        end(tx, keep).await?;
        Ok(Taken::News)
    }
}

async fn post(
    tx: &mut PgConnection,
    charge: &Charge,
    entries: &[ledger::Entry],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    for entry in entries {
        journal::post(tx, charge, entry, now).await?;
    }
    Ok(())
}

async fn end(tx: Tx, keep: bool) -> sqlx::Result<()> {
    if keep { tx.commit().await } else { tx.rollback().await }
}
