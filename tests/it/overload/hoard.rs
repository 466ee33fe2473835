//! Somebody who opens as many sockets as he can and keeps those that he gets, over raw connections,
//! so that he is bound by no library's manners.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A connection from this address of the machine.
pub(crate) async fn connect_from(address: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket.connect(to).await
}

/// What became of one handshake.
#[derive(Debug)]
pub(crate) enum Outcome<S> {
    Socket(Box<WebSocketStream<S>>),
    /// An answer, after which the connection may be used again: its status and its head.
    Refused(u16, String, S),
    /// The connection was closed without one.
    Closed,
}

/// Asks for a WebSocket. `headers` are further lines, each with its end.
pub(crate) async fn handshake<S>(mut stream: S, host: &str, path: &str, headers: &str) -> Outcome<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    if stream.write_all(request.as_bytes()).await.is_err() || stream.flush().await.is_err() {
        return Outcome::Closed;
    }

    let Some((head, mut rest)) = read_head(&mut stream).await else {
        return Outcome::Closed;
    };

    let status = head[9..12].parse().unwrap();
    if status == 101 {
        let socket = WebSocketStream::from_partially_read(stream, rest, Role::Client, None).await;
        return Outcome::Socket(Box::new(socket));
    }

    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |n| n.parse().unwrap());
    while rest.len() < length {
        if stream.read_buf(&mut rest).await.unwrap_or(0) == 0 {
            return Outcome::Closed;
        }
    }

    Outcome::Refused(status, head, stream)
}

/// The head of an answer, and what has come behind it.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap(), rest));
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// What one hoarder has got.
#[derive(Debug, Default)]
pub(crate) struct Hoard {
    sockets: AtomicUsize,
    refused: AtomicUsize,
    closed: AtomicUsize,
    /// Those that are read from, so that pings are answered. What they end with is their close
    /// code.
    held: Mutex<JoinSet<Option<u16>>>,
}

impl Hoard {
    /// Makes one attempt over this connection; returns it when it was answered and not closed, for
    /// it is hoarded too.
    pub(crate) async fn attempt<S>(
        &self,
        stream: io::Result<S>,
        host: &str,
        path: &str,
        headers: &str,
    ) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let outcome = match stream {
            Ok(stream) => handshake(stream, host, path, headers).await,
            Err(_) => Outcome::Closed,
        };

        match outcome {
            Outcome::Socket(socket) => self.hold(socket),
            Outcome::Refused(status, _, stream) => {
                assert_eq!(status, 429);
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Some(stream);
            }
            Outcome::Closed => {
                self.closed.fetch_add(1, Ordering::SeqCst);
            }
        }

        None
    }

    fn hold<S>(&self, mut socket: Box<WebSocketStream<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.sockets.fetch_add(1, Ordering::SeqCst);
        self.held.lock().unwrap().spawn(async move {
            let mut code = None;
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    code = Some(frame.code.into());
                }
            }
            code
        });
    }

    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::SeqCst)
    }

    pub(crate) fn attempts(&self) -> usize {
        self.sockets() + self.refused.load(Ordering::SeqCst) + self.closed.load(Ordering::SeqCst)
    }

    /// Waits until all sockets that it has are over, with what each ended.
    pub(crate) async fn ends(&self) -> Vec<Option<u16>> {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.join_all().await
    }
}
