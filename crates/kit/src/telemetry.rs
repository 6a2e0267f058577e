//! Logs, traces and metrics.
//!
//! Logs go to standard error, for people or as JSON. Trace context (W3C, <https://www.w3.org/TR/trace-context/>) always flows
//! through gRPC metadata and event headers; spans are exported by OTLP when an endpoint is configured. Metrics are rendered for
//! Prometheus on every service's `/metrics`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{LogFormat, Telemetry};
use crate::messaging::TRACEPARENT;
use crate::messaging::inbox::Incoming;

/// Bounds of the latency histograms, in seconds: fine where our limits are (1 ms to 50 ms).
const LATENCY_BUCKETS_SECS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

static METRICS: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Flushes what is still to be exported when dropped.
#[derive(Debug)]
pub struct Guard(SdkTracerProvider);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

/// Installs logging, tracing and metrics for this process, which calls itself `service`. Once per process.
pub fn init(config: &Telemetry, service: &'static str) -> anyhow::Result<Guard> {
    let resource = Resource::builder().with_service_name(service).build();
    let mut provider = SdkTracerProvider::builder().with_resource(resource);
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("the OTLP endpoint {endpoint:?} cannot be used"))?;
        provider = provider.with_batch_exporter(exporter);
    }
    let provider = provider.build();
    let filter = EnvFilter::try_new(&config.log).context("the log filter must look like `info,sqlx=warn`")?;
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match config.log_format {
        LogFormat::Pretty => logs.with_target(false).compact().boxed(),
        LogFormat::Json => {
            logs.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    // Ours are of this level. Without a bound every frame of HTTP/2 would be written into the call's span.
    let spans =
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(spans)
        .with(logs.with_filter(filter))
        .try_init()
        .context("telemetry was installed twice")?;
    install_metrics()?;
    Ok(Guard(provider))
}

/// Installs the metrics registry; tests that start many services in one process may call it again, also at once.
pub fn install_metrics() -> anyhow::Result<()> {
    let mut installed = METRICS.lock().expect("no panic while the lock is held");
    if installed.is_none() {
        let builder = PrometheusBuilder::new();
        let suffix = Matcher::Suffix("_seconds".to_owned());
        *installed = Some(builder.set_buckets_for_metric(suffix, &LATENCY_BUCKETS_SECS)?.install_recorder()?);
    }
    Ok(())
}

/// The text that Prometheus scrapes.
pub fn render_metrics() -> String {
    let handle = METRICS.lock().expect("no panic while the lock is held").clone();
    handle
        .map(|handle| {
            handle.run_upkeep();
            handle.render()
        })
        .unwrap_or_default()
}

/// Folds what the histograms have gathered, every few seconds until `stop`: without it they grow while nobody scrapes.
pub(crate) async fn keep_metrics_small(stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(5);
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let handle = METRICS.lock().expect("no panic while the lock is held").clone();
        if let Some(handle) = handle {
            handle.run_upkeep();
        }
    }
}

/// The W3C trace context of the current span, for rows and headers that outlive it.
pub fn current_traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes `span` part of the trace that `traceparent` names.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        // Fails only when no OpenTelemetry layer is installed, as in unit tests.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
    }
}

/// The span of one consumed event, part of the trace of the request that caused it.
pub(crate) fn span_of_event(event: &Incoming) -> Span {
    let span = tracing::info_span!(
        "event",
        otel.name = event.subject,
        otel.kind = "consumer",
        subject = event.subject,
        aggregate = %event.aggregate_id,
        version = event.version
    );
    continue_trace(&span, event.traceparent.as_deref());
    span
}
