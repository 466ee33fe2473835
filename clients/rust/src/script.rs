//! Servers for tests, made of a pipe and a script.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use vvs_proto::frame::EditorFrame;

use crate::connection::Connection;
use crate::error::Error;
use crate::server::Purpose;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../proto/golden/relay/",
            $name,
            ".json"
        ))
    };
}
pub(crate) use golden;

pub(crate) const ORIGIN: &str = "https://vvs.example.org";

/// The connections that a test made, in order.
#[derive(Default)]
pub(crate) struct Servers {
    connections: Mutex<VecDeque<Connection<DuplexStream>>>,
    /// The purpose of each connection, including those that were refused.
    pub(crate) purposes: Mutex<Vec<Purpose>>,
}

/// The server's end of a connection.
pub(crate) struct Pipe(pub(crate) WebSocketStream<DuplexStream>);

impl Servers {
    /// Returns the next connection, on which the server has sent `frames`.
    pub(crate) async fn next(&self, frames: &[&str]) -> Pipe {
        let (ours, theirs) = Connection::pair().await;
        self.connections.lock().unwrap().push_back(ours);
        let mut pipe = Pipe(theirs);
        pipe.say(frames).await;
        pipe
    }

    pub(crate) fn dial(
        &self,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Connection<DuplexStream>, Error>> {
        self.purposes.lock().unwrap().push(purpose);
        let server = ORIGIN.parse().unwrap();
        let refused = move || Error::Unreachable {
            server,
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        let connection = self
            .connections
            .lock()
            .unwrap()
            .pop_front()
            .ok_or_else(refused);

        Box::pin(std::future::ready(connection))
    }

    /// Tells editors that still wait that there is no server.
    pub(crate) fn end(&self) {
        self.connections.lock().unwrap().clear();
    }
}

impl Pipe {
    pub(crate) async fn say(&mut self, frames: &[&str]) {
        for frame in frames {
            self.0.send(Message::text(*frame)).await.unwrap();
        }
    }

    pub(crate) async fn ping(&mut self) {
        self.0.send(Message::Ping("ack me".into())).await.unwrap();
    }

    /// Returns the next frame of the editor, answering only pings.
    pub(crate) async fn hear(&mut self) -> EditorFrame {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Text(text) => return EditorFrame::parse(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{other:?}, no frame")
                }
            }
        }
    }

    /// Returns the editor's messages until it goes away, and answers its close frame.
    pub(crate) async fn rest(&mut self) -> Vec<Message> {
        let mut heard = Vec::new();
        while let Some(Ok(message)) = self.0.next().await {
            heard.push(message);
        }
        heard
    }

    pub(crate) async fn close(&mut self, code: u16) {
        self.0
            .close(Some(CloseFrame {
                code: code.into(),
                reason: "".into(),
            }))
            .await
            .unwrap();
    }
}

pub(crate) fn frames(messages: &[Message]) -> Vec<EditorFrame> {
    messages
        .iter()
        .filter_map(|message| EditorFrame::parse(message.to_text().ok()?).ok())
        .collect()
}

/// Returns the payload of a proof.
pub(crate) fn payload(proof: &vvs_proto::frame::Secret) -> Value {
    use base64::Engine as _;
    let part = proof.expose().split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(
        &base64::prelude::BASE64_URL_SAFE_NO_PAD
            .decode(part)
            .unwrap(),
    )
    .unwrap()
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
