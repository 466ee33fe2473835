//! The one HTTP server of the mesh: pages, WebSockets and gRPC, plain or over TLS, HTTP/1.1 and HTTP/2. It accepts, shakes
//! hands off the accept loop, limits, and drains; what is served is an [`axum::Router`].

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{RETRY_AFTER, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};

use crate::admin::Readiness;
use crate::metrics::{Metrics, count};
use crate::tls::{Identity, PeerCheck};

/// Stands in an answer that refuses an upgrade because the process is about to end: another one may take the request.
pub const DRAINING: HeaderName = HeaderName::from_static("vvs-draining");

/// How long a connection that has asked for nothing yet stays open when the server stops.
const FIRST_REQUEST_TIME: Duration = Duration::from_millis(500);

/// Whatever a connection holds until it ends, such as its place in a limit.
pub type Guard = Arc<dyn Any + Send + Sync>;
/// Lets a connection in, or names the reason why not.
pub type Admission = Arc<dyn Fn(SocketAddr) -> Result<Guard, &'static str> + Send + Sync>;

/// Who is at the other end, in every request's extensions.
#[derive(Clone)]
pub struct Connection {
    pub remote: SocketAddr,
    /// The peer's leaf certificate, when it showed one; its chain was checked.
    pub certificate: Option<CertificateDer<'static>>,
    /// Held by an upgraded connection for as long as it lives.
    pub guard: Guard,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// What a server allows.
#[derive(Clone)]
pub struct Limits {
    /// For the TLS handshake, for the first request after it, and for the headers of each request.
    pub handshake_timeout: Duration,
    /// Connections held at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Bytes of a request's headers.
    pub max_header_bytes: usize,
    pub admission: Option<Admission>,
    /// What peers hear that ask whether this process can serve. On a public port nobody may ask: `None`.
    pub readiness: Option<Readiness>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_connections: 100_000,
            max_header_bytes: 16 * 1024,
            admission: None,
            readiness: None,
        }
    }
}

/// A bound port and what is spoken on it.
#[derive(Debug)]
pub struct Listener {
    pub tcp: TcpListener,
    /// `None`: plain.
    pub tls: Option<Arc<Identity>>,
}

/// Everything a server needs besides its port and its router.
#[derive(Debug, Clone)]
pub struct Server {
    pub limits: Limits,
    pub metrics: Metrics,
    /// Cancelled: accept no more, finish the requests in flight.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl Server {
    /// Serves until stopped. Connections live on as tasks of the tracker.
    pub async fn serve(self, listener: Listener, router: Router) {
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.handshake_timeout)
            .max_buf_size(self.limits.max_header_bytes.max(8 * 1024));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.limits.max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(1000)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let http = Arc::new(http);
        loop {
            let accepted = self.stop.run_until_cancelled(async {
                let place = places.clone().acquire_owned().await.ok()?;
                Some((listener.tcp.accept().await, place))
            });
            let Some(Some((accepted, place))) = accepted.await else { return };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Out of descriptors, or the peer is gone already: the next one may do better, a little later.
                    tracing::warn!(%cause, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let guard = match self.limits.admission.as_ref().map(|admit| admit(remote)) {
                Some(Err(reason)) => {
                    count(&self.metrics.handshakes_refused, "reason", reason);
                    continue;
                }
                Some(Ok(guard)) => Arc::new((place, guard)) as Guard,
                None => Arc::new(place) as Guard,
            };
            let (server, http, router) = (self.clone(), http.clone(), router.clone());
            let tls = listener.tls.as_ref().map(|identity| identity.server());
            self.tasks.spawn(async move { server.connection(stream, remote, tls, guard, &http, router).await });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        guard: Guard,
        http: &auto::Builder<TokioExecutor>,
        router: Router,
    ) {
        // Without Nagle's delay; a socket that is gone already fails at its first read instead.
        stream.set_nodelay(true).ok();
        let Some(config) = tls else {
            return self.http(stream, Connection { remote, certificate: None, guard }, http, router).await;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(self.limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
                // On the heap, so that what is left of the handshake does not stay for the connection's whole life.
                Box::pin(self.http(stream, Connection { remote, certificate, guard }, http, router)).await;
            }
            Ok(Err(cause)) => {
                count(&self.metrics.handshakes_refused, "reason", "tls");
                tracing::debug!(%remote, %cause, "TLS handshake failed");
            }
            Err(_) => {
                count(&self.metrics.handshakes_refused, "reason", "slow");
                tracing::debug!(%remote, "TLS handshake too slow");
            }
        }
    }

    async fn http<S>(self, stream: S, connection: Connection, http: &auto::Builder<TokioExecutor>, router: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remote = connection.remote;
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (asked, readiness, stop) = (asked.clone(), self.limits.readiness.clone(), self.stop.clone());
            move |mut request: Request<hyper::body::Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let own = readiness.as_ref().and_then(|readiness| own_answer(&request, readiness, &stop));
                request.extensions_mut().insert(connection.clone());
                let router = router.clone();
                async move {
                    match own {
                        Some(answer) => Ok(answer),
                        None => router.oneshot(request.map(Body::new)).await,
                    }
                }
            }
        });
        let serving = http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
        // hyper's own timeout begins when it knows the version: a client that sends nothing would stay for ever.
        let silence = tokio::time::sleep(self.limits.handshake_timeout);
        tokio::pin!(serving, silence);
        let (mut stopping, mut waiting) = (false, true);
        let result = loop {
            tokio::select! {
                biased;
                // Before hyper's, which may end at the same moment and is not counted.
                () = silence.as_mut(), if waiting => {
                    waiting = false;
                    if !asked.load(Ordering::Relaxed) {
                        count(&self.metrics.handshakes_refused, "reason", "slow");
                        tracing::debug!(%remote, "no request came");
                        return;
                    }
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    // What is on its way over a new connection would be lost with it.
                    if !asked.load(Ordering::Relaxed)
                        && let Ok(result) = tokio::time::timeout(FIRST_REQUEST_TIME, serving.as_mut()).await
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

/// What the server itself says to peers: whether the process can serve (`OPTIONS *`, RFC 9110, section 9.3.7), and that it
/// takes no new long-lived connection any more. Plain requests that still come over an old connection are served.
fn own_answer<B>(request: &Request<B>, readiness: &Readiness, stop: &CancellationToken) -> Option<Response<Body>> {
    let mut answer = Response::new(Body::empty());
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        let is_ready = readiness.get() && !stop.is_cancelled();
        *answer.status_mut() = if is_ready { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE };
        return Some(answer);
    }
    if !stop.is_cancelled() || !request.headers().contains_key(UPGRADE) {
        return None;
    }
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(DRAINING, HeaderValue::from_static("true"));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Some(answer)
}

/// Dials one peer over mutual TLS and makes sure that it is the one that was meant.
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
    pub async fn connect(&self, authority: &str) -> io::Result<TlsStream<TcpStream>> {
        let dial = async {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            let config = self.identity.client(self.check.clone(), self.alpn).map_err(io::Error::other)?;
            // Not what is checked: the peer's own name is.
            let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
            TlsConnector::from(config).connect(name, stream).await
        };
        tokio::time::timeout(self.timeout, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// As hyper's and tonic's clients want it.
impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
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
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::bench::PATIENCE;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_request_that_has_come_when_the_server_stops_is_answered() {
        let (accepted, was_accepted) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = Mutex::new(may_go_on);
        let admission: Admission = Arc::new(move |_| {
            accepted.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            Ok(Arc::new(()) as Guard)
        });
        let limits = Limits { admission: Some(admission), ..Limits::default() };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let server = Server { limits, metrics: Metrics::default(), stop: stop.clone(), tasks: tasks.clone() };
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        tasks.spawn(server.serve(Listener { tcp, tls: None }, Router::new().fallback(async || "here")));
        was_accepted.recv_timeout(PATIENCE).unwrap();
        stop.cancel();
        go_on.send(()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[test]
    fn a_server_says_itself_whether_it_can_serve_and_upgrades_nothing_while_it_drains() {
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let told = |method: &str, target: &str, header: &str| {
            let request = Request::builder().method(method).uri(target).header(header, "websocket").body(()).unwrap();
            let answer = own_answer(&request, &readiness, &stop)?;
            Some((answer.status().as_u16(), answer.headers().contains_key(DRAINING)))
        };
        assert_eq!(told("OPTIONS", "*", "x"), Some((503, false)));
        readiness.set(true);
        assert_eq!(told("OPTIONS", "*", "x"), Some((204, false)));
        for (method, target, header) in [("GET", "/ws", "upgrade"), ("OPTIONS", "/", "x"), ("GET", "/", "x")] {
            assert_eq!(told(method, target, header), None, "{method} {target}");
        }
        stop.cancel();
        assert_eq!(told("OPTIONS", "*", "x"), Some((503, false)));
        assert_eq!(told("GET", "/ws", "upgrade"), Some((503, true)));
        assert_eq!(told("POST", "/vvs.relay.v1.Relay/DeliverAuth", "x"), None);
    }
}
