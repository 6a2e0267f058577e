//! What happens around every RPC that a service answers: one span, the deadline, the role rule, one metric.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http_body::Frame;
use tokio::time::Sleep;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};

use crate::auth::{self, Verifier};
use crate::deadline;
use crate::messaging::TRACEPARENT;

/// The layer itself, for `axum::middleware::from_fn_with_state`.
pub async fn around(State(verifier): State<Verifier>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = path.trim_start_matches('/').to_owned();
    let started = Instant::now();
    let span = tracing::info_span!(
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        method,
        caller = tracing::field::Empty
    );
    crate::telemetry::continue_trace(&span, traceparent(request.headers()));
    let rule = auth::rule(&path);
    let timeout = deadline::from_headers(request.headers()).map_or_else(
        || if rule.is_some_and(|r| r.streams) { deadline::LONGEST } else { deadline::DEFAULT },
        |asked| asked.min(deadline::LONGEST),
    );
    let authorization = request.headers().get(AUTHORIZATION).map(|v| v.to_str().unwrap_or_default());
    let known = if rule.is_some() { method } else { "unknown".to_owned() };
    let watch = Watch { method: known, span: span.clone(), started, settled: false };
    match auth::authorize(&verifier, &path, authorization) {
        Err(status) => return watch.refuse(status),
        Ok(None) => {}
        Ok(Some(caller)) => {
            span.record("caller", caller.actor());
            request.extensions_mut().insert(caller);
        }
    }
    let end = started + timeout;
    let work = deadline::scope(end, next.run(request)).instrument(span);
    match tokio::time::timeout_at(end.into(), work).await {
        Err(_) => watch.refuse(deadline::exceeded()),
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let watched =
                Watched { body, late: Box::pin(tokio::time::sleep_until(end.into())), done: false, watch };
            let watched = watched.settle_from(&parts.headers);
            Response::from_parts(parts, Body::new(watched))
        }
    }
}

/// Counts one call once, with the status it ended in.
struct Watch {
    method: String,
    span: Span,
    started: Instant,
    settled: bool,
}

impl Watch {
    fn settle(&mut self, code: Code) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        let labels = [("method", self.method.clone()), ("code", format!("{code:?}"))];
        metrics::counter!("rpc_server_total", &labels).increment(1);
        metrics::histogram!("rpc_server_seconds", "method" => self.method.clone()).record(elapsed);
        self.span.in_scope(|| tracing::debug!(?code, ?elapsed, "answered"));
    }

    fn refuse(mut self, status: Status) -> Response {
        self.settle(status.code());
        status.into_http()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The caller left before the end.
        self.settle(Code::Cancelled);
    }
}

/// A response body that ends at the deadline and knows with which status it ended.
struct Watched {
    body: Body,
    late: Pin<Box<Sleep>>,
    done: bool,
    watch: Watch,
}

impl Watched {
    /// An answer without a message has its status among the headers.
    fn settle_from(mut self, headers: &HeaderMap) -> Self {
        if let Some(status) = Status::from_header_map(headers) {
            self.watch.settle(status.code());
        }
        self
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let trailers = frame.as_ref().and_then(|f| f.as_ref().ok()?.trailers_ref());
            if let Some(status) = trailers.and_then(Status::from_header_map) {
                self.watch.settle(status.code());
            }
            self.done = frame.is_none();
            return Poll::Ready(frame);
        }
        std::task::ready!(self.late.as_mut().poll(cx));
        self.done = true;
        let status = deadline::exceeded();
        self.watch.settle(status.code());
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match status.add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(axum::Error::new(status)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Longest time that a graceful stop waits for running calls.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Trace context of a request, from its headers.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACEPARENT)?.to_str().ok()
}
