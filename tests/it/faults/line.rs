//! One WebSocket of an editor that expects anything of it: it may not come about, fall silent, or
//! end.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};
use vvs_client::{DeviceKey, Use};

use super::Site;

/// How long a server may take for a handshake or an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(8);
/// Without so much as a ping for so long, it is gone: more than the heartbeat's interval and its
/// timeout.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) enum Heard {
    Frame(Value),
    /// With this code, or without a word.
    Closed(Option<u16>),
}

#[derive(Debug)]
pub(super) struct Line {
    socket: WebSocketStream<TcpStream>,
    site: Site,
    nonce: String,
    heard_at: Instant,
}

impl Line {
    /// A socket and its first frame; `None` when that does not come about.
    pub(super) async fn open(site: &Site, path: &str) -> Option<(Self, Value)> {
        let address = site.url.strip_prefix("http://").unwrap();
        let opening = async {
            let stream = TcpStream::connect(address).await.ok()?;
            let mut request = format!("ws://{address}{path}")
                .into_client_request()
                .unwrap();
            request.headers_mut().insert(
                SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static("vvs.auth.v1"),
            );
            Some(client_async(request, stream).await.ok()?.0)
        };

        let socket = timeout(ANSWER, opening).await.ok()??;
        let mut line = Self {
            socket,
            site: site.clone(),
            nonce: String::new(),
            heard_at: Instant::now(),
        };

        match timeout(ANSWER, line.hear()).await.ok()? {
            Heard::Frame(frame) if frame["type"] == "connection" => {
                frame["nonce"].as_str().unwrap().clone_into(&mut line.nonce);
                Some((line, frame))
            }
            Heard::Frame(frame) if frame["type"] == "reconnect" => None,
            Heard::Frame(frame) => {
                site.books
                    .wrong(&format!("the first frame of a socket is {frame}"));
                None
            }
            Heard::Closed(_) => None,
        }
    }

    /// The next frame, or the end. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            let Ok(next) = timeout_at(self.heard_at + SILENCE, self.socket.next()).await else {
                return Heard::Closed(None);
            };

            self.heard_at = Instant::now();

            match next {
                Some(Ok(Message::Text(text))) => return Heard::Frame(self.read(&text)),
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Closed(None),
            }
        }
    }

    /// The same, of an answer that is due.
    pub(super) async fn answer(&mut self) -> Heard {
        timeout(ANSWER, self.hear())
            .await
            .unwrap_or(Heard::Closed(None))
    }

    fn read(&self, text: &str) -> Value {
        let frame: Value = serde_json::from_str(text).unwrap();
        for name in ["token", "ticket"] {
            if let Some(secret) = frame[name].as_str() {
                self.site.secrets.add(secret);
            }
        }
        frame
    }

    /// What cannot be sent shows when one listens.
    pub(super) async fn send(&mut self, frame: Value) {
        timeout(ANSWER, self.socket.send(Message::text(frame.to_string())))
            .await
            .ok();
    }

    pub(super) fn proof(&self, key: &DeviceKey, r#use: Use, token: Option<&str>) -> String {
        key.proof(r#use, &self.site.url, &self.nonce, token)
            .expose()
            .to_owned()
    }

    pub(super) async fn authenticate(&mut self, token: &str, key: Option<&DeviceKey>) {
        let proof = key.map(|key| self.proof(key, Use::Authenticate, Some(token)));
        self.send(json!({"type": "authenticate", "token": token, "proof": proof}))
            .await;
    }

    pub(super) async fn close(mut self) {
        timeout(ANSWER, self.socket.close(None)).await.ok();
    }
}
