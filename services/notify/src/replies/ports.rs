//! Whom texts come from, the visits that they confirm and cancel, and the offers that they answer.

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kit::client::Outbound;
use kit::fields::timestamp;
use kit::ids::{AppointmentId, PatientId};
use kit::status::reason;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::waitlist_service_client::WaitlistServiceClient;
use proto::clinic::appointments::v1::{
    AcceptOfferRequest, Appointment, AppointmentState, CancelAppointmentRequest, CancelledBy, CopayState,
    DeclineOfferRequest, GetAppointmentRequest, ListOffersRequest, OfferState, RescheduleAppointmentRequest,
};
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{
    AccessPurpose, SearchPatientsRequest, SetSmsConsentRequest, SmsConsentSource, SmsConsentState,
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::notice::Alternative;

/// Patients at one number at most; who shares a phone with more is not found by it.
const MOST_PATIENTS: i32 = 20;
/// Characters of a decision's words that the patients service takes.
const WORDING: usize = 1000;
/// Reasons of the appointments service: someone was faster.
const TAKEN: [&str; 2] = ["SLOT_TAKEN", "ROOM_TAKEN"];
/// …the co-pay was not to be had from a card…
const UNPAID: [&str; 2] = ["PAYMENT_DECLINED", "PAYMENT_METHOD_REQUIRED"];
/// …another visit of the patient's is in the way.
const CLASHES: [&str; 2] = ["PATIENT_BUSY", "WITHIN_7_DAYS"];
/// Answered offers of a patient that are looked through: it is the latest that a text is about.
const LATEST_OFFERS: i32 = 50;

/// Someone who is reached at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub patient: PatientId,
    /// BCP 47; empty = the network's default.
    pub language: String,
}

/// What a patient decided about texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whether texts may come.
    pub granted: bool,
    /// The words it was said in.
    pub wording: String,
    /// Who said it: the patient, or the carrier.
    pub source: SmsConsentSource,
    /// When.
    pub at: DateTime<Utc>,
    /// Makes the call safe to repeat.
    pub request: Uuid,
}

/// Who knows whom a number belongs to, and what they agreed to.
#[async_trait]
pub trait Holders: Send + Sync {
    /// The patients whose present number `phone` is, E.164. An error is worth another try.
    async fn at(&self, phone: &str) -> anyhow::Result<Vec<Holder>>;

    /// Records what a patient decided. An error is worth another try.
    async fn decide(&self, patient: PatientId, wish: &Wish) -> anyhow::Result<()>;
}

/// Who keeps the visits.
#[async_trait]
pub trait Visits: Send + Sync {
    /// Whether a visit is booked. An error is worth another try.
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool>;

    /// Cancels a visit for its patient, once for each `request`; `None` = it is no longer to be cancelled. An error is worth another
    /// try.
    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<Option<Cancelled>>;

    /// Moves a displaced visit to a time that its patient chose, once for each `request`. An error is worth another try.
    async fn move_to(
        &self,
        appointment: AppointmentId,
        to: Alternative,
        request: Uuid,
    ) -> anyhow::Result<Moved>;

    /// Takes an offer for its patient, or turns it down, once for each `request`. An error is worth another try.
    async fn answer_offer(&self, answer: OfferAnswer, request: Uuid) -> anyhow::Result<Settled>;
}

/// What a patient says to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferAnswer {
    /// Which: the appointment that holds the time.
    pub offer: AppointmentId,
    /// Whose.
    pub patient: PatientId,
    /// Whether the patient takes it.
    pub takes: bool,
}

/// What came of an answer to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It led to its visit just now.
    Booked,
    /// It led to its visit before.
    BookedBefore,
    /// It is turned down.
    Declined,
    /// It has ended otherwise: the time is another's, or will be.
    Ended,
    /// It stands, but the co-pay was not to be had from the patient's card.
    Unpaid,
    /// It stands, but another visit of the patient's is in the way.
    Clashes,
}

/// A cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// It was late, and costs a fee.
    pub late_fee: bool,
}

/// What came of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The visit has the time.
    Done,
    /// The time is not to be had any more.
    Taken,
    /// The visit is displaced no longer.
    Gone,
}

/// The patients service over gRPC.
#[derive(Clone, Debug)]
pub struct HoldersRpc(PatientServiceClient<Outbound>);

impl HoldersRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self(PatientServiceClient::new(outbound))
    }
}

#[async_trait]
impl Holders for HoldersRpc {
    async fn at(&self, phone: &str) -> anyhow::Result<Vec<Holder>> {
        let request = SearchPatientsRequest {
            phone: phone.to_owned(),
            page_size: MOST_PATIENTS,
            purpose: AccessPurpose::Notification.into(),
            ..Default::default()
        };
        let found = match self.0.clone().search_patients(request).await {
            Ok(found) => found.into_inner(),
            // A short code, or a sender that is no number at all: it belongs to nobody.
            Err(status) if status.code() == Code::InvalidArgument => return Ok(vec![]),
            Err(status) => return Err(status).context("asking the patients service for a number"),
        };
        let holder = |patient: proto::clinic::patients::v1::Patient| {
            let id = patient.id.parse().context("a patient's id")?;
            Ok(Holder { patient: id, language: patient.language })
        };
        // The survivor of a merge is found by the numbers that merged records had, too.
        let reached = found.matches.into_iter().filter_map(|found| found.patient);
        reached.filter(|patient| patient.phone == phone).map(holder).collect()
    }

    async fn decide(&self, patient: PatientId, wish: &Wish) -> anyhow::Result<()> {
        let state = if wish.granted { SmsConsentState::Granted } else { SmsConsentState::Revoked };
        let wording: String = wish.wording.chars().take(WORDING).collect();
        let request = SetSmsConsentRequest {
            request_id: wish.request.to_string(),
            patient_id: patient.to_string(),
            state: state.into(),
            source: wish.source.into(),
            wording,
            decide_time: Some(timestamp(wish.at)),
            ..Default::default()
        };
        match self.0.clone().set_sms_consent(request).await {
            Ok(_) => Ok(()),
            // Merged, or without a number by now: there is nothing left to decide.
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => Ok(()),
            Err(status) => Err(status).context("telling the patients service of a decision"),
        }
    }
}

/// The appointments service over gRPC.
#[derive(Clone, Debug)]
pub struct VisitsRpc {
    bookings: BookingServiceClient<Outbound>,
    waitlist: WaitlistServiceClient<Outbound>,
}

impl VisitsRpc {
    /// Through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        Self {
            bookings: BookingServiceClient::new(outbound.clone()),
            waitlist: WaitlistServiceClient::new(outbound),
        }
    }

    async fn visit(&self, appointment: AppointmentId) -> anyhow::Result<Option<Appointment>> {
        let request = GetAppointmentRequest { appointment_id: appointment.to_string(), ..Default::default() };
        match self.bookings.clone().get_appointment(request).await {
            Ok(found) => Ok(Some(found.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status).context("asking the appointments service"),
        }
    }

    async fn accept(&self, offer: AppointmentId, request: Uuid) -> anyhow::Result<Option<Settled>> {
        let request = AcceptOfferRequest {
            request_id: request.to_string(),
            offer_id: offer.to_string(),
            ..Default::default()
        };
        let status = match self.waitlist.clone().accept_offer(request).await {
            Ok(visit) => return accepted(visit.get_ref()).map(Some),
            Err(status) => status,
        };
        let reason = reason(&status);
        if UNPAID.contains(&reason.as_str()) {
            return Ok(Some(Settled::Unpaid));
        }
        if CLASHES.contains(&reason.as_str()) {
            return Ok(Some(Settled::Clashes));
        }
        if has_ended(&status) || TAKEN.contains(&reason.as_str()) {
            return Ok(None);
        }
        Err(status).context("accepting at the appointments service")
    }

    async fn decline(&self, offer: AppointmentId, request: Uuid) -> anyhow::Result<Option<Settled>> {
        let request = DeclineOfferRequest { request_id: request.to_string(), offer_id: offer.to_string() };
        match self.waitlist.clone().decline_offer(request).await {
            Ok(_) => Ok(Some(Settled::Declined)),
            Err(status) if has_ended(&status) => Ok(None),
            Err(status) => Err(status).context("declining at the appointments service"),
        }
    }

    /// How an offer ended that can be answered no more.
    async fn ended(&self, OfferAnswer { offer, patient, .. }: OfferAnswer) -> anyhow::Result<Settled> {
        let request = ListOffersRequest {
            patient_id: patient.to_string(),
            states: vec![OfferState::Accepted.into(), OfferState::Declined.into()],
            page_size: LATEST_OFFERS,
            ..Default::default()
        };
        let listed = self.waitlist.clone().list_offers(request).await;
        let offers = listed.context("asking the appointments service for offers")?.into_inner().offers;
        let found = offers.iter().find(|known| known.id == offer.to_string());
        Ok(match found.map(|offer| offer.state()) {
            Some(OfferState::Accepted) => Settled::BookedBefore,
            Some(OfferState::Declined) => Settled::Declined,
            _ => Settled::Ended,
        })
    }
}

/// Whether the appointments service refuses for good.
fn has_ended(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::NotFound)
}

/// What an offer became that was not refused. One that is undecided is asked about again.
fn accepted(visit: &Appointment) -> anyhow::Result<Settled> {
    let copay = visit.copay.as_ref().map(|copay| copay.state()).unwrap_or_default();
    match (visit.state(), copay) {
        (AppointmentState::Offered, CopayState::ActionRequired | CopayState::Declined) => Ok(Settled::Unpaid),
        (AppointmentState::Offered, _) => anyhow::bail!("the co-pay of an accepted offer is undecided"),
        _ => Ok(Settled::Booked),
    }
}

#[async_trait]
impl Visits for VisitsRpc {
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool> {
        let found = self.visit(appointment).await?;
        Ok(found.is_some_and(|visit| visit.state() == AppointmentState::Booked))
    }

    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<Option<Cancelled>> {
        let request = CancelAppointmentRequest {
            request_id: request.to_string(),
            appointment_id: appointment.to_string(),
            etag: String::new(),
            cancelled_by: CancelledBy::Patient.into(),
        };
        match self.bookings.clone().cancel_appointment(request).await {
            Ok(visit) => {
                let late_fee = visit.get_ref().cancellation.is_some_and(|cancellation| cancellation.fee_due);
                Ok(Some(Cancelled { late_fee }))
            }
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => Ok(None),
            Err(status) => Err(status).context("cancelling at the appointments service"),
        }
    }

    async fn move_to(
        &self,
        appointment: AppointmentId,
        to: Alternative,
        request: Uuid,
    ) -> anyhow::Result<Moved> {
        let Some(visit) = self.visit(appointment).await? else { return Ok(Moved::Gone) };
        let start = timestamp(to.start);
        let begins = visit.interval.and_then(|interval| interval.start_time);
        match visit.state() {
            AppointmentState::Displaced => {}
            // By an earlier try, whose answer was lost.
            AppointmentState::Booked
                if begins == Some(start) && visit.provider_id == to.provider.to_string() =>
            {
                return Ok(Moved::Done);
            }
            _ => return Ok(Moved::Gone),
        }
        let request = RescheduleAppointmentRequest {
            request_id: request.to_string(),
            appointment_id: appointment.to_string(),
            etag: visit.etag,
            provider_id: to.provider.to_string(),
            start_time: Some(start),
            ..Default::default()
        };
        match self.bookings.clone().reschedule_appointment(request).await {
            Ok(_) => Ok(Moved::Done),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(Moved::Taken),
            Err(status) if TAKEN.contains(&reason(&status).as_str()) => Ok(Moved::Taken),
            Err(status) => Err(status).context("moving at the appointments service"),
        }
    }

    async fn answer_offer(&self, answer: OfferAnswer, request: Uuid) -> anyhow::Result<Settled> {
        let settled = match answer.takes {
            true => self.accept(answer.offer, request).await?,
            false => self.decline(answer.offer, request).await?,
        };
        match settled {
            Some(settled) => Ok(settled),
            None => self.ended(answer).await,
        }
    }
}
