//! Spans across processes: W3C trace context (Trace Context, section 3) in HTTP headers and gRPC
//! metadata, and server and client spans with the stable names of OpenTelemetry's semantic
//! conventions. Spans never contain queries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Status;
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The two headers of W3C trace context.
pub const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

struct Carrier<H>(H);

impl Extractor for Carrier<&HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        HEADERS.to_vec()
    }
}

impl Injector for Carrier<&mut HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// Writes the context of `span` into outgoing headers.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Carrier(headers));
}

/// Makes `span` a child of the context in the incoming headers. Only for headers from a peer: a
/// stranger's are stripped before.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    let parent = TraceContextPropagator::new().extract(&Carrier(headers));
    // Fails only when no tracer is installed, and then there is nothing to join.
    span.set_parent(parent).ok();
}

/// Creates the server's span of one HTTP request: a root, until it adopts a context. `route` is the
/// pattern that was matched.
pub fn http_span(method: &Method, route: &str, path: &str) -> Span {
    tracing::info_span!(
        parent: None,
        "http_server",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = "server",
        http.request.method = method.as_str(),
        http.route = route,
        url.path = path,
        http.response.status_code = field::Empty,
        otel.status_code = field::Empty,
    )
}

/// Records the answer's status in the span of an HTTP request, on either side.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A position in a trace, for work that outlives its span: holding a [`Span`] keeps it from ending.
#[derive(Debug, Clone, Default)]
pub struct Parent(opentelemetry::Context);

impl Parent {
    /// Returns the position under the current span.
    pub fn current() -> Self {
        Self(Span::current().context())
    }

    /// Makes a new span a child of this position.
    pub fn hang(&self, span: &Span) {
        // Fails only when no tracer is installed, and then there is nothing to join.
        span.set_parent(self.0.clone()).ok();
    }
}

/// Records in these spans that the work they wait for is done in `other`, which may be in another
/// trace.
pub fn link<'a>(spans: impl Iterator<Item = &'a Span>, other: &Span) {
    let context = other.context().span().span_context().clone();
    if context.is_valid() {
        spans.for_each(|span| span.add_link(context.clone()));
    }
}

/// A middleware that creates the server's span of one HTTP request.
pub async fn http_server(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", |path| path.as_str());
    let span = http_span(request.method(), route, request.uri().path());
    adopt(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    answered(&span, response.status());
    response
}

/// Creates the server's span of one gRPC call, in its caller's trace.
pub(crate) fn rpc_span(request: &Request) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    let span = tracing::info_span!(
        "rpc_server",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.status_code = field::Empty,
    );
    adopt(&span, request.headers());
    span
}

/// Records the result of a gRPC call in its span.
pub(crate) fn rpc_answered(span: &Span, headers: &HeaderMap) {
    // Errors come as headers alone (gRPC over HTTP/2, "Trailers-Only"); what has none went well so
    // far.
    span.record("rpc.status_code", status_code(headers));
}

fn status_code(headers: &HeaderMap) -> &'static str {
    match Status::from_header_map(headers) {
        None => "OK",
        Some(status) => code_name(status.code()),
    }
}

/// Returns a code in the spelling of the specification (gRPC, "Status codes and their use").
pub fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A channel that makes every call a client span, with its context in the metadata.
#[derive(Clone)]
pub struct TracedChannel(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>);

impl TracedChannel {
    /// Wraps the service that makes the calls.
    pub fn new<S>(calls: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S::Future: Send,
    {
        Self(BoxCloneSyncService::new(
            calls.map_err(|cause: S::Error| Status::from_error(cause.into())),
        ))
    }
}

impl fmt::Debug for TracedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TracedChannel")
    }
}

impl tower::Service<http::Request<Body>> for TracedChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = tracing::info_span!(
            "rpc_client",
            otel.name = method,
            otel.kind = "client",
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.status_code = field::Empty,
        );
        inject(&span, request.headers_mut());
        let response = self.0.call(request).instrument(span.clone());

        Box::pin(async move {
            let response = response.await;
            let code = match &response {
                Ok(response) => status_code(response.headers()),
                Err(status) => code_name(status.code()),
            };
            span.record("rpc.status_code", code);
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, mut spans: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().append(&mut spans);
            Ok(())
        }
    }

    #[test]
    fn a_span_whose_work_another_does_says_which() {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(kept.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let [one, two, other] =
                ["one", "two", "other"].map(|name| tracing::info_span!(parent: None, "span", name));
            link([&one, &two].into_iter(), &other);
        });
        let spans = kept.0.lock().unwrap();
        let (linked, others): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| !span.links.is_empty());
        let [other] = &others[..] else {
            panic!("{others:?}")
        };

        let links: Vec<_> = linked.iter().flat_map(|span| span.links.iter()).collect();
        assert_eq!(links.len(), 2);
        assert!(
            links
                .iter()
                .all(|link| link.span_context == other.span_context)
        );
    }
}
