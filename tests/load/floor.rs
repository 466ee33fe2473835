//! The floor: a tonic handler behind mutual TLS that writes one WebSocket frame to a socket it
//! holds. No limit, no heartbeat, no state but the sockets; whatever a relay costs beyond it is
//! what a relay is for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tonic::{Request, Response, Status};
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::relay_server::{Relay, RelayServer};
use vvs_proto::relay::{
    DeliverAuthRequest, DeliverAuthResponse, DenyLoginRequest, DenyLoginResponse, GetLoginRequest,
    GetLoginResponse, Sent,
};
use vvs_runtime::tls::Identity;

use crate::{Failure, calls};

/// So that calls hardly ever wait for each other.
const SHARDS: usize = 64;
/// No editor of ours asks with more.
const MAX_HEAD: usize = 4096;

type Shard = Mutex<HashMap<String, Arc<TcpStream>>>;

/// Sockets by the ids of their logins.
struct Floor {
    shards: Vec<Shard>,
    hasher: RandomState,
    made: AtomicU64,
}

pub(crate) async fn serve(
    ws: TcpListener,
    rpc: TcpListener,
    identity: &Arc<Identity>,
) -> Result<(), Failure> {
    let shards = (0..SHARDS).map(|_| Shard::default()).collect();
    let floor = Arc::new(Floor {
        shards,
        hasher: RandomState::new(),
        made: AtomicU64::new(0),
    });
    let service = TowerToHyperService::new(RelayServer::from_arc(floor.clone()));
    tokio::select! {
        ended = calls::serve(rpc, identity, service) => ended,
        ended = accept(&floor, ws) => ended,
    }
}

async fn accept(floor: &Arc<Floor>, ws: TcpListener) -> Result<(), Failure> {
    let mut sockets = JoinSet::new();
    loop {
        let (stream, _) = ws.accept().await?;
        sockets.spawn(hold(floor.clone(), stream));
        while sockets.try_join_next().is_some() {}
    }
}

impl Floor {
    fn shard(&self, id: &str) -> MutexGuard<'_, HashMap<String, Arc<TcpStream>>> {
        let shard = usize::try_from(self.hasher.hash_one(id)).unwrap_or_default() % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One editor, from its handshake to its end.
async fn hold(floor: Arc<Floor>, stream: TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let number = floor.made.fetch_add(1, Ordering::Relaxed);
    let id = format!("00000000-0000-4000-8000-{number:012x}");

    // Apart, and on the heap, so that the handshake's buffers do not stay with the connection.
    let stream = Arc::new(Box::pin(upgrade(stream)).await?);
    floor.shard(&id).insert(id.clone(), stream.clone());
    let opened = format!(r#"{{"type":"connection","connectionId":"{id}"}}"#);
    write(&stream, &frame(&opened)).await?;

    loop {
        poll_fn(|cx| stream.poll_read_ready(cx)).await?;
        match stream.try_read(&mut [0; 256]) {
            Ok(0) => break,
            Err(cause) if cause.kind() != ErrorKind::WouldBlock => break,
            // Whatever an editor shows is good here.
            Ok(_) => write(&stream, &frame(r#"{"type":"auth:ok"}"#)).await?,
            Err(_) => {}
        }
    }

    floor.shard(&id).remove(&id);

    Ok(())
}

/// RFC 6455, section 4.2.2, for a client that does it right.
async fn upgrade(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Err("this is no handshake".into());
        }
    }

    let head = String::from_utf8(head)?;
    if head.starts_with("GET / ") {
        // A page with nothing on it.
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            .await?;
        return Err("this was a page".into());
    }

    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let accept = derive_accept_key(key.ok_or("a handshake without a key")?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: \
         upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;

    Ok(stream)
}

/// A whole text message in one frame (RFC 6455, section 5.2).
fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(text.len() + 10);
    frame.push(0x81);

    match u16::try_from(text.len()) {
        Ok(length) if length < 126 => frame.extend(&length.to_be_bytes()[1..]),
        Ok(length) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((text.len() as u64).to_be_bytes());
        }
    }

    frame.extend(text.as_bytes());

    frame
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => stream.writable().await?,
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Relay for Floor {
    async fn deliver_auth(
        &self,
        request: Request<DeliverAuthRequest>,
    ) -> Result<Response<DeliverAuthResponse>, Status> {
        let DeliverAuthRequest {
            request_id,
            connection_id,
            token,
            ..
        } = request.into_inner();
        let stream = self.shard(&connection_id).get(&connection_id).cloned();
        let stream = stream.ok_or_else(|| Status::not_found(""))?;
        let text =
            format!(r#"{{"type":"auth:success","token":"{token}","messageId":"{request_id}"}}"#);
        write(&stream, &frame(&text)).await?;

        Ok(Response::new(DeliverAuthResponse {
            outcome: Some(Outcome::Sent(Sent {})),
        }))
    }

    async fn get_login(
        &self,
        _request: Request<GetLoginRequest>,
    ) -> Result<Response<GetLoginResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn deny_login(
        &self,
        _request: Request<DenyLoginRequest>,
    ) -> Result<Response<DenyLoginResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
