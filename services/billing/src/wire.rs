//! Domain values as the contract spells them.

use chrono::{DateTime, Utc};
use kit::fields::{date, timestamp};
use proto::clinic::billing::v1 as pb;
use proto::google::r#type::{Interval, Money};

use crate::app::account::Account;
use crate::domain::card::Card;
use crate::domain::charge::{Charge, Kind, State, VoidCause};
use crate::domain::fee::{Fee, Schedule};
use crate::domain::ledger::EntryKind;
use crate::domain::money::{self, Currency};
use crate::domain::reconcile::{Differs, Discrepancy, Report};
use crate::domain::refund::{Cause, Refund, RefundState};
use crate::domain::visit::Visit;
use crate::store::ledger::Line;

/// An amount.
pub fn money(minor: i64, currency: Currency) -> Money {
    let (units, nanos) = money::parts(minor);
    Money { currency_code: currency.code().to_owned(), units, nanos }
}

/// A kind of charge.
pub fn kind(kind: Kind) -> pb::ChargeKind {
    match kind {
        Kind::Copay => pb::ChargeKind::Copay,
        Kind::NoShowFee => pb::ChargeKind::NoShowFee,
    }
}

/// How far a charge is.
pub fn state(state: State) -> pb::ChargeState {
    match state {
        State::Authorizing => pb::ChargeState::Authorizing,
        State::Authorized => pb::ChargeState::Authorized,
        State::RequiresAction => pb::ChargeState::RequiresAction,
        State::Declined => pb::ChargeState::Declined,
        State::Capturing => pb::ChargeState::Capturing,
        State::Captured => pb::ChargeState::Captured,
        State::Voiding => pb::ChargeState::Voiding,
        State::Voided => pb::ChargeState::Voided,
        State::Lapsed => pb::ChargeState::Lapsed,
        State::Refunded => pb::ChargeState::Refunded,
    }
}

/// Why a co-pay was voided.
pub fn void_cause(cause: VoidCause) -> pb::VoidCause {
    match cause {
        VoidCause::HoldEnded => pb::VoidCause::HoldEnded,
        VoidCause::Cancelled => pb::VoidCause::Cancelled,
        VoidCause::CancelledLate => pb::VoidCause::CancelledLate,
        VoidCause::NoShow => pb::VoidCause::NoShow,
        VoidCause::Reconciliation => pb::VoidCause::Reconciliation,
    }
}

/// Why money was given back.
pub fn refund_cause(cause: Cause) -> pb::RefundCause {
    match cause {
        Cause::Staff => pb::RefundCause::Staff,
        Cause::FeeReversed => pb::RefundCause::FeeReversed,
        Cause::Provider => pb::RefundCause::Provider,
        Cause::Reconciliation => pb::RefundCause::Reconciliation,
    }
}

fn refund(refund: &Refund, currency: Currency) -> pb::Refund {
    let state = match refund.state {
        RefundState::Pending => pb::RefundState::Pending,
        RefundState::Succeeded => pb::RefundState::Succeeded,
        RefundState::Failed => pb::RefundState::Failed,
    };
    pb::Refund {
        id: refund.id.to_string(),
        amount: Some(money(refund.amount, currency)),
        state: state.into(),
        cause: refund_cause(refund.cause).into(),
        reason: refund.reason.clone(),
        requested_by: refund.requested_by.clone(),
        provider_reference: refund.provider_reference.clone().unwrap_or_default(),
        create_time: Some(timestamp(refund.created_at)),
    }
}

/// A charge with those of `refunds` that are its own; its client secret only where the caller may have it.
pub fn charge(charge: &Charge, visit: &Visit, refunds: &[Refund], with_secret: bool) -> pb::Charge {
    let amount = |minor| Some(money(minor, charge.currency));
    pb::Charge {
        id: charge.id.to_string(),
        kind: kind(charge.kind).into(),
        appointment_id: charge.appointment.to_string(),
        patient_id: visit.patient.to_string(),
        clinic_id: visit.clinic.to_string(),
        service_type_id: visit.service_type.to_string(),
        visit_start_time: Some(timestamp(visit.start)),
        state: state(charge.state).into(),
        amount: amount(charge.amount),
        authorized_amount: amount(charge.authorized),
        captured_amount: amount(charge.captured),
        drawn_from_copay_amount: amount(charge.drawn_from_copay),
        refunded_amount: amount(charge.refunded),
        owed_amount: amount(charge.owed),
        payment_method_id: charge.payment_method.map(|id| id.to_string()).unwrap_or_default(),
        provider_reference: charge.provider_reference.clone().unwrap_or_default(),
        capture_before: charge.capture_before.map(timestamp),
        decline_code: charge.decline_code.clone().unwrap_or_default(),
        client_secret: charge.client_secret.clone().filter(|_| with_secret).unwrap_or_default(),
        refunds: refunds
            .iter()
            .filter(|r| r.charge == charge.id)
            .map(|r| refund(r, charge.currency))
            .collect(),
        etag: charge.revision.to_string(),
        create_time: Some(timestamp(charge.created_at)),
        update_time: Some(timestamp(charge.updated_at)),
    }
}

/// What a reconciliation found.
pub fn report(
    report: &Report,
    ended_at: DateTime<Utc>,
    text: &str,
    currency: Currency,
) -> pb::ReconciliationReport {
    let interval =
        Interval { start_time: Some(timestamp(report.from)), end_time: Some(timestamp(report.until)) };
    pb::ReconciliationReport {
        id: report.id.to_string(),
        interval: Some(interval),
        dry_run: report.dry_run,
        start_time: Some(timestamp(report.started_at)),
        end_time: Some(timestamp(ended_at)),
        charges_checked: report.charges,
        provider_records_checked: report.records,
        discrepancies_found: report.found,
        discrepancies_repaired: report.repaired,
        discrepancies: report.named().map(|one| discrepancy(one, currency)).collect(),
        text: text.to_owned(),
    }
}

fn discrepancy(one: &Discrepancy, currency: Currency) -> pb::Discrepancy {
    let kind = match one.kind {
        Differs::State => pb::DiscrepancyKind::State,
        Differs::Amount => pb::DiscrepancyKind::Amount,
        Differs::UnknownPayment => pb::DiscrepancyKind::UnknownPayment,
        Differs::MissingPayment => pb::DiscrepancyKind::MissingPayment,
        Differs::OrphanAuthorization => pb::DiscrepancyKind::OrphanAuthorization,
        Differs::Refund => pb::DiscrepancyKind::Refund,
        Differs::Dispute => pb::DiscrepancyKind::Dispute,
    };
    pb::Discrepancy {
        kind: kind.into(),
        charge_id: one.charge.map(|id| id.to_string()).unwrap_or_default(),
        appointment_id: one.appointment.map(|id| id.to_string()).unwrap_or_default(),
        provider_reference: one.reference.clone(),
        ledger_amount: one.ours.map(|minor| money(minor, currency)),
        provider_amount: one.theirs.map(|minor| money(minor, currency)),
        repaired: one.repaired,
        remark: one.remark.to_owned(),
    }
}

/// A card on file; the secret goes to whoever just saved it.
pub fn card(card: &Card, client_secret: Option<String>, now: DateTime<Utc>) -> pb::PaymentMethod {
    let state = match (card.expired(now), card.confirmed) {
        (true, _) => pb::PaymentMethodState::Expired,
        (false, true) => pb::PaymentMethodState::Active,
        (false, false) => pb::PaymentMethodState::RequiresAction,
    };
    pb::PaymentMethod {
        id: card.id.to_string(),
        patient_id: card.patient.to_string(),
        state: state.into(),
        brand: card.brand.clone(),
        last4: card.last4.clone(),
        expiry_month: card.expiry_month,
        expiry_year: card.expiry_year,
        is_default: card.is_default,
        client_secret: client_secret.unwrap_or_default(),
        create_time: Some(timestamp(card.created_at)),
    }
}

/// A clinic's fees.
pub fn fee_schedule(schedule: &Schedule, currency: Currency) -> pb::FeeSchedule {
    pb::FeeSchedule {
        clinic_id: schedule.clinic.to_string(),
        fees: schedule.fees.iter().map(|one| fee(one, currency)).collect(),
        etag: schedule.etag(),
        update_time: schedule.updated_at.map(timestamp),
    }
}

fn fee(fee: &Fee, currency: Currency) -> pb::Fee {
    pb::Fee {
        service_type_id: fee.service_type.to_string(),
        effective_from: Some(date(fee.effective_from)),
        effective_until: fee.effective_until.map(date),
        copay_amount: fee.copay.map(|minor| money(minor, currency)),
        no_show_fee_amount: fee.no_show.map(|minor| money(minor, currency)),
    }
}

/// A patient's account.
pub fn account(account: Account, currency: Currency, now: DateTime<Utc>) -> pb::PatientAccount {
    pb::PatientAccount {
        patient_id: account.patient.to_string(),
        balance: Some(money(account.balance, currency)),
        authorized_amount: Some(money(account.authorized, currency)),
        payment_methods: account.cards.iter().map(|one| card(one, None, now)).collect(),
        entries: account.lines.iter().map(|line| entry(line, currency)).collect(),
        next_page_token: account.next_page_token,
    }
}

fn entry(line: &Line, currency: Currency) -> pb::StatementEntry {
    let kind = match line.kind {
        EntryKind::Copay => pb::StatementEntryKind::Copay,
        EntryKind::NoShowFee => pb::StatementEntryKind::NoShowFee,
        EntryKind::Payment => pb::StatementEntryKind::Payment,
        EntryKind::Refund => pb::StatementEntryKind::Refund,
        EntryKind::Reversal => pb::StatementEntryKind::Reversal,
        // Never on a statement: it moves nothing that a patient owes.
        EntryKind::Dispute => pb::StatementEntryKind::Unspecified,
    };
    pb::StatementEntry {
        id: line.id.to_string(),
        charge_id: line.charge.to_string(),
        appointment_id: line.appointment.to_string(),
        kind: kind.into(),
        amount: Some(money(line.amount, currency)),
        balance_after: Some(money(line.balance_after, currency)),
        post_time: Some(timestamp(line.posted_at)),
    }
}
