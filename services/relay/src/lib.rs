//! The relay: holds the editors' sockets and the unfinished logins, in memory only. It knows no identity provider, no page
//! and no signing key.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use futures_util::future;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::ServiceExt as _;
use vvs_auth::key::Keyring;
use vvs_auth::method;
use vvs_auth::peer::{self, Peers, Role};
use vvs_proto::relay::relay_server::RelayServer;
use vvs_runtime::http::{Connector, Limits as HttpLimits, Listener};
use vvs_runtime::metrics::{Counters, Metrics as Registry};
use vvs_runtime::origin::Origin;
use vvs_runtime::{Process, rpc as runtime_rpc, trace};

use crate::attempt::{Activate, EndSession};
use crate::authority::{Authority, CALL_TIME, Channel, Client, Known, Lag};
use crate::backplane::{Backplane, Memory};
use crate::keys::Keys;
use crate::limit::Limits;
use crate::refusal::Refusal;

mod attempt;
mod authority;
mod backplane;
mod hello;
mod id;
mod keys;
mod limit;
mod login;
mod proof;
mod refusal;
mod resume;
mod rpc;
mod settings;
mod signed_in;
mod socket;
mod ticket;
mod upgrade;
mod wire;

pub use settings::{BackplaneKind, MinBinding, Settings};

/// Why a relay cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_RELAY_SESSIONS_ADDR (--relay-sessions-addr) is not HOST:PORT: {0}")]
    SessionsAddr(#[from] tonic::transport::Error),
    #[error("the gRPC port cannot describe itself: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("a WebSocket port without TLS must be on loopback, not on {0}")]
    PlainOffLoopback(SocketAddr),
    #[error("the relays' shared key: {0}")]
    Key(#[from] vvs_auth::Error),
    #[error("cannot read a port's own address: {0}")]
    Address(#[from] std::io::Error),
}

/// The relay's metrics.
#[derive(Clone, Debug)]
struct Metrics {
    connections: Gauge,
    logins: Counters,
    logins_given_up: Counter,
    closes: Counters,
    handshakes_refused: Counters,
    deliveries: Counters,
    delivery_seconds: Histogram,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            logins: Counters::default(),
            logins_given_up: Counter::default(),
            closes: Counters::default(),
            handshakes_refused: registry.handshakes_refused.clone(),
            deliveries: Counters::default(),
            delivery_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        registry.register("vvs_connections", "WebSockets held now", metrics.connections.clone());
        registry.register("vvs_logins", "Logins that came to a state", metrics.logins.clone());
        let given_up = metrics.logins_given_up.clone();
        registry.register("vvs_logins_given_up", "Logins forgotten because too many had lost their socket", given_up);
        registry.register("vvs_closes", "WebSockets closed, by code", metrics.closes.clone());
        registry.register("vvs_deliveries", "DeliverAuth calls, by status code", metrics.deliveries.clone());
        let seconds = metrics.delivery_seconds.clone();
        registry.register("vvs_delivery_seconds", "DeliverAuth from call to answer", seconds);
        metrics
    }
}

/// What all sockets and calls of one relay share.
struct Shared {
    settings: Settings,
    public_url: Origin,
    backplane: Box<dyn Backplane>,
    activate: Activate,
    end_session: EndSession,
    keys: Keys,
    authority: Arc<Authority>,
    limits: Limits,
    metrics: Metrics,
    /// Who may say where a client is; `None` on a plain port.
    gateways: Option<Arc<Peers>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Serves until stopped. A WebSocket port without TLS takes the client's address from anybody, so it must be on loopback.
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
    let shared = Arc::new(Shared {
        backplane: Box::new(Memory::default()),
        activate: authority.activator(),
        end_session: {
            let authority = authority.clone();
            Arc::new(move |session_id, address, reason| authority.end_pending(session_id, address, reason))
        },
        keys: Keys::new(&keys)?,
        authority,
        limits: Limits::new(
            settings.handshakes_per_minute,
            settings.handshake_burst,
            settings.max_logins_per_address,
            settings.max_connections,
        ),
        metrics: Metrics::new(&process.metrics),
        gateways: ws.tls.is_some().then(|| peers.clone()),
        public_url,
        settings,
        stop: process.stop.clone(),
        tasks: process.tasks.clone(),
        grace: process.grace,
    });
    let sockets = Router::new().route("/ws", get(upgrade::upgrade)).with_state(shared.clone());
    let sockets = sockets.layer(from_fn(trace::http_server));
    // More than the sockets themselves, so that whoever is too many is told so.
    let room =
        HttpLimits { max_connections: shared.settings.max_connections.saturating_add(1000), ..Default::default() };
    process.tasks.spawn(process.server(room).serve(ws, sockets));
    process.tasks.spawn(process.server(HttpLimits::default()).serve(rpc, calls(&shared, peers).await?));
    let ready = async {
        // It stays so: what is known outlives an outage of sessions.
        shared.authority.ready().await;
        process.readiness.set(true);
    };
    let tidy = async {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            shared.limits.forget_quiet(tokio::time::Instant::now());
        }
    };
    process.stop.run_until_cancelled(future::join(ready, tidy)).await;
    process.readiness.set(false);
    Ok(())
}

/// The gRPC port: `Relay`, health and reflection, behind the method table.
async fn calls(shared: &Arc<Shared>, peers: Arc<Peers>) -> Result<Router, Error> {
    let (mut health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RelayServer<rpc::Relay>>().await;
    let mut routes = Routes::new(RelayServer::new(rpc::Relay(shared.clone()))).add_service(health_service);
    if shared.settings.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vvs_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(RelayServer::<rpc::Relay>::NAME)
            .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
        routes = routes.add_service(reflection.build_v1()?);
    }
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        stop.cancelled().await;
        for name in ["", RelayServer::<rpc::Relay>::NAME] {
            health.set_service_status(name, ServingStatus::NotServing).await;
            // Ends the streams of those who watch, which would hold up the drain.
            health.clear_service_status(name).await;
        }
    });
    let check = move |connection: &vvs_runtime::http::Connection, path: &str| {
        let peer = method::authorize(&peers, connection.certificate.as_deref(), path);
        peer.map(drop).map_err(|refusal| Refusal::from(refusal).into())
    };
    Ok(runtime_rpc::router(routes, Arc::new(check)))
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
    let client = Client::new(Channel::new(channel.map_err(|cause| Status::from_error(cause.into()))), terms);
    let known = Known::new(public_url.to_string(), settings.audience.clone(), terms.feed_silence);
    process.metrics.register(
        "vvs_revocation_lag_seconds",
        "For how long this relay has not heard that it knows all revocations",
        Lag(known.clone()),
    );
    Ok(Authority::follow(known, client, terms, process.stop.clone(), &process.tasks))
}
