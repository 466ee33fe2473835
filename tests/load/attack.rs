//! What an attacker with some addresses of one network, one account and a certificate for `backend`
//! sends, at a rate that the installation has to stand: each kind on its own would be enough
//! against one without bounds.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use vvs_auth::peer::Role;
use vvs_client::Use;
use vvs_proto::token::WatchRevocationsRequest;
use vvs_proto::token::tokens_client::TokensClient;

use crate::Failure;
use crate::editor::{Entrance, next};
use crate::install::Install;
use crate::system::channel_as;

/// How much of it there is.
#[derive(clap::Args, Debug)]
pub(crate) struct Strength {
    /// Addresses of the attacker
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u8).range(1..=18))]
    pub(crate) addresses: u8,
    /// Streams of revocations that he follows, over four connections
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(4..=4000))]
    streams: u16,
}

/// Connections over HTTP/2 of each, and headers over each connection that no body follows; how long
/// until all come again.
const CONNECTIONS: u8 = 6;
const STREAMS: usize = 99;
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// Sockets of each that say nothing.
const SILENT: usize = 20;
/// Between two requests of each of its floods.
const FLOOD_PAUSE: Duration = Duration::from_millis(40);
/// Connections with the certificate.
const FEEDS: u16 = 4;
/// Until something that was refused or closed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is attacked, and with what.
pub(crate) struct Target {
    /// Where the certificates are.
    pub(crate) data: PathBuf,
    pub(crate) entrance: Entrance,
    /// Where sessions is called.
    pub(crate) calls: String,
    /// Of the attacker's own account.
    pub(crate) install: Install,
}

/// An address of the attacker's network, which is another one than other people's.
pub(crate) fn network(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// Begins all attacks at once; they go on until what is returned is dropped. Each round has
/// addresses that have spent nothing yet.
pub(crate) fn begin(target: &Arc<Target>, strength: &Strength, round: u8) -> JoinSet<()> {
    let mut attacks = JoinSet::new();
    let Strength { addresses, streams } = *strength;
    for from in (0..addresses).map(|number| network(1 + round * addresses + number)) {
        let entrance = target.entrance.from(from);
        for _ in 0..CONNECTIONS {
            attacks.spawn(again(LONG_PAUSE, entrance.clone(), headers_without_a_body));
        }
        attacks.spawn(again(PAUSE, entrance.clone(), silent_sockets));
        attacks.spawn(again(PAUSE, entrance.clone(), requests));
        attacks.spawn(again(PAUSE, entrance, logouts));
    }

    attacks.spawn(again(PAUSE, target.clone(), refreshes));
    for _ in 0..FEEDS {
        let following = move |target| feeds(target, streams / FEEDS);
        attacks.spawn(again(LONG_PAUSE, target.clone(), following));
    }

    attacks
}

/// Goes on whatever comes of it.
async fn again<T: Clone, F>(pause: Duration, at: T, attack: impl Fn(T) -> F)
where
    F: Future<Output = Result<(), Failure>>,
{
    loop {
        attack(at.clone()).await.ok();
        sleep(pause).await;
    }
}

/// As many as one connection takes, until each is answered.
async fn headers_without_a_body(entrance: Entrance) -> Result<(), Failure> {
    let stream = TokioIo::new(entrance.dial().await?);
    let (client, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    let url = format!("{}/login/approve", entrance.origin);
    let asking = (0..STREAMS).map(|_| {
        let (mut client, url) = (client.clone(), url.clone());
        async move {
            let body =
                StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>().boxed());
            client.send_request(Request::post(url).body(body)?).await?;
            Ok::<_, Failure>(())
        }
    });

    tokio::select! {
        _ = join_all(asking) => Ok(()),
        ended = connection => Ok(ended?),
    }
}

/// As many logins as one address may have, about which nobody says anything.
async fn silent_sockets(entrance: Entrance) -> Result<(), Failure> {
    let sockets = join_all((0..SILENT).map(|_| entrance.open(""))).await;
    let held = sockets
        .into_iter()
        .flatten()
        .map(|(mut socket, _)| async move { while let Some(Ok(_)) = socket.next().await {} });
    join_all(held).await;
    Ok(())
}

async fn requests(entrance: Entrance) -> Result<(), Failure> {
    flood(&entrance, Method::GET, "/login").await
}

async fn logouts(entrance: Entrance) -> Result<(), Failure> {
    flood(&entrance, Method::POST, "/api/auth/oidc/logout").await
}

/// One request after the other over one connection.
async fn flood(entrance: &Entrance, method: Method, path: &str) -> Result<(), Failure> {
    let stream = TokioIo::new(entrance.dial().await?);
    let (mut client, connection) = http1::handshake(stream).await?;
    let host = entrance
        .origin
        .split_once("://")
        .map_or("", |(_, host)| host);
    let flooding = async {
        loop {
            let request = Request::builder()
                .method(method.clone())
                .uri(path)
                .header("host", host);
            let answer = client
                .send_request(request.body(Empty::<Bytes>::new())?)
                .await?;
            answer.into_body().collect().await?;
            client.ready().await?;
            sleep(FLOOD_PAUSE).await;
        }
    };

    tokio::select! {
        ended = flooding => ended,
        ended = connection => Ok(ended?),
    }
}

/// One session that asks for a fresh token as fast as it is answered, on as many sockets as that
/// takes.
async fn refreshes(target: Arc<Target>) -> Result<(), Failure> {
    let (entrance, install) = (target.entrance.from(network(199)), &target.install);
    let (mut socket, first) = entrance.open("?for=session").await?;
    let nonce = first["nonce"].as_str().unwrap_or_default();
    let mut frames = vec![(Use::Authenticate, "authenticate", Some(&*install.token))].into_iter();

    loop {
        let (r#use, name, token) = frames
            .next()
            .unwrap_or((Use::Refresh, "token:refresh", None));
        let proof = install.key.proof(r#use, &entrance.origin, nonce, token);
        let frame = json!({"type": name, "token": token, "proof": proof.expose()});
        socket.send(Message::text(frame.to_string())).await?;
        next(&mut socket).await?;
    }
}

/// Followers of the feed with a certificate for `backend`.
async fn feeds(target: Arc<Target>, count: u16) -> Result<(), Failure> {
    let client = TokensClient::new(channel_as(
        &target.data,
        Role::Backend,
        Role::Sessions,
        &target.calls,
    )?);
    let following = (0..count).map(|_| async {
        let mut feed = client
            .clone()
            .watch_revocations(WatchRevocationsRequest::default())
            .await?
            .into_inner();
        while feed.message().await?.is_some() {}
        Ok::<_, Failure>(())
    });
    join_all(following).await;

    Ok(())
}
