//! Taking time: holds and bookings. The schedule advises, the database decides, and a rival's win moves on to the next candidate.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::fields::{Fields, timestamp};
use kit::ids::{AppointmentId, ClinicId, PatientId, PaymentMethodId, ProviderId, RoomId, ServiceTypeId};
use kit::status::Error as KitError;
use proto::clinic::scheduling::v1::{CheckSlotRequest, CheckSlotResponse};
use uuid::Uuid;

use super::{App, expire, patient_of, staff_only, step};
use crate::domain::{Conflict, Copay, NewReservation, RequestKey, Reservation, Span, State};
use crate::error::Error;
use crate::{events, store};

/// How often a slot is judged again because the calendar moved on while it was being taken.
const JUDGEMENTS: usize = 3;

/// What a caller asks for.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract's HoldSlotRequest explains each")]
pub struct Slot {
    pub patient: Option<PatientId>,
    pub service_type: ServiceTypeId,
    pub clinic: ClinicId,
    pub provider: Option<ProviderId>,
    pub room: Option<RoomId>,
    pub start: DateTime<Utc>,
    pub override_reason: String,
}

/// A booking call.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the contract's BookAppointmentRequest explains each")]
pub struct Booking {
    pub hold: Option<AppointmentId>,
    /// `None` with a hold.
    pub slot: Option<Slot>,
    pub payment_method: Option<PaymentMethodId>,
    pub request: Option<RequestKey>,
}

/// What a booking call led to.
#[derive(Clone, Debug)]
pub struct Booked {
    /// The appointment, perhaps still a hold.
    pub row: Reservation,
    /// What the patient's browser needs to complete the card's own check; empty when nothing is to be done.
    pub client_secret: String,
}

impl From<Reservation> for Booked {
    fn from(row: Reservation) -> Self {
        Self { row, client_secret: String::new() }
    }
}

/// How a slot is to be taken.
struct Plan {
    state: State,
    /// This call goes on to book it.
    drive: bool,
}

/// A slot as scheduling judged it, in this service's own types.
struct Judged {
    providers: Vec<(ProviderId, i64)>,
    rooms: Vec<Uuid>,
    new: NewReservation,
    overridden: Vec<String>,
}

impl App {
    /// Holds a slot for a patient who decides or pays.
    pub async fn hold(
        &self,
        caller: &Caller,
        slot: &Slot,
        request: Option<RequestKey>,
    ) -> Result<Reservation, Error> {
        if let Some(row) = self.replay(request.as_ref()).await? {
            return Ok(row);
        }
        let plan = |_| Plan { state: State::Held, drive: false };
        Ok(self.take(caller, slot, request, None, plan).await?.0)
    }

    /// Books a slot, held before or not. With a co-pay the answer may still be HELD; see the contract.
    pub async fn book(&self, caller: &Caller, booking: Booking) -> Result<Booked, Error> {
        if let Some(row) = self.replay(booking.request.as_ref()).await? {
            return self.settled(row.id).await;
        }
        let id = match (booking.hold, &booking.slot) {
            (Some(hold), _) => {
                if !self.start_from_hold(caller, hold, &booking).await? {
                    return self.settled(hold).await;
                }
                hold
            }
            (None, Some(slot)) => {
                // With a co-pay the time is held first, and driven to a booking below.
                let plan = |copay_due: bool| Plan {
                    state: if copay_due { State::Held } else { State::Booked },
                    drive: copay_due,
                };
                let (row, fresh) =
                    self.take(caller, slot, booking.request, booking.payment_method, plan).await?;
                if row.state == State::Booked {
                    return Ok(row.into());
                }
                if !fresh {
                    return self.settled(row.id).await;
                }
                row.id
            }
            (None, None) => return Err(KitError::invalid("start_time", "is required without a hold").into()),
        };
        self.drive_to_end(id).await
    }

    /// Gives a hold back.
    pub async fn release(&self, caller: &Caller, id: AppointmentId) -> Result<Reservation, Error> {
        let (mut tx, mut row) = self.open(caller, id, "").await?;
        if row.state != State::Held {
            return Err(Error::WrongState { id, state: row.state });
        }
        step(&mut row, State::Released)?;
        store::save(&mut tx, &mut row, Some(caller), None).await?;
        events::released(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// What this request id led to before; REQUEST_ID_REUSED when it was for something else.
    async fn replay(&self, request: Option<&RequestKey>) -> Result<Option<Reservation>, Error> {
        let Some(request) = request else { return Ok(None) };
        let mut conn = self.db.pool().acquire().await?;
        let row = store::of_request(&mut conn, &request.caller, request.request_id).await?;
        match row {
            Some(row) if row.request_fingerprint.as_deref() != Some(&request.fingerprint) => {
                Err(KitError::RequestIdReused { request_id: request.request_id }.into())
            }
            row => Ok(row),
        }
    }

    /// Begins to book a hold; false when another call already does.
    async fn start_from_hold(
        &self,
        caller: &Caller,
        hold: AppointmentId,
        booking: &Booking,
    ) -> Result<bool, Error> {
        let (mut tx, mut row) = self.open(caller, hold, "").await?;
        if row.state == State::Expired || row.state == State::Declined {
            return Err(Error::HoldExpired);
        }
        if row.state != State::Held {
            return Err(Error::WrongState { id: hold, state: row.state });
        }
        if store::is_over(&mut tx, row.hold_expires_at).await? {
            expire(&mut tx, &mut row).await?;
            tx.commit().await?;
            return Err(Error::HoldExpired);
        }
        let mine = store::drive(&mut tx, hold, booking.payment_method, booking.request.as_ref()).await;
        let mine = mine.map_err(|e| match &booking.request {
            Some(r) if e.as_database_error().and_then(|d| d.constraint()) == Some("reservation_request") => {
                KitError::RequestIdReused { request_id: r.request_id }
            }
            _ => e.into(),
        })?;
        tx.commit().await?;
        Ok(mine)
    }

    /// Judges the slot, then takes it for the first provider and room that nobody has. `plan` says, from whether a co-pay is
    /// due, what to insert. False beside the row = the same request, from another connection, was faster.
    async fn take(
        &self,
        caller: &Caller,
        slot: &Slot,
        request: Option<RequestKey>,
        payment_method: Option<PaymentMethodId>,
        plan: impl Fn(bool) -> Plan,
    ) -> Result<(Reservation, bool), Error> {
        let patient = patient_of(caller, slot.patient)?;
        if slot.room.is_some() || !slot.override_reason.is_empty() {
            staff_only(caller)?;
        }
        self.must_exist(patient).await?;
        let mut broken = vec![];
        for _ in 0..JUDGEMENTS {
            let mut judged = self.judge(slot, patient).await?;
            Plan { state: judged.new.state, drive: judged.new.drive } =
                plan(judged.new.copay != Copay::NotRequired);
            judged.new.payment_method_id = payment_method;
            judged.new.request.clone_from(&request);
            let mut stale = false;
            for &(provider, calendar_version) in &judged.providers {
                match self.try_take(caller, slot, &judged, provider, calendar_version).await? {
                    Taken::Yes(row) => return Ok((*row, true)),
                    Taken::Stale => stale = true,
                    Taken::No(conflicts) => {
                        if let Some(row) = self.replay(request.as_ref()).await? {
                            return Ok((row, false));
                        }
                        let own = |c: &Conflict| {
                            matches!(c, Conflict::Patient | Conflict::OpenHold | Conflict::Room)
                        };
                        let hopeless = conflicts.iter().any(own);
                        broken = conflicts;
                        if hopeless {
                            break;
                        }
                    }
                }
            }
            if !stale {
                break;
            }
        }
        if broken.is_empty() {
            broken.push(Conflict::Provider);
        }
        Err(Error::Conflicts(broken))
    }

    /// One provider: whichever suitable room is free, in one transaction.
    async fn try_take(
        &self,
        caller: &Caller,
        slot: &Slot,
        judged: &Judged,
        provider: ProviderId,
        calendar_version: i64,
    ) -> Result<Taken, Error> {
        let Judged { rooms, new, overridden, .. } = judged;
        let mut tx = self.db.begin().await?;
        if store::calendar_seen(&mut tx, provider).await? > calendar_version {
            return Ok(Taken::Stale);
        }
        for mut stale in
            store::lock_stale_in_the_way(&mut tx, provider, rooms, new.patient_id, new.occupied).await?
        {
            expire(&mut tx, &mut stale).await?;
        }
        // Each lost race for a room leaves one candidate less.
        for _ in 0..=rooms.len() {
            let Some(room) = store::first_free_room(&mut tx, rooms, new.visit).await? else { break };
            if let Some(row) = store::insert(&mut tx, new, provider, calendar_version, room).await? {
                let reason = (!slot.override_reason.is_empty()).then_some(slot.override_reason.as_str());
                store::remember(&mut tx, &row, Some(caller), reason, overridden).await?;
                events::taken(&mut tx, &row).await?;
                tx.commit().await?;
                return Ok(Taken::Yes(Box::new(row)));
            }
            let conflicts = store::conflicts(&mut tx, new, provider, rooms).await?;
            if !conflicts.is_empty() {
                tx.commit().await?;
                return Ok(Taken::No(conflicts));
            }
        }
        let mut conflicts = store::conflicts(&mut tx, new, provider, rooms).await?;
        if conflicts.is_empty() {
            conflicts.push(Conflict::Room);
        }
        tx.commit().await?;
        Ok(Taken::No(conflicts))
    }

    /// Asks scheduling whether the slot is inside the schedule.
    async fn judge(&self, slot: &Slot, patient: PatientId) -> Result<Judged, Error> {
        let request = CheckSlotRequest {
            service_type_id: slot.service_type.to_string(),
            clinic_id: slot.clinic.to_string(),
            provider_id: slot.provider.map(|p| p.to_string()).unwrap_or_default(),
            room_id: slot.room.map(|r| r.to_string()).unwrap_or_default(),
            start_time: Some(timestamp(slot.start)),
            overriding: !slot.override_reason.is_empty(),
            standing_end_time: None,
        };
        let answer = self.scheduling.check_slot(request).await?;
        if !answer.ok {
            return Err(Error::Blocked(answer.blocks));
        }
        judged(slot, patient, answer).map_err(|e| {
            let KitError::Invalid(bad) = e else { return e.into() };
            KitError::internal(anyhow::anyhow!("scheduling's answer has bad fields: {bad:?}")).into()
        })
    }

    /// PATIENT_NOT_FOUND unless the patient is known here, or to patients.
    async fn must_exist(&self, patient: PatientId) -> Result<(), Error> {
        let mut conn = self.db.pool().acquire().await?;
        if store::patient_seen(&mut conn, patient).await? {
            return Ok(());
        }
        drop(conn);
        if !self.patients.exists(patient).await? {
            return Err(KitError::not_found(patient).into());
        }
        let mut conn = self.db.pool().acquire().await?;
        store::see_patient(&mut conn, patient.uuid()).await?;
        Ok(())
    }
}

enum Taken {
    Yes(Box<Reservation>),
    No(Vec<Conflict>),
    Stale,
}

/// Another service's answer is parsed as strictly as a request.
fn judged(slot: &Slot, patient: PatientId, answer: CheckSlotResponse) -> Result<Judged, KitError> {
    let mut fields = Fields::new();
    let mut span = |name: &str, interval: Option<proto::google::r#type::Interval>| {
        let interval = interval.unwrap_or_default();
        Span {
            start: fields.instant(&format!("{name}.start_time"), interval.start_time),
            end: fields.instant(&format!("{name}.end_time"), interval.end_time),
        }
    };
    let visit = span("interval", answer.interval);
    let occupied = span("occupied_interval", answer.occupied_interval);
    let providers: Vec<_> = answer
        .providers
        .iter()
        .map(|p| (fields.id("providers.provider_id", &p.provider_id), p.calendar_version))
        .collect();
    let rooms: Vec<RoomId> = fields.ids("room_ids", &answer.room_ids);
    let visit_date = fields.date("visit_date", answer.visit_date.as_ref());
    let intake_form_id = fields.optional_id("intake_form_id", &answer.intake_form_id);
    fields.check()?;
    let overridden =
        answer.blocks.iter().map(|b| b.code().as_str_name().trim_start_matches("BLOCK_CODE_").to_owned());
    Ok(Judged {
        providers,
        rooms: rooms.into_iter().map(RoomId::uuid).collect(),
        overridden: overridden.collect(),
        new: NewReservation {
            id: AppointmentId::new(),
            state: State::Held,
            patient_id: patient,
            service_type_id: slot.service_type,
            clinic_id: slot.clinic,
            visit,
            occupied,
            visit_date,
            time_zone: answer.time_zone,
            intake_form_id,
            copay: if answer.copay_required { Copay::Pending } else { Copay::NotRequired },
            payment_method_id: None,
            drive: false,
            request: None,
        },
    })
}
