//! Calls over real sockets, to members that die, drain and come back.

use std::io::Read as _;
use std::net::SocketAddr;
use std::pin::Pin;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tonic::Code;
use tower::Service as _;

use super::*;
use crate::bench::{Bench, PATIENCE, Peer, dead_port};

/// A stream that begins and does not end.
struct Endless(Option<Bytes>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |first| {
            Poll::Ready(Some(Ok(Frame::data(first))))
        })
    }
}

/// State that all members of one test share.
#[derive(Clone)]
struct Stage {
    bench: Arc<Bench>,
    /// The members that received calls to `/slow`, and how many calls may proceed.
    came: Arc<std::sync::Mutex<Vec<&'static str>>>,
    may_go_on: Arc<Semaphore>,
}

impl Stage {
    fn new() -> Self {
        Self {
            bench: Arc::new(Bench::new()),
            came: Arc::default(),
            may_go_on: Arc::new(Semaphore::new(0)),
        }
    }

    /// A member that returns this name.
    fn member(&self, name: &'static str) -> Peer {
        let stage = self.clone();
        let slow = move || async move {
            stage.came.lock().unwrap().push(name);
            stage.may_go_on.acquire().await.unwrap().forget();
            name
        };
        let stream =
            async move || axum::body::Body::new(Endless(Some(Bytes::from_static(name.as_bytes()))));
        let router = Router::new().route("/who", post(async move || name));

        self.bench.peer(
            router
                .route("/slow", post(slow))
                .route("/stream", post(stream)),
        )
    }

    fn channel(&self, members: &[SocketAddr]) -> Channel {
        let hosts: Vec<_> = members.iter().map(ToString::to_string).collect();
        Channel::new(
            hosts.join(",").parse().unwrap(),
            self.bench.connector(b"h2"),
        )
    }

    async fn until_slow_calls(&self, count: usize) {
        let came = async {
            while self.came.lock().unwrap().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, came).await.unwrap();
    }
}

async fn call(channel: &Channel, path: &'static str) -> Result<String, Status> {
    let request = Request::post(path).body(Body::empty()).unwrap();
    let answer = channel.clone().call(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// Returns the members that answer `count` calls, each name once.
async fn who(channel: &Channel, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(call(channel, "/who").await.unwrap());
    }
    names.sort_unstable();
    names.dedup();
    names
}

async fn until_who(channel: &Channel, expected: &[&str]) {
    let reached = async {
        while who(channel, 20).await != expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}

fn is_up(channel: &Channel, peer: &Peer) -> bool {
    channel
        .0
        .pool
        .sights()
        .iter()
        .any(|sight| sight.address == peer.address && sight.is_up)
}

/// Waits until it is known whether this member can serve.
async fn until_known(channel: &Channel, peer: &Peer, up: bool) {
    let known = async {
        while is_up(channel, peer) != up {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
}

#[tokio::test]
async fn all_members_get_calls_until_one_is_killed() {
    let stage = Stage::new();
    let (mut ada, bob) = (stage.member("ada"), stage.member("bob"));
    let channel = stage.channel(&[ada.address, bob.address]);
    until_who(&channel, &["ada", "bob"]).await;
    ada.kill();
    // As long as its end is not known here, a call is sent to it, and lost.
    until_known(&channel, &ada, false).await;
    assert_eq!(who(&channel, 50).await, ["bob"]);
}

#[tokio::test]
async fn a_call_goes_to_another_member_when_one_cannot_be_reached() {
    let stage = Stage::new();
    let (mut ada, bob) = (stage.member("ada"), stage.member("bob"));
    ada.readiness.set(false);
    let channel = stage.channel(&[ada.address, bob.address]);
    until_known(&channel, &ada, false).await;
    ada.readiness.set(true);
    until_known(&channel, &ada, true).await;

    // Asked whether it can serve, it still says so.
    ada.close_port().await;

    while is_up(&channel, &ada) {
        assert_eq!(call(&channel, "/who").await.unwrap(), "bob");
    }
}

#[tokio::test]
async fn a_call_is_offered_once_to_the_only_member() {
    let stage = Stage::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counting = std::thread::spawn(move || {
        let mut count = 0;
        // The empty connection is ours, and ends it.
        while listener.accept().unwrap().0.read(&mut [0; 1]).unwrap() > 0 {
            count += 1;
        }
        count
    });
    let failed = call(&stage.channel(&[address]), "/who").await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);

    drop(std::net::TcpStream::connect(address).unwrap());
    assert_eq!(counting.join().unwrap(), 1);
}

#[tokio::test]
async fn a_call_goes_to_whoever_has_fewer_under_way() {
    let stage = Stage::new();
    let (ada, bob) = (stage.member("ada"), stage.member("bob"));
    let channel = stage.channel(&[ada.address, bob.address]);
    until_who(&channel, &["ada", "bob"]).await;
    let waiting = TaskTracker::new().spawn({
        let channel = channel.clone();
        async move { call(&channel, "/slow").await.unwrap() }
    });
    stage.until_slow_calls(1).await;
    let others = who(&channel, 50).await;
    stage.may_go_on.add_permits(1);
    assert_eq!(others.len(), 1);
    assert_ne!(others[0], waiting.await.unwrap());

    until_who(&channel, &["ada", "bob"]).await;
}

#[tokio::test]
async fn a_member_that_drains_finishes_its_calls_and_gets_no_others() {
    let stage = Stage::new();
    let (ada, bob) = (stage.member("ada"), stage.member("bob"));
    let channel = stage.channel(&[ada.address, bob.address]);
    until_who(&channel, &["ada", "bob"]).await;
    let waiting = TaskTracker::new().spawn({
        let channel = channel.clone();
        async move { call(&channel, "/slow").await.unwrap() }
    });
    stage.until_slow_calls(1).await;

    // Both drain, one after the other, so that it does not matter who has the slow call.
    ada.stop.cancel();
    until_who(&channel, &["bob"]).await;
    assert_eq!(who(&channel, 50).await, ["bob"]);

    let cleo = stage.member("cleo");
    let next = stage.channel(&[ada.address, bob.address, cleo.address]);
    bob.stop.cancel();
    until_who(&next, &["cleo"]).await;
    stage.may_go_on.add_permits(1);
    assert!(["ada", "bob"].contains(&&*waiting.await.unwrap()));
}

#[tokio::test]
async fn a_stream_stays_with_its_member_and_ends_with_it() {
    let stage = Stage::new();
    let mut members = [stage.member("ada"), stage.member("bob")];
    let channel = stage.channel(&[members[0].address, members[1].address]);
    let open = Request::post("/stream").body(Body::empty()).unwrap();
    let mut stream = channel.clone().call(open).await.unwrap().into_body();
    let name = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    let (its, other) = if name == "ada" {
        (0, "bob")
    } else {
        (1, "ada")
    };

    // It counts, so everybody else is sent to the other one.
    until_who(&channel, &[other]).await;
    members[its].kill();
    let end = timeout(PATIENCE, stream.frame()).await.unwrap();
    assert!(end.is_some_and(|end| end.is_err()));

    until_known(&channel, &members[its], false).await;
    assert_eq!(who(&channel, 20).await, [other]);
}

#[tokio::test]
async fn a_call_that_may_have_been_received_is_not_made_again() {
    let stage = Stage::new();
    let mut members = [stage.member("ada"), stage.member("bob")];
    let channel = stage.channel(&[members[0].address, members[1].address]);
    let waiting = TaskTracker::new().spawn({
        let channel = channel.clone();
        async move { call(&channel, "/slow").await }
    });
    stage.until_slow_calls(1).await;
    let name = stage.came.lock().unwrap()[0];
    members[usize::from(name != "ada")].kill();
    let status = timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(*stage.came.lock().unwrap(), [name]);
}

#[tokio::test]
async fn with_nobody_to_ask_a_call_fails_as_unavailable() {
    let stage = Stage::new();
    for hosts in [vec![dead_port()], vec![dead_port(), dead_port()]] {
        let channel = stage.channel(&hosts);
        for _ in 0..5 {
            let failed = timeout(PATIENCE, call(&channel, "/who"))
                .await
                .unwrap()
                .unwrap_err();
            assert_eq!(failed.code(), Code::Unavailable, "{failed:?}");
        }
    }

    let channel = Channel::new(Hosts::default(), stage.bench.connector(b"h2"));
    let failed = timeout(PATIENCE, call(&channel, "/who"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
}

#[tokio::test]
async fn the_only_member_is_called_again_as_soon_as_it_is_back() {
    let stage = Stage::new();
    let mut ada = stage.member("ada");
    let channel = stage.channel(&[ada.address]);
    assert_eq!(who(&channel, 5).await, ["ada"]);

    ada.stop.cancel();
    let gone = async { while call(&channel, "/who").await.is_ok() {} };
    timeout(PATIENCE, gone).await.unwrap();
    ada.kill();
    let again = stage.bench.peer_at(
        ada.address,
        Router::new().route("/who", post(async || "again")),
    );
    assert_eq!(who(&channel, 5).await, ["again"]);

    drop(again);
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_gets_no_answer() {
    let stage = Stage::new();
    let ada = stage.member("ada");
    let channel = stage.channel(&[ada.address]);
    let request = Request::post("/slow")
        .header("grpc-timeout", "1m")
        .body(Body::empty())
        .unwrap();
    let failed = timeout(PATIENCE, channel.clone().call(request))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failed.code(), Code::DeadlineExceeded);
}
