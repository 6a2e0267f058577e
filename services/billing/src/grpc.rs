//! The contract's calls: decode, check, call the application, encode.

use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};
use kit::auth::caller;
use kit::fields::Fields;
use kit::idempotency;
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId, ServiceTypeId};
use kit::merges;
use kit::page::Page;
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1 as pb;
use proto::clinic::billing::v1::billing_service_server::BillingService;
use proto::google::r#type::{Interval, Money};
use tonic::{Request, Response, Status};

use crate::app::App;
use crate::app::account::Key;
use crate::app::authorize::AuthorizeCopay;
use crate::app::reconcile;
use crate::domain::charge::{Kind, State};
use crate::domain::fee::{Fee, MOST_PER_CALL};
use crate::domain::money::{self, Currency};
use crate::error::Error;
use crate::gateway::Span;
use crate::store::charges::Filter;
use crate::wire;

/// Characters in the reason of a refund.
const REASON_LENGTH: RangeInclusive<usize> = 1..=500;
/// Characters in a provider's card token.
const TOKEN_LENGTH: RangeInclusive<usize> = 4..=255;
/// What a provider's card token begins with.
const TOKEN_PREFIX: &str = "pm_";
/// Digits in a row from which on a token looks like a card number (ISO/IEC 7812).
const CARD_NUMBER_DIGITS: usize = 12;

/// The service behind the port.
pub struct Grpc {
    /// What does the work.
    pub app: App,
}

#[tonic::async_trait]
impl BillingService for Grpc {
    async fn set_fee_schedule(
        &self,
        request: Request<pb::SetFeeScheduleRequest>,
    ) -> Result<Response<pb::FeeSchedule>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let clinic = fields.id::<ClinicId>("clinic_id", &request.clinic_id);
        let within = (1..=MOST_PER_CALL).contains(&request.fees.len());
        fields.ensure(within, "fees", "must have 1 to 100 fees");
        let looked_at = if within { request.fees.as_slice() } else { &[] };
        let currency = self.app.currency;
        let fees: Vec<Fee> =
            looked_at.iter().enumerate().map(|(i, fee)| parse_fee(&mut fields, i, fee, currency)).collect();
        for (i, fee) in fees.iter().enumerate() {
            let key = |fee: &Fee| (fee.service_type, fee.effective_from);
            if fees[..i].iter().any(|earlier| key(earlier) == key(fee)) {
                fields.refuse(
                    format!("fees[{i}]"),
                    "must differ from the others in service type or first date",
                );
            }
        }
        fields.check().map_err(Error::from)?;
        Ok(Response::new(self.app.set_fees(&caller, request_id, &request, clinic, &fees).await?))
    }

    async fn get_fee_schedule(
        &self,
        request: Request<pb::GetFeeScheduleRequest>,
    ) -> Result<Response<pb::FeeSchedule>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let clinic = fields.id::<ClinicId>("clinic_id", &request.clinic_id);
        let service_type = fields.optional_id::<ServiceTypeId>("service_type_id", &request.service_type_id);
        let visit_date = request.visit_date.as_ref().map(|date| fields.date("visit_date", Some(date)));
        fields.check().map_err(Error::from)?;
        let schedule = self.app.fees(clinic, service_type, visit_date).await?;
        Ok(Response::new(wire::fee_schedule(&schedule, self.app.currency)))
    }

    async fn save_payment_method(
        &self,
        request: Request<pb::SavePaymentMethodRequest>,
    ) -> Result<Response<pb::PaymentMethod>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let patient = fields.id::<PatientId>("patient_id", &request.patient_id);
        fields.ensure(
            is_card_token(&request.provider_token),
            "provider_token",
            "must be the payment provider's token for a card (\"pm_…\", at most 255 letters, digits and underscores), never a card number",
        );
        fields.check().map_err(Error::from)?;
        merges::see_in(&self.app.db, &caller, patient, patient).await.map_err(Error::from)?;
        Ok(Response::new(self.app.save_card(&caller, request_id, &request, patient).await?))
    }

    async fn authorize_copay(
        &self,
        request: Request<pb::AuthorizeCopayRequest>,
    ) -> Result<Response<pb::Charge>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let call = AuthorizeCopay {
            request: fields.request_id(&request.request_id),
            fingerprint: idempotency::fingerprint("AuthorizeCopay", &request),
            appointment: fields.id("appointment_id", &request.appointment_id),
            patient: fields.id("patient_id", &request.patient_id),
            clinic: fields.id("clinic_id", &request.clinic_id),
            service_type: fields.id("service_type_id", &request.service_type_id),
            start: fields.instant("visit_start_time", request.visit_start_time),
            visit_date: fields.date("visit_date", request.visit_date.as_ref()),
            card: fields.optional_id::<PaymentMethodId>("payment_method_id", &request.payment_method_id),
            authorize_by: fields.instant("authorize_by", request.authorize_by),
            off_session: request.off_session,
        };
        fields.check().map_err(Error::from)?;
        let (charge, visit) = self.app.authorize_copay(call).await?;
        // What is reserved has nothing to give back yet.
        Ok(Response::new(wire::charge(&charge, &visit, &[], true)))
    }

    async fn get_charge(
        &self,
        request: Request<pb::GetChargeRequest>,
    ) -> Result<Response<pb::Charge>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let id = fields.id::<ChargeId>("charge_id", &request.charge_id);
        fields.check().map_err(Error::from)?;
        let (charge, visit, refunds) = self.app.charge(id).await?;
        merges::see_in(&self.app.db, &caller, visit.patient, id).await.map_err(Error::from)?;
        let with_secret = caller.is(Role::Patient) || caller.is(Role::FrontDesk);
        Ok(Response::new(wire::charge(&charge, &visit, &refunds, with_secret)))
    }

    async fn list_charges(
        &self,
        request: Request<pb::ListChargesRequest>,
    ) -> Result<Response<pb::ListChargesResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let named = fields.optional_id::<PatientId>("patient_id", &request.patient_id);
        let appointment = fields.optional_id::<AppointmentId>("appointment_id", &request.appointment_id);
        let clinic = fields.optional_id::<ClinicId>("clinic_id", &request.clinic_id);
        let kinds = parse_kinds(&mut fields, &request.kinds);
        let states = parse_states(&mut fields, &request.states);
        let (from, until) = parse_interval(&mut fields, "create_interval", request.create_interval.as_ref());
        if caller.only_patient().is_some() && named.is_none() && appointment.is_none() {
            fields.refuse("patient_id", "is required without appointment_id: the UUID of a Patient");
        }
        fields.check().map_err(Error::from)?;
        let page = Page::<Key>::parse(request.page_size, &request.page_token).map_err(Error::from)?;
        if let Some(patient) = named {
            merges::see_in(&self.app.db, &caller, patient, patient).await.map_err(Error::from)?;
        }
        // A patient's own, whatever else it named.
        let patient = named.or(caller.only_patient());
        let owed_only = request.owed_only;
        let filter = Filter { patient, appointment, clinic, kinds, states, from, until, owed_only };
        let (rows, refunds, next_page_token) = self.app.charges(&filter, &page).await?;
        let charges =
            rows.iter().map(|(charge, visit)| wire::charge(charge, visit, &refunds, false)).collect();
        Ok(Response::new(pb::ListChargesResponse { charges, next_page_token }))
    }

    async fn refund_charge(
        &self,
        request: Request<pb::RefundChargeRequest>,
    ) -> Result<Response<pb::Charge>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.id::<ChargeId>("charge_id", &request.charge_id);
        let amount = request.amount.as_ref().map(|amount| {
            let Money { currency_code, units, nanos } = amount;
            money::parse_refund(currency_code, *units, *nanos, self.app.currency).unwrap_or_else(|words| {
                fields.refuse("amount", words);
                0
            })
        });
        let reason = fields.text("reason", &request.reason, REASON_LENGTH);
        fields.ensure(!request.etag.is_empty(), "etag", "is required: the charge's etag as last read");
        fields.check().map_err(Error::from)?;
        Ok(Response::new(self.app.refund(&caller, request_id, &request, id, amount, &reason).await?))
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<pb::ReconciliationReport>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let now = self.app.clock.now();
        let span = match request.interval.as_ref() {
            None => Span { from: now - reconcile::USUAL_REACH, until: now },
            Some(interval) => Span {
                from: fields.instant("interval.start_time", interval.start_time),
                until: fields.instant("interval.end_time", interval.end_time),
            },
        };
        let length = span.until - span.from;
        let within = length > TimeDelta::zero() && length <= reconcile::LONGEST_REACH;
        fields.ensure(within, "interval", "must end after it starts, and within 31 days");
        fields.check().map_err(Error::from)?;
        Ok(Response::new(self.app.reconcile(&caller, request_id, request, span).await?))
    }

    async fn get_patient_account(
        &self,
        request: Request<pb::GetPatientAccountRequest>,
    ) -> Result<Response<pb::PatientAccount>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let mut fields = Fields::new();
        let patient = fields.id::<PatientId>("patient_id", &request.patient_id);
        let interval = parse_interval(&mut fields, "interval", request.interval.as_ref());
        fields.check().map_err(Error::from)?;
        let page = Page::<Key>::parse(request.page_size, &request.page_token).map_err(Error::from)?;
        merges::see_in(&self.app.db, &caller, patient, patient).await.map_err(Error::from)?;
        let account = self.app.account(patient, interval, &page).await?;
        Ok(Response::new(wire::account(account, self.app.currency, self.app.clock.now())))
    }
}

fn parse_fee(fields: &mut Fields, i: usize, fee: &pb::Fee, currency: Currency) -> Fee {
    let at = |field: &str| format!("fees[{i}].{field}");
    fields.ensure(fee.effective_until.is_none(), &at("effective_until"), "is output only: leave it unset");
    Fee {
        service_type: fields.id(&at("service_type_id"), &fee.service_type_id),
        effective_from: fields.date(&at("effective_from"), fee.effective_from.as_ref()),
        effective_until: None,
        copay: parse_money(fields, &at("copay_amount"), fee.copay_amount.as_ref(), currency),
        no_show: parse_money(fields, &at("no_show_fee_amount"), fee.no_show_fee_amount.as_ref(), currency),
    }
}

fn parse_money(fields: &mut Fields, field: &str, money: Option<&Money>, currency: Currency) -> Option<i64> {
    let money = money?;
    match money::parse(&money.currency_code, money.units, money.nanos, currency) {
        Ok(minor) => Some(minor),
        Err(words) => {
            fields.refuse(field, words);
            None
        }
    }
}

fn parse_kinds(fields: &mut Fields, kinds: &[i32]) -> Vec<Kind> {
    let parse = |kind: i32| match pb::ChargeKind::try_from(kind).ok()? {
        pb::ChargeKind::Unspecified => None,
        pb::ChargeKind::Copay => Some(Kind::Copay),
        pb::ChargeKind::NoShowFee => Some(Kind::NoShowFee),
    };
    parse_all(fields, "kinds", kinds, parse)
}

fn parse_states(fields: &mut Fields, states: &[i32]) -> Vec<State> {
    let parse = |state: i32| match pb::ChargeState::try_from(state).ok()? {
        pb::ChargeState::Unspecified => None,
        pb::ChargeState::Authorizing => Some(State::Authorizing),
        pb::ChargeState::Authorized => Some(State::Authorized),
        pb::ChargeState::RequiresAction => Some(State::RequiresAction),
        pb::ChargeState::Declined => Some(State::Declined),
        pb::ChargeState::Capturing => Some(State::Capturing),
        pb::ChargeState::Captured => Some(State::Captured),
        pb::ChargeState::Voiding => Some(State::Voiding),
        pb::ChargeState::Voided => Some(State::Voided),
        pb::ChargeState::Lapsed => Some(State::Lapsed),
        pb::ChargeState::Refunded => Some(State::Refunded),
    };
    parse_all(fields, "states", states, parse)
}

fn parse_all<T>(
    fields: &mut Fields,
    field: &str,
    numbers: &[i32],
    parse: impl Fn(i32) -> Option<T>,
) -> Vec<T> {
    let mut known = vec![];
    for (i, number) in numbers.iter().enumerate() {
        match parse(*number) {
            Some(value) => known.push(value),
            None => {
                fields.refuse(format!("{field}[{i}]"), "must be a value of its enum other than UNSPECIFIED")
            }
        }
    }
    known
}

/// Both ends of an interval; an unset one is open.
fn parse_interval(
    fields: &mut Fields,
    field: &str,
    interval: Option<&Interval>,
) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let mut end = |name: &str, value: Option<prost_types::Timestamp>| {
        value.map(|value| fields.instant(&format!("{field}.{name}"), Some(value)))
    };
    let from = end("start_time", interval.and_then(|i| i.start_time));
    let until = end("end_time", interval.and_then(|i| i.end_time));
    if let (Some(from), Some(until)) = (from, until) {
        fields.ensure(from <= until, field, "must not end before it starts");
    }
    (from, until)
}

fn is_card_token(token: &str) -> bool {
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let longest_number = token.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    let length = TOKEN_LENGTH.contains(&token.len());
    length && plain && token.starts_with(TOKEN_PREFIX) && longest_number < CARD_NUMBER_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_card_tokens_are_taken_as_tokens() {
        assert!(["pm_card_visa", "pm_1QbLk2eZvKYlo2C0x4Bz7d9A"].iter().all(|token| is_card_token(token)));
        let bad = ["", "pm_", "4242424242424242", "pm_4242424242424242", "tok_visa", "pm_a/../b", "pm_é"];
        for token in bad {
            assert!(!is_card_token(token), "{token}");
        }
        assert!(!is_card_token(&format!("pm_{}", "a".repeat(253))));
    }
}
