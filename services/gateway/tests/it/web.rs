//! grpc-web as browsers speak it: both encodings, streams, errors, permission for other origins.

use ::http::{Request, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use proto::clinic::appointments::v1::{
    Appointment, GetAppointmentRequest, WatchAppointmentsRequest, WatchAppointmentsResponse,
};

use crate::suite::{MISSING, PORTAL, Suite, bounded, framed};

const GET: &str = "/clinic.appointments.v1.BookingService/GetAppointment";
const WATCH: &str = "/clinic.appointments.v1.BookingService/WatchAppointments";
/// Marks the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// Frames of a body: flag and content.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        frames.push((*flag, rest[..length].to_vec()));
        body = &rest[length..];
    }
    frames
}

fn call(path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let request = Request::post(path).header("host", "clinic.example").header("content-type", content_type);
    request
        .header("accept", content_type)
        .header("origin", PORTAL)
        .header("x-grpc-web", "1")
        .body(body.into())
        .unwrap()
}

fn ask(id: &str) -> Bytes {
    framed(&GetAppointmentRequest { appointment_id: id.to_owned(), ..Default::default() })
}

async fn whole(answer: Response<Incoming>) -> Bytes {
    bounded(answer.into_body().collect()).await.unwrap().to_bytes()
}

fn assert_appointment(body: &[u8]) {
    let frames = frames(body);
    assert_eq!(frames.iter().map(|(flag, _)| *flag).collect::<Vec<_>>(), [0, TRAILERS]);
    assert_eq!(Appointment::decode(frames[0].1.as_slice()).unwrap().id, "a-1");
    let trailers = String::from_utf8(frames[1].1.clone()).unwrap();
    assert!(trailers.lines().any(|line| line.replace(' ', "") == "grpc-status:0"), "{trailers:?}");
}

#[tokio::test]
async fn a_binary_call_makes_the_round_trip() {
    let suite = Suite::start().await;
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let answer = bounded(suite.http1(call(GET, content_type, ask("a-1")))).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/grpc-web+proto");
        assert_eq!(answer.headers()["x-answer"], "from appointments");
        assert_appointment(&whole(answer).await);
    }
}

#[tokio::test]
async fn a_binary_call_makes_the_round_trip_over_http2() {
    let suite = Suite::start().await;
    let request = Request::post(format!("http://{}{GET}", suite.address));
    let request = request.header("content-type", "application/grpc-web+proto").body(ask("a-1")).unwrap();
    let answer = bounded(suite.http2(request)).await;
    assert_appointment(&whole(answer).await);
}

#[tokio::test]
async fn a_text_call_makes_the_round_trip() {
    let suite = Suite::start().await;
    let text = STANDARD.encode(ask("a-1"));
    let answer = bounded(suite.http1(call(GET, "application/grpc-web-text", text))).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc-web-text+proto");
    // Each frame is padded by itself, so every four characters are decoded alone.
    let text = whole(answer).await;
    let body: Vec<u8> = text.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap()).collect();
    assert_appointment(&body);
}

#[tokio::test]
async fn an_error_arrives_in_headers_that_the_page_may_read() {
    let suite = Suite::start().await;
    let answer = bounded(suite.http1(call(GET, "application/grpc-web+proto", ask(MISSING)))).await;
    let headers = answer.headers();
    assert_eq!(headers["grpc-status"], "5");
    assert!(headers.contains_key("grpc-status-details-bin"));
    assert_eq!(headers["access-control-allow-origin"], PORTAL);
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(exposed.split(',').any(|e| e.trim() == name), "{exposed}");
    }
}

#[tokio::test]
async fn a_stream_reaches_the_page_message_by_message_and_ends_when_it_leaves() {
    let suite = Suite::start().await;
    let feed = suite.bookings.feed();
    let request = call(WATCH, "application/grpc-web+proto", framed(&WatchAppointmentsRequest::default()));
    let mut body = bounded(suite.http1(request)).await.into_body();
    for round in 0..2 {
        let removed_appointment_ids = vec![format!("a-{round}")];
        let change = WatchAppointmentsResponse { removed_appointment_ids, ..Default::default() };
        feed.send(Ok(change.clone())).await.unwrap();
        let frame = bounded(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), framed(&change));
    }
    drop(body);
    bounded(feed.closed()).await;
}

#[tokio::test]
async fn a_listed_origin_gets_permission() {
    let suite = Suite::start().await;
    let request = Request::options(GET)
        .header("host", "clinic.example")
        .header("origin", PORTAL)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,grpc-timeout,x-grpc-web");
    let answer = bounded(suite.http1(request.body("").unwrap())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers();
    assert_eq!(headers["access-control-allow-origin"], PORTAL);
    assert_eq!(headers["access-control-allow-methods"], "POST");
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    for name in ["authorization", "content-type", "grpc-timeout", "x-grpc-web"] {
        assert!(allowed.split(',').any(|a| a.trim() == name), "{allowed}");
    }
}

#[tokio::test]
async fn another_origin_gets_none() {
    let suite = Suite::start().await;
    let request = Request::options(GET)
        .header("host", "clinic.example")
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST");
    let answer = bounded(suite.http1(request.body("").unwrap())).await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn another_codec_or_protocol_version_is_refused_in_words() {
    let suite = Suite::start().await;
    let answer = bounded(suite.http1(call(GET, "application/grpc-web+json", "{}"))).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let answer = bounded(suite.http1(call(GET, "application/grpc", ask("a-1")))).await;
    assert_eq!(answer.status(), StatusCode::HTTP_VERSION_NOT_SUPPORTED);
}
