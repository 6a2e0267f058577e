//! Comparing the provider's records with ours: on demand, and once a day by itself.
//!
//! The provider's lists are read page by page; what it listed is remembered in a table, so that what it did not list is found
//! without a month in memory. A difference is looked at a second time before it counts, for both sides go on meanwhile. What is
//! certain is put right by the ways that lead there anyway (see `repair`): the charge's own look-up, a cancellation, a refund taken
//! over.

mod repair;
mod returns;

use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;
use kit::auth::Caller;
use kit::idempotency::{self, Attempt, Key};
use kit::ids::RequestId;
use prost::Message as _;
use proto::clinic::billing::v1 as pb;
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::App;
use super::refund::Taken;
use crate::domain::charge::{Charge, Kind, Standing, State};
use crate::domain::reconcile::{Differs, Discrepancy, Report, compare, expected};
use crate::domain::visit::Visit;
use crate::error::Error;
use crate::gateway::{Failure, GivenBack, Listed, MISSING, Span};
use crate::store::reconciliations::{self, Kept};
use crate::store::{charges, chores};
use crate::wire;

/// How far back payments are compared when nobody says.
pub const USUAL_REACH: TimeDelta = TimeDelta::days(7);
/// The longest time whose payments are compared at once.
pub const LONGEST_REACH: TimeDelta = TimeDelta::days(31);
/// How far back a scheduled run looks at least: as long as a reservation lives, and a day.
const SCHEDULED_REACH: TimeDelta = TimeDelta::days(8);
/// How much of what was compared before is compared again.
const OVERLAP: TimeDelta = TimeDelta::days(1);
/// How often a replica looks whether a scheduled run is due.
const POLL: Duration = Duration::from_secs(1);
/// Rows of ours read at once.
const BATCH: i64 = 500;

/// Reconciles whenever `every` has passed since the last time, in one replica at a time, until `stop`; zero = never.
pub async fn on_schedule(app: App, every: Duration, stop: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut rounds = tokio::time::interval(POLL);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        let begun = async {
            let mut conn = app.db.pool().acquire().await?;
            chores::begin(&mut conn, chores::RECONCILE, every).await
        };
        let (now, done) = match begun.await {
            Ok(Some(begun)) => begun,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "whether to reconcile could not be read");
                continue;
            }
        };
        let from = (now - SCHEDULED_REACH).min(done - OVERLAP).max(now - LONGEST_REACH);
        let run = app.compare_all(Span { from, until: now }, false, true);
        match stop.run_until_cancelled(run).await {
            Some(Ok(report)) => {
                tracing::info!(
                    found = report.discrepancies_found,
                    repaired = report.discrepancies_repaired,
                    "reconciled"
                );
                let done = async {
                    chores::done(&mut *app.db.pool().acquire().await?, chores::RECONCILE, now).await
                };
                if let Err(error) = done.await {
                    tracing::warn!(%error, "how far was reconciled could not be kept");
                }
            }
            Some(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:?}"),
                    "a scheduled reconciliation ended early; the next one reaches back to it"
                );
            }
            None => {}
        }
    }
}

impl App {
    /// Compares on demand. It goes on when its caller leaves, and a repeat finds the report.
    pub async fn reconcile(
        &self,
        caller: &Caller,
        request_id: Option<RequestId>,
        request: pb::ReconcileRequest,
        span: Span,
    ) -> Result<pb::ReconciliationReport, Error> {
        let key = Key::new(caller, "Reconcile", request_id, &request);
        if let Some(key) = &key
            && let Some(answer) = idempotency::find(&mut *self.db.pool().acquire().await?, key).await?
        {
            return Ok(answer);
        }
        let app = self.clone();
        let run = async move {
            let report = app.compare_all(span, request.dry_run, false).await?;
            match idempotency::begin_keyed(&app.db, key, None).await? {
                Attempt::Replayed(answer) => Ok(answer),
                Attempt::Fresh(fresh) => {
                    fresh.finish(&report).await?;
                    Ok(report)
                }
            }
        };
        tokio::spawn(run.in_current_span()).await.map_err(kit::status::Error::internal)?
    }

    /// Compares everything made in `span` unless another comparison runs, and keeps the report.
    async fn compare_all(
        &self,
        span: Span,
        dry_run: bool,
        scheduled: bool,
    ) -> Result<pb::ReconciliationReport, Error> {
        // A connection of its own: the lock lives as long as it does, and so dies with this process.
        let mut conn = self.db.pool().acquire().await?.detach();
        if !reconciliations::lock(&mut conn).await? {
            return Err(Error::ReconciliationRunning);
        }
        let outcome = self.compare_locked(&mut conn, span, dry_run, scheduled).await;
        // At once, for the next caller; the database would see by itself that the connection is gone, but later.
        let freed = reconciliations::unlock(&mut conn).await;
        conn.close().await?;
        freed?;
        outcome
    }

    async fn compare_locked(
        &self,
        conn: &mut PgConnection,
        span: Span,
        dry_run: bool,
        scheduled: bool,
    ) -> Result<pb::ReconciliationReport, Error> {
        reconciliations::clear(conn).await?;
        let report = Report::new(span.from, span.until, dry_run, self.clock.now());
        let mut run = Run { app: self, conn, span, report, unanswered: false };
        run.payments().await?;
        run.refunds().await?;
        run.disputes().await?;
        run.reversed_fees().await?;
        run.missing().await?;
        let Run { conn, mut report, .. } = run;
        report.charges = reconciliations::charges_made(conn, (span.from, span.until)).await?;
        reconciliations::clear(conn).await?;
        let ended_at = self.clock.now();
        let text = report.text();
        let answer = wire::report(&report, ended_at, &text, self.currency);
        let kept = Kept {
            id: report.id,
            scheduled,
            started_at: report.started_at,
            ended_at,
            found: report.found,
            repaired: report.repaired,
            text: &text,
            report: &answer.encode_to_vec(),
        };
        reconciliations::insert(conn, &kept).await?;
        Ok(answer)
    }
}

/// One comparison under way.
struct Run<'a> {
    app: &'a App,
    conn: &'a mut PgConnection,
    span: Span,
    report: Report,
    /// Appointments has not answered, and is not asked any more.
    unanswered: bool,
}

impl Run<'_> {
    async fn payments(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.app.gateway.payments(self.span, after).await.map_err(unread)?;
            let named: Vec<String> = page.items.iter().map(|payment| payment.reference.clone()).collect();
            reconciliations::saw(self.conn, &named).await?;
            let known = charges::of_payments(self.conn, &named).await?;
            let mut known: HashMap<_, _> = known
                .into_iter()
                .filter_map(|(charge, visit)| Some((charge.provider_reference.clone()?, (charge, visit))))
                .collect();
            for payment in &page.items {
                self.report.records += 1;
                match known.remove(&payment.reference) {
                    Some((charge, visit)) => self.known(payment, charge, &visit).await?,
                    None => self.unknown(payment).await?,
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares a payment with the charge whose newest it is.
    async fn known(&mut self, payment: &Listed, charge: Charge, visit: &Visit) -> Result<(), Error> {
        let Some(standing) = &payment.standing else { return Ok(()) };
        let drawn = charges::drawn(self.conn, &payment.reference).await?;
        if compare(expected(&charge, drawn), standing).is_some()
            && let Some((kind, ours, theirs)) = self.look_again(&charge, &payment.reference).await?
        {
            let (repaired, remark) = match kind {
                Differs::OrphanAuthorization => self.release(&payment.reference).await,
                _ => self.drive(&charge, &payment.reference).await?,
            };
            self.add(kind, &payment.reference, Some(&charge), (ours, theirs), repaired, remark);
        }
        if self.unbooked(&charge, visit).await? {
            let amounts = (Some(charge.authorized), None);
            let (repaired, remark) = self.void(&charge).await?;
            let kind = Differs::OrphanAuthorization;
            self.add(kind, &payment.reference, Some(&charge), amounts, repaired, remark);
        }
        let taken = charge.kind == Kind::Copay && charge.state == State::Captured;
        if taken && charge.without_cause(visit) && charge.refundable() > 0 {
            let amount = charge.refundable();
            let (repaired, remark) = self.give_back(&charge).await?;
            let amounts = (Some(0), Some(amount));
            self.add(Differs::Amount, &payment.reference, Some(&charge), amounts, repaired, remark);
        }
        Ok(())
    }

    /// A payment that is no charge's newest.
    async fn unknown(&mut self, payment: &Listed) -> Result<(), Error> {
        let (amount, reserved) = match &payment.standing {
            Some(Standing::Reserved { amount, .. }) => (*amount, true),
            Some(Standing::Taken { amount }) => (*amount, false),
            Some(Standing::ActionRequired { .. } | Standing::Refused { .. } | Standing::Released) | None => {
                return Ok(());
            }
        };
        let made_for = match payment.charge {
            Some(id) => charges::get_with_visit(self.conn, id).await?,
            None => None,
        };
        let amounts = (None, Some(amount));
        match made_for {
            // Its answer is on the way, or it has become the newest by now.
            Some((charge, _))
                if charge.pending() || charge.provider_reference.as_ref() == Some(&payment.reference) => {}
            Some((charge, _)) if reserved => {
                let (repaired, remark) = self.release(&payment.reference).await;
                let kind = Differs::OrphanAuthorization;
                self.add(kind, &payment.reference, Some(&charge), amounts, repaired, remark);
            }
            // A fee took it, and the co-pay was asked for anew when the patient came after all.
            Some(_) if charges::drawn(self.conn, &payment.reference).await? == amount => {}
            Some((charge, _)) => {
                let remark = "An earlier payment of this charge was taken: give it back at the provider.";
                let kind = Differs::UnknownPayment;
                self.add(kind, &payment.reference, Some(&charge), amounts, false, remark);
            }
            None => {
                let remark = "No charge was made for it here: find out at the provider who made it.";
                self.add(Differs::UnknownPayment, &payment.reference, None, amounts, false, remark);
            }
        }
        Ok(())
    }

    async fn refunds(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.app.gateway.refunds(self.span, after).await.map_err(unread)?;
            let named: Vec<String> = page.items.iter().map(|refund| refund.reference.clone()).collect();
            reconciliations::saw(self.conn, &named).await?;
            for refund in &page.items {
                self.report.records += 1;
                self.refund(refund).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn refund(&mut self, refund: &GivenBack) -> Result<(), Error> {
        let repair = !self.report.dry_run;
        match self.app.take_over(refund, repair).await? {
            Taken::Known | Taken::Foreign | Taken::TooEarly => Ok(()),
            Taken::News => {
                let charge = match &refund.payment {
                    Some(payment) => charges::that_took(self.conn, payment).await?,
                    None => None,
                };
                let remark = if repair {
                    "The provider's refund is in our books now."
                } else {
                    "The provider knows more of this refund than we do: reconcile without dry_run."
                };
                let charge = charge.as_ref().map(|(charge, _)| charge);
                let amounts = (None, Some(refund.amount));
                self.add(Differs::Refund, &refund.reference, charge, amounts, repair, remark);
                Ok(())
            }
        }
    }

    /// What our books have of this time and the provider did not list: it may be of another time over there, or be missing.
    async fn missing(&mut self) -> Result<(), Error> {
        let span = (self.span.from, self.span.until);
        let mut after = None;
        loop {
            let unseen = reconciliations::unseen_charges(self.conn, span, after, BATCH).await?;
            for (id, payment) in &unseen {
                let found = self.app.gateway.look_up(payment).await;
                if is_missing(&found)
                    && let Some((charge, _)) = charges::get_with_visit(self.conn, *id).await?
                {
                    let remark = "The provider does not know this payment: compare the keys to its API.";
                    let ours = Some(charge.authorized.max(charge.captured));
                    self.add(Differs::MissingPayment, payment, Some(&charge), (ours, None), false, remark);
                }
            }
            let Some((last, _)) = unseen.last() else { break };
            after = Some(*last);
        }
        let mut after = String::new();
        loop {
            let unseen = reconciliations::unseen_refunds(self.conn, span, &after, BATCH).await?;
            for (reference, id) in &unseen {
                let found = self.app.gateway.look_up_refund(reference).await;
                if is_missing(&found)
                    && let Some((charge, _)) = charges::get_with_visit(self.conn, *id).await?
                {
                    let remark = "The provider does not know this refund: compare the keys to its API.";
                    self.add(
                        Differs::Refund,
                        reference,
                        Some(&charge),
                        (Some(charge.refunded), None),
                        false,
                        remark,
                    );
                }
            }
            let Some((last, _)) = unseen.last() else { return Ok(()) };
            after = last.clone();
        }
    }

    fn add(
        &mut self,
        kind: Differs,
        reference: &str,
        charge: Option<&Charge>,
        (ours, theirs): (Option<i64>, Option<i64>),
        repaired: bool,
        remark: &'static str,
    ) {
        self.report.add(Discrepancy {
            kind,
            charge: charge.map(|charge| charge.id),
            appointment: charge.map(|charge| charge.appointment),
            reference: reference.to_owned(),
            ours,
            theirs,
            repaired,
            remark,
        });
    }
}

fn is_missing<T>(answer: &Result<T, Failure>) -> bool {
    matches!(answer, Err(Failure::Refused { code }) if code == MISSING)
}

fn unread(failure: Failure) -> Error {
    tracing::warn!(error = %failure, "the provider's records could not be listed");
    Error::provider_down()
}
