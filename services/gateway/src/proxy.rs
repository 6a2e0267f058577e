//! One gRPC call, passed to the upstream that its service's name selects, message by message, whatever the messages are.
//!
//! The caller's deadline binds here too, and what is left of it travels on. A lost upstream ends the call with a proper
//! status even in the middle of a stream; a caller who leaves ends it at the upstream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ALLOW, HeaderValue, TE};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Frame;
use kit::messaging::TRACEPARENT;
use kit::status::{Error, Fault};
use kit::{auth, client, deadline, telemetry};
use tokio::time::Sleep;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span};

use crate::upstreams::Upstreams;
use crate::{DOMAIN, hop};

/// Answers with the upstream's answer.
pub(crate) async fn forward(State(upstreams): State<Arc<Upstreams>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")]).into_response();
    }
    let call = Call::start(&request);
    let method = request.uri().path().strip_prefix('/');
    let Some(upstream) = method.and_then(|method| upstreams.answering(method)) else {
        let fault = Fault::new(Code::Unimplemented, "SERVICE_UNKNOWN", "no such service at this address");
        return call.refuse(fault.into_status(DOMAIN));
    };
    let end = call.started + budget(&request);
    let request = outgoing(request, end, &call.span);
    let answer = upstream.channel.clone().oneshot(request).instrument(call.span.clone());
    match tokio::time::timeout_at(end.into(), answer).await {
        Err(_) => call.refuse(deadline::exceeded()),
        Ok(Err(error)) => {
            let status = call.span.in_scope(|| client::transport(&error));
            call.refuse(status)
        }
        Ok(Ok(response)) => answered(response, end, call),
    }
}

/// How long the call may take: what the caller asks for, else the default; a stream lives until its reader leaves.
fn budget(request: &Request) -> Duration {
    let streams = || auth::rule(request.uri().path()).is_some_and(|rule| rule.streams);
    match deadline::from_headers(request.headers()) {
        Some(asked) => asked.min(deadline::LONGEST),
        None if streams() => deadline::LONGEST,
        None => deadline::DEFAULT,
    }
}

/// The request as the upstream gets it: the caller's metadata, what is left of the deadline, this span as its parent.
fn outgoing(request: Request, end: Instant, span: &Span) -> http::Request<tonic::body::Body> {
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_2;
    hop::strip(&mut parts.headers);
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    let left = deadline::to_header(end.saturating_duration_since(Instant::now()));
    parts.headers.insert(deadline::HEADER, HeaderValue::from_str(&left).expect("digits and a letter"));
    let trace = span.in_scope(telemetry::current_traceparent).and_then(|t| HeaderValue::from_str(&t).ok());
    if let Some(trace) = trace {
        parts.headers.insert(TRACEPARENT, trace);
    }
    http::Request::from_parts(parts, tonic::body::Body::new(body))
}

fn answered(response: http::Response<tonic::body::Body>, end: Instant, mut call: Call) -> Response {
    let (mut parts, body) = response.into_parts();
    hop::strip(&mut parts.headers);
    // An answer without a message has its status among the headers.
    if let Some(status) = Status::from_header_map(&parts.headers) {
        call.settle(status.code());
    }
    let late = Box::pin(tokio::time::sleep_until(end.into()));
    Response::from_parts(parts, Body::new(Answer { body, late, done: false, call }))
}

/// The body of an answer, which always ends in a status: the upstream's, or ours when it breaks off or is late.
struct Answer {
    body: tonic::body::Body,
    late: Pin<Box<Sleep>>,
    done: bool,
    call: Call,
}

impl Answer {
    fn end_with(&mut self, status: Status) -> Frame<Bytes> {
        self.done = true;
        self.call.settle(status.code());
        let mut trailers = HeaderMap::new();
        // Fails only for texts that no header can hold; ours can.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.late.as_mut().poll(cx));
            return Poll::Ready(Some(Ok(self.end_with(deadline::exceeded()))));
        };
        let frame = match next {
            Some(Ok(frame)) => frame,
            None if self.call.settled => {
                self.done = true;
                return Poll::Ready(None);
            }
            broken => {
                let error = broken.and_then(Result::err);
                self.call.span.in_scope(|| tracing::warn!(?error, "an answer broke off"));
                self.end_with(Error::Unavailable { what: "another service" }.into_status(DOMAIN))
            }
        };
        if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
            self.call.settle(status.code());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done || (self.call.settled && self.body.is_end_stream())
    }
}

/// One call, counted once with the status it ended in.
struct Call {
    /// Its method, or `unknown`: callers must not be able to make up metrics.
    method: String,
    span: Span,
    started: Instant,
    settled: bool,
}

impl Call {
    fn start(request: &Request) -> Self {
        let path = request.uri().path();
        let method = if auth::rule(path).is_some() { path.trim_start_matches('/') } else { "unknown" };
        let span = tracing::info_span!(
            "gateway",
            otel.name = method,
            otel.kind = "server",
            rpc.system = "grpc",
            method
        );
        let trace = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        telemetry::continue_trace(&span, trace);
        Self { method: method.to_owned(), span, started: Instant::now(), settled: false }
    }

    fn settle(&mut self, code: Code) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        metrics::counter!("gateway_calls_total", "method" => self.method.clone(), "code" => format!("{code:?}"))
            .increment(1);
        metrics::histogram!("gateway_call_seconds", "method" => self.method.clone()).record(elapsed);
        self.span.in_scope(|| tracing::debug!(?code, ?elapsed, "answered"));
    }

    fn refuse(mut self, status: Status) -> Response {
        self.settle(status.code());
        status.into_http()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The caller left before the end.
        self.settle(Code::Cancelled);
    }
}
