//! The contract at the door: decode, call the use case, encode.

use kit::auth::{Caller, caller};
use kit::fields::{Fields, date, timestamp};
use kit::idempotency::fingerprint;
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId};
use kit::page::Page;
use kit::status::Error as KitError;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::booking_service_server::BookingService;
use proto::clinic::appointments::v1::waitlist_service_server::WaitlistService;
use proto::google::r#type::Interval;
use tonic::{Request, Response, Status};

use crate::DOMAIN;
use crate::app::{self, App, List};
use crate::domain::{Copay, RequestKey, Reservation, State};
use crate::events::cancellation;
use crate::store::{Change, Filter};

/// Longest reason for an override, in characters.
const MAX_REASON: usize = 200;
/// Visits start on the 5-minute grid.
const GRID_SECS: i64 = 300;

/// `BookingService`.
pub struct Booking(pub(crate) App);

/// `WaitlistService`.
pub struct Waitlist;

#[tonic::async_trait]
impl WaitlistService for Waitlist {}

#[tonic::async_trait]
impl BookingService for Booking {
    async fn hold_slot(
        &self,
        request: Request<pb::HoldSlotRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = request_key(&mut fields, &caller, "HoldSlot", &request.request_id, &request);
        let slot = app::Slot {
            patient: fields.optional_id("patient_id", &request.patient_id),
            service_type: fields.id("service_type_id", &request.service_type_id),
            clinic: fields.id("clinic_id", &request.clinic_id),
            provider: fields.optional_id("provider_id", &request.provider_id),
            room: fields.optional_id("room_id", &request.room_id),
            start: start(&mut fields, request.start_time),
            override_reason: fields.text("override_reason", &request.override_reason, 0..=MAX_REASON),
        };
        check(fields)?;
        let row = self.0.hold(&caller, &slot, key).await?;
        Ok(Response::new(appointment(&row)))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.request_id(&request.request_id);
        let hold = fields.id("hold_id", &request.hold_id);
        check(fields)?;
        let row = self.0.release(&caller, hold).await?;
        Ok(Response::new(appointment(&row)))
    }

    async fn book_appointment(
        &self,
        request: Request<pb::BookAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = request_key(&mut fields, &caller, "BookAppointment", &request.request_id, &request);
        let hold: Option<AppointmentId> = fields.optional_id("hold_id", &request.hold_id);
        let slot = hold.is_none().then(|| app::Slot {
            patient: fields.optional_id("patient_id", &request.patient_id),
            service_type: fields.id("service_type_id", &request.service_type_id),
            clinic: fields.id("clinic_id", &request.clinic_id),
            provider: fields.optional_id("provider_id", &request.provider_id),
            room: fields.optional_id("room_id", &request.room_id),
            start: start(&mut fields, request.start_time),
            override_reason: fields.text("override_reason", &request.override_reason, 0..=MAX_REASON),
        });
        let payment_method = fields.optional_id("payment_method_id", &request.payment_method_id);
        check(fields)?;
        let booked = self.0.book(&caller, app::Booking { hold, slot, payment_method, request: key }).await?;
        let mut answer = appointment(&booked.row);
        if caller.only_patient().is_some()
            && let Some(copay) = &mut answer.copay
        {
            copay.client_secret = booked.client_secret;
        }
        Ok(Response::new(answer))
    }

    async fn get_appointment(
        &self,
        request: Request<pb::GetAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = fields.id("appointment_id", &request.appointment_id);
        let full = request.view() == pb::AppointmentView::Full;
        check(fields)?;
        let (row, history) = self.0.get(&caller, id, full).await?;
        let mut answer = appointment(&row);
        let to_patient = caller.only_patient().is_some();
        answer.history = history.into_iter().map(|c| change(c, to_patient)).collect();
        Ok(Response::new(answer))
    }

    async fn list_appointments(
        &self,
        request: Request<pb::ListAppointmentsRequest>,
    ) -> Result<Response<pb::ListAppointmentsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let list = list(&caller, &request).map_err(|e| e.into_status(DOMAIN))?;
        let (rows, next_page_token) = self.0.list(&list).await?;
        let appointments = rows.iter().map(appointment).collect();
        Ok(Response::new(pb::ListAppointmentsResponse { appointments, next_page_token }))
    }

    async fn cancel_appointment(
        &self,
        request: Request<pb::CancelAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let id = changed(&request.request_id, &request.appointment_id)?;
        let by_clinic = request.cancelled_by() == pb::CancelledBy::Clinic;
        let row = self.0.cancel(&caller, id, &request.etag, by_clinic).await?;
        Ok(Response::new(appointment(&row)))
    }

    async fn check_in(
        &self,
        request: Request<pb::CheckInRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let id = changed(&request.request_id, &request.appointment_id)?;
        let row = self.0.check_in(&caller, id, &request.etag).await?;
        Ok(Response::new(appointment(&row)))
    }

    async fn complete_visit(
        &self,
        request: Request<pb::CompleteVisitRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.request_id(&request.request_id);
        let id = fields.id("appointment_id", &request.appointment_id);
        let outcome = request.outcome();
        fields.ensure(
            outcome != pb::VisitOutcome::Unspecified,
            "outcome",
            "is required: ATTENDED or NO_SHOW",
        );
        check(fields)?;
        let row = self.0.complete(&caller, id, &request.etag, outcome).await?;
        Ok(Response::new(appointment(&row)))
    }
}

fn check(fields: Fields) -> Result<(), Status> {
    fields.check().map_err(|e| e.into_status(DOMAIN))
}

/// The fields that every change of an appointment has.
fn changed(request_id: &str, appointment_id: &str) -> Result<AppointmentId, Status> {
    let mut fields = Fields::new();
    fields.request_id(request_id);
    let id = fields.id("appointment_id", appointment_id);
    check(fields)?;
    Ok(id)
}

fn request_key<Q: prost::Message>(
    fields: &mut Fields,
    caller: &Caller,
    method: &str,
    request_id: &str,
    request: &Q,
) -> Option<RequestKey> {
    let request_id = fields.request_id(request_id)?.uuid();
    Some(RequestKey { caller: caller.subject.clone(), request_id, fingerprint: fingerprint(method, request) })
}

fn start(fields: &mut Fields, value: Option<prost_types::Timestamp>) -> chrono::DateTime<chrono::Utc> {
    let start = fields.instant("start_time", value);
    let on_grid = start.timestamp() % GRID_SECS == 0 && start.timestamp_subsec_nanos() == 0;
    fields.ensure(value.is_none() || on_grid, "start_time", "must be on a whole 5 minutes");
    start
}

fn list(caller: &Caller, request: &pb::ListAppointmentsRequest) -> Result<List, KitError> {
    let mut fields = Fields::new();
    let named: Option<PatientId> = fields.optional_id("patient_id", &request.patient_id);
    let clinic: Option<ClinicId> = fields.optional_id("clinic_id", &request.clinic_id);
    let provider: Option<ProviderId> = fields.optional_id("provider_id", &request.provider_id);
    let interval = request.interval.unwrap_or_default();
    let mut bound = |name: &str, t: Option<prost_types::Timestamp>| t.map(|t| fields.instant(name, Some(t)));
    let from = bound("interval.start_time", interval.start_time);
    let until = bound("interval.end_time", interval.end_time);
    let ordered = from.zip(until).is_none_or(|(from, until)| from <= until);
    fields.ensure(ordered, "interval", "must not end before it starts");
    let mut states = vec![];
    for (i, wire) in request.states().enumerate() {
        match State::ALL.into_iter().find(|s| state(*s) == wire) {
            Some(state) => states.push(state),
            None => fields.refuse(format!("states[{i}]"), "must be a state that appointments have"),
        }
    }
    if states.is_empty() {
        let left_out = [State::Held, State::Offered, State::Expired, State::Released, State::Declined];
        states = State::ALL.into_iter().filter(|s| !left_out.contains(s)).collect();
    }
    let patient = match (caller.only_patient(), named) {
        (Some(own), named) => {
            named.map_or(Ok(()), |p| caller.see(p, p))?;
            Some(own)
        }
        (None, named) => named,
    };
    let some = patient.is_some() || clinic.is_some() || provider.is_some();
    fields.ensure(some, "patient_id", "one of patient_id, clinic_id and provider_id is required");
    fields.check()?;
    let page = Page::parse(request.page_size, &request.page_token)?;
    let filter = Filter { patient, clinic, provider, from, until, states };
    Ok(List { filter, latest_first: request.latest_first, page })
}

/// A state as the wire has it.
pub(crate) fn state(state: State) -> pb::AppointmentState {
    match state {
        State::Held => pb::AppointmentState::Held,
        State::Offered => pb::AppointmentState::Offered,
        State::Booked => pb::AppointmentState::Booked,
        State::Displaced => pb::AppointmentState::Displaced,
        State::CheckedIn => pb::AppointmentState::CheckedIn,
        State::Completed => pb::AppointmentState::Completed,
        State::NoShow => pb::AppointmentState::NoShow,
        State::Cancelled => pb::AppointmentState::Cancelled,
        State::Expired => pb::AppointmentState::Expired,
        State::Released => pb::AppointmentState::Released,
        State::Declined => pb::AppointmentState::Declined,
    }
}

fn copay(copay: Copay) -> pb::CopayState {
    match copay {
        Copay::NotRequired => pb::CopayState::NotRequired,
        Copay::Pending => pb::CopayState::Pending,
        Copay::Authorized => pb::CopayState::Authorized,
        Copay::Declined => pb::CopayState::Declined,
        Copay::ActionRequired => pb::CopayState::ActionRequired,
    }
}

fn interval(start: chrono::DateTime<chrono::Utc>, end: chrono::DateTime<chrono::Utc>) -> Option<Interval> {
    Some(Interval { start_time: Some(timestamp(start)), end_time: Some(timestamp(end)) })
}

fn appointment(row: &Reservation) -> pb::Appointment {
    pb::Appointment {
        id: row.id.to_string(),
        version: row.version,
        state: state(row.state) as i32,
        patient_id: row.patient_id.to_string(),
        service_type_id: row.service_type_id.to_string(),
        clinic_id: row.clinic_id.to_string(),
        provider_id: row.provider_id.to_string(),
        room_id: row.room_id.to_string(),
        interval: interval(row.start, row.end),
        occupied_interval: interval(row.occupied_start, row.occupied_end),
        visit_date: Some(date(row.visit_date)),
        time_zone: row.time_zone.clone(),
        hold_expire_time: row.hold_expires_at.map(timestamp),
        calendar_version: row.calendar_version,
        copay: Some(pb::Copay {
            state: copay(row.copay) as i32,
            charge_id: row.charge_id.map(|c| c.to_string()).unwrap_or_default(),
            client_secret: String::new(),
        }),
        intake_form_id: row.intake_form_id.map(|f| f.to_string()).unwrap_or_default(),
        fee_start_time: Some(timestamp(row.fee_start)),
        displacement: None,
        cancellation: cancellation(row),
        patient_confirm_time: None,
        check_in_time: row.checked_in_at.map(timestamp),
        close_time: row.closed_at.map(timestamp),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        etag: row.etag(),
        history: vec![],
    }
}

/// A patient reads what happened to a visit, but not who did it or why a rule was overridden.
fn change(change: Change, to_patient: bool) -> pb::AppointmentChange {
    pb::AppointmentChange {
        version: change.version,
        state: state(change.state) as i32,
        change_time: Some(timestamp(change.changed_at)),
        actor_id: change.actor.filter(|_| !to_patient).unwrap_or_default(),
        actor_role: change.actor_role.unwrap_or_default(),
        interval: interval(change.start, change.end),
        clinic_id: change.clinic_id.to_string(),
        provider_id: change.provider_id.to_string(),
        room_id: change.room_id.to_string(),
        override_reason: change.override_reason.filter(|_| !to_patient).unwrap_or_default(),
        overridden: change.overridden,
    }
}
