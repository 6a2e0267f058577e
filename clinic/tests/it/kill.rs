//! kill -9 in the middle of a booking: afterwards it is whole or gone, and so is its authorization.

use std::time::Duration;

use proto::clinic::appointments::v1::{AppointmentState, ListAppointmentsRequest};
use proto::clinic::auth::v1::Role;
use proto::clinic::billing::v1::{ChargeState, ListChargesRequest};
use testkit::network::{Network, in_days};
use testkit::suite::Desk;
use testkit::{until, until_within};

use crate::process::{Home, http, is_alive};

/// What is promised after a restart.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

const OPEN: [AppointmentState; 1] = [AppointmentState::Held];

async fn appointments(desk: &Desk, patient: &str, states: &[AppointmentState]) -> Vec<AppointmentState> {
    let request = ListAppointmentsRequest {
        patient_id: patient.into(),
        states: states.iter().map(|s| *s as i32).collect(),
        ..Default::default()
    };
    let listed = desk.booking().list_appointments(request).await.unwrap().into_inner().appointments;
    listed.iter().map(|a| a.state()).collect()
}

/// Kills the suite once the sandbox fault `kind` keeps a booking between its hold and its end, starts it again, and waits
/// until booking, charge and the provider's own records agree.
async fn kill_during(kind: &str) {
    let home = Home::new();
    let up = home.up(&["--no-demo"]).await;
    let (desk, now) = (up.desk(Role::FrontDesk), kit::clock::Clock::System.now());
    let network = Network::build(&up.desk(Role::Admin), now).await;
    let patient = network.patient(&desk, "pm_card_visa").await;
    let fault = format!(
        "{{\"route\": \"payment_intents.create\", \"kind\": \"{kind}\", \"ms\": 60000, \"times\": 1}}"
    );
    let (status, body) = http("POST", &format!("{}/sandbox/faults", up.url("sandbox")), &fault).await;
    assert!(status < 300, "{status} {body}");
    let booking = network.booking(&patient, &network.paid_visit, in_days(now, 3));
    let caller = desk.clone();
    let call = tokio::spawn(async move { caller.booking().book_appointment(booking).await });
    until("the hold of the booking", async || {
        (appointments(&desk, &patient, &OPEN).await.len() == 1).then_some(())
    })
    .await;
    until("the charge being authorized", async || {
        let request = ListChargesRequest { patient_id: patient.clone(), ..Default::default() };
        let charges = desk.billing().list_charges(request).await.unwrap().into_inner().charges;
        charges.iter().any(|c| c.state() == ChargeState::Authorizing).then_some(())
    })
    .await;
    let postgres = up.postgres_pid().unwrap();
    up.kill().await;
    assert!(call.await.unwrap().is_err(), "the caller of a killed suite gets no answer");
    until("the end of PostgreSQL", async || (!is_alive(postgres)).then_some(())).await;

    let up = home.up(&["--no-demo"]).await;
    let desk = up.desk(Role::FrontDesk);
    until_within(SETTLED_WITHIN, "a settled booking", async || {
        let open = appointments(&desk, &patient, &OPEN).await;
        let booked = appointments(&desk, &patient, &[AppointmentState::Booked]).await.len();
        let request = ListChargesRequest { patient_id: patient.clone(), ..Default::default() };
        let charges = desk.billing().list_charges(request).await.unwrap().into_inner().charges;
        let live = charges.iter().filter(|c| c.state() == ChargeState::Authorized).count();
        let undecided =
            charges.iter().any(|c| matches!(c.state(), ChargeState::Authorizing | ChargeState::Voiding));
        (open.is_empty() && !undecided && live == booked).then_some(())
    })
    .await;
    // The provider's own records agree: one authorization for a booked visit, none for one that is gone.
    let booked = appointments(&desk, &patient, &[AppointmentState::Booked]).await.len();
    let (_, intents) = http("GET", &format!("{}/sandbox/payment_intents", up.url("sandbox")), "").await;
    assert_eq!(intents.matches("requires_capture").count(), booked, "{intents}");
    assert!(up.stop().await.success());
}

#[tokio::test]
async fn killed_before_the_provider_acted_the_booking_is_settled_after_the_restart() {
    kill_during("latency").await;
}

#[tokio::test]
async fn killed_after_the_provider_acted_the_booking_is_settled_after_the_restart() {
    kill_during("act_then_timeout").await;
}
