//! A visit from search to payment, and the ways it may not come about.

use chrono::{DateTime, TimeDelta, Utc};
use kit::fields::timestamp;
use kit::status::{meta, reason};
use proto::clinic::appointments::v1::{
    Appointment, AppointmentBooked, AppointmentState, BookAppointmentRequest, CancelAppointmentRequest,
    CheckInRequest, CompleteVisitRequest, CopayState, GetAppointmentRequest, HoldSlotRequest,
    ReleaseHoldRequest, VisitCompleted, VisitOutcome,
};
use proto::clinic::billing::v1::{
    Charge, ChargeState, CopayCaptured, ListChargesRequest, SavePaymentMethodRequest,
};
use proto::clinic::notify::v1::{ListRemindersRequest, Reminder, ReminderState};
use testkit::network::{COPAY_CENTS, Network, in_days};
use testkit::suite::{Desk, RunningSuite};
use testkit::{collect, until};
use tonic::Code;

async fn charges(desk: &Desk, appointment: &str) -> Vec<Charge> {
    let request = ListChargesRequest { appointment_id: appointment.into(), ..Default::default() };
    desk.billing().list_charges(request).await.unwrap().into_inner().charges
}

pub(crate) async fn reminders(desk: &Desk, appointment: &str) -> Vec<Reminder> {
    let request = ListRemindersRequest { appointment_id: appointment.into(), ..Default::default() };
    desk.notify().list_reminders(request).await.unwrap().into_inner().reminders
}

/// Whether the search offers a paid visit with the provider at `start`.
async fn offers(network: &Network, desk: &Desk, start: DateTime<Utc>) -> bool {
    let slots = network.slots(desk, &network.paid_visit, start - TimeDelta::days(1)).await;
    slots.iter().any(|s| {
        s.provider_id == network.provider && s.interval.unwrap().start_time == Some(timestamp(start))
    })
}

fn start_of(appointment: &Appointment) -> DateTime<Utc> {
    instant(appointment.interval.unwrap().start_time)
}

fn instant(wire: Option<prost_types::Timestamp>) -> DateTime<Utc> {
    DateTime::from_timestamp(wire.unwrap().seconds, 0).unwrap()
}

#[tokio::test]
async fn a_visit_is_searched_booked_paid_reminded_of_closed_and_captured() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    let broker = suite.servers.broker().await;

    // Search, and book what it offers.
    let soon = in_days(suite.servers.clock.now(), 3);
    let slots = network.slots(&desk, &network.paid_visit, soon).await;
    let slot = slots.iter().map(|s| instant(s.interval.unwrap().start_time)).find(|s| *s >= soon);
    let start = slot.expect("a free slot");
    let request = network.booking(&patient, &network.paid_visit, start);
    let booked = desk.booking().book_appointment(request.clone()).await.unwrap().into_inner();
    assert_eq!(booked.state(), AppointmentState::Booked);
    assert_eq!(booked.copay.as_ref().unwrap().state(), CopayState::Authorized);
    let again = desk.booking().book_appointment(request).await.unwrap().into_inner();
    assert_eq!(again, booked, "the same request id answers the same booking");

    // The co-pay is authorized at the provider, once.
    let [charge] = &charges(&desk, &booked.id).await[..] else { panic!("one charge") };
    assert_eq!(charge.state(), ChargeState::Authorized);
    assert_eq!(charge.authorized_amount.as_ref().unwrap().units * 100, COPAY_CENTS);

    // The fact is on the stream; scheduling stops offering the slot; notify plans both reminders.
    let told: Vec<AppointmentBooked> = collect(&broker, "appointments", 1).await;
    assert_eq!((told[0].appointment_id.as_str(), &told[0].charge_id), (booked.id.as_str(), &charge.id));
    until("the slot's disappearance from the search", async || {
        (!offers(&network, &desk, start).await).then_some(())
    })
    .await;
    let planned = until("two planned reminders", async || {
        Some(reminders(&desk, &booked.id).await).filter(|r| r.len() == 2)
    })
    .await;
    assert!(planned.iter().all(|r| r.state() == ReminderState::Planned && instant(r.due_time) < start));

    // The day comes: check in, close, and billing captures.
    suite.servers.advance_to(start).await;
    let check_in = CheckInRequest { appointment_id: booked.id.clone(), ..Default::default() };
    desk.booking().check_in(check_in).await.unwrap();
    let complete = CompleteVisitRequest {
        appointment_id: booked.id.clone(),
        outcome: VisitOutcome::Attended as i32,
        ..Default::default()
    };
    let closed = desk.booking().complete_visit(complete).await.unwrap().into_inner();
    assert_eq!(closed.state(), AppointmentState::Completed);
    let told: Vec<VisitCompleted> = collect(&broker, "appointments", 1).await;
    assert_eq!(told[0].outcome(), VisitOutcome::Attended);
    let told: Vec<CopayCaptured> = collect(&broker, "billing", 1).await;
    assert_eq!((&told[0].charge_id, told[0].amount.as_ref().unwrap().units * 100), (&charge.id, COPAY_CENTS));
    assert_eq!(charges(&desk, &booked.id).await[0].state(), ChargeState::Captured);
}

#[tokio::test]
async fn a_declined_card_keeps_the_hold_for_another_card() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_chargeCustomerFail").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.paid_visit, start);
    let refused = desk.booking().book_appointment(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "PAYMENT_DECLINED"));
    let hold = meta(&refused, "hold_id").expect("the hold that stays");

    let read = GetAppointmentRequest { appointment_id: hold.clone(), ..Default::default() };
    let held = desk.booking().get_appointment(read).await.unwrap().into_inner();
    assert_eq!((held.state(), held.copay.unwrap().state()), (AppointmentState::Held, CopayState::Declined));

    let card = SavePaymentMethodRequest {
        patient_id: patient,
        provider_token: "pm_card_visa".into(),
        make_default: true,
        ..Default::default()
    };
    desk.billing().save_payment_method(card).await.unwrap();
    let retry = BookAppointmentRequest { hold_id: hold.clone(), ..Default::default() };
    let booked = desk.booking().book_appointment(retry).await.unwrap().into_inner();
    assert_eq!(
        (booked.id, AppointmentState::try_from(booked.state).unwrap()),
        (hold, AppointmentState::Booked)
    );
}

#[tokio::test]
async fn two_rivals_for_one_slot_leave_one_winner_and_a_clear_refusal() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let start = in_days(suite.servers.clock.now(), 3);
    let (first, second) =
        (network.patient(&desk, "pm_card_visa").await, network.patient(&desk, "pm_card_visa").await);
    let book = async |patient: &str| {
        desk.booking().book_appointment(network.booking(patient, &network.paid_visit, start)).await
    };
    let (a, b) = tokio::join!(book(&first), book(&second));
    let (Ok(won), Err(lost)) = (if a.is_ok() { (a, b) } else { (b, a) }) else {
        panic!("one winner, one loser")
    };
    let won = won.into_inner();
    assert_eq!(won.state(), AppointmentState::Booked);
    assert_eq!((lost.code(), reason(&lost).as_str()), (Code::Aborted, "SLOT_TAKEN"));
    // The loser left nothing behind: no hold, no charge.
    let loser = if won.patient_id == first { second } else { first };
    let request = ListChargesRequest { patient_id: loser, ..Default::default() };
    assert!(desk.billing().list_charges(request).await.unwrap().into_inner().charges.is_empty());
}

#[tokio::test]
async fn a_timely_cancellation_frees_the_slot_drops_reminders_and_voids_the_copay() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let booked = desk.booking().book_appointment(network.booking(&patient, &network.paid_visit, start)).await;
    let booked = booked.unwrap().into_inner();
    let cancel = CancelAppointmentRequest { appointment_id: booked.id.clone(), ..Default::default() };
    let cancelled = desk.booking().cancel_appointment(cancel).await.unwrap().into_inner();
    assert!(!cancelled.cancellation.unwrap().fee_due);
    until("the voided co-pay", async || {
        charges(&desk, &booked.id).await.iter().all(|c| c.state() == ChargeState::Voided).then_some(())
    })
    .await;
    until("the slot's return to the search", async || offers(&network, &desk, start).await.then_some(()))
        .await;
    until("dropped reminders", async || {
        let reminders = reminders(&desk, &booked.id).await;
        reminders.iter().all(|r| r.state() == ReminderState::Dropped).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hold_is_released_or_runs_out_and_its_slot_returns() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let hold = async |start| {
        let b = network.booking(&patient, &network.free_visit, start);
        let request = HoldSlotRequest {
            patient_id: b.patient_id,
            service_type_id: b.service_type_id,
            clinic_id: b.clinic_id,
            provider_id: b.provider_id,
            start_time: b.start_time,
            ..Default::default()
        };
        desk.booking().hold_slot(request).await
    };
    let held = hold(start).await.unwrap().into_inner();
    assert_eq!(start_of(&held), start);
    let too_many = hold(start + TimeDelta::days(8)).await.unwrap_err();
    assert_eq!((too_many.code(), reason(&too_many).as_str()), (Code::ResourceExhausted, "TOO_MANY_HOLDS"));
    let release = ReleaseHoldRequest { hold_id: held.id, ..Default::default() };
    let released = desk.booking().release_hold(release).await.unwrap().into_inner();
    assert_eq!(released.state(), AppointmentState::Released);

    let held = hold(start).await.unwrap().into_inner();
    suite.servers.advance(TimeDelta::minutes(5)).await;
    let late = BookAppointmentRequest { hold_id: held.id, ..Default::default() };
    let late = desk.booking().book_appointment(late).await.unwrap_err();
    assert_eq!((late.code(), reason(&late).as_str()), (Code::FailedPrecondition, "HOLD_EXPIRED"));
    let other = network.patient(&desk, "").await;
    let booked = desk.booking().book_appointment(network.booking(&other, &network.free_visit, start)).await;
    assert_eq!(booked.unwrap().into_inner().state(), AppointmentState::Booked);
}

#[tokio::test]
async fn a_due_reminder_is_texted_once() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    consent(&desk, &patient).await;
    let start = afternoon(&suite);
    let booked = desk.booking().book_appointment(network.booking(&patient, &network.free_visit, start)).await;
    let booked = booked.unwrap().into_inner();
    until("planned reminders", async || (reminders(&desk, &booked.id).await.len() == 2).then_some(())).await;
    suite.servers.advance_to(start - TimeDelta::hours(23)).await;
    until("the 24 h text", async || {
        let all = reminders(&desk, &booked.id).await;
        (all.iter().filter(|r| r.state() == ReminderState::Sent).count() == 1).then_some(())
    })
    .await;
}

pub(crate) async fn consent(desk: &Desk, patient: &str) {
    use proto::clinic::patients::v1::{SetSmsConsentRequest, SmsConsentSource, SmsConsentState};
    let request = SetSmsConsentRequest {
        patient_id: patient.into(),
        state: SmsConsentState::Granted as i32,
        source: SmsConsentSource::FrontDesk as i32,
        wording: "May we text you about your visits?".into(),
        wording_language: "en".into(),
        ..Default::default()
    };
    desk.patients().set_sms_consent(request).await.unwrap();
}

/// 20:00 UTC three days ahead: afternoon at the clinic, so that quiet hours move nothing.
pub(crate) fn afternoon(suite: &RunningSuite) -> DateTime<Utc> {
    let day = suite.servers.clock.now().date_naive() + TimeDelta::days(3);
    day.and_hms_opt(20, 0, 0).unwrap().and_utc()
}
