//! The contract at the door: decode, call the use case, encode.

mod waitlist;

use kit::auth::{Caller, caller};
use kit::fields::Fields;
use kit::idempotency::Key;
use kit::ids::{AppointmentId, ClinicId, PatientId, ProviderId, RoomId};
use kit::page::Page;
use kit::status::Error as KitError;
use kit::watch::{self, Seats};
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::booking_service_server::BookingService;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::app::{self, App, List};
use crate::domain::State;
use crate::store::Filter;
use crate::{DOMAIN, wire};

pub use waitlist::Waitlist;

/// Longest reason for an override, in characters.
const MAX_REASON: usize = 200;
/// Visits start on the 5-minute grid.
const GRID_SECS: i64 = 300;

/// `BookingService`.
pub struct Booking {
    app: App,
    watching: Seats,
}

impl Booking {
    /// The service, with nobody watching.
    pub(crate) fn new(app: App) -> Self {
        Self { app, watching: Seats::default() }
    }
}

#[tonic::async_trait]
impl BookingService for Booking {
    async fn hold_slot(
        &self,
        request: Request<pb::HoldSlotRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = key(&mut fields, &caller, "HoldSlot", &request.request_id, &request);
        let slot = app::Slot {
            patient: fields.optional_id("patient_id", &request.patient_id),
            service_type: fields.id("service_type_id", &request.service_type_id),
            clinic: fields.id("clinic_id", &request.clinic_id),
            provider: fields.optional_id("provider_id", &request.provider_id),
            room: fields.optional_id("room_id", &request.room_id),
            start: start(&mut fields, request.start_time),
            override_reason: reason(&mut fields, &request.override_reason),
        };
        check(fields)?;
        Ok(Response::new(self.app.hold(&caller, &slot, key).await?))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let change = app::Change {
            key: key(&mut fields, &caller, "ReleaseHold", &request.request_id, &request),
            id: fields.id("hold_id", &request.hold_id),
            etag: String::new(),
        };
        check(fields)?;
        Ok(Response::new(self.app.release(&caller, change).await?))
    }

    async fn book_appointment(
        &self,
        request: Request<pb::BookAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let key = key(&mut fields, &caller, "BookAppointment", &request.request_id, &request);
        let hold: Option<AppointmentId> = fields.optional_id("hold_id", &request.hold_id);
        let patient = fields.optional_id("patient_id", &request.patient_id);
        let provider = fields.optional_id("provider_id", &request.provider_id);
        let room = fields.optional_id("room_id", &request.room_id);
        let override_reason = reason(&mut fields, &request.override_reason);
        let target = match hold {
            Some(hold) => {
                let expected = app::Expected {
                    patient,
                    service_type: fields.optional_id("service_type_id", &request.service_type_id),
                    clinic: fields.optional_id("clinic_id", &request.clinic_id),
                    provider,
                    room,
                    start: request.start_time.map(|s| start(&mut fields, Some(s))),
                };
                app::Target::Hold(hold, expected)
            }
            None => app::Target::Slot(app::Slot {
                patient,
                service_type: fields.id("service_type_id", &request.service_type_id),
                clinic: fields.id("clinic_id", &request.clinic_id),
                provider,
                room,
                start: start(&mut fields, request.start_time),
                override_reason,
            }),
        };
        let payment_method = fields.optional_id("payment_method_id", &request.payment_method_id);
        check(fields)?;
        let booked = self.app.book(&caller, app::Booking { target, payment_method, key }).await?;
        Ok(Response::new(wire::booked(&booked)))
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
        let (row, history) = self.app.get(&caller, id, full).await?;
        let mut answer = wire::appointment(&row);
        let to_patient = caller.only_patient().is_some();
        answer.history = history.into_iter().map(|c| wire::change(c, to_patient)).collect();
        Ok(Response::new(answer))
    }

    async fn list_appointments(
        &self,
        request: Request<pb::ListAppointmentsRequest>,
    ) -> Result<Response<pb::ListAppointmentsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let list = list(&caller, &request).map_err(|e| e.into_status(DOMAIN))?;
        if let Some(patient) = list.filter.patient {
            self.app.may_name(&caller, patient).await?;
        }
        let (rows, next_page_token) = self.app.list(&list).await?;
        let appointments = rows.iter().map(wire::appointment).collect();
        Ok(Response::new(pb::ListAppointmentsResponse { appointments, next_page_token }))
    }

    async fn reschedule_appointment(
        &self,
        request: Request<pb::RescheduleAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let to = app::Move {
            change: app::Change {
                key: key(&mut fields, &caller, "RescheduleAppointment", &request.request_id, &request),
                id: fields.id("appointment_id", &request.appointment_id),
                etag: request.etag.clone(),
            },
            clinic: fields.optional_id("clinic_id", &request.clinic_id),
            provider: fields.optional_id("provider_id", &request.provider_id),
            room: fields.optional_id("room_id", &request.room_id),
            start: start(&mut fields, request.start_time),
            override_reason: reason(&mut fields, &request.override_reason),
        };
        check(fields)?;
        Ok(Response::new(self.app.reschedule(&caller, &to).await?))
    }

    async fn cancel_appointment(
        &self,
        request: Request<pb::CancelAppointmentRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let change = app::Change {
            key: key(&mut fields, &caller, "CancelAppointment", &request.request_id, &request),
            id: fields.id("appointment_id", &request.appointment_id),
            etag: request.etag.clone(),
        };
        let by = pb::CancelledBy::try_from(request.cancelled_by);
        fields.ensure(by.is_ok(), "cancelled_by", "must be PATIENT, CLINIC or unset");
        check(fields)?;
        let answer = self.app.cancel(&caller, change, by == Ok(pb::CancelledBy::Clinic)).await?;
        Ok(Response::new(answer))
    }

    async fn check_in(
        &self,
        request: Request<pb::CheckInRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let change = app::Change {
            key: key(&mut fields, &caller, "CheckIn", &request.request_id, &request),
            id: fields.id("appointment_id", &request.appointment_id),
            etag: request.etag.clone(),
        };
        let override_reason = reason(&mut fields, &request.override_reason);
        check(fields)?;
        Ok(Response::new(self.app.check_in(&caller, change, &override_reason).await?))
    }

    async fn complete_visit(
        &self,
        request: Request<pb::CompleteVisitRequest>,
    ) -> Result<Response<pb::Appointment>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let change = app::Change {
            key: key(&mut fields, &caller, "CompleteVisit", &request.request_id, &request),
            id: fields.id("appointment_id", &request.appointment_id),
            etag: request.etag.clone(),
        };
        let outcome = request.outcome();
        fields.ensure(
            outcome != pb::VisitOutcome::Unspecified,
            "outcome",
            "is required: ATTENDED or NO_SHOW",
        );
        check(fields)?;
        Ok(Response::new(self.app.complete(&caller, change, outcome).await?))
    }

    async fn watch_appointments(
        &self,
        request: Request<pb::WatchAppointmentsRequest>,
    ) -> Result<Response<BoxStream<pb::WatchAppointmentsResponse>>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let day = app::Day {
            clinic: fields.id("clinic_id", &request.clinic_id),
            date: fields.date("date", request.date.as_ref()),
            provider: fields.optional_id("provider_id", &request.provider_id),
        };
        check(fields)?;
        let seat = self.watching.take(&caller.subject, DOMAIN)?;
        let app = self.app.clone();
        let stop = app.stop();
        Ok(Response::new(watch::open(DOMAIN, seat, stop, |teller| app.tell_day(day, teller))))
    }
}

fn check(fields: Fields) -> Result<(), Status> {
    fields.check().map_err(|e| e.into_status(DOMAIN))
}

fn key<Q: prost::Message>(
    fields: &mut Fields,
    caller: &Caller,
    method: &str,
    request_id: &str,
    request: &Q,
) -> Option<Key> {
    let request_id = fields.request_id(request_id);
    Key::new(caller, method, request_id, request)
}

fn reason(fields: &mut Fields, text: &str) -> String {
    fields.text("override_reason", text, 0..=MAX_REASON)
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
    let room: Option<RoomId> = fields.optional_id("room_id", &request.room_id);
    let date = request.date.as_ref().map(|date| fields.date("date", Some(date)));
    let interval = request.interval.unwrap_or_default();
    let mut bound = |name: &str, t: Option<prost_types::Timestamp>| t.map(|t| fields.instant(name, Some(t)));
    let from = bound("interval.start_time", interval.start_time);
    let until = bound("interval.end_time", interval.end_time);
    let ordered = from.zip(until).is_none_or(|(from, until)| from <= until);
    fields.ensure(ordered, "interval", "must not end before it starts");
    let mut states = vec![];
    for (i, asked) in request.states().enumerate() {
        match State::ALL.into_iter().find(|s| wire::state(*s) == asked) {
            Some(state) => states.push(state),
            None => fields.refuse(format!("states[{i}]"), "must be a state that appointments have"),
        }
    }
    if states.is_empty() {
        let left_out = [State::Held, State::Offered, State::Expired, State::Released, State::Declined];
        states = State::ALL.into_iter().filter(|s| !left_out.contains(s)).collect();
    }
    let patient = named.or(caller.only_patient());
    let some = patient.is_some() || clinic.is_some() || provider.is_some() || room.is_some();
    fields.ensure(some, "patient_id", "one of patient_id, clinic_id, provider_id and room_id is required");
    fields.check()?;
    let page = Page::parse(request.page_size, &request.page_token)?;
    let on_work_list = request.on_work_list;
    let filter = Filter { patient, clinic, provider, room, date, from, until, states, on_work_list };
    Ok(List { filter, latest_first: request.latest_first, page })
}
