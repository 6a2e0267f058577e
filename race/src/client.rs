//! One client: asks, keeps asking under the same request id until it is answered, and writes down what it was told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use kit::client::Outbound;
use kit::clock::Clock;
use kit::fields::timestamp;
use proto::clinic::appointments::v1 as pb;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::ask::{self, Known};
use crate::facts::{Answer, Asked, Call, Place, Refusal, Span, State, Told, Verb};
use crate::network::Network;

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// One call in so many is given up after a moment and asked again while the first try still runs.
const IMPATIENT: f64 = 0.03;
/// One answered call in so many is asked once more.
const REPEATED: f64 = 0.05;
/// How long a call is asked again and again before it counts as never answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// Pause before the next try: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));

/// What all clients share.
pub struct Shared {
    /// Who and where.
    pub network: Network,
    /// Appointments that can be changed.
    pub known: Mutex<Known>,
    /// Takes each finished call.
    pub log: tokio::sync::mpsc::UnboundedSender<Call>,
    /// Attempts not begun yet.
    pub left: std::sync::atomic::AtomicI64,
}

impl Shared {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one of the attempts that are left.
    fn take_one(&self) -> bool {
        self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0
    }
}

/// A client named `caller`, until no attempts are left.
pub async fn run(shared: Arc<Shared>, channel: Outbound, caller: String, seed: u64) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = Client { api: BookingServiceClient::new(channel), caller };
    let mut next = None;
    while shared.take_one() {
        let (verb, asked) = match next.take() {
            Some(next) => next,
            None => ask::draw(&mut rng, &shared.network, &shared.known(), Clock::System.now()),
        };
        let request = ask::fresh_id(&mut rng);
        let call = client.ask(verb, &asked, request, &mut rng).await?;
        note(&shared, &call, &mut rng);
        next = ask::follow_up(&mut rng, &shared.network, &call);
        let again = rng.random_bool(REPEATED);
        shared.log.send(call).ok();
        if again && shared.take_one() {
            let call = client.ask(verb, &asked, request, &mut rng).await?;
            shared.log.send(call).ok();
        }
    }
    Ok(())
}

fn note(shared: &Shared, call: &Call, rng: &mut StdRng) {
    match &call.answer {
        Answer::Done(told) => shared.known().note(told, rng),
        Answer::Refused(refusal) => {
            let gone = ["WRONG_STATE", "HOLD_EXPIRED"].contains(&refusal.reason.as_str());
            if let Some(id) = call.asked.appointment.filter(|_| gone) {
                shared.known().forget(id);
            }
        }
        Answer::Nothing(_) => {}
    }
}

struct Client {
    api: BookingServiceClient<Outbound>,
    caller: String,
}

impl Client {
    async fn ask(&self, verb: Verb, asked: &Asked, request: Uuid, rng: &mut StdRng) -> anyhow::Result<Call> {
        let (begun, end) = (Clock::System.now(), Instant::now() + ANSWER_WITHIN);
        let (mut tries, mut pause) = (0, PAUSE.0);
        let answer = loop {
            tries += 1;
            let hasty = tries == 1 && rng.random_bool(IMPATIENT);
            let patience = if hasty { Duration::from_millis(rng.random_range(3..60)) } else { PATIENCE };
            match self.send(verb, asked, request, patience).await {
                Ok(appointment) => break Answer::Done(told(&appointment)?),
                Err(status) if !may_be_asked_again(&status) => break Answer::Refused(refusal(&status)),
                Err(status) if Instant::now() >= end => break Answer::Nothing(format!("{status:?}")),
                Err(_) => {}
            }
            tokio::time::sleep(pause.mul_f64(rng.random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE.1);
        };
        let ended = Clock::System.now();
        Ok(Call {
            caller: self.caller.clone(),
            request,
            verb,
            asked: asked.clone(),
            begun,
            ended,
            tries,
            answer,
        })
    }

    async fn send(
        &self,
        verb: Verb,
        asked: &Asked,
        request: Uuid,
        patience: Duration,
    ) -> Result<pb::Appointment, Status> {
        let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        let request_id = request.to_string();
        let (patient_id, service_type_id, clinic_id) =
            (text(asked.patient), text(asked.service_type), text(asked.clinic));
        let (provider_id, room_id, start_time) =
            (text(asked.provider), text(asked.room), asked.start.map(timestamp));
        let appointment_id = text(asked.appointment);
        let override_reason =
            if asked.overriding { "the race asked for it".to_owned() } else { String::new() };
        let etag = asked.etag.map(|version| version.to_string()).unwrap_or_default();
        let mut api = self.api.clone();
        macro_rules! send {
            ($call:ident, $message:expr) => {{
                let mut request = Request::new($message);
                request.set_timeout(patience);
                api.$call(request).await.map(tonic::Response::into_inner)
            }};
        }
        match verb {
            Verb::Hold => send!(
                hold_slot,
                pb::HoldSlotRequest {
                    request_id,
                    patient_id,
                    service_type_id,
                    clinic_id,
                    provider_id,
                    room_id,
                    start_time,
                    override_reason
                }
            ),
            Verb::Release => {
                send!(release_hold, pb::ReleaseHoldRequest { request_id, hold_id: appointment_id })
            }
            Verb::Book => send!(
                book_appointment,
                pb::BookAppointmentRequest {
                    request_id,
                    hold_id: appointment_id,
                    patient_id,
                    service_type_id,
                    clinic_id,
                    provider_id,
                    room_id,
                    start_time,
                    payment_method_id: text(asked.card),
                    override_reason,
                }
            ),
            Verb::Reschedule => send!(
                reschedule_appointment,
                pb::RescheduleAppointmentRequest {
                    request_id,
                    appointment_id,
                    etag,
                    clinic_id,
                    provider_id,
                    room_id,
                    start_time,
                    override_reason
                }
            ),
            Verb::Cancel => send!(
                cancel_appointment,
                pb::CancelAppointmentRequest {
                    request_id,
                    appointment_id,
                    etag,
                    cancelled_by: pb::CancelledBy::Patient as i32
                }
            ),
            Verb::CheckIn => {
                send!(
                    check_in,
                    pb::CheckInRequest { request_id, appointment_id, etag, override_reason: String::new() }
                )
            }
            Verb::Complete => {
                let outcome =
                    if asked.no_show { pb::VisitOutcome::NoShow } else { pb::VisitOutcome::Attended };
                send!(
                    complete_visit,
                    pb::CompleteVisitRequest { request_id, appointment_id, etag, outcome: outcome as i32 }
                )
            }
        }
    }
}

/// Whether the answer leaves open what was done, or asks to come back.
pub(crate) fn may_be_asked_again(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // A connection that broke off in the middle has no reason to give.
        Code::Cancelled | Code::Unknown | Code::Internal => kit::status::reason(status).is_empty(),
        _ => false,
    }
}

fn refusal(status: &Status) -> Refusal {
    let rules = status.get_details_precondition_failure().map(|f| f.violations).unwrap_or_default();
    Refusal {
        code: format!("{:?}", status.code()),
        reason: kit::status::reason(status),
        rules: rules.into_iter().map(|v| (v.r#type, v.subject)).collect(),
        hold: kit::status::meta(status, "hold_id").and_then(|id| id.parse().ok()),
        message: status.message().to_owned(),
    }
}

fn told(appointment: &pb::Appointment) -> anyhow::Result<Told> {
    let instant = |t: Option<prost_types::Timestamp>| -> anyhow::Result<DateTime<Utc>> {
        let t = t.context("an instant")?;
        DateTime::from_timestamp(t.seconds, t.nanos.unsigned_abs()).context("an instant of the calendar")
    };
    let interval = appointment.interval.unwrap_or_default();
    let word = appointment.state().as_str_name().trim_start_matches("APPOINTMENT_STATE_");
    Ok(Told {
        id: appointment.id.parse()?,
        version: appointment.version,
        state: State::parse(word).context("a state of the contract's")?,
        patient: appointment.patient_id.parse()?,
        service_type: appointment.service_type_id.parse()?,
        place: Place {
            clinic: appointment.clinic_id.parse()?,
            provider: appointment.provider_id.parse()?,
            room: appointment.room_id.parse()?,
            visit: Span { start: instant(interval.start_time)?, end: instant(interval.end_time)? },
        },
    })
}
