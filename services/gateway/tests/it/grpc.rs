//! Native gRPC through the gateway: routing, metadata, errors, streams, deadlines, reflection, health.

use std::time::Duration;

use ::http::Request;
use http_body_util::BodyExt as _;
use kit::deadline;
use proto::clinic::appointments::v1::booking_service_client::BookingServiceClient;
use proto::clinic::appointments::v1::{
    CheckInRequest, GetAppointmentRequest, WatchAppointmentsRequest, WatchAppointmentsResponse,
};
use proto::clinic::billing::v1::GetChargeRequest;
use proto::clinic::billing::v1::billing_service_client::BillingServiceClient;
use proto::clinic::notify::v1::notify_service_client::NotifyServiceClient;
use proto::clinic::notify::v1::{GetMessageRequest, ListMessagesRequest};
use proto::clinic::patients::v1::GetPatientRequest;
use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::suite::{MISSING, STUCK, Suite, bounded, framed, next};

/// What reflection names, beside itself.
const SERVICES: [&str; 10] = [
    "clinic.appointments.v1.BookingService",
    "clinic.appointments.v1.WaitlistService",
    "clinic.billing.v1.BillingService",
    "clinic.notify.v1.NotifyService",
    "clinic.patients.v1.IntakeService",
    "clinic.patients.v1.PatientService",
    "clinic.scheduling.v1.AvailabilityService",
    "clinic.scheduling.v1.CalendarService",
    "clinic.scheduling.v1.CatalogService",
    "grpc.health.v1.Health",
];

fn appointment(id: &str) -> GetAppointmentRequest {
    GetAppointmentRequest { appointment_id: id.to_owned(), ..Default::default() }
}

/// `method` of BookingService as a client without any habits calls it.
fn raw(suite: &Suite, method: &str, message: &impl prost::Message) -> ::http::request::Builder {
    let uri = format!("http://{}/clinic.appointments.v1.BookingService/{method}", suite.address);
    let length = framed(message).len();
    Request::post(uri).header("content-type", "application/grpc").header("content-length", length)
}

#[tokio::test]
async fn each_call_goes_to_the_service_it_names() {
    let suite = Suite::start().await;
    let booked =
        BookingServiceClient::new(suite.channel()).get_appointment(appointment("a-1")).await.unwrap();
    assert_eq!(booked.into_inner().id, "a-1");
    let asked = GetChargeRequest { charge_id: "c-1".to_owned() };
    let charge = BillingServiceClient::new(suite.channel()).get_charge(asked).await.unwrap();
    assert_eq!(charge.into_inner().id, "c-1");
}

#[tokio::test]
async fn metadata_and_tokens_travel_both_ways() {
    let suite = Suite::start().await;
    let mut request = tonic::Request::new(appointment("a-1"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent = [("authorization", "Bearer secret"), ("traceparent", trace), ("x-desk", "7")];
    for (name, value) in sent {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let answer = BookingServiceClient::new(suite.channel()).get_appointment(request).await.unwrap();
    let asked = suite.bookings.asked();
    for (name, value) in sent {
        assert_eq!(asked[name], value);
    }
    assert_eq!(answer.metadata().get("x-answer").unwrap(), "from appointments");
}

#[tokio::test]
async fn details_of_an_error_survive() {
    let suite = Suite::start().await;
    let answer = BookingServiceClient::new(suite.channel()).get_appointment(appointment(MISSING)).await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(kit::status::reason(&status), "APPOINTMENT_NOT_FOUND");
    assert_eq!(status.get_details_resource_info().unwrap().resource_type, "Appointment");
}

#[tokio::test]
async fn a_method_that_the_service_has_not_built_is_unimplemented() {
    let suite = Suite::start().await;
    let answer = BookingServiceClient::new(suite.channel()).check_in(CheckInRequest::default()).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_unknown_service_is_unimplemented() {
    let suite = Suite::start().await;
    for path in ["/clinic.pharmacy.v1.PharmacyService/Dispense", "/", "/clinic.billing.v1/x", "//a/b"] {
        let request = Request::post(format!("http://{}{path}", suite.address))
            .header("content-type", "application/grpc")
            .body(framed(&()))
            .unwrap();
        let answer = bounded(suite.http2(request)).await;
        assert_eq!(answer.headers()["grpc-status"], "12", "{path}");
    }
}

#[tokio::test]
async fn a_stream_passes_message_by_message() {
    let suite = Suite::start().await;
    let feed = suite.bookings.feed();
    let request = WatchAppointmentsRequest::default();
    let answer = bounded(BookingServiceClient::new(suite.channel()).watch_appointments(request)).await;
    let mut stream = answer.unwrap().into_inner();
    for round in 0..3 {
        let removed_appointment_ids = vec![format!("a-{round}")];
        feed.send(Ok(WatchAppointmentsResponse { removed_appointment_ids, ..Default::default() }))
            .await
            .unwrap();
        // Each arrives before the next is made.
        assert_eq!(next(&mut stream).await.removed_appointment_ids, [format!("a-{round}")]);
    }
    feed.send(Err(tonic::Status::unavailable("draining"))).await.unwrap();
    let end = bounded(stream.message()).await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "draining"));
}

#[tokio::test]
async fn a_stream_ends_upstream_when_its_reader_leaves() {
    let suite = Suite::start().await;
    let feed = suite.bookings.feed();
    let request = WatchAppointmentsRequest::default();
    let stream =
        bounded(BookingServiceClient::new(suite.channel()).watch_appointments(request)).await.unwrap();
    drop(stream);
    bounded(feed.closed()).await;
}

#[tokio::test]
async fn the_callers_deadline_reaches_the_upstream_shortened() {
    let suite = Suite::start().await;
    let asked = Duration::from_secs(5);
    let mut request = tonic::Request::new(appointment("a-1"));
    request.set_timeout(asked);
    BookingServiceClient::new(suite.channel()).get_appointment(request).await.unwrap();
    let left = deadline::from_headers(&suite.bookings.asked()).unwrap();
    assert!(Duration::ZERO < left && left < asked, "{left:?}");
}

#[tokio::test]
async fn a_caller_without_a_deadline_gets_the_default_and_a_watcher_the_longest() {
    let suite = Suite::start().await;
    let mut client = BookingServiceClient::new(suite.channel());
    client.get_appointment(appointment("a-1")).await.unwrap();
    let left = deadline::from_headers(&suite.bookings.asked()).unwrap();
    assert!(left <= deadline::DEFAULT, "{left:?}");
    let _feed = suite.bookings.feed();
    let _stream = bounded(client.watch_appointments(WatchAppointmentsRequest::default())).await.unwrap();
    let left = deadline::from_headers(&suite.bookings.asked()).unwrap();
    assert!(deadline::DEFAULT < left && left <= deadline::LONGEST, "{left:?}");
}

#[tokio::test]
async fn an_upstream_that_is_late_becomes_deadline_exceeded() {
    let suite = Suite::start().await;
    let message = appointment(STUCK);
    let request =
        raw(&suite, "GetAppointment", &message).header("grpc-timeout", "50m").body(framed(&message));
    let answer = bounded(suite.http2(request.unwrap())).await;
    assert_eq!(answer.headers()["grpc-status"], "4");
}

#[tokio::test]
async fn a_stream_ends_with_a_status_at_the_callers_deadline() {
    let suite = Suite::start().await;
    let _feed = suite.bookings.feed();
    let message = WatchAppointmentsRequest::default();
    let request =
        raw(&suite, "WatchAppointments", &message).header("grpc-timeout", "200m").body(framed(&message));
    let answer = bounded(suite.http2(request.unwrap())).await;
    let body = bounded(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "4");
}

#[tokio::test]
async fn an_upstream_that_is_down_becomes_dependency_down() {
    let suite = Suite::start().await;
    let answer = PatientServiceClient::new(suite.channel()).get_patient(GetPatientRequest::default()).await;
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), kit::status::reason(&status).as_str()),
        (Code::Unavailable, "DEPENDENCY_DOWN")
    );
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_ends_without_a_status_becomes_dependency_down() {
    let suite = Suite::start().await;
    let mut client = NotifyServiceClient::new(suite.channel());
    let broken = client.list_messages(ListMessagesRequest::default()).await.unwrap_err();
    let ended = client.get_message(GetMessageRequest::default()).await.unwrap_err();
    for status in [broken, ended] {
        assert_eq!(
            (status.code(), kit::status::reason(&status).as_str()),
            (Code::Unavailable, "DEPENDENCY_DOWN")
        );
    }
}

#[tokio::test]
async fn reflection_names_every_service_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let suite = Suite::start().await;

    let ask = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { message_request: Some(ask), ..Default::default() };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(suite.channel());
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = next(&mut answers).await.message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, [&SERVICES[..], &["grpc.reflection.v1.ServerReflection"]].concat());

    let ask = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1alpha::ServerReflectionRequest { message_request: Some(ask), ..Default::default() };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(suite.channel());
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = next(&mut answers).await.message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, [&SERVICES[..], &["grpc.reflection.v1alpha.ServerReflection"]].concat());
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    use tonic_reflection::pb::v1;
    let suite = Suite::with(|config| config.reflection = false).await;
    let ask = v1::ServerReflectionRequest::default();
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(suite.channel());
    let answer = client.server_reflection_info(tokio_stream::iter([ask])).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn health_follows_the_upstreams() {
    let mut suite = Suite::start().await;
    let watch = HealthClient::new(suite.channel()).watch(HealthCheckRequest::default()).await.unwrap();
    let mut states = watch.into_inner();
    while next(&mut states).await.status() != ServingStatus::NotServing {}
    suite.revive().await;
    while next(&mut states).await.status() != ServingStatus::Serving {}
}
