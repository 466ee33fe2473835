//! The backplane of many relays: NATS, core publish and subscribe. Logins that this relay holds are
//! asked in process, so that they continue while NATS is down. The broker carries messages that it
//! can neither read nor forge.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use axum::http;
use futures_util::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Span;
use vvs_auth::key::Keyring;
use vvs_proto::ConnectionId;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::{Counters, Metrics, count};
use vvs_runtime::trace;

use super::{Answer, Backplane, LocalBackplane, Mailbox, Registration, Request, Taken, message};
use crate::pause::moment_within;

mod ask;
mod hear;
mod roll;

use roll::Roll;

/// The id of a message and of its answers.
const MESSAGE_ID: &str = "Vvs-Message-Id";
/// How long a holder may take to accept a question; after that it drops the question.
const ACCEPT_TIME: Duration = Duration::from_secs(1);
/// The longest wait for a slow outcome. Callers give up earlier.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the connection is tested: after two tests without an answer it counts as dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to connect.
const RECONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long after a lost connection others may not have reconnected, so that silence proves
/// nothing.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// Messages that wait for one subscriber; further ones are dropped.
const WAITING: usize = 64;

/// How this relay connects.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) servers: Vec<String>,
    pub(crate) ca_file: Option<PathBuf>,
    /// The seed's file.
    pub(crate) nkey_file: Option<PathBuf>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// Questions under way at the same time.
    pub(crate) max_asks: usize,
    /// Answers under way at the same time.
    pub(crate) max_answers: usize,
}

#[cfg(test)]
impl Default for Broker {
    fn default() -> Self {
        Self {
            servers: vec![],
            ca_file: None,
            nkey_file: None,
            certificate: None,
            max_asks: 1000,
            max_answers: 1000,
        }
    }
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkState {
    pub(crate) is_up: bool,
    /// When the connection came back after it had been lost.
    back_since: Option<Instant>,
}

impl LinkState {
    /// Returns the state for a relay without other relays.
    pub(crate) fn local() -> watch::Receiver<Self> {
        watch::channel(Self {
            is_up: true,
            back_since: None,
        })
        .1
    }

    fn is_settled(self) -> bool {
        self.is_up
            && self
                .back_since
                .is_none_or(|since| since.elapsed() >= SETTLE_TIME)
    }
}

/// Logins here, and those of other relays over NATS.
#[derive(Debug)]
pub(crate) struct Nats {
    link: Arc<NatsLink>,
    /// Ends the announcements of this relay to others.
    _attending: DropGuard,
}

struct NatsLink {
    client: Client,
    line: watch::Receiver<LinkState>,
    local: LocalBackplane,
    keys: Keyring,
    roll: Roll,
    /// The random name of this relay.
    holder: String,
    tasks: TaskTracker,
    requests: Counters,
    dropped: Counters,
    asks: Semaphore,
    answers: Arc<Semaphore>,
    reached: Reached,
}

impl fmt::Debug for NatsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLink")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

impl Nats {
    /// Starts to connect, and retries until it is connected, also after the connection is lost.
    pub(crate) async fn connect(
        dial: Broker,
        keys: Keyring,
        tasks: TaskTracker,
        metrics: &Metrics,
    ) -> Result<Self, NatsError> {
        let mut options = ConnectOptions::new()
            .name("vvs-relay")
            .retry_on_initial_connect()
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(WAITING)
            .reconnect_delay_callback(|tried| {
                let longest = Duration::from_millis(1 << tried.min(10)).min(RECONNECT_WITHIN);
                if tried <= 1 {
                    Duration::ZERO
                } else {
                    longest / 2 + moment_within(longest / 2)
                }
            });
        if let Some(path) = dial.nkey_file {
            let seed = tokio::fs::read_to_string(&path)
                .await
                .map_err(|cause| NatsError::File(path, cause))?;
            options = options.nkey(seed.trim().to_owned());
        }

        if let Some(path) = dial.ca_file {
            options = options.add_root_certificates(path);
        }

        if let Some((certificate, key)) = dial.certificate {
            options = options.add_client_certificate(certificate, key);
        }

        if dial
            .servers
            .iter()
            .any(|server| server.starts_with("tls://"))
        {
            options = options.require_tls(true);
        }

        let (requests, dropped) = (Counters::default(), Counters::default());
        let (line, options) = watched(options, metrics, dropped.clone());
        metrics.register(
            "vvs_backplane_requests",
            "Questions to other relays, by outcome",
            requests.clone(),
        );
        metrics.register(
            "vvs_backplane_dropped",
            "Messages of other relays not acted on, by reason",
            dropped.clone(),
        );
        let places = |most: usize| Semaphore::new(most.min(Semaphore::MAX_PERMITS));
        let (asks, answers) = (places(dial.max_asks), Arc::new(places(dial.max_answers)));
        let reached = metrics.reached.clone();
        let holder = message::message_id().ok_or(NatsError::Random)?;
        let servers: Result<Vec<async_nats::ServerAddr>, _> =
            dial.servers.iter().map(|server| server.parse()).collect();
        let client = options
            .connect(servers.map_err(NatsError::Address)?)
            .await?;
        let local = LocalBackplane::default();
        let roll = Roll::default();
        metrics.register(
            "vvs_backplane_relays",
            "Other relays that are there",
            roll.size.clone(),
        );
        let shared = NatsLink {
            client,
            line,
            local,
            keys,
            roll,
            holder,
            tasks,
            requests,
            dropped,
            asks,
            answers,
            reached,
        };
        let (shared, stop) = (Arc::new(shared), CancellationToken::new());
        shared.tasks.spawn(shared.clone().attend(stop.clone()));

        Ok(Self {
            link: shared,
            _attending: stop.drop_guard(),
        })
    }

    /// Reports when the connection is established, and when it is lost.
    pub(crate) fn line(&self) -> watch::Receiver<LinkState> {
        self.link.line.clone()
    }
}

/// Why a relay cannot connect, now or at all.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("cannot read {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    #[error("no random bytes")]
    Random,
    #[error("VVS_RELAY_BACKPLANE (--relay-backplane): {0}")]
    Address(#[source] std::io::Error),
    #[error("NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

/// Follows the connection, and reports its state.
fn watched(
    options: ConnectOptions,
    metrics: &Metrics,
    dropped: Counters,
) -> (watch::Receiver<LinkState>, ConnectOptions) {
    let (connected, lost) = (Gauge::<i64>::default(), Counter::<u64>::default());
    metrics.register(
        "vvs_backplane_connected",
        "Whether other relays can be reached",
        connected.clone(),
    );
    metrics.register(
        "vvs_backplane_connections_lost",
        "Connections to NATS that were lost",
        lost.clone(),
    );
    let (sender, line) = watch::channel(LinkState::default());
    let sender = Arc::new(sender);
    let is_told = AtomicBool::new(false);
    let options = options.event_callback(move |event| {
        match event {
            Event::Connected => {
                connected.set(1);
                is_told.store(false, Ordering::Relaxed);
                sender.send_modify(|line| {
                    line.is_up = true;
                    line.back_since = (lost.get() > 0).then(Instant::now);
                });
            }
            Event::Disconnected | Event::Closed => {
                connected.set(0);
                lost.inc();
                sender.send_modify(|line| line.is_up = false);
                tracing::warn!(
                    "the backplane is lost; logins of other relays cannot be reached \
                    until it is back"
                );
            }
            // Each attempt fails, and says the same.
            Event::ClientError(cause) if is_told.swap(true, Ordering::Relaxed) => {
                tracing::debug!(%cause, "the backplane does not connect");
            }
            Event::ClientError(cause) => tracing::warn!(%cause, "the backplane does not connect, \
                and is tried again"),
            Event::ServerError(cause) => tracing::warn!(%cause, "the backplane refuses something"),
            Event::SlowConsumer(_) => count(&dropped, "reason", "waiting"),
            Event::LameDuckMode | Event::Draining => {}
        }

        std::future::ready(())
    });

    (line, options)
}

impl Backplane for Nats {
    fn register(&self, id: ConnectionId, generation: u64) -> (Registration, Mailbox) {
        let (mut registration, mailbox) = self.link.local.register(id, generation);
        let stop = CancellationToken::new();
        let listening = self
            .link
            .clone()
            .listen(id, registration.generation.clone());
        self.link
            .tasks
            .spawn(stop.clone().run_until_cancelled_owned(listening));
        let guard = stop.drop_guard();
        let remove = registration.remove.take();

        // The subscription ends by its own number, and the local place by its own, so that neither
        // ends its successor.
        registration.remove = Some(Box::new(move || {
            if let Some(remove) = remove {
                remove();
            }
            drop(guard);
        }));

        (registration, mailbox)
    }

    fn ask(&self, id: ConnectionId, request: Request) -> BoxFuture<'_, Answer> {
        if self.link.local.holds(id) {
            self.link.local.ask(id, request)
        } else {
            Box::pin(self.link.ask(id, request))
        }
    }

    fn take_over(&self, id: ConnectionId) -> BoxFuture<'static, Taken> {
        if self.link.local.holds(id) {
            return self.link.local.take_over(id);
        }
        let link = self.link.clone();
        Box::pin(async move { link.take_over(id).await })
    }
}

fn headers(message_id: &str, span: Option<&Span>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, message_id);
    let mut context = http::HeaderMap::new();
    if let Some(span) = span {
        trace::inject(span, &mut context);
    }

    for (name, value) in &context {
        if let Ok(value) = value.to_str() {
            headers.insert(name.as_str(), value);
        }
    }

    headers
}
