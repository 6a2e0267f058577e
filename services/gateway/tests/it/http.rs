//! Plain HTTP: webhooks, calendars, the page, the probes.

use ::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use crate::suite::{Suite, bounded};

/// The largest body that a webhook may have.
const LARGEST: usize = 256 * 1024;

fn webhook(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(path)
        .header("host", "clinic.example:8443")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-signature", "v1=abc")
        .header("x-forwarded-host", "forged.example")
        .header("x-forwarded-proto", "gopher")
        .body(body.into())
        .unwrap()
}

async fn get(suite: &Suite, path: &str) -> (StatusCode, ::http::HeaderMap, String) {
    let request = Request::get(path).header("host", "clinic.example").body("").unwrap();
    let (parts, body) = bounded(suite.http1(request)).await.into_parts();
    let body = bounded(body.collect()).await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_webhook_arrives_byte_by_byte_with_the_url_that_was_called() {
    let suite = Suite::start().await;
    let body: Bytes = (0..=u8::MAX).cycle().take(LARGEST).collect();
    for path in ["/webhooks/payments", "/webhooks/sms/status", "/webhooks/sms/inbound?from=%2B1"] {
        let answer = bounded(suite.http1(webhook(path, body.clone()))).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let headers = answer.headers();
        assert_eq!(headers["x-signature"], "v1=abc");
        assert_eq!(headers["x-forwarded-host"], "clinic.example:8443");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(bounded(answer.into_body().collect()).await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn the_configured_public_url_is_what_signatures_are_checked_against() {
    let suite =
        Suite::with(|config| config.public_url = Some("https://clinic.example".parse().unwrap())).await;
    let answer = bounded(suite.http1(webhook("/webhooks/payments", "{}"))).await;
    assert_eq!(answer.headers()["x-forwarded-host"], "clinic.example");
    assert_eq!(answer.headers()["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn a_webhook_that_is_too_large_is_refused() {
    let suite = Suite::start().await;
    let answer = bounded(suite.http1(webhook("/webhooks/payments", vec![0; LARGEST + 1]))).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_webhook_for_a_service_that_is_down_may_come_again() {
    let suite = Suite::with(|config| config.billing_url = config.patients_url.clone()).await;
    let answer = bounded(suite.http1(webhook("/webhooks/payments", "{}"))).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_webhook_is_posted_only() {
    let suite = Suite::start().await;
    assert_eq!(get(&suite, "/webhooks/payments").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_calendar_is_passed_on_with_its_conditions_and_its_address_is_not_counted() {
    let suite = Suite::with(|config| config.scheduling_url = config.billing_url.clone()).await;
    let asked = |tag: &str| {
        let request = Request::get("/calendars/c2VjcmV0.ics").header("host", "clinic.example");
        request.header("if-none-match", tag).body("").unwrap()
    };
    let answer = bounded(suite.http1(asked("W/\"b\""))).await;
    assert_eq!((answer.status(), &answer.headers()["etag"]), (StatusCode::OK, &"W/\"a\"".parse().unwrap()));
    let body = bounded(answer.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "/calendars/c2VjcmV0.ics");
    let answer = bounded(suite.http1(asked("W/\"a\""))).await;
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    let (_, _, metrics) = get(&suite, "/metrics").await;
    assert!(metrics.contains("gateway_http_total{route=\"/calendars/{file}\",status=\"304\"}"), "{metrics}");
    assert!(!metrics.contains("c2VjcmV0"), "{metrics}");
}

#[tokio::test]
async fn a_calendar_is_read_only() {
    let suite = Suite::start().await;
    let request = webhook("/calendars/c2VjcmV0.ics", "");
    assert_eq!(bounded(suite.http1(request)).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&suite, "/calendars/c2VjcmV0.ics").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_page_may_load_nothing_but_its_own_style() {
    use base64::Engine as _;
    let suite = Suite::start().await;
    let (status, headers, body) = get(&suite, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let style = body.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}';")), "{policy}");
    for link in ["/readyz", "/metrics"] {
        assert!(body.contains(&format!("href=\"{link}\"")), "{link}");
    }
}

#[tokio::test]
async fn readiness_names_what_is_down() {
    let suite = Suite::start().await;
    let (status, _, body) = get(&suite, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, "scheduling does not answer; patients does not answer\n");
    assert_eq!(get(&suite, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_calls_and_nothing_is_served_elsewhere() {
    let suite = Suite::start().await;
    bounded(suite.http1(webhook("/webhooks/payments", "{}"))).await;
    let (_, _, metrics) = get(&suite, "/metrics").await;
    assert!(metrics.contains("gateway_http_total{route=\"/webhooks/payments\",status=\"200\"}"), "{metrics}");
    assert_eq!(get(&suite, "/desk").await.0, StatusCode::NOT_FOUND);
}
