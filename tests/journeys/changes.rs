//! What happens to a booked visit and to its money: calendars that change under it, moves, and a payment provider that is slow, deaf
//! or repeats itself.

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::timestamp;
use kit::status::reason;
use proto::clinic::appointments::v1::{
    Appointment, AppointmentDisplaced, AppointmentState, CancelAppointmentRequest, GetAppointmentRequest,
    RescheduleAppointmentRequest,
};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{Charge, ChargeKind, ChargeState, ListChargesRequest};
use proto::clinic::notify::v1::{ListRemindersRequest, ReminderState};
use proto::clinic::scheduling::v1::{AddBlackoutRequest, Blackout, RemoveBlackoutRequest, blackout};
use proto::google::r#type::Interval;
use serde_json::{Value, json};
use testkit::network::{COPAY_CENTS, Network, in_days};
use testkit::suite::{Desk, RunningSuite};
use testkit::{collect, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

/// Speaks to the sandbox providers; answers the JSON they answer.
pub(crate) async fn sandbox(suite: &RunningSuite, method: &str, path: &str, body: &Value) -> Value {
    let address = suite.urls.sandbox.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn trouble(suite: &RunningSuite, route: &str, kind: &str, ms: u64, times: u32) {
    let fault = json!({"route": route, "kind": kind, "ms": ms, "times": times});
    sandbox(suite, "POST", "/sandbox/faults", &fault).await;
}

/// Waits until the provider has been asked for the payment that it is slow with.
async fn until_asked(suite: &RunningSuite) {
    until("the question to the provider", async || {
        let left = sandbox(suite, "GET", "/sandbox/faults", &Value::Null).await;
        (!left.to_string().contains("latency")).then_some(())
    })
    .await;
}

/// States of the provider's own records of payments.
async fn intents(suite: &RunningSuite) -> Vec<String> {
    let all = sandbox(suite, "GET", "/sandbox/payment_intents", &Value::Null).await;
    all.as_array().unwrap().iter().map(|intent| intent["status"].as_str().unwrap().to_owned()).collect()
}

async fn charges(desk: &Desk, patient: &str) -> Vec<Charge> {
    let request = ListChargesRequest { patient_id: patient.into(), ..Default::default() };
    desk.billing().list_charges(request).await.unwrap().into_inner().charges
}

async fn until_charge(desk: &Desk, patient: &str, kind: ChargeKind, state: ChargeState) -> Charge {
    until(&format!("{kind:?} {state:?}"), async || {
        charges(desk, patient).await.into_iter().find(|c| c.kind() == kind && c.state() == state)
    })
    .await
}

/// How often billing told an event.
async fn told_by_billing(suite: &RunningSuite, event: &str) -> i64 {
    let count = sqlx::query_scalar("select count(*) from billing.outbox where subject = $1").bind(event);
    count.fetch_one(&mut suite.servers.admin().await).await.unwrap()
}

async fn read(desk: &Desk, id: &str) -> Appointment {
    let request = GetAppointmentRequest { appointment_id: id.into(), ..Default::default() };
    desk.booking().get_appointment(request).await.unwrap().into_inner()
}

pub(crate) async fn until_state(desk: &Desk, id: &str, state: AppointmentState) -> Appointment {
    until(&format!("{state:?}"), async || Some(read(desk, id).await).filter(|a| a.state() == state)).await
}

/// A paid visit of a fresh patient with a good card.
async fn paid(suite: &RunningSuite, network: &Network, start: DateTime<Utc>) -> Appointment {
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    let request = network.booking(&patient, &network.paid_visit, start);
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    assert_eq!(booked.state(), AppointmentState::Booked);
    booked
}

/// Starts of the free slots on the day of `start` and around it.
async fn offers(network: &Network, desk: &Desk, start: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let slots = network.slots(desk, &network.paid_visit, start - TimeDelta::days(1)).await;
    let starts = slots.iter().map(|slot| slot.interval.unwrap().start_time.unwrap().seconds);
    starts.map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap()).collect()
}

pub(crate) fn two_hours_blacked_out(network: &Network, start: DateTime<Utc>) -> AddBlackoutRequest {
    let blackout = Blackout {
        clinic_id: network.clinic.clone(),
        name: "No water".into(),
        span: Some(blackout::Span::Interval(Interval {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + TimeDelta::hours(2))),
        })),
        ..Default::default()
    };
    AddBlackoutRequest { blackout: Some(blackout), ..Default::default() }
}

fn cancel(visit: &Appointment) -> CancelAppointmentRequest {
    CancelAppointmentRequest { appointment_id: visit.id.clone(), ..Default::default() }
}

fn to(visit: &Appointment, start: DateTime<Utc>) -> RescheduleAppointmentRequest {
    RescheduleAppointmentRequest {
        appointment_id: visit.id.clone(),
        start_time: Some(timestamp(start)),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_hold_that_expires_while_the_card_is_asked_is_voided_once_though_webhooks_come_twice() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    trouble(&suite, "payment_intents.create", "latency", 2_000, 1).await;
    trouble(&suite, "payment_intent.*", "duplicate_webhook", 0, 10).await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.paid_visit, start);
    let caller = suite.desk();
    let booking = tokio::spawn(async move { caller.booking().book_appointment(request).await });
    until_asked(&suite).await;
    suite.servers.advance(TimeDelta::minutes(5)).await;
    let refused = booking.await.unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "HOLD_EXPIRED"));
    until_charge(&desk, &patient, ChargeKind::Copay, ChargeState::Voided).await;
    until("nothing kept at the provider", async || (intents(&suite).await == ["canceled"]).then_some(()))
        .await;
    assert_eq!(told_by_billing(&suite, "clinic.billing.v1.CopayVoided").await, 1);
    // The slot is free, and the patient may try again.
    let again = network.booking(&patient, &network.paid_visit, start);
    let booked = desk.booking().book_appointment(again).await.unwrap().into_inner();
    assert_eq!(booked.state(), AppointmentState::Booked);
    assert_eq!(told_by_billing(&suite, "clinic.billing.v1.CopayVoided").await, 1);
}

#[tokio::test]
async fn a_blackout_while_the_card_is_asked_ends_the_hold_voids_and_tells_the_caller_why() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    trouble(&suite, "payment_intents.create", "latency", 3_000, 1).await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.paid_visit, start);
    let caller = suite.desk();
    let booking = tokio::spawn(async move { caller.booking().book_appointment(request).await });
    until_asked(&suite).await;
    let manager = suite.as_role(Role::Manager, "ana");
    manager.calendar().add_blackout(two_hours_blacked_out(&network, start)).await.unwrap();
    let refused = booking.await.unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "BLACKOUT"));
    until_charge(&desk, &patient, ChargeKind::Copay, ChargeState::Voided).await;
    until("nothing kept at the provider", async || (intents(&suite).await == ["canceled"]).then_some(()))
        .await;
}

#[tokio::test]
async fn a_provider_that_acts_and_falls_silent_leaves_one_authorization_and_a_booking() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    trouble(&suite, "payment_intents.create", "act_then_timeout", 500, 2).await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.paid_visit, start);
    let answered = desk.booking().book_appointment(request).await.unwrap().into_inner();
    let booked = until_state(&desk, &answered.id, AppointmentState::Booked).await;
    let [charge] = &charges(&desk, &patient).await[..] else { panic!("one charge") };
    assert_eq!((charge.state(), &charge.id), (ChargeState::Authorized, &booked.copay.unwrap().charge_id));
    assert_eq!(intents(&suite).await, ["requires_capture"]);
}

#[tokio::test]
async fn a_blackout_displaces_visits_which_are_moved_cancelled_for_nothing_or_stand_again() {
    let (suite, network) = super::start().await;
    let (desk, broker) = (suite.desk(), suite.servers.broker().await);
    let start = in_days(suite.servers.clock.now(), 3);
    let mut visits = vec![];
    for n in 0..4 {
        visits.push(paid(&suite, &network, start + TimeDelta::minutes(30 * n)).await);
    }
    let unconcerned = paid(&suite, &network, start + TimeDelta::hours(4)).await;
    let manager = suite.as_role(Role::Manager, "ana");
    let request = two_hours_blacked_out(&network, start);
    let blackout = manager.calendar().add_blackout(request).await.unwrap().into_inner();
    for visit in &visits {
        let displaced = until_state(&desk, &visit.id, AppointmentState::Displaced).await;
        assert_eq!(displaced.displacement.unwrap().reasons, ["BLACKOUT"]);
    }
    let told: Vec<AppointmentDisplaced> = collect(&broker, "appointments", 4).await;
    let [offered_to, moved, cancelled, stands] = &visits[..] else { panic!("four") };

    // What the message offers can be had; and moved minutes before the old time, it costs nothing.
    let offered = &told.iter().find(|t| t.appointment_id == offered_to.id).unwrap().alternatives;
    let own = suite.as_role(Role::Patient, &offered_to.patient_id);
    let first = offered[0].interval.unwrap().start_time.unwrap().seconds;
    let first = to(offered_to, DateTime::from_timestamp(first, 0).unwrap());
    own.booking().reschedule_appointment(first).await.unwrap();
    let own = suite.as_role(Role::Patient, &moved.patient_id);
    suite.servers.advance_to(start - TimeDelta::minutes(20)).await;
    let later = start + TimeDelta::hours(20);
    let taken = own.booking().reschedule_appointment(to(moved, later)).await.unwrap().into_inner();
    assert_eq!((taken.state(), taken.fee_start_time), (AppointmentState::Booked, Some(timestamp(later))));
    assert_eq!(taken.copay, moved.copay, "the same authorization");

    let own = suite.as_role(Role::Patient, &cancelled.patient_id);
    let off = own.booking().cancel_appointment(cancel(cancelled)).await.unwrap().into_inner();
    assert!(!off.cancellation.unwrap().fee_due);
    until_charge(&desk, &cancelled.patient_id, ChargeKind::Copay, ChargeState::Voided).await;

    let request = RemoveBlackoutRequest { blackout_id: blackout.id, ..Default::default() };
    manager.calendar().remove_blackout(request).await.unwrap();
    let again = until_state(&desk, &stands.id, AppointmentState::Booked).await;
    assert_eq!((again.interval, again.displacement), (stands.interval, None));
    assert_eq!(read(&desk, &unconcerned.id).await.version, unconcerned.version);
}

#[tokio::test]
async fn a_move_keeps_the_authorization_and_a_late_one_does_not_dodge_the_fee() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let start = in_days(suite.servers.clock.now(), 2);
    let visit = paid(&suite, &network, start).await;
    let own = suite.as_role(Role::Patient, &visit.patient_id);
    let early = start + TimeDelta::hours(3);
    let moved = own.booking().reschedule_appointment(to(&visit, early)).await.unwrap().into_inner();
    assert_eq!(moved.copay, visit.copay);
    assert_eq!(intents(&suite).await, ["requires_capture"], "billing was not asked again");
    until("a search that offers the old time and not the new one", async || {
        let offers = offers(&network, &desk, start).await;
        (offers.contains(&start) && !offers.contains(&early)).then_some(())
    })
    .await;
    until("reminders of the new time", async || {
        let request = ListRemindersRequest { appointment_id: visit.id.clone(), ..Default::default() };
        let all = desk.notify().list_reminders(request).await.unwrap().into_inner().reminders;
        let planned: Vec<_> = all.iter().filter(|r| r.state() == ReminderState::Planned).collect();
        let moved = planned.iter().all(|r| r.appointment_version == moved.version);
        (moved && !planned.is_empty()).then_some(())
    })
    .await;
    suite.servers.advance_to(early - TimeDelta::minutes(90)).await;
    let late = early + TimeDelta::hours(20);
    let moved = own.booking().reschedule_appointment(to(&visit, late)).await.unwrap().into_inner();
    assert_eq!(moved.fee_start_time, Some(timestamp(early)));
    let off = own.booking().cancel_appointment(cancel(&visit)).await.unwrap().into_inner();
    assert!(off.cancellation.unwrap().fee_due, "a day ahead of the new time, and yet");
    let fee = until_charge(&desk, &visit.patient_id, ChargeKind::NoShowFee, ChargeState::Captured).await;
    assert_eq!(fee.captured_amount.unwrap().units * 100, COPAY_CENTS);
}
