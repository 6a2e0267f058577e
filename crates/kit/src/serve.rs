//! One port for gRPC and HTTP: health, reflection, metrics and the service's own routes, until told to stop.
//!
//! A small loop over hyper-util's builder keeps what ready-made servers lack: HTTP/2 keep-alive, stream limits, a header
//! timeout, and a stop that tells clients to go elsewhere, lets running calls end, and then is over.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, middleware};
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::auth::Verifier;
use crate::rpc::{self, DRAIN};
use crate::telemetry;

/// Calls that one connection may have open.
const MAX_STREAMS: u32 = 1_024;
/// A silent connection is tested this often and dropped when the test goes unanswered as long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A client that has not sent its headers by then is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often readiness is judged for the gRPC health service.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Says whether a service can do its work now, and if not, why in public words.
pub type Ready = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A gRPC service's whole port: its RPCs behind the role rule, health, reflection, `/metrics`, `/healthz`, `/readyz`, and
/// `http`, which are its own routes (webhooks).
pub async fn app(
    routes: Routes,
    http: Router,
    verifier: Verifier,
    ready: Ready,
    stop: CancellationToken,
) -> Router {
    let grpc = routes.add_service(reflection()).add_service(health(ready.clone(), stop).await);
    grpc.into_axum_router()
        .layer(middleware::from_fn_with_state(verifier, rpc::around))
        .merge(probes(ready))
        .merge(http)
}

/// `/healthz` (the process lives), `/readyz` (it can work), `/metrics`.
pub fn probes(ready: Ready) -> Router {
    let readyz = move || {
        let ready = ready.clone();
        async move {
            match ready().await {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|| async { telemetry::render_metrics() }))
}

/// Server reflection (v1) over the whole contract, so that any port explains itself.
pub fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the build compiled these descriptors")
}

/// The same over the older protocol, which grpcurl still speaks.
pub fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .expect("the build compiled these descriptors")
}

/// The gRPC health service, whose overall status follows `ready` until `stop`.
pub async fn health(
    ready: Ready,
    stop: CancellationToken,
) -> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    // Until it has been judged once; the reporter itself would begin with SERVING.
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tokio::spawn(async move {
        loop {
            let status =
                if ready().await.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            if stop.run_until_cancelled(tokio::time::sleep(HEALTH_EVERY)).await.is_none() {
                reporter.set_service_status("", ServingStatus::NotServing).await;
                return;
            }
        }
    });
    service
}

/// Serves `app` until `stop`, then lets running calls end for at most [`DRAIN`].
pub async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS);
    tokio::spawn(telemetry::keep_metrics_small(stop.clone()));
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it small frames wait for each other's acknowledgement, 40 ms a time.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, pin!(graceful.shutdown())).await.is_err() {
        tracing::warn!("calls still ran when the time to stop was over");
    }
    Ok(())
}
