//! The hop to web and to the relay: HTTP/1.1 over mutual TLS, connections kept for pages, one used up by each WebSocket,
//! whose bytes are passed on unread.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::COOKIE;
use http::uri::{Authority, Scheme};
use http::{StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf, split};
use tokio::time::timeout;
use tower::util::MapResponse;
use tracing::{Instrument as _, Span, field};
use vvs_auth::peer::{self, Peers, Role};
use vvs_runtime::http::Connector;
use vvs_runtime::tls::Identity;
use vvs_runtime::trace;

use crate::error::{Error, Refusal};
use crate::header::{self, Caller};
use crate::route::Edge;

/// For a connection to web or the relay, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than the 10 seconds after which the other end closes a quiet connection, so that we seldom write to a closed one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one direction of a WebSocket may go on after the other has ended: a client that never closes would keep its
/// place for ever.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes held for each direction of each WebSocket. Most frames are far smaller; a larger one takes more turns.
const CHUNK: usize = 2048;

type Pool = Client<MapResponse<Connector, fn(Dialled) -> Stream>, Full<Bytes>>;
type Dialled = <Connector as tower::Service<Uri>>::Response;

/// A role behind the edge, and the connections to it.
#[derive(Debug)]
pub(crate) struct Hop {
    role: Role,
    authority: Authority,
    client: Pool,
}

impl Hop {
    pub(crate) fn new(
        role: Role,
        setting: &'static str,
        addr: Option<&str>,
        identity: Arc<Identity>,
        peers: &Arc<Peers>,
    ) -> Result<Self, Error> {
        let addr = addr.ok_or(Error::NoAddress { setting })?;
        let bad = || Error::BadAddress { setting, value: addr.to_owned() };
        let authority: Authority = addr.parse().map_err(|_cause| bad())?;
        if authority.port_u16().is_none() || addr.contains('@') {
            return Err(bad());
        }
        let check = peer::check(peers, role);
        let connector = Connector { identity, check, alpn: b"http/1.1", timeout: CONNECT_TIMEOUT };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(MapResponse::new(connector, Stream as fn(Dialled) -> Stream));
        Ok(Self { role, authority, client })
    }

    /// Sends a request on, under a span of its own, and waits for the head of the answer. One that could not be sent at
    /// all, because a kept connection had just been closed, goes over another one; nothing is sent twice.
    async fn ask(
        &self,
        edge: &Edge,
        mut request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Refusal> {
        let role = self.role.as_str();
        let span = self.span(&request);
        trace::inject(&span, request.headers_mut());
        let asked =
            timeout(edge.settings.response_timeout, self.client.request(request)).instrument(span.clone()).await;
        let answer = match asked {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) if cause.is_connect() => Err(Refusal::Unreachable { role, cause: chain(&cause) }),
            Ok(Err(cause)) => Err(Refusal::BadAnswer { role, cause: chain(&cause) }),
            Err(_) => Err(Refusal::NoAnswer { role }),
        };
        match &answer {
            Ok(answer) => trace::answered(&span, answer.status()),
            Err(refusal) => {
                span.record("otel.status_code", "ERROR").record("error.type", refusal.reason());
            }
        }
        answer
    }

    fn span(&self, request: &http::Request<Full<Bytes>>) -> Span {
        tracing::info_span!(
            "http_client",
            otel.name = request.method().as_str(),
            otel.kind = "client",
            http.request.method = request.method().as_str(),
            server.address = self.authority.host(),
            server.port = self.authority.port_u16(),
            http.response.status_code = field::Empty,
            error.r#type = field::Empty,
            otel.status_code = field::Empty,
        )
    }

    /// The request as it goes on: read whole, in origin form, with our headers. A client that sends slowly keeps only us.
    async fn prepare(
        &self,
        edge: &Edge,
        request: Request,
        caller: &Caller,
    ) -> Result<http::Request<Full<Bytes>>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let body = read(body, edge.settings.max_body_bytes, edge.settings.body_timeout).await?;
        let mut target = parts.uri.into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        parts.uri = Uri::from_parts(target).map_err(|_cause| Refusal::Malformed)?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        header::inbound(&mut parts.headers, caller, &edge.public_url);
        Ok(http::Request::from_parts(parts, Full::new(body)))
    }
}

/// Passes a request for a page on to web.
pub(crate) async fn page(edge: &Edge, web: &Hop, request: Request, caller: &Caller) -> Result<Response, Refusal> {
    let request = web.prepare(edge, request, caller).await?;
    let mut answer = web.ask(edge, request).await?;
    if answer.status().is_informational() {
        return Err(Refusal::BadAnswer { role: web.role.as_str(), cause: answer.status().to_string() });
    }
    header::outbound(answer.headers_mut());
    Ok(answer.map(Body::new))
}

/// Passes a handshake on to the relay and, when it agrees, the bytes of both sides from then on. `held` is kept until the
/// socket is gone.
pub(crate) async fn websocket(
    edge: &Edge,
    relay: &Hop,
    mut request: Request,
    caller: &Caller,
    held: Arc<dyn Any + Send + Sync>,
) -> Result<Response, Refusal> {
    let version = request.version();
    let wanted = request.method() == http::Method::GET && header::asks_for_websocket(version, request.headers());
    let editor = hyper::upgrade::on(&mut request);
    let mut request = relay.prepare(edge, request, caller).await?;
    request.headers_mut().remove(COOKIE);
    if wanted {
        header::upgrade(request.headers_mut());
    }
    let mut answer = relay.ask(edge, request).await?;
    header::outbound(answer.headers_mut());
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && wanted {
        let relay = hyper::upgrade::on(&mut answer);
        // No span around it: the trace ends with the handshake.
        edge.tasks.spawn(async move {
            if let Err(cause) = stream(editor, relay).await {
                tracing::debug!(%cause, "a WebSocket ended early");
            }
            drop(held);
        });
    } else if status.is_informational() {
        return Err(Refusal::BadAnswer { role: relay.role.as_str(), cause: status.to_string() });
    }
    // 426 must name the protocol as well (RFC 9110, section 15.5.22), and HTTP/2 has no such header.
    if version == Version::HTTP_11 && matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED) {
        header::upgrade(answer.headers_mut());
    }
    Ok(answer.map(Body::new))
}

/// Reads a body whole.
async fn read(body: Body, max: usize, time: Duration) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(Refusal::BodyTooLarge);
    }
    match timeout(time, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) => Err(Refusal::Malformed),
        Err(_) => Err(Refusal::BodySlow),
    }
}

/// Copies both ways until both are over, or one is and the other does not follow.
async fn stream(editor: OnUpgrade, relay: OnUpgrade) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (editor, relay) = tokio::try_join!(editor, relay)?;
    let (from_editor, to_editor) = split(TokioIo::new(editor));
    let (from_relay, to_relay) = split(TokioIo::new(relay));
    let (up, down) = (copy(from_editor, to_relay), copy(from_relay, to_editor));
    tokio::pin!(up, down);
    tokio::select! {
        ended = up.as_mut() => { ended?; timeout(LINGER, down).await?? }
        ended = down.as_mut() => { ended?; timeout(LINGER, up).await?? }
    }
    Ok(())
}

async fn copy(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(CHUNK, from), &mut to).await?;
    to.shutdown().await
}

/// An error with its causes; hyper's own says only at which step it came.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A dialled connection as hyper's pool wants it.
struct Stream(Dialled);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
