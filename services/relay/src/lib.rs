//! The relay: holds the editors' sockets and the unfinished logins, in memory only. It knows no
//! identity provider, no page and no signing key.
//!
//! A request to `/ws` becomes a socket (`upgrade`), which is one task (`socket`). What its frames
//! ask for is read in `socket::dialogue`; what they mean is decided in `login`, a table without
//! clock or socket, and in `signed_in`. `attempt` holds a login and knows who waits for it,
//! `backplane` finds it wherever it is held, and `rpc` is how web asks. `authority` judges tokens
//! with what it has heard from sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use futures_util::future;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tower::ServiceExt as _;
use vvs_auth::key::Keyring;
use vvs_auth::method;
use vvs_auth::peer::{self, Peers, Role};
use vvs_proto::relay::relay_server::RelayServer;
use vvs_runtime::http::{Connector, Limits as HttpLimits, Listener, Names};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::{BadDescription, Calls, Services};
use vvs_runtime::{Process, rpc as runtime_rpc, trace};

use crate::authority::{Authority, CALL_TIME, Client, Known, Lag, ToSessions};
use crate::backplane::{Backplane, LinkState, LocalBackplane, Nats};
use crate::drain::Drain;
use crate::keys::RelayKeys;
use crate::limit::Limits;
use crate::metric::Counts;
use crate::shared::Shared;

mod attempt;
mod authority;
mod backplane;
mod clock;
mod code;
mod contract;
mod drain;
mod hello;
mod keys;
mod limit;
mod login;
mod memory;
mod metric;
mod pause;
mod proof;
mod refusal;
mod resume;
mod rpc;
mod session;
mod settings;
mod shared;
mod socket;
mod ticket;
mod upgrade;
mod view;
mod wire;

pub use backplane::NatsError;
pub use settings::{BackplaneKind, MinBinding, Settings};

/// Why a relay cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_RELAY_SESSIONS_ADDR (--relay-sessions-addr) is not HOST:PORT: {0}")]
    SessionsAddr(#[from] tonic::transport::Error),
    #[error("the gRPC port cannot describe itself: {0}")]
    Reflection(#[from] BadDescription),
    #[error("a WebSocket port without TLS must be on loopback, not on {0}")]
    PlainOffLoopback(SocketAddr),
    #[error(transparent)]
    Backplane(#[from] NatsError),
    #[error("the relays' shared key: {0}")]
    Key(#[from] vvs_auth::Error),
    #[error("cannot read a port's own address: {0}")]
    Address(#[from] std::io::Error),
}

/// Serves until stopped. A WebSocket port without TLS believes any caller's statement of the
/// client's address, so it must be on loopback.
pub async fn serve(
    settings: Settings,
    ws: Listener,
    rpc: Listener,
    peers: Arc<Peers>,
    public_url: Origin,
    keys: Keyring,
    process: Process,
) -> Result<(), Error> {
    if ws.tls.is_none() && !ws.tcp.local_addr()?.ip().is_loopback() {
        return Err(Error::PlainOffLoopback(ws.tcp.local_addr()?));
    }

    let authority = follow(&settings, &public_url, &peers, &process)?;
    let keys = RelayKeys::new(&keys)?;
    let (backplane, mut line) = backplane(&settings, &keys, &process).await?;
    let drain = Drain::new(process.grace, settings.dial().is_none());
    let shared = Arc::new(Shared {
        backplane,
        keys,
        authority,
        limits: limits(&settings, &process),
        metrics: Counts::register(&process.metrics),
        gateways: ws.tls.is_some().then(|| peers.clone()),
        public_url,
        settings,
        stop: process.stop.clone(),
        tasks: process.tasks.clone(),
        held: TaskTracker::new(),
        drain,
    });
    let sockets = Router::new()
        .route("/ws", get(upgrade::upgrade))
        .with_state(shared.clone());
    let sockets = sockets.layer(from_fn(trace::http_server));
    let (mut of_ws, mut of_rpc) = port_limits(&shared.settings);
    let quota = shared.settings.quota();
    of_ws.peer_admission = Some(rpc::admission(
        peers.clone(),
        quota.clone(),
        Some(method::HTTP_HOP),
    ));
    of_rpc.peer_admission = Some(rpc::admission(peers.clone(), quota.clone(), None));
    process
        .tasks
        .spawn(process.server(of_ws).serve(ws, sockets));
    let calls = Calls::serving(
        Services::default().with(RelayServer::new(rpc::Relay(shared.clone()))),
        shared.settings.reflection.then_some(vvs_proto::DESCRIPTORS),
        rpc::check(peers, quota, shared.limits.reached.clone()),
        &process,
    );
    let calls = calls.await?;
    let mut calling = process.server(of_rpc);
    (calling.stop, calling.notice) = (shared.drain.over().clone(), Duration::ZERO);
    process.tasks.spawn(calling.serve(rpc, calls));
    let ready = async {
        // It stays so: what is known outlives an outage of sessions, and this relay's own logins
        // one of the backplane.
        shared.authority.ready().await;
        line.wait_for(|line| line.is_up).await.ok();
        process.readiness.set(true);
    };

    let tidy = async {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            shared.limits.forget_quiet(tokio::time::Instant::now());
        }
    };

    process
        .stop
        .run_until_cancelled(future::join(ready, tidy))
        .await;
    process.readiness.set(false);
    shared.held.close();

    // What is held can be asked for, here and over the backplane, as long as it is held.
    tokio::time::timeout_at(shared.drain.end(), shared.held.wait())
        .await
        .ok();
    shared.drain.over().cancel();

    Ok(())
}

/// Opens the backplane, and returns whether logins of other relays can be found.
async fn backplane(
    settings: &Settings,
    keys: &RelayKeys,
    process: &Process,
) -> Result<(Box<dyn Backplane>, watch::Receiver<LinkState>), Error> {
    let Some(dial) = settings.dial() else {
        return Ok((Box::new(LocalBackplane::default()), LinkState::local()));
    };

    let nats = Nats::connect(
        dial,
        keys.backplane.clone(),
        process.tasks.clone(),
        &process.metrics,
    )
    .await?;
    let line = nats.line();

    Ok((Box::new(nats), line))
}

/// Returns the limits of the WebSocket port and of the gRPC port.
fn port_limits(settings: &Settings) -> (HttpLimits, HttpLimits) {
    let of_rpc = HttpLimits {
        handshake_timeout: settings.header_timeout,
        settings: Names {
            handshake_timeout: "VVS_RELAY_HEADER_TIMEOUT",
            ..Names::default()
        },
        ..HttpLimits::default()
    };
    let of_ws = HttpLimits {
        // More than the sockets themselves, so that one too many gets an answer.
        max_connections: settings.max_connections.saturating_add(1000),
        settings: Names {
            max_connections: "VVS_RELAY_MAX_CONNECTIONS",
            ..of_rpc.settings
        },
        ..of_rpc.clone()
    };
    (of_ws, of_rpc)
}

fn limits(settings: &Settings, process: &Process) -> Limits {
    let limits = Limits::new(settings.bounds(), process.metrics.reached.clone());
    let memory = limits.memory.clone();
    process.metrics.register(
        "vvs_relay_memory_bytes",
        "What WebSockets and logins count as, in bytes",
        memory,
    );
    limits
}

/// Starts to follow the sessions role.
fn follow(
    settings: &Settings,
    public_url: &Origin,
    peers: &Arc<Peers>,
    process: &Process,
) -> Result<Arc<Authority>, Error> {
    let connector = Connector {
        identity: process.identity.clone(),
        check: peer::check(peers, Role::Sessions),
        alpn: b"h2",
        timeout: CALL_TIME,
    };
    let address = settings.sessions_addr.as_deref().unwrap_or_default();
    let channel = runtime_rpc::channel(address, connector)?;
    let terms = settings.terms();
    let client = Client::new(
        ToSessions::new(channel.map_err(|cause| Status::from_error(cause.into()))),
        terms,
    );
    let refused = client.proofs_refused.clone();
    process.metrics.register(
        "vvs_proofs_refused",
        "Proofs that editors were refused, by whose key made them",
        refused,
    );
    let known = Known::new(
        public_url.to_string(),
        settings.audience.clone(),
        terms.feed_silence,
    );
    process.metrics.register(
        "vvs_revocation_lag_seconds",
        "For how long this relay has not heard that it knows all revocations",
        Lag(known.clone()),
    );

    Ok(Authority::follow(
        known,
        client,
        terms,
        process.stop.clone(),
        &process.tasks,
    ))
}
