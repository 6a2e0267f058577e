//! grpc-web, binary and text, translated to gRPC, for the browser origins that are listed.
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{map_request, map_response};
use axum::response::Response;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method};
use http_body_util::{BodyStream, StreamBody};
use kit::deadline;
use kit::messaging::TRACEPARENT;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::{Origin, Origins};

/// What a page may send beside the headers that need no permission.
const REQUEST_HEADERS: [HeaderName; 7] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static(deadline::HEADER),
    HeaderName::from_static(TRACEPARENT),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
];
/// What a page may read: an error without a message has its status among the headers.
const RESPONSE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// How long a browser may remember a permission; browsers cut it at two hours.
const PREFLIGHT_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// `grpc`, spoken to in grpc-web.
pub(crate) fn translated(grpc: Router, origins: &Origins) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.0.iter().map(Origin::header)))
        .allow_methods([Method::POST])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .max_age(PREFLIGHT_AGE);
    Router::new()
        .fallback_service(GrpcWebLayer::new().layer(grpc))
        .layer(map_request(|request: Request| async { request.map(unsized_body) }))
        .layer(map_response(|mut response: Response| async {
            response.headers_mut().remove(CONTENT_LENGTH);
            response.map(unsized_body)
        }))
        .layer(cors)
}

/// Hides the body's length: the translation changes it, but reports the one from before.
fn unsized_body(body: Body) -> Body {
    Body::new(StreamBody::new(BodyStream::new(body)))
}
