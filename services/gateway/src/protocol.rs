//! Which protocol a request speaks, judged by its content type before anything else looks at it.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tower::ServiceExt as _;

/// Where gRPC goes; all else falls through to the HTTP routes.
#[derive(Clone)]
pub(crate) struct Doors {
    /// Native gRPC.
    pub(crate) grpc: Router,
    /// grpc-web, and the preflights that browsers send before it.
    pub(crate) web: Router,
}

/// Sends the request through its door. A layer for `axum::middleware::from_fn_with_state`.
pub(crate) async fn choose(State(doors): State<Doors>, mut request: Request, next: Next) -> Response {
    let passed = match Protocol::of(&request) {
        // Without HTTP/2 the status could not be sent: it is a trailer.
        Protocol::Grpc if request.version() != Version::HTTP_2 => {
            return (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "gRPC needs HTTP/2\n").into_response();
        }
        Protocol::Grpc => doors.grpc.oneshot(request).await,
        Protocol::Web(content_type) => {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            doors.web.oneshot(request).await
        }
        Protocol::Preflight => doors.web.oneshot(request).await,
        Protocol::UnknownCodec => {
            let message = "messages must be protobuf: application/grpc or application/grpc-web\n";
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
        }
        Protocol::Http => return next.run(request).await,
    };
    passed.unwrap_or_else(|never| match never {})
}

#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    /// With the content type in the spelling that the translating layer knows.
    Web(&'static str),
    Preflight,
    UnknownCodec,
    Http,
}

impl Protocol {
    fn of(request: &Request) -> Self {
        if request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return Self::Preflight;
        }
        Self::of_type(request.headers())
    }

    fn of_type(headers: &HeaderMap) -> Self {
        let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/grpc" | "application/grpc+proto" => Self::Grpc,
            "application/grpc-web" | "application/grpc-web+proto" => Self::Web("application/grpc-web+proto"),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => {
                Self::Web("application/grpc-web-text+proto")
            }
            other if other.starts_with("application/grpc") => Self::UnknownCodec,
            _ => Self::Http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides() {
        let cases = [
            ("application/grpc", Protocol::Grpc),
            ("Application/gRPC+proto; charset=utf-8", Protocol::Grpc),
            ("application/grpc-web+proto;v=1", Protocol::Web("application/grpc-web+proto")),
            ("application/grpc-web-text", Protocol::Web("application/grpc-web-text+proto")),
            ("application/grpc+json", Protocol::UnknownCodec),
            ("application/grpc-web+json", Protocol::UnknownCodec),
            ("application/json", Protocol::Http),
            ("", Protocol::Http),
        ];
        for (text, expected) in cases {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(Protocol::of_type(&headers), expected, "{text:?}");
        }
    }
}
