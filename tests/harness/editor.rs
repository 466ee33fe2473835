//! A bare editor: a WebSocket and nothing else, so that tests see every frame and decide when to read.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::{HeaderName, SEC_WEBSOCKET_PROTOCOL};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::Stack;
use crate::stack::{PATIENCE, Secrets};

/// One editor with one login.
#[derive(Debug)]
pub struct Editor {
    pub socket: WebSocketStream<TcpStream>,
    /// The first frame.
    pub connection: Value,
    secrets: Secrets,
}

impl Editor {
    /// Connects and takes the first frame.
    pub async fn connect(stack: &Stack) -> Self {
        Self::try_connect(stack, &[]).await.unwrap()
    }

    /// Connects to an installation that is not a [`Stack`]; `url` is its origin, with an address and a port.
    pub async fn at(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self::open(address, &[], Secrets::default()).await.unwrap()
    }

    /// Connects with extra headers; the error is what the server answered instead of a WebSocket.
    pub async fn try_connect(stack: &Stack, headers: &[(&'static str, &'static str)]) -> Result<Self, Box<Error>> {
        Self::open(stack.addresses().public, headers, stack.secrets().clone()).await
    }

    async fn open(
        address: SocketAddr,
        headers: &[(&'static str, &'static str)],
        secrets: Secrets,
    ) -> Result<Self, Box<Error>> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("vvs.auth.v1"));
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (socket, _) = timeout(PATIENCE, client_async(request, stream)).await.unwrap().map_err(Box::new)?;
        let mut editor = Self { socket, connection: Value::Null, secrets };
        editor.connection = editor.next().await;
        assert_eq!(editor.connection["type"], "connection");
        Ok(editor)
    }

    pub fn id(&self) -> &str {
        self.connection["connectionId"].as_str().unwrap()
    }

    pub fn user_code(&self) -> &str {
        self.connection["userCode"].as_str().unwrap()
    }

    /// Where the person goes, without scheme and host.
    pub fn login_path(&self) -> String {
        format!("/login?connection_id={}", self.id())
    }

    /// The next frame; control pings are answered on the way.
    pub async fn next(&mut self) -> Value {
        let next = async {
            loop {
                match self.socket.next().await.unwrap().unwrap() {
                    Message::Text(text) => return text,
                    Message::Ping(_) => {}
                    other => panic!("{other:?} instead of a frame"),
                }
            }
        };
        // Around the loop: the server's pings must not make it wait for ever.
        let text = timeout(PATIENCE, next).await.unwrap();
        self.read(&text)
    }

    fn read(&self, text: &str) -> Value {
        let frame: Value = serde_json::from_str(text).unwrap();
        for name in ["token", "ticket", "code", "userCode"] {
            if let (Some(secret), true) = (frame[name].as_str(), frame["type"] != "error") {
                self.secrets.add(secret);
            }
        }
        frame
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The code that the server closes with, past all frames before.
    pub async fn close_code(&mut self) -> u16 {
        let close = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?} instead of a close"),
                }
            }
        };
        timeout(PATIENCE, close).await.unwrap()
    }

    /// Answers the ping behind the token, as any WebSocket library does that reads on.
    pub async fn read_on(&mut self) {
        self.send(serde_json::json!({"type": "ping"})).await;
        assert_eq!(self.next().await["type"], "pong");
    }
}
