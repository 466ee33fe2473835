//! An editor: a WebSocket and nothing else, so that tests see every frame and decide when to read.
//! It is bare until it says hello, and it has no memory: keys, tickets and tokens are the test's.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::{HeaderName, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use vvs_client::{DeviceKey, Use};

use crate::stack::PATIENCE;
use crate::{Secrets, Stack};

/// What an editor connects for.
const LOGIN: &str = "/ws";
const SESSION: &str = "/ws?for=session";

/// One editor's socket.
#[derive(Debug)]
pub struct Editor {
    pub socket: WebSocketStream<TcpStream>,
    /// The first frame, or the one that said that a login goes on here.
    pub connection: Value,
    /// The server, as this editor was told it.
    pub origin: String,
    secrets: Secrets,
}

/// Logins.
impl Editor {
    /// Connects to sign in, and takes the first frame.
    pub async fn connect(stack: &Stack) -> Self {
        Self::try_connect(stack, &[]).await.unwrap()
    }

    /// Connects to an installation that is not a [`Stack`]; `url` is its origin, with an address
    /// and a port.
    pub async fn at(url: &str, secrets: &Secrets) -> Self {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self::open(address, url.to_owned(), LOGIN, &[], secrets.clone())
            .await
            .unwrap()
    }

    /// The same, to authenticate.
    pub async fn at_session(url: &str, secrets: &Secrets) -> Self {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self::open(address, url.to_owned(), SESSION, &[], secrets.clone())
            .await
            .unwrap()
    }

    /// Connects with extra headers; the error is what the server answered instead of a WebSocket.
    pub async fn try_connect(
        stack: &Stack,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let (addresses, secrets) = (stack.addresses(), stack.secrets().clone());
        Self::open(
            addresses.public,
            addresses.public_url.to_string(),
            LOGIN,
            headers,
            secrets,
        )
        .await
    }

    /// Connects to authenticate or to resume.
    pub async fn for_session(stack: &Stack) -> Self {
        Self::try_for_session(stack, &[]).await.unwrap()
    }

    /// The same, with extra headers; the error is what the server answered instead of a WebSocket.
    pub async fn try_for_session(
        stack: &Stack,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let (addresses, secrets) = (stack.addresses(), stack.secrets().clone());
        Self::open(
            addresses.public,
            addresses.public_url.to_string(),
            SESSION,
            headers,
            secrets,
        )
        .await
    }

    async fn open(
        address: SocketAddr,
        origin: String,
        path: &str,
        headers: &[(&'static str, &str)],
        secrets: Secrets,
    ) -> Result<Self, Box<Error>> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("vvs.auth.v1"),
        );

        for (name, value) in headers {
            request.headers_mut().insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }

        let (socket, _) = timeout(PATIENCE, client_async(request, stream))
            .await
            .unwrap()
            .map_err(Box::new)?;
        let mut editor = Self {
            socket,
            connection: Value::Null,
            origin,
            secrets,
        };
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

    /// Introduces itself; the answer.
    pub async fn hello(&mut self, key: &DeviceKey, return_uri: Option<&str>) -> Value {
        let proof = self.proof(key, Use::Hello, None);
        self.ask(introduction(key, return_uri, &proof)).await
    }

    /// Shows a completion code; the answer.
    pub async fn complete(&mut self, code: &str, method: &str) -> Value {
        self.ask(json!({"type": "auth:complete", "code": code, "method": method}))
            .await
    }

    /// Acknowledges a token, and returns when the relay has read that.
    pub async fn ack(&mut self, success: &Value) {
        assert_eq!(success["type"], "auth:success", "{success}");
        self.send(json!({"type": "auth:ack", "messageId": success["messageId"], "ok": true}))
            .await;
        self.read_on().await;
    }

    /// Takes up a login on this socket; what comes with the new ticket.
    pub async fn resume(&mut self, ticket: &str, key: &DeviceKey) -> Value {
        let nonce = self.connection["nonce"].clone();
        let connection = self.try_resume(ticket, key).await;
        assert_eq!(
            (&connection["type"], &connection["resumed"]),
            (&json!("connection"), &json!(true)),
            "{connection}"
        );
        assert_eq!(connection["nonce"], nonce, "one socket, one nonce");

        let hello = self.next().await;
        assert_eq!(hello["type"], "hello:ok", "{hello}");

        self.connection = connection;

        hello
    }

    /// The same; the first answer, whatever it is.
    pub async fn try_resume(&mut self, ticket: &str, key: &DeviceKey) -> Value {
        let proof = self.proof(key, Use::Resume, None);
        self.ask(json!({"type": "resume", "ticket": ticket, "proof": proof}))
            .await
    }
}

/// What an editor says of itself.
pub fn introduction(key: &DeviceKey, return_uri: Option<&str>, proof: &str) -> Value {
    let mut frame = json!({
        "type": "hello",
        "app": {"name": "VVS Editor", "version": "1.4.0"},
        "device": {"name": "laptop", "os": "Debian 13"},
        "deviceKey": key.jwk(),
        "proof": proof,
    });
    if let Some(uri) = return_uri {
        frame["returnUri"] = json!(uri);
    }
    frame
}

/// Sessions.
impl Editor {
    /// Shows a token, with a proof where there is a key; the answer.
    pub async fn authenticate(&mut self, token: &str, key: Option<&DeviceKey>) -> Value {
        let proof = key.map(|key| self.proof(key, Use::Authenticate, Some(token)));
        self.ask(json!({"type": "authenticate", "token": token, "proof": proof}))
            .await
    }

    /// Asks for a fresh token; the answer.
    pub async fn refresh(&mut self, key: &DeviceKey) -> Value {
        let proof = self.proof(key, Use::Refresh, None);
        self.ask(json!({"type": "token:refresh", "proof": proof}))
            .await
    }

    /// Signs out; the answer.
    pub async fn log_out(&mut self, key: Option<&DeviceKey>) -> Value {
        let proof = key.map(|key| self.proof(key, Use::Logout, None));
        self.ask(json!({"type": "session:logout", "proof": proof}))
            .await
    }

    /// A proof for this socket.
    pub fn proof(&self, key: &DeviceKey, r#use: Use, token: Option<&str>) -> String {
        let nonce = self.connection["nonce"].as_str().unwrap();
        let proof = key
            .proof(r#use, &self.origin, nonce, token)
            .expose()
            .to_owned();
        self.secrets.add(&proof);
        proof
    }
}

/// Frames.
impl Editor {
    async fn ask(&mut self, frame: Value) -> Value {
        self.send(frame).await;
        self.next().await
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
        for name in ["token", "ticket"] {
            if let Some(secret) = frame[name].as_str() {
                self.secrets.add(secret);
            }
        }
        if let Some(code) = frame["userCode"].as_str() {
            self.secrets.add_shown(code);
        }
        frame
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket
            .send(Message::text(frame.to_string()))
            .await
            .unwrap();
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

    /// The end of a socket whose other end is gone without a word, past all frames before.
    pub async fn cut_off(&mut self) {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        timeout(PATIENCE, end).await.unwrap();
    }

    /// Answers the ping behind the token, as any WebSocket library does that reads on.
    pub async fn read_on(&mut self) {
        self.send(json!({"type": "ping"})).await;
        assert_eq!(self.next().await["type"], "pong");
    }
}
