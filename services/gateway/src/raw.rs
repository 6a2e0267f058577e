//! Plain HTTP that a service answers itself, passed on byte by byte: callbacks of the payment and SMS providers, whose signatures
//! cover the raw body and the public URL and which only that service can check; and calendars that it publishes under links.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::header::{FORWARDED, HOST, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderName, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kit::messaging::TRACEPARENT;
use kit::{deadline, telemetry};
use tonic::transport::Channel;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::config::Origin;
use crate::hop;
use crate::upstreams::Upstreams;

/// The largest body, in bytes. Providers send a few kilobytes.
const MAX_BODY: usize = 256 * 1024;
/// From the first header to the answer's headers. Providers hang up after 10 to 15 s and come back later.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds after which a caller may try again when the service is down.
const RETRY_SECS: u16 = 5;

const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Statements about the way a request came, which only this gateway may make, and the deadline, which is for gRPC.
const NOT_BELIEVED: [HeaderName; 7] = [
    FORWARDED,
    PROTO,
    FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static(deadline::HEADER),
];

/// Method, path and upstream of each. `public_url` is how the world reaches this address, unless the request's own words are to
/// be used.
pub(crate) fn routes(upstreams: &Upstreams, public_url: Option<Origin>) -> Router {
    let all = [
        (MethodFilter::POST, "/webhooks/payments", &upstreams.billing),
        (MethodFilter::POST, "/webhooks/sms/status", &upstreams.notify),
        (MethodFilter::POST, "/webhooks/sms/inbound", &upstreams.notify),
        (MethodFilter::GET, "/calendars/{file}", &upstreams.scheduling),
    ];
    all.into_iter().fold(Router::new(), |router, (method, route, upstream)| {
        let passage = Passage { route, channel: upstream.channel.clone(), public_url: public_url.clone() };
        router.route(route, on(method, pass).with_state(passage))
    })
}

#[derive(Clone, Debug)]
struct Passage {
    /// Stands for the path in traces and metrics: a calendar's own is a secret.
    route: &'static str,
    channel: Channel,
    public_url: Option<Origin>,
}

async fn pass(State(passage): State<Passage>, request: Request) -> Response {
    let route = passage.route;
    let span = tracing::info_span!("http", otel.kind = "server", route);
    let passed = tokio::time::timeout(TIMEOUT, passage.forward(request)).instrument(span.clone()).await;
    let response = passed.unwrap_or(Err(Refusal::Late)).unwrap_or_else(IntoResponse::into_response);
    let status = response.status().as_u16();
    metrics::counter!("gateway_http_total", "route" => route, "status" => status.to_string()).increment(1);
    span.in_scope(|| tracing::debug!(status, "answered"));
    response
}

impl Passage {
    async fn forward(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { Refusal::TooLarge } else { Refusal::BrokeOff }
        })?;
        self.dress(&mut parts)?;
        let request = http::Request::from_parts(parts, whole(body.to_bytes()));
        let response = self.channel.clone().oneshot(request).await.map_err(|error| {
            tracing::warn!(%error, "a request found its service down");
            Refusal::Down
        })?;
        let (mut parts, body) = response.into_parts();
        hop::strip(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::new(body)))
    }

    /// The caller's own headers, and the URL as the caller knows it.
    fn dress(&self, parts: &mut Parts) -> Result<(), Refusal> {
        let (scheme, authority) = match &self.public_url {
            Some(url) => (url.scheme.clone(), url.authority.clone()),
            None => (Scheme::HTTP, asked_authority(parts).ok_or(Refusal::NoHost)?),
        };
        parts.version = Version::HTTP_2;
        hop::strip(&mut parts.headers);
        for name in NOT_BELIEVED {
            parts.headers.remove(name);
        }
        let value = |text: &str| HeaderValue::from_str(text).expect("parts of a URI are visible ASCII");
        parts.headers.insert(PROTO, value(scheme.as_str()));
        parts.headers.insert(FORWARDED_HOST, value(authority.as_str()));
        if let Some(trace) = telemetry::current_traceparent().and_then(|t| HeaderValue::from_str(&t).ok()) {
            parts.headers.insert(TRACEPARENT, trace);
        }
        Ok(())
    }
}

/// The host that the request names: in its URI (HTTP/2) or its `Host` header.
fn asked_authority(parts: &Parts) -> Option<Authority> {
    let named = || parts.headers.get(HOST)?.to_str().ok()?.parse().ok();
    parts.uri.authority().cloned().or_else(named)
}

fn whole(body: Bytes) -> tonic::body::Body {
    tonic::body::Body::new(http_body_util::Full::new(body))
}

/// Why a request did not reach its service.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    TooLarge,
    BrokeOff,
    NoHost,
    Late,
    Down,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB\n"),
            Self::BrokeOff => (StatusCode::BAD_REQUEST, "the body broke off\n"),
            Self::NoHost => (StatusCode::BAD_REQUEST, "the request names no host\n"),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "no answer in time; try again\n"),
            Self::Down => {
                let retry = [(RETRY_AFTER, HeaderValue::from(RETRY_SECS))];
                return (StatusCode::SERVICE_UNAVAILABLE, retry, "the service is down; try again\n")
                    .into_response();
            }
        };
        (status, why).into_response()
    }
}
