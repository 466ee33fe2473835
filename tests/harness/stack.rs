//! One installation: all roles in one process's threads, on ports of their own, with a CA of their
//! own. It has a runtime of its own, so that its logs and spans are nobody else's, and so that it
//! can be killed like a process.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use secrecy::ExposeSecret as _;
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

use crate::command::{Running as Process, binary, program};
use crate::database::{Database, Lock, Url};
use crate::{Browser, Caller, Editor, Secrets, postgres};

/// No test may wait longer for something that should come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running installation. When it is dropped, its logs and spans are searched for what must not be
/// there.
#[derive(Debug)]
pub struct Stack {
    runtime: Option<Runtime>,
    running: Running,
    data: Arc<tempfile::TempDir>,
    flags: Vec<String>,
    database: Url,
    log: Log,
    spans: InMemorySpanExporter,
    traces: SdkTracerProvider,
    secrets: Secrets,
    expected_errors: Mutex<Vec<&'static str>>,
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

    /// All roles on a new database of this kind.
    pub async fn start_on(database: Database, flags: &[&str]) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let url = database.create(data.path()).await;
        Self::start_in(
            data,
            &[&["--sessions-database-url", url.as_str()], flags].concat(),
        )
        .await
    }

    /// All roles on an existing data directory, as after a restart.
    pub async fn start_in(data: Arc<tempfile::TempDir>, flags: &[&str]) -> Self {
        let up = settings(data.path(), flags);
        let database = Url::of(&up, data.path());
        let (log, spans) = (Log::default(), InMemorySpanExporter::default());
        let traces = match up.common.telemetry.otlp_endpoint.clone() {
            Some(endpoint) => telemetry::otlp(&endpoint, "vvs-mesh").unwrap(),
            None => SdkTracerProvider::builder()
                .with_simple_exporter(spans.clone())
                .build(),
        };

        let dispatch =
            telemetry::subscriber(&up.common.telemetry, log.clone(), Some(&traces)).unwrap();
        let runtime = runtime(&dispatch);
        let running = runtime.spawn(up::start(up)).await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, running.ready())
            .await
            .unwrap();
        assert!(
            !running.launch.stop.is_cancelled(),
            "a role stopped at once:\n{}",
            text(&log)
        );

        let secrets = Secrets::default();
        secrets.add_key_files(data.path());
        secrets.add(postgres::PASSWORD);
        let expected_errors = Mutex::default();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();

        Self {
            runtime: Some(runtime),
            running,
            data,
            flags,
            database,
            log,
            spans,
            traces,
            secrets,
            expected_errors,
        }
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

    /// What `--dev-key` has each browser asked for.
    pub fn dev_key(&self) -> String {
        let key = self.running.dev_key.as_ref().unwrap().expose_secret();
        self.secrets.add(key);
        key.to_owned()
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
        let (_, stop) = self
            .running
            .stops
            .iter()
            .find(|(known, _)| *known == role)
            .unwrap();
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
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        let mut settings = settings(self.data.path(), &flags).sessions;
        settings.database_url = Some(self.database.as_str().into());
        let keys = read_keys(&self.data.path().join("keys/sessions.key")).unwrap();
        let tcp = bind("sessions", self.addresses().sessions_rpc)
            .await
            .unwrap();

        // Metrics of its own: two roles of one kind do not share a registry.
        let mut launch = self.running.launch.clone();
        launch.metrics = Metrics::default();
        let runtime = self.runtime.as_ref().unwrap();
        let process = {
            let _reactor = runtime.enter();
            launch
                .process(
                    Role::Sessions,
                    vvs_mesh::pki::files(self.data.path(), Role::Sessions),
                )
                .unwrap()
        };
        let ready = process.readiness.clone();
        let _reactor = runtime.enter();

        // The port belongs to the reactor that serves it.
        let tcp = TcpListener::from_std(tcp.into_std().unwrap()).unwrap();
        launch.sessions(settings, tcp, keys, process);
        tokio::time::timeout(PATIENCE, ready.wait()).await.unwrap();
    }

    /// A role in a process of its own, with this stack's certificates and for its public address.
    pub fn process(&self, role: Role, flags: &[&str]) -> Process {
        start_role(
            self.data.path(),
            &self.addresses().public_url.to_string(),
            role,
            flags,
            &self.secrets,
        )
    }

    pub fn database(&self) -> &Url {
        &self.database
    }

    /// Someone else holds the database; ends when what is returned is dropped.
    pub async fn lock_database(&self) -> Lock {
        self.database.lock().await
    }

    /// How many sessions there are, pending or not.
    pub async fn sessions(&self) -> i64 {
        self.database.count("SELECT count(*) FROM sessions").await
    }

    /// Drains everything, as a signal would, and waits for the end.
    pub async fn shut_down(&self) {
        self.running.launch.stop.cancel();
        let launch = self.running.launch.clone();
        let runtime = self.runtime.as_ref().unwrap();
        let finishing = runtime.spawn(launch.finish(tokio_util::sync::CancellationToken::new()));
        tokio::time::timeout(PATIENCE, finishing)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
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
        let flushing = self
            .runtime
            .as_ref()
            .unwrap()
            .spawn_blocking(move || traces.force_flush());
        flushing.await.unwrap().unwrap();
    }

    /// The value of a metric line that begins with this text, such as
    /// `vvs_closes_total{code="4502"}`; 0 when absent.
    pub async fn metric(&self, line: &str) -> f64 {
        self.metric_at(self.addresses().admin, line).await
    }

    /// The same, of a process of its own.
    pub async fn metric_at(&self, admin: SocketAddr, line: &str) -> f64 {
        let page = self.browser().get_at(admin, "/metrics").await;
        let found = page
            .body
            .lines()
            .find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric is as it should be.
    pub async fn until_metric(&self, line: &str, is: impl Fn(f64) -> bool) {
        let reached = async { while !is(self.metric(line).await) {} };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{line} did not come to that"));
    }

    fn check(&self) {
        let log = self.log();
        let expected = self.expected_errors.lock().unwrap();
        for line in log
            .lines()
            .filter(|line| line.contains(" ERROR ") || line.contains("\"level\":\"ERROR\""))
        {
            assert!(
                expected.iter().any(|text| line.contains(text)),
                "unexpected: {line}"
            );
        }

        self.secrets.assert_absent(&log, "the log");
        self.secrets
            .assert_absent(&format!("{:?}", self.spans.get_finished_spans()), "a span");
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
        self.traces
            .shutdown_with_timeout(Duration::from_secs(1))
            .ok();
    }
}

/// One role in a process of its own, with the certificates of this data directory.
pub fn start_role(
    data_dir: &Path,
    public_url: &str,
    role: Role,
    flags: &[&str],
    secrets: &Secrets,
) -> Process {
    let mesh = binary("vvs-mesh");
    start_role_of(&mesh, data_dir, public_url, role, flags, secrets)
}

/// The same, of a program that was built before.
pub fn start_role_of(
    mesh: &Path,
    data_dir: &Path,
    public_url: &str,
    role: Role,
    flags: &[&str],
    secrets: &Secrets,
) -> Process {
    let files = vvs_mesh::pki::files(data_dir, role);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (
        path(&files.cert),
        path(&files.key),
        path(&files.ca.unwrap()),
    );
    let common = [
        role.as_str(),
        "--public-url",
        public_url,
        "--admin-addr",
        "127.0.0.1:0",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-file",
        &ca,
    ];

    Process::start(program(mesh, &[&common, flags].concat()), secrets)
}

/// Settings as a person would give them, with every port chosen by the kernel.
pub fn settings(data_dir: &Path, flags: &[&str]) -> Up {
    let mut line = vec!["vvs-mesh", "up", "--data-dir", data_dir.to_str().unwrap()];
    for flag in [
        "--listen",
        "--relay-rpc-addr",
        "--sessions-rpc-addr",
        "--admin-addr",
    ] {
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
