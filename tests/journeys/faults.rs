//! Servers that go away and come back, and a suite that is stopped and started on its old data.

use kit::status::reason;
use proto::clinic::appointments::v1::{AppointmentBooked, AppointmentState, ListAppointmentsRequest};
use testkit::network::in_days;
use testkit::suite::RunningSuite;
use testkit::{collect, until};
use tonic::Code;

/// Status of a plain HTTP request to a service.
async fn http_status(url: &str, path: &str) -> Option<u16> {
    let address = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn without_nats_bookings_are_answered_and_events_follow_when_it_is_back() {
    let (mut suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "pm_card_visa").await;
    suite.servers.nats.stop().await;
    let start = in_days(suite.servers.clock.now(), 3);
    let booked = desk.booking().book_appointment(network.booking(&patient, &network.paid_visit, start)).await;
    let booked = booked.unwrap().into_inner();
    assert_eq!(booked.state(), AppointmentState::Booked);
    suite.servers.nats.restart().await.unwrap();
    let told: Vec<AppointmentBooked> = collect(&suite.servers.broker().await, "appointments", 1).await;
    assert_eq!(told[0].appointment_id, booked.id);
}

#[tokio::test]
async fn without_postgresql_calls_are_unavailable_and_the_suite_recovers_by_itself() {
    let (mut suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    suite.servers.postgres.stop().await;
    let start = in_days(suite.servers.clock.now(), 3);
    let request = network.booking(&patient, &network.free_visit, start);
    let refused = desk.booking().book_appointment(request.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "DEPENDENCY_DOWN"));
    until("failing readiness", async || {
        (http_status(&suite.urls.appointments, "/readyz").await == Some(503)).then_some(())
    })
    .await;
    assert_eq!(http_status(&suite.urls.appointments, "/healthz").await, Some(200), "alive all the same");

    suite.servers.postgres.start_again().await.unwrap();
    until("readiness", async || {
        (http_status(&suite.urls.gateway, "/readyz").await == Some(200)).then_some(())
    })
    .await;
    let booked = desk.booking().book_appointment(request).await.unwrap().into_inner();
    assert_eq!(booked.state(), AppointmentState::Booked);
    let told: Vec<AppointmentBooked> = collect(&suite.servers.broker().await, "appointments", 1).await;
    assert_eq!(told[0].appointment_id, booked.id);
}

#[tokio::test]
async fn a_suite_started_on_its_old_data_goes_on_where_it_was() {
    let (suite, network) = super::start().await;
    let desk = suite.desk();
    let patient = network.patient(&desk, "").await;
    let start = in_days(suite.servers.clock.now(), 3);
    let booked = desk.booking().book_appointment(network.booking(&patient, &network.free_visit, start)).await;
    let booked = booked.unwrap().into_inner();
    until("the slot's disappearance", async || {
        let slots = network.slots(&desk, &network.free_visit, start).await;
        (!slots.iter().any(|s| s.interval == booked.interval)).then_some(())
    })
    .await;

    let servers = suite.stop().await;
    let suite = RunningSuite::on(servers).await;
    let desk = suite.desk();
    let slots = network.slots(&desk, &network.free_visit, start).await;
    assert!(!slots.iter().any(|s| s.interval == booked.interval), "a booked slot stays taken");
    let request = ListAppointmentsRequest { patient_id: patient, ..Default::default() };
    let listed = desk.booking().list_appointments(request).await.unwrap().into_inner().appointments;
    assert_eq!(listed, [booked]);
}
