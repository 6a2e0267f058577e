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
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Telemetry};
use crate::messaging::TRACEPARENT;
use crate::messaging::inbox::Incoming;

/// Bounds of the latency histograms, in seconds: fine where our limits are (1 ms to 50 ms).
const LATENCY_BUCKETS_SECS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Our spans are of this level. Without a bound every frame of HTTP/2 would be written into the call's span.
const SPANS: LevelFilter = LevelFilter::INFO;

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
    subscriber(config, provider.tracer(service), std::io::stderr)?
        .try_init()
        .context("telemetry was installed twice")?;
    install_metrics()?;
    Ok(Guard(provider))
}

/// What becomes of spans and log lines; `writer` takes the lines.
fn subscriber<W>(config: &Telemetry, tracer: SdkTracer, writer: W) -> anyhow::Result<impl Into<Dispatch>>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted: Targets = config.log.parse().context("the log filter must look like `info,sqlx=warn`")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.log_format {
        LogFormat::Pretty => lines.with_target(false).compact().boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(SPANS);
    // What neither wants is refused before either is asked. Each keeps its own refusal for what should follow at once, and who only
    // asks, as sqlx does after each query, would lose the next line or span of this thread, whosever that is.
    let either = Targets::new()
        .with_default(wanted.default_level().map_or(SPANS, |level| level.max(SPANS)))
        .with_targets(wanted.iter().map(|(target, level)| (target, level.max(SPANS))));
    Ok(tracing_subscriber::registry().with(spans).with(lines.with_filter(wanted)).with(either))
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use tracing::{Dispatch, dispatcher};

    use super::*;

    #[test]
    fn who_asks_whether_a_line_is_wanted_loses_no_other() {
        let config =
            Telemetry { log: "info,kit=trace".into(), log_format: LogFormat::Json, otlp_endpoint: None };
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let (mut log, writer) = std::io::pipe().expect("a pipe");
        let subscriber = subscriber(&config, tracer, Arc::new(writer)).expect("a good filter");
        dispatcher::with_default(&subscriber.into(), || {
            let query = tracing::debug_span!(target: "sqlx::query", "query");
            let asked = query.metadata().expect("a callsite");
            // As `log::log_enabled!` does, which keeps no answer.
            dispatcher::get_default(|all: &Dispatch| all.enabled(asked));
            tracing::warn!("heard");
        });
        let mut text = String::new();
        log.read_to_string(&mut text).expect("the log");
        assert!(text.contains("heard"), "{text:?}");
    }
}
