//! One WebSocket to the server: opens it, and converts messages to frames and back. Does not know
//! what the frames are for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, header};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::either::Either;
use vvs_proto::frame::{EditorFrame, RelayFrame, SUBPROTOCOL};

use crate::error::Error;
use crate::server::{Purpose, Server};
use crate::text::plain;

/// How long to wait for the other side's close frame.
const FAREWELL: Duration = Duration::from_secs(2);
/// Far more than any frame of the protocol.
const MAX_MESSAGE: usize = 64 * 1024;

pub(crate) type Socket = Either<TcpStream, TlsStream<TcpStream>>;

#[derive(Debug)]
pub(crate) struct Connection<S> {
    socket: WebSocketStream<S>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    Frame(Box<RelayFrame>),
    /// A ping or pong, or a frame that this version does not know.
    Other,
    /// The connection is over; with code and reason when the server gave them.
    Closed(Option<(u16, String)>),
}

impl Connection<Socket> {
    pub(crate) async fn open(
        server: &Server,
        purpose: Purpose,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, Error> {
        let socket = dial(server, tls).await?;
        let not_vvs = |answer: String| Error::NotVvs {
            server: server.clone(),
            answer: plain(&answer, 200),
        };
        let mut request = server
            .websocket(purpose)
            .into_client_request()
            .map_err(|cause| not_vvs(cause.to_string()))?;
        request.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );

        match tokio_tungstenite::client_async_with_config(request, socket, Some(config())).await {
            Ok((socket, _response)) => Ok(Self { socket }),
            Err(tungstenite::Error::Http(response)) => Err(refusal(server, &response)),
            Err(tungstenite::Error::Io(source)) => Err(Error::Unreachable {
                server: server.clone(),
                source,
            }),
            Err(other) => Err(not_vvs(other.to_string())),
        }
    }
}

async fn dial(server: &Server, tls: Arc<ClientConfig>) -> Result<Socket, Error> {
    let unreachable = |source| Error::Unreachable {
        server: server.clone(),
        source,
    };

    // The cause may quote names from a certificate that nobody vouches for.
    let untrusted = |cause: String| Error::Untrusted {
        server: server.clone(),
        cause: plain(&cause, 300),
    };
    let (host, port) = server.address();
    let found = lookup_host((host, port)).await.map_err(unreachable)?;

    // `localhost` is a name, and somebody may have given it another address.
    let addresses: Vec<_> = found
        .filter(|address| server.is_https() || address.ip().is_loopback())
        .collect();
    let tcp = TcpStream::connect(&addresses[..])
        .await
        .map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    if !server.is_https() {
        return Ok(Either::Left(tcp));
    }

    let name =
        ServerName::try_from(host.to_owned()).map_err(|cause| untrusted(cause.to_string()))?;
    let tls = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|cause| untrusted(cause.to_string()))?;

    Ok(Either::Right(tls))
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Returns the error for an answer other than 101.
fn refusal(server: &Server, response: &Response) -> Error {
    let (server, status) = (server.clone(), response.status().as_u16());
    if !matches!(status, 429 | 502..=504) {
        return Error::NotVvs {
            server,
            answer: format!("HTTP {status}"),
        };
    }

    let seconds: Option<u32> = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let when = seconds.map_or_else(
        || "in a minute".to_owned(),
        |seconds| format!("in {seconds} s"),
    );

    Error::Busy {
        server,
        status,
        when,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Returns the next message. Dropping the future loses nothing. Pings are answered by the
    /// *following* call.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text)
                .map_or(Incoming::Other, |frame| Incoming::Frame(Box::new(frame))),
            Some(Ok(Message::Close(frame))) => {
                Incoming::Closed(frame.map(|close| (close.code.into(), plain(&close.reason, 200))))
            }
            Some(Ok(
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
            )) => Incoming::Other,
            Some(Err(_)) | None => Incoming::Closed(None),
        }
    }

    /// Returns whether the frame could be handed to the network.
    pub(crate) async fn send(&mut self, frame: &EditorFrame) -> bool {
        self.socket
            .send(Message::text(frame.to_json()))
            .await
            .is_ok()
    }

    /// Sends a close frame and waits a little for the answer. Without the wait, unread data from
    /// the server would make the kernel reset the connection, and the server might lose the last
    /// data that was sent to it. Answers no further pings. Returns whether the answer came: then
    /// the server has read everything that was sent before.
    pub(crate) async fn close(mut self) -> bool {
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let farewell = async {
            self.socket.close(Some(normal)).await.ok()?;
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(_))) => return Some(()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };

        timeout(FAREWELL, farewell)
            .await
            .is_ok_and(|answer| answer.is_some())
    }
}

#[cfg(test)]
impl Connection<tokio::io::DuplexStream> {
    /// A connection without network, and the server's end of it.
    pub(crate) async fn pair() -> (Self, WebSocketStream<tokio::io::DuplexStream>) {
        use tokio_tungstenite::tungstenite::protocol::Role;
        let (ours, theirs) = tokio::io::duplex(MAX_MESSAGE);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, Some(config())).await;
        (
            Self { socket },
            WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> String {
        let mut response = Response::new(None);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        if let Some(value) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        }
        refusal(&"http://127.0.0.1:8080".parse().unwrap(), &response).to_string()
    }

    #[test]
    fn a_refused_handshake_says_what_to_do() {
        assert!(answer(429, Some("30")).ends_with("(HTTP 429). Try again in 30 s"));
        assert!(answer(503, None).ends_with("(HTTP 503). Try again in a minute"));
        assert!(answer(429, Some("30\u{9b}2J")).ends_with("(HTTP 429). Try again in a minute"));
        assert!(answer(404, None).contains("not as a VVS server does (HTTP 404)"));
    }

    #[tokio::test]
    async fn what_is_not_a_frame_is_passed_over() {
        let (mut connection, mut server) = Connection::pair().await;
        for text in ["", "{", r#"{"type":"from:the:future"}"#] {
            server.send(Message::text(text)).await.unwrap();
            assert_eq!(connection.next().await, Incoming::Other, "{text}");
        }

        server.send(Message::binary(vec![1])).await.unwrap();
        assert_eq!(connection.next().await, Incoming::Other);

        server
            .send(Message::text(r#"{"type":"ping","more":1}"#))
            .await
            .unwrap();
        assert_eq!(
            connection.next().await,
            Incoming::Frame(Box::new(RelayFrame::Ping))
        );
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_the_connection() {
        let (mut connection, mut server) = Connection::pair().await;
        let big = Message::text("x".repeat(MAX_MESSAGE + 1));
        let (_sent, got) = tokio::join!(timeout(FAREWELL, server.send(big)), connection.next());
        assert_eq!(got, Incoming::Closed(None));
    }
}
