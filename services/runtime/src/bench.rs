//! Processes for tests. Each has its own threads, so that it can die immediately with all of its
//! sockets.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Process;
use crate::admin::Readiness;
use crate::http::{Connector, Limits, Listener};
use crate::metrics::Metrics;
use crate::tls::{Files, Identity};

/// How long a test waits for an event; one that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One CA, and one certificate for everybody.
pub(crate) struct Bench {
    identity: Arc<Identity>,
    _folder: TempDir,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    accepting: JoinHandle<()>,
    runtime: Option<Runtime>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let identity = Identity::load(certify(folder.path())).unwrap();
        Self {
            identity,
            _folder: folder,
        }
    }

    pub(crate) fn connector(&self, alpn: &'static [u8]) -> Connector {
        Connector {
            identity: self.identity.clone(),
            check: Arc::new(|_| Ok(())),
            alpn,
            timeout: Duration::from_secs(5),
        }
    }

    /// Serves over mutual TLS, and is ready.
    pub(crate) fn peer(&self, router: Router) -> Peer {
        self.peer_at(SocketAddr::from(([127, 0, 0, 1], 0)), router)
    }

    pub(crate) fn peer_at(&self, address: SocketAddr, router: Router) -> Peer {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = tcp.local_addr().unwrap();
        let process = Process {
            identity: self.identity.clone(),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace: PATIENCE,
        };
        process.readiness.set(true);
        let (readiness, stop) = (process.readiness.clone(), process.stop.clone());
        let _inside = runtime.enter();
        let listener = Listener {
            tcp: tokio::net::TcpListener::from_std(tcp).unwrap(),
            tls: Some(process.identity.clone()),
        };
        let accepting = process
            .tasks
            .spawn(process.server(Limits::default()).serve(listener, router));

        Peer {
            address,
            readiness,
            stop,
            accepting,
            runtime: Some(runtime),
        }
    }
}

impl Peer {
    /// Accepts no new connections, while the existing ones continue.
    pub(crate) async fn close_port(&mut self) {
        self.accepting.abort();
        (&mut self.accepting).await.ok();
    }

    /// Ends the process as SIGKILL would: its sockets are gone when this returns, or very soon
    /// after.
    pub(crate) fn kill(&mut self) {
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

/// A port that nobody listens on.
pub(crate) fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

pub(crate) fn certify(folder: &Path) -> Files {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let leaf = leaf
        .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
        .unwrap();
    let write = |name: &str, pem: String| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let (cert, key) = (
        write("tls.crt", leaf.pem()),
        write("tls.key", key.serialize_pem()),
    );

    Files {
        cert,
        key,
        ca: Some(write("ca.crt", ca_pem)),
    }
}
