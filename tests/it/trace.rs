//! One approval is one trace, across all roles, down to the frame that is pushed; seen by a real
//! OTLP receiver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use vvs_runtime::http::{Limits, Listener, Server};
use vvs_runtime::metrics::Metrics;
use vvs_tests::Stack;

/// Keeps every span it is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        self.0
            .lock()
            .unwrap()
            .extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    pub(crate) async fn listen(&self, stop: CancellationToken) -> String {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", tcp.local_addr().unwrap());
        let router = Routes::new(TraceServiceServer::new(self.clone()))
            .prepare()
            .into_axum_router();
        let server = Server::new(
            Limits::default(),
            Metrics::default(),
            stop,
            TaskTracker::new(),
        );
        let tasks = server.tasks.clone();
        tasks.spawn(server.serve(Listener { tcp, tls: None }, router));

        address
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether the trace of the push has its beginning and its last call: spans arrive when they end.
fn is_whole(spans: &[Span]) -> bool {
    let Some(push) = spans.iter().find(|span| span.name == "push auth:success") else {
        return false;
    };
    let mut trace = spans.iter().filter(|span| span.trace_id == push.trace_id);
    trace.clone().any(|span| span.parent_span_id.is_empty())
        && trace.any(|span| span.name.ends_with("ActivateSessions"))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, in order")]
async fn one_approval_is_one_trace_from_the_gateway_to_the_frame() {
    let (receiver, stop) = (Receiver::default(), CancellationToken::new());
    let endpoint = receiver.listen(stop.clone()).await;
    let stack = Stack::start_with(&["--otlp-endpoint", &endpoint]).await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(approved.status, http::StatusCode::SEE_OTHER);

    let arrived = async {
        while !is_whole(&receiver.spans()) {
            stack.flush_spans().await;
        }
    };

    tokio::time::timeout(Duration::from_secs(30), arrived)
        .await
        .unwrap();

    let spans = receiver.spans();
    let by_id: HashMap<_, _> = spans
        .iter()
        .map(|span| (span.span_id.clone(), span))
        .collect();
    let one = |name: &str, kind: SpanKind| {
        let found: Vec<_> = spans
            .iter()
            .filter(|span| span.name == name && span.kind == i32::from(kind))
            .collect();
        assert_eq!(
            found.len(),
            1,
            "{name} {kind:?} in {:?}",
            spans.iter().map(|span| &span.name).collect::<Vec<_>>()
        );
        found[0]
    };
    let deliver = "vvs.relay.v1.Relay/DeliverAuth";
    let activate = "vvs.internal.v1.Editors/ActivateSessions";

    // From the frame upwards: each is the child of the next, and the last has no parent.
    let push = one("push auth:success", SpanKind::Producer);
    let mut chain = Vec::new();
    let mut at = push;
    while let Some(parent) = by_id.get(&at.parent_span_id) {
        chain.push((parent.name.as_str(), parent.kind));
        at = parent;
    }

    assert!(
        at.parent_span_id.is_empty(),
        "{} has a parent that nobody sent",
        at.name
    );

    let kinds = [
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Server,
    ];
    assert_eq!(
        chain.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(),
        kinds.map(i32::from),
        "{chain:?}"
    );
    assert_eq!(
        (chain[0].0, chain[1].0, chain[2].0),
        (deliver, deliver, "POST /login/approve")
    );

    // Sessions is called by web, and by the relay for the same delivery.
    let create = one("vvs.session.v1.Sessions/CreateSession", SpanKind::Server);
    assert_eq!(
        by_id[&by_id[&create.parent_span_id].parent_span_id].name,
        "POST /login/approve"
    );

    let activation = one(activate, SpanKind::Server);
    let above = |span: &Span| by_id[&span.parent_span_id].clone();
    let names = [
        above(activation).name,
        above(&above(activation)).name,
        above(&above(&above(activation))).name,
    ];
    assert_eq!(names, [activate, "activate", deliver]);

    for span in [push, create, activation] {
        assert_eq!(span.trace_id, at.trace_id, "{}", span.name);
    }

    let delivered = one(deliver, SpanKind::Server);
    assert_eq!(
        attribute(delivered, "rpc.system.name").as_deref(),
        Some("grpc")
    );
    assert_eq!(attribute(delivered, "rpc.method").as_deref(), Some(deliver));
    assert_eq!(
        attribute(delivered, "rpc.status_code").as_deref(),
        Some("OK")
    );

    let text = format!("{spans:?}");
    assert!(!text.contains("connection_id="), "a query in a span");
    assert!(
        stack.secrets().all().len() >= 4,
        "too little is searched for"
    );

    stack
        .secrets()
        .assert_absent(&text, "a span that was sent away");
    stop.cancel();
}

#[tokio::test]
async fn a_strangers_trace_context_is_not_joined() {
    let stack = Stack::start().await;
    let forged = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let page = stack
        .browser()
        .request(http::Method::GET, "/login", &[("traceparent", forged)])
        .await;
    assert_eq!(page.status, http::StatusCode::BAD_REQUEST);

    let spans = format!("{:?}", stack.spans());
    assert!(
        !spans.contains("0af7651916cd43dd8448eb211c80319c") && spans.contains("GET"),
        "{spans}"
    );
}
