//! Logs to a writer, spans to an OTLP collector. Levels: ERROR means that a person must act.

use std::sync::Arc;

use clap::ValueEnum;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Logs and traces.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Logs and traces")]
#[group(skip)]
pub struct Settings {
    /// The format of log lines on standard error
    #[arg(long, env = "VVS_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: Format,
    /// The log lines to write: a level, or levels by module such as `info,vvs_relay=debug`
    /// [default: info, `demo` warn]
    #[arg(long, env = "VVS_LOG")]
    pub log: Option<String>,
    /// Where to send spans: the address of an OTLP/gRPC collector such as `http://127.0.0.1:4317`
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_LOG (--log) is not a list of levels: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT (--otlp-endpoint) cannot be used: {0}")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Sends spans to a collector, in the background and in batches. Needs a Tokio runtime.
pub fn otlp(endpoint: &str, service: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(service))
        .build())
}

/// The resource that the spans come from.
pub fn resource(service: &str) -> Resource {
    Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Writes log lines to `writer`, and sends spans to `traces` if it is set.
pub fn subscriber<W>(
    settings: &Settings,
    writer: W,
    traces: Option<&SdkTracerProvider>,
) -> Result<Dispatch, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(true);
    let lines = match settings.log_format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };

    // What it has to say of lost connections it says at ERROR, and nobody must act; the relay says
    // it in its own words.
    let levels = format!(
        "async_nats=off,{}",
        settings.log.as_deref().unwrap_or("info")
    );
    let filter = EnvFilter::builder().parse(levels)?;
    let spans = traces.map(|provider| {
        let only_ours = EnvFilter::new(
            "off,vvs_runtime=info,vvs_gateway=info,vvs_web=info,vvs_identity=info,vvs_relay=info,\
             vvs_sessions=info",
        );
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("vvs"))
            .with_filter(only_ours)
    });
    let registry = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans);

    Ok(Dispatch::new(registry))
}

/// Sends the remaining spans. It blocks, so it runs outside the reactor.
pub async fn flush(traces: Option<Arc<SdkTracerProvider>>) {
    let Some(traces) = traces else { return };
    let flushed = tokio::task::spawn_blocking(move || traces.shutdown()).await;
    if !matches!(flushed, Ok(Ok(()))) {
        tracing::warn!("the last spans could not be sent");
    }
}
