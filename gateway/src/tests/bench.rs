//! An edge with processes behind it. Each process has its own thread, so that it can die
//! immediately with its sockets.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::Parser as _;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::peer::{Peers, Role};
use vvs_runtime::Process;
use vvs_runtime::admin::Readiness;
use vvs_runtime::http::{Limits, Listener};
use vvs_runtime::metrics::Metrics;
use vvs_runtime::tls::{Files, Identity};

use crate::{Error, Settings};

/// How long a test waits for an event; one that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Parser, Debug)]
struct Flags {
    #[command(flatten)]
    gateway: Settings,
}

pub(super) fn settings(relays: &str, webs: &str, flags: &[&str]) -> Result<Settings, String> {
    let line = [
        &[
            "x",
            "--gateway-relay-addr",
            relays,
            "--gateway-web-addr",
            webs,
        ],
        flags,
    ]
    .concat();
    Flags::try_parse_from(line)
        .map(|flags| flags.gateway)
        .map_err(|cause| cause.to_string())
}

/// One CA, and all certificates that it signs.
pub(super) struct Bench {
    folder: TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
    peers: Arc<Peers>,
}

/// A process behind the edge.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) readiness: Readiness,
    accepting: JoinHandle<()>,
    runtime: Option<Runtime>,
}

pub(super) struct Edge {
    address: SocketAddr,
    process: Process,
}

impl Bench {
    pub(super) fn new() -> Self {
        let (folder, ca_key) = (TempDir::new().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(
            folder.path().join("ca.crt"),
            ca.self_signed(&ca_key).unwrap().pem(),
        )
        .unwrap();
        let peers = Arc::new(Peers::new(Vec::new(), "vvs.internal").unwrap());

        Self {
            folder,
            ca,
            ca_key,
            peers,
        }
    }

    fn process(&self, role: Role) -> Process {
        Process {
            identity: Identity::load(self.certify(role)).unwrap(),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace: PATIENCE,
        }
    }

    fn certify(&self, role: Role) -> Files {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        let name = format!("spiffe://vvs.internal/{role}");
        leaf.subject_alt_names = vec![SanType::URI(name.as_str().try_into().unwrap())];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = leaf
            .signed_by(&key, &Issuer::from_params(&self.ca, &self.ca_key))
            .unwrap();
        let path = |end: &str| self.folder.path().join(format!("{role}{end}"));
        let write = |path: &Path, pem: String| std::fs::write(path, pem).unwrap();
        write(&path(".crt"), leaf.pem());
        write(&path(".key"), key.serialize_pem());

        Files {
            cert: path(".crt"),
            key: path(".key"),
            ca: Some(self.folder.path().join("ca.crt")),
        }
    }

    /// Serves, and is ready.
    pub(super) fn peer(&self, role: Role, router: Router) -> Peer {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = tcp.local_addr().unwrap();
        let process = self.process(role);
        process.readiness.set(true);
        let readiness = process.readiness.clone();
        let _inside = runtime.enter();
        let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
        let listener = Listener {
            tcp,
            tls: Some(process.identity.clone()),
        };
        let accepting = process
            .tasks
            .spawn(process.server(Limits::default()).serve(listener, router));

        Peer {
            address,
            readiness,
            accepting,
            runtime: Some(runtime),
        }
    }

    /// An edge in front of these, on a plain port.
    pub(super) async fn edge(&self, relays: &[SocketAddr], webs: &[SocketAddr]) -> Edge {
        self.edge_with(relays, webs, &[]).await
    }

    pub(super) async fn edge_with(
        &self,
        relays: &[SocketAddr],
        webs: &[SocketAddr],
        flags: &[&str],
    ) -> Edge {
        let list = |peers: &[SocketAddr]| {
            peers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let settings = settings(&list(relays), &list(webs), flags).unwrap();
        let process = self.process(Role::Gateway);
        let (listener, url) = (
            Listener { tcp, tls: None },
            format!("http://{address}").parse().unwrap(),
        );
        let serving = crate::serve(settings, listener, self.peers.clone(), url, process.clone());
        process.tasks.spawn(async move { serving.await.unwrap() });

        Edge { address, process }
    }

    pub(super) async fn refused(&self, relays: &str) -> Error {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (settings, url) = (
            settings(relays, "web:1", &[]).unwrap(),
            "http://127.0.0.1:1".parse().unwrap(),
        );
        let listener = Listener { tcp, tls: None };

        crate::serve(
            settings,
            listener,
            self.peers.clone(),
            url,
            self.process(Role::Gateway),
        )
        .await
        .unwrap_err()
    }
}

impl Peer {
    /// Accepts no new connections, while the existing ones continue.
    pub(super) async fn close_port(&mut self) {
        self.accepting.abort();
        (&mut self.accepting).await.ok();
    }

    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.process.stop.cancel();
    }
}

/// The head of an answer in lower case, and its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Edge {
    /// Sends one request over a new connection.
    pub(super) async fn send(&self, method: &str, path: &str) -> Answer {
        self.send_from([127, 0, 0, 1], method, path).await
    }

    /// The same, from this address.
    pub(super) async fn send_from(&self, from: [u8; 4], method: &str, path: &str) -> Answer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: \
             0\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();

        answer(head, body.to_owned())
    }

    /// Asks for a WebSocket; it lasts as long as the stream.
    pub(super) async fn open(&self) -> (Answer, TcpStream) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
        };

        timeout(PATIENCE, reading).await.unwrap();

        (
            answer(&String::from_utf8(head).unwrap(), String::new()),
            stream,
        )
    }

    pub(super) fn metric(&self, line: &str) -> Option<String> {
        let text = self.process.metrics.scrape();
        text.lines()
            .find_map(|found| Some(found.strip_prefix(line)?.trim().to_owned()))
    }

    fn gauge(&self, name: &str, role: Role, peer: SocketAddr) -> Option<String> {
        self.metric(&format!(
            "vvs_gateway_member_{name}{{role=\"{role}\",address=\"{peer}\"}}"
        ))
    }

    pub(super) fn is_up(&self, role: Role, peer: SocketAddr) -> bool {
        self.gauge("up", role, peer).as_deref() == Some("1")
    }

    /// Waits until the edge knows whether this process can serve.
    pub(super) async fn until_up(&self, role: Role, peer: SocketAddr, up: bool) {
        until(|| self.gauge("up", role, peer) == Some(u8::from(up).to_string())).await;
    }

    /// Waits until this many requests are under way there.
    pub(super) async fn until_busy(&self, role: Role, peer: SocketAddr, count: usize) {
        until(|| self.gauge("in_flight", role, peer) == Some(count.to_string())).await;
    }
}

fn answer(head: &str, body: String) -> Answer {
    let head = head.to_lowercase();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body,
    }
}

pub(super) async fn until(reached: impl Fn() -> bool) {
    let reached = async {
        while !reached() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}

/// A port that nobody listens on.
pub(super) fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}
