//! Taking time: holds and bookings. The schedule advises, the database decides, and a rival's win moves on to the next candidate.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::fields::{Fields, timestamp};
use kit::idempotency::{self, Attempt, Fresh, Key};
use kit::ids::{AppointmentId, ClinicId, PatientId, PaymentMethodId, ProviderId, RoomId, ServiceTypeId};
use kit::merges;
use kit::status::Error as KitError;
use prost::Message;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::scheduling::v1::{CheckSlotRequest, CheckSlotResponse};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, finish, look, open, staff_only};
use crate::domain::{Clash, Conflict, Copay, NewReservation, Reservation, Span, State};
use crate::error::{Error, Refusal, reason_of};
use crate::store::By;
use crate::{events, store, wire};

/// How often a slot is judged again because the calendar moved on while it was being taken.
pub(super) const JUDGEMENTS: usize = 3;
/// Pause before another judgement: scheduling's replicas follow a change within this.
pub(super) const CALENDAR_PAUSE: Duration = Duration::from_millis(100);

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

/// What a caller who books a hold says about it; what is said must be so.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the contract's BookAppointmentRequest explains each")]
pub struct Expected {
    pub patient: Option<PatientId>,
    pub service_type: Option<ServiceTypeId>,
    pub clinic: Option<ClinicId>,
    pub provider: Option<ProviderId>,
    pub room: Option<RoomId>,
    pub start: Option<DateTime<Utc>>,
}

impl Expected {
    /// INVALID_FIELD with every field that says something else than the hold.
    fn check(&self, row: &Reservation) -> Result<(), Error> {
        let mut fields = Fields::new();
        let mut same = |is: bool, field| fields.ensure(is, field, "must be empty or equal to the hold's");
        same(self.patient.is_none_or(|p| p == row.patient_id), "patient_id");
        same(self.service_type.is_none_or(|t| t == row.service_type_id), "service_type_id");
        same(self.clinic.is_none_or(|c| c == row.clinic_id), "clinic_id");
        same(self.provider.is_none_or(|p| p == row.provider_id), "provider_id");
        same(self.room.is_none_or(|r| r == row.room_id), "room_id");
        same(self.start.is_none_or(|s| s == row.start), "start_time");
        Ok(fields.check()?)
    }
}

/// The time that a booking call is about.
#[derive(Clone, Debug)]
pub enum Target {
    /// Held before.
    Hold(AppointmentId, Expected),
    /// To be taken now.
    Slot(Slot),
}

/// A booking call.
#[derive(Clone, Debug)]
pub struct Booking {
    /// What to book.
    pub target: Target,
    /// The card for the co-pay; `None` = the patient's default.
    pub payment_method: Option<PaymentMethodId>,
    /// The caller's name for the call.
    pub key: Option<Key>,
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
pub(super) struct Judged {
    pub(super) providers: Vec<(ProviderId, i64)>,
    pub(super) rooms: Vec<Uuid>,
    pub(super) new: NewReservation,
}

/// What became of an attempt to take a slot.
enum Take<R> {
    /// The same call was answered before, with this.
    Replayed(R),
    /// The slot is the caller's.
    Done(Box<Reservation>),
    /// The slot is the caller's once this is committed.
    Took(Fresh, Box<Reservation>),
}

/// What a booking call leaves beside its request id: whom to ask how it went.
pub(super) type Receipt = pb::GetAppointmentRequest;

pub(super) fn receipt(id: AppointmentId) -> Receipt {
    Receipt { appointment_id: id.to_string(), ..Default::default() }
}

pub(super) fn id_of(receipt: &Receipt) -> Result<AppointmentId, Error> {
    receipt.appointment_id.parse().map_err(|e: uuid::Error| KitError::internal(e).into())
}

impl App {
    /// Holds a slot for a patient who decides or pays.
    pub async fn hold(
        &self,
        caller: &Caller,
        slot: &Slot,
        key: Option<Key>,
    ) -> Result<pb::Appointment, Error> {
        let plan = |_| Plan { state: State::Held, drive: false };
        match self.take(caller, slot, key, None, plan, |_| None).await? {
            Take::Replayed(answer) => Ok(answer),
            Take::Done(row) => Ok(wire::appointment(&row)),
            Take::Took(fresh, row) => finish(fresh, &row).await,
        }
    }

    /// Books a slot, held before or not. With a co-pay the answer may still be HELD; see the contract.
    pub async fn book(&self, caller: &Caller, booking: Booking) -> Result<Booked, Error> {
        match booking.target {
            Target::Hold(hold, expected) => {
                match self
                    .start_from_hold(caller, hold, &expected, booking.payment_method, booking.key)
                    .await?
                {
                    Start::Mine => self.drive_to_end(self.load(hold).await?, false).await,
                    Start::Settles(id) => self.settled(id).await,
                }
            }
            Target::Slot(slot) => {
                // With a co-pay the time is held first, and driven to a booking below.
                let plan = |copay_due: bool| Plan {
                    state: if copay_due { State::Held } else { State::Booked },
                    drive: copay_due,
                };
                let answer = |id| Some(receipt(id));
                match self.take(caller, &slot, booking.key, booking.payment_method, plan, answer).await? {
                    Take::Replayed(receipt) => self.settled(id_of(&receipt)?).await,
                    Take::Done(row) => self.drive_to_end(*row, true).await,
                    Take::Took(fresh, row) => {
                        fresh.commit().await?;
                        self.drive_to_end(*row, true).await
                    }
                }
            }
        }
    }

    /// Begins to book a hold, unless another call already does.
    async fn start_from_hold(
        &self,
        caller: &Caller,
        hold: AppointmentId,
        expected: &Expected,
        payment_method: Option<PaymentMethodId>,
        key: Option<Key>,
    ) -> Result<Start, Error> {
        if let Some(key) = &key {
            let mut conn = self.db.pool().acquire().await?;
            if let Some(receipt) = idempotency::find::<Receipt>(&mut conn, key).await? {
                return Ok(Start::Settles(id_of(&receipt)?));
            }
        }
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let (provider, version) = self.fresh_calendar_version(caller, hold).await?;
            let answer = receipt(hold);
            let mut fresh = match idempotency::begin_keyed(&self.db, key.clone(), Some(&answer)).await? {
                Attempt::Replayed(receipt) => return Ok(Start::Settles(id_of(&receipt)?)),
                Attempt::Fresh(fresh) => fresh,
            };
            // Before the row, as whoever follows calendars does. A hold's provider never changes.
            let seen = store::calendar_seen(&mut fresh.tx, provider).await?;
            let row = open(&mut fresh.tx, caller, hold, "").await?;
            expected.check(&row)?;
            match row.state {
                State::Held if row.is_over() => return Err(Error::HoldExpired),
                State::Held => {}
                State::Expired | State::Declined => return Err(Error::HoldExpired),
                State::Released if row.is_overtaken() => return Err(Error::overtaken(&row)),
                state => return Err(Error::WrongState { id: hold, state }),
            }
            if seen > version {
                continue;
            }
            let mine = store::drive(&mut fresh.tx, hold, payment_method, version).await?;
            fresh.commit().await?;
            return Ok(if mine { Start::Mine } else { Start::Settles(hold) });
        }
        Err(Error::CalendarMoving)
    }

    /// A hold's provider, and the calendar version that it is good for: its own, or the present one if the calendar still allows it.
    pub(super) async fn fresh_calendar_version(
        &self,
        caller: &Caller,
        hold: AppointmentId,
    ) -> Result<(ProviderId, i64), Error> {
        let row = self.load(hold).await?;
        let mut conn = self.db.pool().acquire().await?;
        merges::see(&mut conn, caller, row.patient_id, hold).await?;
        let seen = store::calendar_seen(&mut conn, row.provider_id).await?;
        drop(conn);
        if seen <= row.calendar_version || !row.is_kept() {
            return Ok((row.provider_id, row.calendar_version));
        }
        let request = CheckSlotRequest {
            service_type_id: row.service_type_id.to_string(),
            clinic_id: row.clinic_id.to_string(),
            provider_id: row.provider_id.to_string(),
            room_id: row.room_id.to_string(),
            start_time: Some(timestamp(row.start)),
            overriding: false,
            standing_end_time: Some(timestamp(row.end)),
        };
        let mut answer = self.scheduling.check_slot(request).await?;
        answer.blocks.retain(|block| !row.overridden.contains(&reason_of(block)));
        if !answer.blocks.is_empty() {
            let refusal = Refusal { blocks: answer.blocks, clashes: vec![], nearby: vec![] };
            return Err(Error::Refused(Box::new(refusal)));
        }
        let version = answer.providers.first().map_or(row.calendar_version, |p| p.calendar_version);
        Ok((row.provider_id, version))
    }

    /// Takes a slot, or answers again what the same call was answered before, whatever has changed since. `plan` says, from
    /// whether a co-pay is due, what to insert; `answer`, what is kept beside the request id where the appointment's id says it.
    async fn take<R: Message + Default>(
        &self,
        caller: &Caller,
        slot: &Slot,
        key: Option<Key>,
        payment_method: Option<PaymentMethodId>,
        plan: impl Fn(bool) -> Plan,
        answer: impl Fn(AppointmentId) -> Option<R>,
    ) -> Result<Take<R>, Error> {
        let taken = self.take_anew(caller, slot, &key, payment_method, plan, answer).await;
        let (Err(_), Some(key)) = (&taken, &key) else { return taken };
        let mut conn = self.db.pool().acquire().await?;
        match idempotency::find(&mut conn, key).await? {
            Some(answer) => Ok(Take::Replayed(answer)),
            None => taken,
        }
    }

    /// Judges the slot, then takes it for the first provider and room that nobody has.
    async fn take_anew<R: Message + Default>(
        &self,
        caller: &Caller,
        slot: &Slot,
        key: &Option<Key>,
        payment_method: Option<PaymentMethodId>,
        plan: impl Fn(bool) -> Plan,
        answer: impl Fn(AppointmentId) -> Option<R>,
    ) -> Result<Take<R>, Error> {
        let mut patient = self.patient_of(caller, slot.patient).await?;
        if slot.room.is_some() || !slot.override_reason.is_empty() {
            staff_only(caller)?;
        }
        for judgement in 0..JUDGEMENTS {
            if judgement > 0 {
                tokio::time::sleep(CALENDAR_PAUSE).await;
            }
            let mut judged =
                self.judge(caller, slot, patient, AppointmentId::new(), |due| plan(due).state).await?;
            judged.new.drive = plan(judged.new.copay != Copay::NotRequired).drive;
            judged.new.payment_method_id = payment_method;
            let answer = answer(judged.new.id);
            if let Some(row) = self.take_at_once(caller, slot, &judged, key.as_ref(), answer.as_ref()).await?
            {
                return Ok(Take::Done(row));
            }
            if let (Some(_), [(provider, _)]) = (&answer, &judged.providers[..]) {
                // Most who lose a race for a slot need no transaction to be told why.
                let mut conn = self.db.pool().acquire().await?;
                let clashes = store::conflicts(&mut conn, &judged.new, *provider, &judged.rooms).await?;
                drop(conn);
                if !clashes.is_empty() {
                    return Err(self.refusal(caller, slot, &judged.new, clashes).await);
                }
            }
            let (mut stale, mut broken) = (false, vec![]);
            let mut candidates = judged.providers.iter();
            let mut next = candidates.next();
            while let Some(&candidate) = next {
                let mut fresh = match idempotency::begin_keyed(&self.db, key.clone(), answer.as_ref()).await?
                {
                    Attempt::Replayed(answer) => return Ok(Take::Replayed(answer)),
                    Attempt::Fresh(fresh) => fresh,
                };
                match try_take(&mut fresh.tx, caller, slot, &judged, candidate).await? {
                    Taken::Yes(row) => return Ok(Take::Took(fresh, row)),
                    Taken::Stranger => {
                        drop(fresh);
                        self.must_exist(patient).await?;
                        continue;
                    }
                    Taken::Merged(survivor) => {
                        (patient, judged.new.patient_id) = (survivor, survivor);
                        continue;
                    }
                    Taken::Stale => stale = true,
                    Taken::No(clashes) => {
                        // What no other provider can mend.
                        let own = |c: &Clash| {
                            matches!(c.rule, Conflict::Patient | Conflict::OpenHold | Conflict::Room)
                        };
                        let hopeless = clashes.iter().any(own);
                        broken = clashes;
                        if hopeless {
                            break;
                        }
                    }
                }
                next = candidates.next();
            }
            if !stale {
                return Err(self.refusal(caller, slot, &judged.new, broken).await);
            }
        }
        Err(Error::CalendarMoving)
    }

    /// Takes the first provider and room in one statement if nothing is in the way, and the answer to the call is known before.
    async fn take_at_once(
        &self,
        caller: &Caller,
        slot: &Slot,
        judged: &Judged,
        key: Option<&Key>,
        answer: Option<&impl Message>,
    ) -> Result<Option<Box<Reservation>>, Error> {
        let Some(answer) = answer else { return Ok(None) };
        let (Some(&provider), Some(&room)) = (judged.providers.first(), judged.rooms.first()) else {
            return Ok(None);
        };
        let mut row = judged.new.clone().placed(provider, room.into(), self.now());
        let (by, event) = (by(caller, slot, &judged.new), events::taken(&row));
        let taken =
            store::take_at_once(self.db.pool(), &row, by, &event, key, &answer.encode_to_vec()).await?;
        let Some(at) = taken else { return Ok(None) };
        self.db.wake_relay();
        (row.created_at, row.updated_at, row.read_at) = (at, at, at);
        Ok(Some(Box::new(row)))
    }

    /// What a refused caller is told: every rule, staff also for what, and free slots near it when another may do.
    pub(super) async fn refusal(
        &self,
        caller: &Caller,
        slot: &Slot,
        new: &NewReservation,
        mut clashes: Vec<Clash>,
    ) -> Error {
        if clashes.is_empty() {
            clashes.push(Clash { rule: Conflict::Provider, with: None });
        }
        let another_may_do = clashes.iter().all(|c| matches!(c.rule, Conflict::Provider | Conflict::Room));
        let nearby = if another_may_do { self.nearby(slot, new).await } else { vec![] };
        Error::Refused(Box::new(Refusal { blocks: vec![], clashes: as_seen_by(caller, clashes), nearby }))
    }

    /// Asks scheduling whether the slot is inside the schedule. `id` is the appointment that would have it, in the state that
    /// `state` gives it, from whether a co-pay is due.
    pub(super) async fn judge(
        &self,
        caller: &Caller,
        slot: &Slot,
        patient: PatientId,
        id: AppointmentId,
        state: impl Fn(bool) -> State,
    ) -> Result<Judged, Error> {
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
        let (ok, blocks) = (answer.ok, answer.blocks.clone());
        let mut judged = judged(slot, patient, id, answer).map_err(|e| {
            let KitError::Invalid(bad) = e else { return e };
            KitError::internal(anyhow::anyhow!("scheduling's answer has bad fields: {bad:?}"))
        })?;
        judged.new.state = state(judged.new.copay != Copay::NotRequired);
        if ok {
            return Ok(judged);
        }
        // Whoever mends what the schedule says shall not run into the next rule.
        let mut clashes = vec![];
        if let Some(provider) = slot.provider {
            let mut conn = self.db.pool().acquire().await?;
            let rooms: Vec<Uuid> = slot.room.map(RoomId::uuid).into_iter().collect();
            clashes = store::conflicts(&mut conn, &judged.new, provider, &rooms).await?;
        }
        Err(Error::Refused(Box::new(Refusal {
            blocks,
            clashes: as_seen_by(caller, clashes),
            nearby: vec![],
        })))
    }

    /// PATIENT_NOT_FOUND unless patients knows the patient, which is known here from then on.
    pub(super) async fn must_exist(&self, patient: PatientId) -> Result<(), Error> {
        if !self.patients.exists(patient).await? {
            return Err(KitError::not_found(patient).into());
        }
        let mut conn = self.db.pool().acquire().await?;
        store::see_patient(&mut conn, patient.uuid()).await?;
        Ok(())
    }
}

/// Who goes on with a hold that is being booked.
enum Start {
    /// This call.
    Mine,
    /// Another call, or the same one before.
    Settles(AppointmentId),
}

pub(super) enum Taken {
    Yes(Box<Reservation>),
    No(Vec<Clash>),
    Stale,
    /// The patient is not known to exist.
    Stranger,
    /// The patient was merged into this one.
    Merged(PatientId),
}

/// Whose appointments are in the way is for staff to know.
pub(super) fn as_seen_by(caller: &Caller, mut clashes: Vec<Clash>) -> Vec<Clash> {
    if caller.only_patient().is_some() {
        clashes.iter_mut().for_each(|clash| clash.with = None);
    }
    clashes
}

/// Who takes a slot, and what staff overrides.
fn by<'a>(caller: &'a Caller, slot: &'a Slot, new: &'a NewReservation) -> By<'a> {
    let override_reason = (!slot.override_reason.is_empty()).then_some(slot.override_reason.as_str());
    By { actor: Some(caller), override_reason, overridden: &new.overridden }
}

/// One provider: whichever suitable room is free. Nothing is kept of a refusal, for the caller rolls back.
async fn try_take(
    tx: &mut PgConnection,
    caller: &Caller,
    slot: &Slot,
    judged: &Judged,
    (provider, calendar_version): (ProviderId, i64),
) -> Result<Taken, Error> {
    let Judged { rooms, new, .. } = judged;
    let by = by(caller, slot, new);
    let mut look = look(tx, new, provider, rooms).await?;
    if let Some(survivor) = look.merged_into {
        return Ok(Taken::Merged(survivor));
    }
    if !look.patient_known {
        return Ok(Taken::Stranger);
    }
    if look.calendar_seen > calendar_version {
        return Ok(Taken::Stale);
    }
    // Each lost race for a room leaves one candidate less.
    for _ in 0..=rooms.len() {
        let Some(room) = look.room else { break };
        let row = new.clone().placed((provider, calendar_version), room, look.now);
        match store::insert(tx, &row, by, &events::taken(&row)).await {
            Ok(true) => return Ok(Taken::Yes(Box::new(row))),
            Ok(false) => {}
            // A visit was moving there, or a no-show came back.
            Err(error) if store::is_deadlock(&error) => return Ok(Taken::Stale),
            Err(error) => return Err(error.into()),
        }
        let clashes = store::conflicts(tx, new, provider, rooms).await?;
        if !clashes.is_empty() {
            return Ok(Taken::No(clashes));
        }
        look = store::look(tx, new, provider, rooms).await?;
        if look.stale {
            return Ok(Taken::Stale);
        }
    }
    no_room(tx, judged, provider).await
}

/// All rooms were tried in vain: every rule that says no, at least that one.
pub(super) async fn no_room(
    tx: &mut PgConnection,
    judged: &Judged,
    provider: ProviderId,
) -> Result<Taken, Error> {
    let mut clashes = store::conflicts(tx, &judged.new, provider, &judged.rooms).await?;
    if clashes.is_empty() {
        clashes.push(Clash { rule: Conflict::Room, with: None });
    }
    Ok(Taken::No(clashes))
}

/// Another service's answer is parsed as strictly as a request.
pub(super) fn judged(
    slot: &Slot,
    patient: PatientId,
    id: AppointmentId,
    answer: CheckSlotResponse,
) -> Result<Judged, KitError> {
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
    let overridden = answer.blocks.iter().map(reason_of);
    Ok(Judged {
        providers,
        rooms: rooms.into_iter().map(RoomId::uuid).collect(),
        new: NewReservation {
            id,
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
            overridden: overridden.collect(),
        },
    })
}
