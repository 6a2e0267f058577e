//! What one port answers: calls with their deadlines and roles, probes, health.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use kit::client::Outbound;
use kit::status::reason;
use proto::clinic::auth::v1::Role;
use proto::clinic::scheduling::v1::availability_service_client::AvailabilityServiceClient;
use proto::clinic::scheduling::v1::{
    CheckSlotRequest, ExplainAvailabilityRequest, SearchAvailabilityRequest, WatchAvailabilityRequest,
};
use testkit::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use crate::stage::{BAD_FIELDS, Stage};

/// A deadline that passes while a test waits for it.
const SHORT: Duration = Duration::from_millis(100);
/// An empty message as gRPC frames it: not compressed, of length 0.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// One HTTP/1.1 request as an orchestrator's probe sends it; status line and body.
async fn get(url: &str, path: &str) -> (String, String) {
    let address = url.strip_prefix("http://").unwrap();
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_call_is_ended_by_the_server_when_its_callers_deadline_passes() {
    let stage = Stage::closed().await;
    // By hand, so that no client judges the deadline before the server does.
    let request = http::Request::post("/clinic.scheduling.v1.AvailabilityService/CheckSlot")
        .header(CONTENT_TYPE, "application/grpc")
        .header(AUTHORIZATION, format!("Bearer {}", stage.token(Role::Service)))
        .header(kit::deadline::HEADER, kit::deadline::to_header(SHORT))
        .body(Body::from(EMPTY_MESSAGE))
        .unwrap();
    let response = stage.app.clone().oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).expect("an answer without a message");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert_eq!(stage.play.entered.notified().now_or_never(), Some(()), "the work had begun");
    assert_eq!(stage.play.running.load(Ordering::SeqCst), 0, "and goes on for nobody");
}

#[tokio::test]
async fn a_caller_hears_of_its_deadline_from_its_own_client_too() {
    let stage = Stage::closed().await;
    let mut request = Request::new(CheckSlotRequest::default());
    request.set_timeout(SHORT);
    let status = stage.client(Role::Service).check_slot(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_stream_ends_at_its_readers_deadline() {
    let stage = Stage::open().await;
    // Whether the first message is quicker than the deadline is up to the machine: the deadline grows until it is.
    let mut deadline = SHORT;
    let status = testkit::until("a first message before the deadline", || {
        let (mut desk, mut request) = (stage.desk(), Request::new(WatchAvailabilityRequest::default()));
        request.set_timeout(deadline);
        deadline *= 2;
        async move {
            let mut stream = desk.watch_availability(request).await.ok()?.into_inner();
            stream.message().await.ok()?;
            Some(stream.message().await.unwrap_err())
        }
    })
    .await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn only_the_roles_of_the_contract_get_through() {
    let stage = Stage::open().await;
    let patient = Outbound::bearing(&stage.url, stage.token(Role::Patient)).unwrap();
    let forged = Outbound::bearing(&stage.url, "forged").unwrap();
    for (who, expected) in [
        (Outbound::anonymous(&stage.url).unwrap(), (Code::Unauthenticated, "TOKEN_INVALID")),
        (forged, (Code::Unauthenticated, "TOKEN_INVALID")),
        (patient, (Code::PermissionDenied, "ROLE_REQUIRED")),
    ] {
        let mut client = AvailabilityServiceClient::new(who);
        let status = client.explain_availability(ExplainAvailabilityRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), expected);
    }
}

#[tokio::test]
async fn a_request_with_hundreds_of_bad_fields_gets_an_answer_that_fits_into_headers() {
    let stage = Stage::open().await;
    let request = ExplainAvailabilityRequest::default();
    let status = stage.desk().explain_availability(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    let violations = status.get_details_bad_request().expect("the bad fields").field_violations;
    let (last, named) = violations.split_last().unwrap();
    assert_eq!(named.len(), 49);
    assert_eq!(last.description, format!("bad fields beyond those named here: {}", BAD_FIELDS - 49));
}

#[tokio::test]
async fn probes_and_metrics_answer_over_plain_http() {
    let stage = Stage::open().await;
    stage.desk().search_availability(SearchAvailabilityRequest::default()).await.unwrap();
    let ok = |body: &str| ("HTTP/1.1 200 OK".to_owned(), body.to_owned());
    assert_eq!(get(&stage.url, "/healthz").await, ok("alive\n"));
    assert_eq!(get(&stage.url, "/readyz").await, ok("ready\n"));
    let (line, metrics) = get(&stage.url, "/metrics").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let counted = |line: &str| line.starts_with("rpc_server_total") && line.contains("SearchAvailability");
    assert!(metrics.lines().any(counted), "{metrics}");
}

#[tokio::test]
async fn a_service_that_is_not_ready_says_so_and_recovers() {
    let stage = Stage::open().await;
    let client = HealthClient::new(Outbound::anonymous(&stage.url).unwrap());
    let says = |wanted: ServingStatus| {
        let client = client.clone();
        until(wanted.as_str_name(), move || {
            let mut client = client.clone();
            async move {
                let answer = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
                (answer.status() == wanted).then_some(())
            }
        })
    };
    says(ServingStatus::Serving).await;
    stage.ready.store(false, Ordering::SeqCst);
    says(ServingStatus::NotServing).await;
    let (line, why) = get(&stage.url, "/readyz").await;
    assert_eq!((line.as_str(), why.as_str()), ("HTTP/1.1 503 Service Unavailable", "the play is over\n"));
    assert_eq!(get(&stage.url, "/healthz").await.1, "alive\n", "it lives all the same");
    stage.ready.store(true, Ordering::SeqCst);
    says(ServingStatus::Serving).await;
}
