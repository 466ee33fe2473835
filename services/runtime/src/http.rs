//! The only HTTP server of the mesh: pages, WebSockets and gRPC, plain or over TLS, HTTP/1.1 and
//! HTTP/2. It accepts connections, performs handshakes off the accept loop, limits, and drains. Its
//! callers decide what it serves.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{RETRY_AFTER, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};

use crate::admin::Readiness;
use crate::http::asked::{Asked, WaitsFor};
use crate::metrics::{Metrics, count};
use crate::tcp::{Cut, Tcp, set_patience};
use crate::tls::stream::{self, Dialled};
use crate::tls::{Identity, PeerCheck};

mod asked;

/// Marks an answer that refuses an upgrade because the process is about to end: another process may
/// take the request.
pub const DRAINING: HeaderName = HeaderName::from_static("vvs-draining");

/// Bytes of a request that are buffered before the handler reads them, over HTTP/2.
const WINDOW: u32 = 64 * 1024;
/// Bytes of an answer that wait to be sent, over HTTP/2.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a peer may read nothing of the data that waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// EMFILE and ENFILE: the process, or the machine, has the maximum number of files open.
const OUT_OF_FILES: [i32; 2] = [24, 23];
/// How long a connection that has not sent a request stays open when the server stops.
const FIRST_REQUEST_TIME: Duration = Duration::from_millis(500);

/// For how long a stopping server continues as before, while its peers find out. They ask twice a
/// second, and a request over a connection that closes at the same moment may be lost.
pub const NOTICE: Duration = Duration::from_millis(1500);

/// A value that a connection holds until it ends, such as its place in a limit.
pub type Guard = Arc<dyn Any + Send + Sync>;
/// Admits a connection, or says why not.
pub type Admission = Arc<dyn Fn(SocketAddr) -> Result<Guard, Unadmitted> + Send + Sync>;

/// Admits a connection whose other end has presented this leaf certificate (DER), or says why not.
pub type PeerAdmission = Arc<dyn Fn(&[u8]) -> Result<Guard, Unadmitted> + Send + Sync>;

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unadmitted {
    /// The value of the metric's label.
    pub reason: &'static str,
    /// The setting that limits it.
    pub setting: &'static str,
}

/// The service behind a server: an [`axum::Router`], or another type that answers requests.
pub trait Answers:
    tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<A> Answers for A where
    A: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The other end of the connection, in every request's extensions.
#[derive(Clone)]
pub struct Connection {
    pub remote: SocketAddr,
    /// The peer's leaf certificate (DER), if it presented one; its chain was checked.
    pub certificate: Option<Arc<[u8]>>,
    /// Held by an upgraded connection for as long as it lives.
    pub guard: Guard,
    /// Resets an upgraded connection.
    pub cut: Cut,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// The limits of a server.
#[derive(Clone)]
pub struct Limits {
    /// For the TLS handshake, for the first request after it, and for the headers of each request.
    pub handshake_timeout: Duration,
    /// Connections held at the same time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Bytes of a request's headers.
    pub max_header_bytes: usize,
    /// Simultaneous requests over one connection (HTTP/2).
    pub max_streams: u32,
    /// How long a connection without further requests stays open (HTTP/2; with HTTP/1.1 it is the
    /// time for the next request's headers). `None`: as long as the other end answers pings.
    pub idle_timeout: Option<Duration>,
    /// How long the other end may read nothing of the data that waits for it.
    pub write_timeout: Duration,
    /// The settings that some of these limits come from, as the log names them.
    pub settings: Names,
    pub admission: Option<Admission>,
    /// Asked once more when the peer is known.
    pub peer_admission: Option<PeerAdmission>,
    /// The answer to peers that ask whether this process can serve. On a public port nobody may
    /// ask: `None`.
    pub readiness: Option<Readiness>,
}

/// Names of settings; empty for limits without a setting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names {
    pub handshake_timeout: &'static str,
    pub max_connections: &'static str,
    pub idle_timeout: &'static str,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_connections: 100_000,
            max_header_bytes: 16 * 1024,
            max_streams: 1000,
            idle_timeout: None,
            write_timeout: PATIENCE,
            settings: Names::default(),
            admission: None,
            peer_admission: None,
            readiness: None,
        }
    }
}

impl Limits {
    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake_timeout)
            .max_buf_size(self.max_header_bytes.max(8 * 1024));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(self.max_streams)
            .initial_stream_window_size(WINDOW)
            // The library ends connections whose requests are small and wait for more than half of
            // this.
            .initial_connection_window_size(
                self.max_streams
                    .saturating_mul(1024)
                    .clamp(WINDOW * 2, 1024 * 1024),
            )
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));

        http
    }
}

/// A bound port and its protocol.
#[derive(Debug)]
pub struct Listener {
    pub tcp: TcpListener,
    /// `None`: plain.
    pub tls: Option<Arc<Identity>>,
}

/// The parts of a server besides its port and its router.
#[derive(Debug, Clone)]
pub struct Server {
    pub limits: Limits,
    pub metrics: Metrics,
    /// When cancelled, the server tells its peers, gives them time to notice, accepts nothing more,
    /// and finishes the requests in flight.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    /// How long the peers have to notice.
    pub notice: Duration,
    /// Cancelled when that time is over.
    closing: CancellationToken,
}

impl Server {
    /// Creates a server that closes as soon as it is stopped.
    pub fn new(
        limits: Limits,
        metrics: Metrics,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            limits,
            metrics,
            stop,
            tasks,
            notice: Duration::ZERO,
            closing: CancellationToken::new(),
        }
    }

    /// Serves until stopped. Connections live on as tasks of the tracker.
    pub async fn serve<A: Answers>(self, listener: Listener, answers: A) {
        let (stop, notice, closing) = (self.stop.clone(), self.notice, self.closing.clone());
        let announced = async {
            stop.cancelled().await;
            tokio::time::sleep(notice).await;
            closing.cancel();
        };
        tokio::join!(announced, self.accept(listener, answers));
    }

    async fn accept<A: Answers>(self, listener: Listener, answers: A) {
        if let Err(cause) = set_patience(&listener.tcp, self.limits.write_timeout) {
            tracing::warn!(%cause, "connections whose other end is gone may stay");
        }

        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let http = Arc::new(self.limits.http());

        loop {
            let accepted = self.closing.run_until_cancelled(async {
                let accepted = listener.tcp.accept().await;
                Some((accepted, self.place(&places).await?))
            });
            let Some(Some((accepted, place))) = accepted.await else {
                return;
            };

            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Out of descriptors, or the peer is gone already: the next one may do better,
                    // a little later.
                    tracing::debug!(%cause, "a connection was not accepted");
                    if cause
                        .raw_os_error()
                        .is_some_and(|code| OUT_OF_FILES.contains(&code))
                    {
                        self.metrics.reached.tell("RLIMIT_NOFILE");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };

            let guard = match self.limits.admission.as_ref().map(|admit| admit(remote)) {
                Some(Err(unadmitted)) => {
                    self.refuse(unadmitted);
                    continue;
                }
                Some(Ok(guard)) => Arc::new((place, guard)) as Guard,
                None => Arc::new(place) as Guard,
            };

            let (server, http, answers) = (self.clone(), http.clone(), answers.clone());
            let tls = listener.tls.as_ref().map(|identity| identity.server());
            let connection = async move {
                server
                    .connection(stream, remote, tls, guard, &http, answers)
                    .await;
            };

            // On the heap, because a task's own memory is aligned so widely that the hole it leaves
            // fits no other task.
            self.tasks.spawn(Box::pin(connection));
        }
    }

    /// Waits until one more connection may be held. Further connections wait in the kernel's queue.
    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        self.tell(self.limits.settings.max_connections);
        places.clone().acquire_owned().await.ok()
    }

    fn tell(&self, setting: &'static str) {
        if !setting.is_empty() {
            self.metrics.reached.tell(setting);
        }
    }

    fn refuse(&self, Unadmitted { reason, setting }: Unadmitted) {
        count(&self.metrics.handshakes_refused, "reason", reason);
        self.metrics.reached.tell(setting);
    }

    fn too_slow(&self, remote: SocketAddr, what: &'static str) {
        count(&self.metrics.handshakes_refused, "reason", "slow");
        self.tell(self.limits.settings.handshake_timeout);
        tracing::debug!(%remote, what, "too slow");
    }

    async fn connection<A: Answers>(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        guard: Guard,
        http: &auto::Builder<TokioExecutor>,
        answers: A,
    ) {
        // Without Nagle's delay; a socket that is gone already fails at its first read instead.
        stream.set_nodelay(true).ok();
        let cut = Cut::default();
        let stream = Tcp {
            stream,
            cut: cut.clone(),
        };
        let Some(config) = tls else {
            return self
                .http(
                    stream,
                    Connection {
                        remote,
                        certificate: None,
                        guard,
                        cut,
                    },
                    http,
                    answers,
                )
                .await;
        };

        let handshake = stream::accept(config, stream);

        match tokio::time::timeout(self.limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let certificate: Option<Arc<[u8]>> = stream
                    .peer_certificate()
                    .map(|certificate| Arc::from(certificate.as_ref()));
                let admit = self
                    .limits
                    .peer_admission
                    .as_ref()
                    .zip(certificate.as_ref());
                let guard = match admit.map(|(admit, certificate)| admit(certificate)) {
                    Some(Err(unadmitted)) => return self.refuse(unadmitted),
                    Some(Ok(place)) => Arc::new((place, guard)) as Guard,
                    None => guard,
                };

                // On the heap, so that what is left of the handshake does not stay for the
                // connection's whole life.
                Box::pin(self.http(
                    stream,
                    Connection {
                        remote,
                        certificate,
                        guard,
                        cut,
                    },
                    http,
                    answers,
                ))
                .await;
            }
            Ok(Err(cause)) => {
                count(&self.metrics.handshakes_refused, "reason", "tls");
                tracing::debug!(%remote, %cause, "TLS handshake failed");
            }
            Err(_) => self.too_slow(remote, "TLS handshake"),
        }
    }

    async fn http<S, A>(
        self,
        stream: S,
        connection: Connection,
        http: &auto::Builder<TokioExecutor>,
        answers: A,
    ) where
        A: Answers,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remote = connection.remote;
        let asked = Arc::new(Asked::default());
        let service = service_fn({
            let (asked, readiness, stop) = (
                asked.clone(),
                self.limits.readiness.clone(),
                self.stop.clone(),
            );
            move |mut request: Request<hyper::body::Incoming>| {
                let under_way = asked.begin();
                let own = readiness
                    .as_ref()
                    .and_then(|readiness| own_answer(&request, readiness, &stop));
                request.extensions_mut().insert(connection.clone());
                let answers = answers.clone();

                async move {
                    let _under_way = under_way;
                    match own {
                        Some(answer) => Ok(answer),
                        None => answers.oneshot(request.map(Body::new)).await,
                    }
                }
            }
        });
        let serving = http.serve_connection_with_upgrades(
            TokioIo::new(stream),
            TowerToHyperService::new(service),
        );

        // hyper's own timeout begins when it knows the version: a client that sends nothing would
        // stay forever.
        let silence = tokio::time::sleep(self.limits.handshake_timeout);
        tokio::pin!(serving, silence);
        let (mut stopping, mut waits_for) = (false, Some(WaitsFor::First));
        let result = loop {
            tokio::select! {
                biased;
                // Before hyper's, which may end at the same moment and is not counted.
                () = silence.as_mut(), if waits_for.is_some() => {
                    match waits_for {
                        Some(WaitsFor::First) if !asked.has_begun() => {
                            return self.too_slow(remote, "first request");
                        }
                        Some(WaitsFor::Next(before)) if asked.is_idle_since(before) => {
                            waits_for = Some(WaitsFor::End);
                            serving.as_mut().graceful_shutdown();
                        }
                        // It does not take what it asked for.
                        Some(WaitsFor::End) => return self.tell(self.limits.settings.idle_timeout),
                        Some(WaitsFor::First | WaitsFor::Next(_)) | None => {
                            let next = WaitsFor::Next(asked.count());
                            waits_for = self.limits.idle_timeout.map(|_| next);
                        }
                    }
                    if let Some(time) = self.limits.idle_timeout {
                        silence.as_mut().reset(Instant::now() + time);
                    }
                }
                () = self.closing.cancelled(), if !stopping => {
                    stopping = true;
                    // What is on its way over a new connection would be lost with it.
                    let first = tokio::time::timeout(FIRST_REQUEST_TIME, serving.as_mut());
                    if !asked.has_begun()
                        && let Ok(result) = first.await
                    {
                        break result;
                    }
                    serving.as_mut().graceful_shutdown();
                }
                result = serving.as_mut() => break result,
            }
        };

        if let Err(cause) = result {
            tracing::debug!(%remote, cause, "connection ended early");
        }
    }
}

/// Answers peers on the server's own behalf. It says whether the process can serve (`OPTIONS *`,
/// RFC 9110, section 9.3.7), and refuses new long-lived connections while the process drains. It
/// still serves plain requests that arrive over an old connection.
fn own_answer<B>(
    request: &Request<B>,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Option<Response<Body>> {
    let mut answer = Response::new(Body::empty());
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        let is_ready = readiness.get() && !stop.is_cancelled();
        *answer.status_mut() = if is_ready {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        return Some(answer);
    }

    if !stop.is_cancelled() || !request.headers().contains_key(UPGRADE) {
        return None;
    }

    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
        .headers_mut()
        .insert(DRAINING, HeaderValue::from_static("true"));
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));

    Some(answer)
}

/// Dials one peer over mutual TLS and checks that it is the intended one.
#[derive(Clone)]
pub struct Connector {
    pub identity: Arc<Identity>,
    pub check: PeerCheck,
    /// `h2` or `http/1.1`.
    pub alpn: &'static [u8],
    pub timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Opens a connection to `host:port`.
    pub async fn connect(&self, authority: &str) -> io::Result<Dialled<TcpStream>> {
        let dial = async {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            set_patience(&stream, PATIENCE)?;
            let config = self
                .identity
                .client(self.check.clone(), self.alpn)
                .map_err(io::Error::other)?;
            // Not what is checked: the peer's own name is.
            let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
            stream::connect(config, name, stream).await
        };

        tokio::time::timeout(self.timeout, dial)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The interface of hyper's and tonic's clients.
impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Dialled<TcpStream>>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.as_str();
            Ok(TokioIo::new(connector.connect(authority).await?))
        })
    }
}

#[cfg(test)]
mod tests;
