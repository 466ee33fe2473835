//! Many editors: where they connect, how they sign in with what they have, and bare ones that take
//! what comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::either::Either;
use vvs_client::Use;

use crate::Failure;
use crate::install::Install;

/// Connections made at once.
pub(crate) const AT_ONCE: usize = 64;
/// How long a frame may take that was sent.
const PATIENCE: Duration = Duration::from_secs(30);
/// Editors behind one address: as many as may have an unfinished login.
const PER_ADDRESS: u32 = 20;

pub(crate) type Socket = WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>;

/// Where editors connect.
#[derive(Clone)]
pub(crate) struct Entrance {
    pub(crate) address: SocketAddr,
    /// What they believe it to be.
    pub(crate) origin: String,
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The address of this machine that they come from; without it, each of many has a few.
    pub(crate) from: Option<Ipv4Addr>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How a public site's certificate is checked.
pub(crate) fn trusting(
    ca: &Path,
    authority: &str,
) -> Result<(TlsConnector, ServerName<'static>), Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);

    Ok((
        TlsConnector::from(Arc::new(config)),
        ServerName::try_from(host.to_owned())?,
    ))
}

impl Entrance {
    /// The same, for those who come from one address.
    pub(crate) fn from(&self, address: Ipv4Addr) -> Self {
        Self {
            from: Some(address),
            ..self.clone()
        }
    }

    pub(crate) async fn dial(&self) -> std::io::Result<TcpStream> {
        static DIALLED: AtomicU32 = AtomicU32::new(0);
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        } else if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let number = DIALLED.fetch_add(1, Ordering::Relaxed) / PER_ADDRESS % (1 << 23);
            let first = u32::from(Ipv4Addr::new(127, 1, 0, 0));
            socket.bind((Ipv4Addr::from(first + number), 0).into())?;
        }

        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;

        Ok(stream)
    }

    /// Connects, and takes the first frame.
    pub(crate) async fn open(&self, query: &str) -> Result<(Socket, Value), Failure> {
        let stream = self.dial().await?;
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some((connector, name)) => {
                Either::Right(connector.connect(name.clone(), stream).await?)
            }
        };

        let (_, authority) = self
            .origin
            .split_once("://")
            .ok_or("an origin without a scheme")?;

        // A small reader: the editors share the machine with what is measured.
        let config = WebSocketConfig::default()
            .read_buffer_size(2048)
            .write_buffer_size(0);
        let opening =
            client_async_with_config(format!("ws://{authority}/ws{query}"), stream, Some(config));
        let (mut socket, _) = opening.await.map_err(|cause| {
            let Error::Http(answer) = cause else {
                return Failure::from(cause);
            };
            Failure::from(format!(
                "an editor was refused with HTTP {}; when that is 429 or 503, the limits there are \
                 too low for this",
                answer.status()
            ))
        })?;
        let first = next(&mut socket).await?;

        Ok((socket, first))
    }

    /// Connects and shows a token; the socket, and the answer that says that it is signed in.
    pub(crate) async fn sign_on(&self, install: &Install) -> Result<(Socket, Value), Failure> {
        let (mut socket, first) = self.open("?for=session").await?;
        // The floor has none.
        let nonce = first["nonce"].as_str().unwrap_or_default();

        loop {
            let proof =
                install
                    .key
                    .proof(Use::Authenticate, &self.origin, nonce, Some(&install.token));
            let frame =
                json!({"type": "authenticate", "token": install.token, "proof": proof.expose()});
            socket.send(Message::text(frame.to_string())).await?;
            let answer = next(&mut socket).await?;
            if answer["type"] == "auth:ok" {
                return Ok((socket, answer));
            }

            if answer["type"] != "auth:failure" || answer["terminal"] != false {
                return Err(format!("an editor was not signed in: {answer}").into());
            }

            // Such as a relay that has no keys yet.
            sleep(Duration::from_millis(
                answer["retryAfterMs"].as_u64().unwrap_or(1000),
            ))
            .await;
        }
    }

    /// The same, of all of them, some at once; how long each took.
    pub(crate) async fn sign_all_on(
        &self,
        installs: &[Install],
    ) -> Result<Vec<(Socket, Value, Duration)>, Failure> {
        let signing = installs.iter().map(async |install| {
            let start = Instant::now();
            let (socket, answer) = self.sign_on(install).await?;
            Ok::<_, Failure>((socket, answer, start.elapsed()))
        });
        stream::iter(signing).buffered(AT_ONCE).try_collect().await
    }
}

/// The next frame; control pings are answered on the way.
pub(crate) async fn next(socket: &mut Socket) -> Result<Value, Failure> {
    let next = async {
        loop {
            match socket.next().await.ok_or("a socket was cut off")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(close) => {
                    return Err(Failure::from(format!("a socket was closed: {close:?}")));
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    };

    timeout(PATIENCE, next).await?
}

/// Bare editors, each with a login of its own. Dropping them cuts them off.
#[derive(Debug)]
pub(crate) struct Editors {
    /// The ids of their logins.
    pub(crate) ids: Vec<String>,
    arrivals: UnboundedReceiver<(usize, Instant)>,
    _reading: JoinSet<()>,
}

impl Editors {
    pub(crate) async fn connect(entrance: &Entrance, count: usize) -> Result<Self, Failure> {
        let connecting = (0..count).map(|_| entrance.open(""));
        let connected: Vec<_> = stream::iter(connecting)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let (mut ids, mut reading, (sender, arrivals)) =
            (Vec::new(), JoinSet::new(), unbounded_channel());
        for (number, (mut socket, first)) in connected.into_iter().enumerate() {
            ids.push(
                first["connectionId"]
                    .as_str()
                    .ok_or("a first frame without an id")?
                    .to_owned(),
            );
            let sender = sender.clone();
            reading.spawn(async move {
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        // Nobody may be interested any more.
                        sender.send((number, Instant::now())).ok();
                    }
                }
            });
        }

        Ok(Self {
            ids,
            arrivals,
            _reading: reading,
        })
    }

    /// The editor that got a frame next, and when it had it.
    pub(crate) async fn next(&mut self) -> Result<(usize, Instant), Failure> {
        timeout(PATIENCE, self.arrivals.recv())
            .await?
            .ok_or_else(|| "all editors are gone".into())
    }
}
