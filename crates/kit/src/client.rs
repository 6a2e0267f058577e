//! Calls to other services: one channel each, carrying the service's token, the trace and what is left of the deadline.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::header::{AUTHORIZATION, HeaderValue};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::Service;

use crate::auth::ServiceToken;
use crate::deadline;
use crate::messaging::TRACEPARENT;
use crate::status::Fault;

/// A call to another service may take this long unless the caller's deadline is nearer.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is tested this often, so that a dead peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a generated client talks through.
#[derive(Clone, Debug)]
pub struct Outbound {
    channel: Channel,
    credential: Credential,
    timeout: Duration,
}

/// As whom a call is made.
#[derive(Clone, Debug)]
enum Credential {
    Nobody,
    Service(ServiceToken),
    Holder(String),
}

/// A channel to `url` that connects on first use and again whenever the connection is lost.
pub fn channel(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url:?} must look like http://scheduling:50051"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        // Cancelled calls are normal; by default the client gives up the connection after a thousand of them.
        .http2_max_local_error_reset_streams(None);
    Ok(endpoint.connect_lazy())
}

impl Outbound {
    /// Calls `url` as the service that `token` names.
    pub fn new(url: &str, token: ServiceToken) -> anyhow::Result<Self> {
        Ok(Self { channel: channel(url)?, credential: Credential::Service(token), timeout: TIMEOUT })
    }

    /// Calls `url` as whoever holds `token`.
    pub fn bearing(url: &str, token: impl Into<String>) -> anyhow::Result<Self> {
        Ok(Self { channel: channel(url)?, credential: Credential::Holder(token.into()), timeout: TIMEOUT })
    }

    /// Calls `url` without a token.
    pub fn anonymous(url: &str) -> anyhow::Result<Self> {
        Ok(Self { channel: channel(url)?, credential: Credential::Nobody, timeout: TIMEOUT })
    }

    fn bearer(&self) -> anyhow::Result<Option<String>> {
        Ok(match &self.credential {
            Credential::Nobody => None,
            Credential::Service(token) => Some(token.get()?),
            Credential::Holder(token) => Some(token.clone()),
        })
    }

    fn dress(&self, request: &mut http::Request<Body>, timeout: Duration) -> anyhow::Result<()> {
        let headers = request.headers_mut();
        headers.insert(deadline::HEADER, HeaderValue::from_str(&deadline::to_header(timeout))?);
        if let Some(token) = self.bearer()? {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        if let Some(trace) = crate::telemetry::current_traceparent() {
            headers.insert(TRACEPARENT, HeaderValue::from_str(&trace)?);
        }
        Ok(())
    }
}

impl Service<http::Request<Body>> for Outbound {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx).map_err(|error| transport(&error))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let asked = deadline::from_headers(request.headers()).unwrap_or(self.timeout);
        let timeout = deadline::left(asked);
        let dressed = self.dress(&mut request, timeout);
        let answer = self.channel.call(request);
        Box::pin(async move {
            dressed.map_err(|e| crate::status::Error::internal(e).into_status("clinic"))?;
            match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer.map_err(|error| transport(&error)),
                Err(_) => Err(deadline::exceeded()),
            }
        })
    }
}

/// A lost connection in the words callers may see; the cause goes to the log.
pub fn transport(error: &tonic::transport::Error) -> Status {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<tonic::TimeoutExpired>() {
        return deadline::exceeded();
    }
    tracing::warn!(error = %cause, "another service does not answer");
    Fault::new(Code::Unavailable, "DEPENDENCY_DOWN", "another service does not answer; try again shortly")
        .retry_after(Duration::from_secs(1))
        .into_status("clinic")
}
