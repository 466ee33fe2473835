//! The hop to web and to the relay: HTTP/1.1 over mutual TLS. Connections for pages are kept; each
//! WebSocket uses one up, and its bytes are passed on unread.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::COOKIE;
use http::uri::Scheme;
use http::{Method, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio::time::timeout;
use tower::util::MapResponse;
use tracing::{Instrument as _, Span, field};
use vvs_auth::peer::{self, Peers, Role};
use vvs_runtime::http::{Connector, DRAINING};
use vvs_runtime::pool::{Busy, Member, Pool as Members, TRIES};
use vvs_runtime::share::Place;
use vvs_runtime::tls::Identity;
use vvs_runtime::trace;

use crate::class::Class;
use crate::edge::Edge;
use crate::error::{Error, Refusal};
use crate::header::{self, Caller};

/// Time for a connection to web or the relay, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Less than the 10 seconds after which the other end closes a quiet connection, so that we seldom
/// write to a closed one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one direction of a WebSocket may continue after the other has ended. Without it a
/// client that never closes would keep its place forever.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes of a WebSocket that are passed on in one turn. Most frames are far smaller; a larger one
/// takes more turns.
const CHUNK: usize = 4096;

type Connections = Client<MapResponse<Connector, fn(Connecting) -> Dialling>, Full<Bytes>>;
type Connecting = <Connector as tower::Service<Uri>>::Response;

/// A role behind the edge: its processes, and the connections to them.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) role: Role,
    pub(crate) pool: Members<()>,
    client: Connections,
}

/// The paths to which identity providers send browsers back, with values that are valid once.
const ANSWERS: &str = "/api/auth/";

/// Why one process gave no answer that can be passed on.
struct NoReply {
    refusal: Refusal,
    /// Whether another process may be asked: the request was not received, or repeating it does no
    /// harm.
    may_repeat: bool,
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
        let hosts = addr
            .parse()
            .map_err(|source| Error::BadAddress { setting, source })?;
        let check = peer::check(peers, role);
        let connector = Connector {
            identity,
            check,
            alpn: b"http/1.1",
            timeout: CONNECT_TIMEOUT,
        };
        let pool = Members::new(hosts, &connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(MapResponse::new(
                connector,
                Dialling as fn(Connecting) -> Dialling,
            ));

        Ok(Self { role, pool, client })
    }

    /// Sends a request to one process after the other until one answers it. Does not repeat a
    /// request if that could do harm.
    async fn ask(
        &self,
        edge: &Edge,
        request: http::Request<Full<Bytes>>,
    ) -> Result<(http::Response<Incoming>, Busy<()>), Refusal> {
        self.pool.known().await;
        let role = self.role.as_str();
        let mut tried = Vec::new();
        let mut refusal = None;
        while tried.len() < TRIES {
            let member = match self.pool.pick(&tried) {
                Ok(member) => member,
                Err(cause) => {
                    let cause = cause.to_string();
                    return Err(refusal.unwrap_or(Refusal::NoneReady { role, cause }));
                }
            };

            tried.push(member.address);

            match self.ask_one(edge, &member, request.clone()).await {
                Ok(answer) => return Ok((answer, member)),
                Err(NoReply {
                    refusal: why,
                    may_repeat: true,
                }) => {
                    tracing::info!(%why, "another process may have to answer");
                    refusal = Some(why);
                }
                Err(failure) => return Err(failure.refusal),
            }
        }

        Err(refusal.unwrap_or(Refusal::NoneReady {
            role,
            cause: String::new(),
        }))
    }

    /// Sends a request to one process, in a separate span, and waits for the head of the answer.
    async fn ask_one(
        &self,
        edge: &Edge,
        member: &Member<()>,
        mut request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, NoReply> {
        let role = self.role.as_str();
        let is_once = request.uri().path().starts_with(ANSWERS);
        let may_repeat = [Method::GET, Method::HEAD].contains(request.method()) && !is_once;
        let span = span(&request, member);
        trace::inject(&span, request.headers_mut());
        let target = set_authority(&mut request, member.address);
        target.map_err(|refusal| NoReply {
            refusal,
            may_repeat: false,
        })?;
        let asked = timeout(edge.settings.response_timeout, self.client.request(request))
            .instrument(span.clone())
            .await;
        let answer = match asked {
            Ok(Ok(answer)) if answer.headers().contains_key(DRAINING) => {
                self.pool.refused(member);
                let refusal = Refusal::Unreachable {
                    role,
                    cause: format!("{} drains", member.address),
                };
                Err(NoReply {
                    refusal,
                    may_repeat: true,
                })
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) if cause.is_connect() => {
                self.pool.failed(member);
                Err(NoReply {
                    refusal: Refusal::Unreachable {
                        role,
                        cause: chain(&cause),
                    },
                    may_repeat: true,
                })
            }
            Ok(Err(cause)) => Err(NoReply {
                refusal: Refusal::BadAnswer {
                    role,
                    cause: chain(&cause),
                },
                may_repeat,
            }),
            Err(_) => Err(NoReply {
                refusal: Refusal::NoAnswer { role },
                may_repeat: false,
            }),
        };

        match &answer {
            Ok(answer) => {
                member.reached();
                trace::answered(&span, answer.status());
            }
            Err(failure) => {
                span.record("otel.status_code", "ERROR")
                    .record("error.type", failure.refusal.reason());
            }
        }

        answer
    }
}

/// Prepares the request to be passed on: its whole body, with our headers; and its place among
/// those under way. A client that sends slowly occupies only the edge, and takes no place from a
/// client whose request is complete.
async fn prepare(
    edge: &Edge,
    request: Request,
    caller: &Caller,
) -> Result<(http::Request<Full<Bytes>>, Place), Refusal> {
    let (mut parts, body) = request.into_parts();
    let body = read(edge, body, caller.address).await?;
    let place = edge
        .limits
        .under_way(Class::of(&parts.method, parts.uri.path()), caller.address)?;

    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    header::inbound(&mut parts.headers, caller, &edge.public_url);
    Ok((http::Request::from_parts(parts, Full::new(body)), place))
}

/// Sets the process that a request is for. The host that the client asked for is in a header.
fn set_authority(
    request: &mut http::Request<Full<Bytes>>,
    address: SocketAddr,
) -> Result<(), Refusal> {
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(
        address
            .to_string()
            .parse()
            .map_err(|_cause| Refusal::Malformed)?,
    );
    *request.uri_mut() = Uri::from_parts(target).map_err(|_cause| Refusal::Malformed)?;
    Ok(())
}

fn span(request: &http::Request<Full<Bytes>>, member: &Member<()>) -> Span {
    tracing::info_span!(
        "http_client",
        otel.name = request.method().as_str(),
        otel.kind = "client",
        http.request.method = request.method().as_str(),
        server.address = member.host.host(),
        server.port = member.host.port_u16(),
        network.peer.address = %member.address.ip(),
        http.response.status_code = field::Empty,
        error.r#type = field::Empty,
        otel.status_code = field::Empty,
    )
}

/// Passes a request for a page on to web.
pub(crate) async fn page(
    edge: &Edge,
    web: &Hop,
    request: Request,
    caller: &Caller,
) -> Result<Response, Refusal> {
    let (request, _under_way) = prepare(edge, request, caller).await?;
    let (mut answer, member) = web.ask(edge, request).await?;
    if answer.status().is_informational() {
        return Err(Refusal::BadAnswer {
            role: web.role.as_str(),
            cause: answer.status().to_string(),
        });
    }

    header::outbound(answer.headers_mut());

    // The process is busy with it until the last of it is here.
    let busy = move |frame| {
        let _busy = &member;
        frame
    };

    Ok(answer.map(|body| Body::new(body.map_frame(busy))))
}

/// Passes a handshake on to the relay and, when the relay accepts it, all further bytes of both
/// sides. `held` is kept until the socket is gone.
pub(crate) async fn websocket(
    edge: &Edge,
    relay: &Hop,
    mut request: Request,
    caller: &Caller,
    held: Arc<dyn Any + Send + Sync>,
) -> Result<Response, Refusal> {
    let version = request.version();
    let wanted =
        request.method() == Method::GET && header::asks_for_websocket(version, request.headers());
    let editor = hyper::upgrade::on(&mut request);
    let (mut request, _under_way) = prepare(edge, request, caller).await?;
    request.headers_mut().remove(COOKIE);
    if wanted {
        header::upgrade(request.headers_mut());
    }

    let (mut answer, member) = relay.ask(edge, request).await?;
    header::outbound(answer.headers_mut());
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && wanted {
        let relay = hyper::upgrade::on(&mut answer);
        // No span around it: the trace ends with the handshake.
        edge.tasks.spawn(async move {
            if let Err(cause) = stream(editor, relay).await {
                tracing::debug!(%cause, "a WebSocket ended early");
            }
            drop((held, member));
        });
    } else if status.is_informational() {
        return Err(Refusal::BadAnswer {
            role: relay.role.as_str(),
            cause: status.to_string(),
        });
    }

    // 426 must name the protocol as well (RFC 9110, section 15.5.22), and HTTP/2 has no such
    // header.
    if version == Version::HTTP_11
        && matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED
        )
    {
        header::upgrade(answer.headers_mut());
    }

    Ok(answer.map(Body::new))
}

/// Reads the whole body. Slow bodies have separate places.
async fn read(edge: &Edge, body: Body, client: IpAddr) -> Result<Bytes, Refusal> {
    let max = edge.settings.max_body_bytes;
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }

    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(Refusal::BodyTooLarge);
    }

    let _reading = edge.limits.under_way(Class::Bodies, client)?;

    match timeout(
        edge.settings.body_timeout,
        Limited::new(body, max).collect(),
    )
    .await
    {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) => Err(Refusal::Malformed),
        Err(_) => Err(Refusal::BodySlow),
    }
}

/// Copies both ways until both have ended, or until one has ended and the other does not follow.
async fn stream(
    editor: OnUpgrade,
    relay: OnUpgrade,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let chunk = poll_fn(|cx| read_some(Pin::new(&mut from), cx)).await?;
        if chunk.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&chunk).await?;
        // TLS may still hold some of it.
        to.flush().await?;
    }
}

/// Reads through a buffer on the stack: most WebSockets are quiet, and an idle one holds no memory
/// for reading.
fn read_some(from: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
    let mut chunk = [0; CHUNK];
    let mut chunk = ReadBuf::new(&mut chunk);
    ready!(from.poll_read(cx, &mut chunk))?;
    Poll::Ready(Ok(chunk.filled().to_vec()))
}

/// Returns an error with its causes; hyper's own text names only the failed step.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A dialled connection with the interface of hyper's pool.
struct Dialling(Connecting);

impl Connection for Dialling {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Dialling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
