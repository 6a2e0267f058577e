//! What went back: disputes, and fees that were taken back.

use kit::ids::AppointmentId;

use super::{BATCH, Run, unread};
use crate::app::refund::{Asked, Taken};
use crate::domain::charge::Kind;
use crate::domain::reconcile::Differs;
use crate::domain::refund::{Cause, RefundState};
use crate::error::Error;
use crate::gateway::Dispute;
use crate::store::{charges, disputes, refunds};

/// How often a fee that was taken back is given back at most: a bank that has refused so often will not take it.
const MOST_RETURNS: usize = 3;

impl Run<'_> {
    pub(super) async fn disputes(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.app.gateway.disputes(self.span, after).await.map_err(unread)?;
            for dispute in &page.items {
                self.report.records += 1;
                self.dispute(dispute).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn dispute(&mut self, dispute: &Dispute) -> Result<(), Error> {
        let Some(payment) = &dispute.payment else { return Ok(()) };
        let Some((charge, _)) = charges::that_took(self.conn, payment).await? else { return Ok(()) };
        let repair = !self.report.dry_run;
        let posted = disputes::withdrawn(self.conn, &dispute.reference).await?.unwrap_or(0);
        if self.app.take_over_dispute(dispute, repair).await? == Taken::News {
            let remark = if repair {
                "What the bank withdrew or reinstated is in our books now."
            } else {
                "The bank has withdrawn or reinstated money: reconcile without dry_run, and it is in our books."
            };
            let amounts = (Some(posted), Some(dispute.withdrawn));
            self.add(Differs::Dispute, &dispute.reference, Some(&charge), amounts, repair, remark);
        }
        let remark = match dispute.status.as_str() {
            "won" | "warning_closed" | "prevented" => return Ok(()),
            "lost" => "The bank took the payment back for good: settle it with the patient.",
            _ if dispute.withdrawn == 0 => "The bank asks about the payment: answer it at the provider.",
            _ => "The bank took the payment back: answer the dispute at the provider.",
        };
        let amounts = (Some(charge.captured), Some(dispute.amount));
        self.add(Differs::Dispute, &dispute.reference, Some(&charge), amounts, false, remark);
        Ok(())
    }

    /// Fees of patients who came after all, of which a bank refused to take money back: it is given back again, a few times.
    pub(super) async fn reversed_fees(&mut self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let kept = charges::reversed(self.conn, after, BATCH).await?;
            for (fee, _) in &kept {
                let refused = refunds::of_charges(self.conn, &[fee.id]).await?;
                let refused = refused.iter().filter(|refund| refund.state == RefundState::Failed).count();
                let remark = if refused >= MOST_RETURNS {
                    "The patient is owed a fee that the bank will not take back: give it back another way."
                } else if self.report.dry_run {
                    "The patient is owed a fee: reconcile without dry_run, and it is given back again."
                } else {
                    self.return_fee(fee.appointment).await?;
                    "The patient is owed a fee that the bank refused to take back: it is given back again."
                };
                let payment = fee.provider_reference.as_ref().or(fee.drawn_reference.as_ref());
                let payment = payment.map_or("", String::as_str);
                let amounts = (Some(0), Some(fee.refundable()));
                self.add(Differs::Refund, payment, Some(fee), amounts, false, remark);
            }
            let Some((last, _)) = kept.last() else { return Ok(()) };
            after = Some(last.id);
        }
    }

    async fn return_fee(&mut self, appointment: AppointmentId) -> Result<(), Error> {
        let now = self.app.clock.now();
        let mut tx = self.app.db.begin().await?;
        let found = charges::lock_with_visit(&mut tx, appointment, Kind::NoShowFee).await?;
        if let Some((mut fee, _)) = found.filter(|(fee, _)| fee.refundable() > 0) {
            let left = fee.refundable();
            let asked = Asked { cause: Cause::FeeReversed, reason: "", by: "" };
            self.app.begin_refund(&mut tx, &mut fee, left, &asked, now).await?;
            charges::save(&mut tx, &mut fee, None, now).await?;
            tx.commit().await?;
            self.app.books.notify_one();
        }
        Ok(())
    }
}
