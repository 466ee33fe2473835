//! One installation: all roles in one process's threads, on ports of their own, with a CA of their own. It has a runtime
//! of its own, so that its logs and spans are nobody else's, and so that it can be killed like a process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use sqlx::{Connection as _, SqliteConnection};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;
use vvs_auth::peer::Role;
use vvs_mesh::launch::{bind, read_keys};
use vvs_mesh::up::{self, Addresses, Running};
use vvs_mesh::{Cli, Command, Up};
use vvs_runtime::metrics::Metrics;
use vvs_runtime::telemetry;

use crate::{Browser, Caller, Editor};

/// No test may wait longer for something that should come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running installation. When it is dropped, its logs and spans are searched for what must not be there.
#[derive(Debug)]
pub struct Stack {
    runtime: Option<Runtime>,
    running: Running,
    data: Arc<tempfile::TempDir>,
    log: Log,
    spans: InMemorySpanExporter,
    traces: SdkTracerProvider,
    secrets: Secrets,
    expected_errors: Mutex<Vec<&'static str>>,
}

/// Texts that must not appear in any log line, span or URL.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Arc<Mutex<Vec<String>>>);

impl Secrets {
    pub fn add(&self, secret: &str) {
        if secret.len() >= 8 {
            self.0.lock().unwrap().push(secret.to_owned());
        }
    }

    fn assert_absent(&self, text: &str, place: &str) {
        for secret in self.0.lock().unwrap().iter() {
            assert!(!text.contains(secret.as_str()), "a secret stands in {place}");
        }
    }

    /// URLs end in histories, in proxies' logs and in referrers.
    pub fn assert_not_in_url(&self, url: &str) {
        self.assert_absent(url, "a URL");
    }
}

/// Collects log lines.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Stack {
    /// All roles, ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// All roles, with some settings given as flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), flags).await
    }

    /// All roles on an existing data directory, as after a restart.
    pub async fn start_in(data: Arc<tempfile::TempDir>, flags: &[&str]) -> Self {
        let up = settings(data.path(), flags);
        let (log, spans) = (Log::default(), InMemorySpanExporter::default());
        let traces = match up.common.telemetry.otlp_endpoint.clone() {
            Some(endpoint) => telemetry::otlp(&endpoint, "vvs-mesh").unwrap(),
            None => SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build(),
        };
        let dispatch = telemetry::subscriber(&up.common.telemetry, log.clone(), Some(&traces)).unwrap();
        let runtime = runtime(&dispatch);
        let running = runtime.spawn(up::start(up)).await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.unwrap();
        assert!(!running.launch.stop.is_cancelled(), "a role stopped at once:\n{}", text(&log));
        let secrets = Secrets::default();
        for key in key_files(data.path()) {
            let text = std::fs::read_to_string(key).unwrap();
            text.lines().filter(|line| !line.starts_with("-----")).for_each(|line| secrets.add(line));
        }
        let expected_errors = Mutex::default();
        Self { runtime: Some(runtime), running, data, log, spans, traces, secrets, expected_errors }
    }

    pub fn addresses(&self) -> &Addresses {
        &self.running.addresses
    }

    /// The data directory, which outlives the stack for as long as someone holds it.
    pub fn data(&self) -> Arc<tempfile::TempDir> {
        self.data.clone()
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A bare editor that has connected and been given its login.
    pub async fn editor(&self) -> Editor {
        Editor::connect(self).await
    }

    /// A browser that has never been here.
    pub fn browser(&self) -> Browser {
        Browser::new(self.addresses(), self.secrets.clone())
    }

    /// A caller of the gRPC ports with a role's own certificate.
    pub fn caller(&self, role: Role) -> Caller {
        Caller::new(vvs_mesh::pki::files(self.data.path(), role))
    }

    /// Stops one role for good, and waits until its port is closed.
    pub async fn stop(&self, role: Role) {
        let (_, stop) = self.running.stops.iter().find(|(known, _)| *known == role).unwrap();
        stop.cancel();
        if let Some(address) = match role {
            Role::Sessions => Some(self.addresses().sessions_rpc),
            Role::Relay => Some(self.addresses().relay_rpc),
            Role::Gateway => Some(self.addresses().public),
            Role::Web | Role::Backend => None,
        } {
            let closed = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
            tokio::time::timeout(PATIENCE, closed).await.unwrap();
        }
    }

    /// Starts the sessions role again where it was, on the same database.
    pub async fn restart_sessions(&self) {
        let mut settings = settings(self.data.path(), &[]).sessions;
        settings.database_url = Some(self.database_url().into());
        let keys = read_keys(&self.data.path().join("keys/sessions.key")).unwrap();
        let tcp = bind("sessions", self.addresses().sessions_rpc).await.unwrap();
        // Metrics of its own: two roles of one kind do not share a registry.
        let mut launch = self.running.launch.clone();
        launch.metrics = Metrics::default();
        let runtime = self.runtime.as_ref().unwrap();
        let process = {
            let _reactor = runtime.enter();
            launch.process(Role::Sessions, vvs_mesh::pki::files(self.data.path(), Role::Sessions)).unwrap()
        };
        let (stop, ready) = (process.stop.clone(), process.readiness.clone());
        let (peers, url) = (launch.peers.clone(), launch.public_url.clone());
        let _reactor = runtime.enter();
        // The port belongs to the reactor that serves it.
        let tcp = TcpListener::from_std(tcp.into_std().unwrap()).unwrap();
        launch.run(Role::Sessions, stop, vvs_sessions::serve(settings, tcp, peers, url, keys, process));
        tokio::time::timeout(PATIENCE, ready.wait()).await.unwrap();
    }

    fn database_url(&self) -> String {
        format!("sqlite:{}", self.data.path().join("sessions.db").display())
    }

    /// Someone else holds the database; ends when what is returned is dropped.
    pub async fn lock_database(&self) -> SqliteConnection {
        let mut other = SqliteConnection::connect(&self.database_url()).await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
        other
    }

    /// How many sessions there are, pending or not.
    pub async fn sessions(&self) -> i64 {
        let mut other = SqliteConnection::connect(&self.database_url()).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&mut other).await.unwrap()
    }

    /// Drains everything, as a signal would, and waits for the end.
    pub async fn shut_down(&self) {
        self.running.launch.stop.cancel();
        let launch = self.running.launch.clone();
        let runtime = self.runtime.as_ref().unwrap();
        let finishing = runtime.spawn(launch.finish(tokio_util::sync::CancellationToken::new()));
        tokio::time::timeout(PATIENCE, finishing).await.unwrap().unwrap().unwrap();
    }

    /// A log line at ERROR that this test provokes; any other one fails it.
    pub fn expect_error(&self, containing: &'static str) {
        self.expected_errors.lock().unwrap().push(containing);
    }

    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// All spans that have ended, of all roles.
    pub fn spans(&self) -> Vec<SpanData> {
        self.spans.get_finished_spans().unwrap()
    }

    /// Sends what has ended so far, when spans go to a collector.
    pub async fn flush_spans(&self) {
        let traces = self.traces.clone();
        // The exporter needs the reactor that it was made on.
        let flushing = self.runtime.as_ref().unwrap().spawn_blocking(move || traces.force_flush());
        flushing.await.unwrap().unwrap();
    }

    /// The value of a metric line that begins with this text, such as `vvs_closes_total{code="4502"}`; 0 when absent.
    pub async fn metric(&self, line: &str) -> f64 {
        let page = self.browser().get_at(self.addresses().admin, "/metrics").await;
        let found = page.body.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric is as it should be.
    pub async fn until_metric(&self, line: &str, is: impl Fn(f64) -> bool) {
        let reached = async { while !is(self.metric(line).await) {} };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{line} did not come to that"));
    }

    fn check(&self) {
        let log = self.log();
        let expected = self.expected_errors.lock().unwrap();
        for line in log.lines().filter(|line| line.contains(" ERROR ") || line.contains("\"level\":\"ERROR\"")) {
            assert!(expected.iter().any(|text| line.contains(text)), "unexpected: {line}");
        }
        self.secrets.assert_absent(&log, "the log");
        self.secrets.assert_absent(&format!("{:?}", self.spans.get_finished_spans()), "a span");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.running.launch.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if std::thread::panicking() {
            eprintln!("the log of the stack:\n{}", self.log());
        } else {
            self.check();
        }
        // Its background thread would outlive the test.
        self.traces.shutdown_with_timeout(Duration::from_secs(1)).ok();
    }
}

/// Settings as a person would give them, with every port chosen by the kernel.
pub fn settings(data_dir: &Path, flags: &[&str]) -> Up {
    let mut line = vec!["vvs-mesh", "up", "--data-dir", data_dir.to_str().unwrap()];
    for flag in ["--listen", "--relay-rpc-addr", "--sessions-rpc-addr", "--admin-addr"] {
        if !flags.contains(&flag) {
            line.extend([flag, "127.0.0.1:0"]);
        }
    }
    line.extend(flags);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Up(up) => *up,
        other => panic!("{other:?}"),
    }
}

/// Every thread of it writes to this stack's log, whatever task it runs.
fn runtime(dispatch: &Dispatch) -> Runtime {
    let dispatch = dispatch.clone();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
        .build()
        .unwrap()
}

fn text(log: &Log) -> String {
    String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()
}

fn key_files(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "key") {
                found.push(path);
            }
        }
    }
    found
}
