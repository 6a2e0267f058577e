//! Reserving the co-pay of a held visit.

use chrono::{DateTime, NaiveDate, Utc};
use kit::ids::{AppointmentId, ChargeId, ClinicId, PatientId, PaymentMethodId, RequestId, ServiceTypeId};
use kit::merges;
use kit::status::Error as KitError;
use sqlx::PgConnection;
use tracing::Instrument as _;

use super::App;
use super::cards::usable_card;
use super::settle::{Driven, LEASE};
use crate::domain::card::Card;
use crate::domain::charge::{Charge, Kind, State, Step};
use crate::domain::visit::{Ending, Visit};
use crate::error::Error;
use crate::store::attempts::{self, Asking, Attempt};
use crate::store::{charges, fees, visits};

/// A held visit whose co-pay is to be reserved.
#[derive(Clone, Debug)]
pub struct AuthorizeCopay {
    /// The caller's name for this attempt.
    pub request: Option<RequestId>,
    /// Hash of the caller's request.
    pub fingerprint: Vec<u8>,
    /// The visit.
    pub appointment: AppointmentId,
    /// Who pays.
    pub patient: PatientId,
    /// Where.
    pub clinic: ClinicId,
    /// What.
    pub service_type: ServiceTypeId,
    /// When it starts.
    pub start: DateTime<Utc>,
    /// Chooses the fee.
    pub visit_date: NaiveDate,
    /// The card; `None` = the patient's default.
    pub card: Option<PaymentMethodId>,
    /// End of the hold.
    pub authorize_by: DateTime<Utc>,
    /// The patient is not there to confirm.
    pub off_session: bool,
}

/// What a call comes to before the provider is asked.
enum Plan {
    /// The charge answers it as it stands.
    Answer(Box<(Charge, Visit)>),
    /// Ask the provider how the newest attempt stands.
    Ask {
        /// Which charge.
        id: ChargeId,
        /// As it stood then.
        revision: i64,
    },
    /// Begin another attempt; the charge is new when it has none.
    Begin(Box<Charge>),
}

impl App {
    /// Answers the charge in AUTHORIZED or REQUIRES_ACTION with its visit, or why there is none.
    pub async fn authorize_copay(&self, call: AuthorizeCopay) -> Result<(Charge, Visit), Error> {
        let (id, driven) = loop {
            let mut tx = self.db.begin().await?;
            match plan(&mut tx, &call, self.clock.now()).await? {
                Plan::Answer(known) => break (known.0.id, Some(*known)),
                Plan::Ask { id, revision } => {
                    charges::postpone(&mut tx, id, revision, Some(LEASE)).await?;
                    tx.commit().await?;
                    let app = self.clone();
                    break (id, lasting(async move { app.drive(id).await }).await?);
                }
                Plan::Begin(mut charge) => {
                    let now = self.clock.now();
                    let card = usable_card(&mut tx, call.patient, call.card, now).await?;
                    if card.confirmed {
                        let asking = begin(&mut tx, &mut charge, &card, &call, now).await?;
                        tx.commit().await?;
                        let (id, app) = (charge.id, self.clone());
                        let asked = async move { app.take(*charge, Step::Authorize, &asking).await };
                        break (id, lasting(asked).await?);
                    }
                    // The provider is asked outside the transaction; then all is looked at again.
                    tx.rollback().await?;
                    self.confirm_card(&card).await?;
                }
            }
        };
        let (charge, visit) = match driven {
            Some(known) => known,
            None => {
                let (charge, visit, _) = self.charge(id).await?;
                (charge, visit)
            }
        };
        match charge.state {
            State::Authorized | State::RequiresAction => Ok((charge, visit)),
            State::Authorizing => Err(Error::provider_down()),
            State::Declined => Err(declined(&charge)),
            State::Capturing
            | State::Captured
            | State::Voiding
            | State::Voided
            | State::Lapsed
            | State::Refunded => Err(ended(&charge, &visit)),
        }
    }
}

/// Runs in a task of its own: a caller who leaves does not leave the outcome unknown.
async fn lasting(
    asked: impl Future<Output = Result<Driven, Error>> + Send + 'static,
) -> Result<Driven, Error> {
    tokio::spawn(asked.in_current_span()).await.map_err(KitError::internal)?
}

/// Decides under the visit's lock. What is inserted here stays only if the caller commits.
async fn plan(tx: &mut PgConnection, call: &AuthorizeCopay, now: DateTime<Utc>) -> Result<Plan, Error> {
    let named = Visit {
        appointment: call.appointment,
        version: 0,
        patient: call.patient,
        clinic: call.clinic,
        service_type: call.service_type,
        start: call.start,
        ended: None,
        fee_reversed: false,
    };
    let met = visits::meet(tx, &named).await?;
    let Some(visit) = met.known else {
        // Nobody heard of it before, so there is no charge; a request that has another's name is noticed when it is written down.
        return if met.now < call.authorize_by {
            first(tx, call, now).await
        } else {
            Err(Error::HoldExpired)
        };
    };
    if visit.patient != call.patient && visit.patient != merges::survivor(tx, call.patient).await? {
        return Err(KitError::invalid("patient_id", "must be the patient of the appointment").into());
    }
    let over = visit.ended.is_some() || met.now >= call.authorize_by;
    let repeat = match call.request {
        None => false,
        Some(request) => match attempts::of_request(tx, request).await? {
            None => false,
            Some((fingerprint, _)) if fingerprint != call.fingerprint => {
                return Err(KitError::RequestIdReused { request_id: request.uuid() }.into());
            }
            Some((_, Some(code))) => return Err(Error::PaymentDeclined { code }),
            Some((_, None)) => true,
        },
    };
    let Some(charge) = charges::lock(tx, call.appointment, Kind::Copay).await? else {
        return if over { Err(Error::HoldExpired) } else { first(tx, call, now).await };
    };
    let other_card = call.card.is_some() && call.card != charge.payment_method;
    match charge.state {
        State::Authorized => Ok(Plan::Answer(Box::new((charge, visit)))),
        State::Authorizing | State::RequiresAction | State::Declined | State::Lapsed if over => {
            Err(Error::HoldExpired)
        }
        State::RequiresAction if other_card && !repeat => Ok(Plan::Begin(Box::new(charge))),
        State::Authorizing | State::RequiresAction => {
            Ok(Plan::Ask { id: charge.id, revision: charge.revision })
        }
        State::Declined if repeat => Err(declined(&charge)),
        State::Declined | State::Lapsed => Ok(Plan::Begin(Box::new(charge))),
        State::Capturing | State::Captured | State::Voiding | State::Voided | State::Refunded => {
            Err(ended(&charge, &visit))
        }
    }
}

/// A charge of the fee in force, to be begun.
async fn first(tx: &mut PgConnection, call: &AuthorizeCopay, now: DateTime<Utc>) -> Result<Plan, Error> {
    let fee = fees::in_force(tx, call.clinic, call.service_type, call.visit_date).await?;
    let (fee, currency) = fee.ok_or(Error::FeeNotSet)?;
    let amount = fee.copay.ok_or(Error::CopayNotDue)?;
    Ok(Plan::Begin(Box::new(Charge::copay(call.appointment, amount, currency, now))))
}

/// Writes down what the provider is about to be asked.
async fn begin(
    tx: &mut PgConnection,
    charge: &mut Charge,
    card: &Card,
    call: &AuthorizeCopay,
    now: DateTime<Utc>,
) -> Result<Asking, Error> {
    let is_new = charge.attempt == 0;
    let replaces = charge.ask(card.id);
    if is_new {
        charges::insert(tx, charge, Some(LEASE)).await?;
    } else {
        charges::save(tx, charge, Some(LEASE), now).await?;
    }
    let attempt = Attempt {
        charge: charge.id,
        number: charge.attempt,
        request: call.request,
        fingerprint: call.fingerprint.clone(),
        card: card.id,
        off_session: call.off_session,
        replaces,
    };
    attempts::insert(tx, &attempt).await.map_err(|error| match (call.request, error.as_database_error()) {
        // Another appointment's request of the same name was faster.
        (Some(request), Some(refused)) if refused.constraint() == Some("attempt_request_once") => {
            KitError::RequestIdReused { request_id: request.uuid() }.into()
        }
        _ => error.into(),
    })
}

fn declined(charge: &Charge) -> Error {
    Error::PaymentDeclined { code: charge.decline_code.clone().unwrap_or_default() }
}

/// Why a charge that has come to its end cannot be authorized.
fn ended(charge: &Charge, visit: &Visit) -> Error {
    match visit.ended.map(|ended| ended.how) {
        Some(Ending::HoldEnded) => Error::HoldExpired,
        Some(Ending::Cancelled | Ending::CancelledLate | Ending::NoShow | Ending::Attended) | None => {
            Error::WrongState { state: charge.state.word() }
        }
    }
}
