//! The edge in front of several relays and webs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{any, get};
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio_util::task::TaskTracker;
use vvs_auth::peer::Role;
use vvs_runtime::http::DRAINING;

use bench::{Bench, Peer, dead_port, until};

mod bench;

/// A relay that says its name in the answer, and holds every socket until its editor closes it.
fn relay(bench: &Bench, name: &'static str) -> Peer {
    let tasks = TaskTracker::new();
    let ws = async move |mut request: Request| {
        let upgraded = hyper::upgrade::on(&mut request);
        tasks.spawn(async move {
            let mut socket = TokioIo::new(upgraded.await.unwrap());
            socket.read_to_end(&mut Vec::new()).await.ok();
        });
        let answer = Response::builder().status(101).header(CONNECTION, "upgrade").header(UPGRADE, "websocket");
        answer.header("name", name).body(Body::empty()).unwrap()
    };
    bench.peer(Role::Relay, Router::new().route("/ws", get(ws)))
}

/// A web that says its name on every page but `/slow`, which never comes; and how often that was asked for.
fn web(bench: &Bench, name: &'static str) -> (Peer, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let slow = {
        let count = count.clone();
        async move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    };
    let router = Router::new().route("/slow", any(slow)).fallback(async move || name);
    (bench.peer(Role::Web, router), count)
}

#[tokio::test]
async fn sockets_go_where_fewer_are_open_and_not_in_turn() {
    let bench = Bench::new();
    let (ada, bob) = (relay(&bench, "ada"), relay(&bench, "bob"));
    bob.readiness.set(false);
    let edge = bench.edge(&[ada.address, bob.address], &[dead_port()]).await;
    edge.until_up(Role::Relay, bob.address, false).await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(edge.open().await);
    }
    assert!(sockets.iter().all(|(answer, _)| answer.head.contains("name: ada")));
    bob.readiness.set(true);
    edge.until_up(Role::Relay, bob.address, true).await;
    for _ in 0..6 {
        sockets.push(edge.open().await);
    }
    assert!(sockets[6..].iter().all(|(answer, _)| answer.head.contains("name: bob")));
    sockets.drain(..6);
    edge.until_busy(Role::Relay, ada.address, 0).await;
    edge.until_busy(Role::Relay, bob.address, 6).await;
}

#[tokio::test]
async fn a_relay_that_refuses_or_drains_costs_no_handshake() {
    let bench = Bench::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let drains = {
        let asked = asked.clone();
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            Response::builder().status(503).header(DRAINING, "true").body(Body::empty()).unwrap()
        }
    };
    let draining = bench.peer(Role::Relay, Router::new().route("/ws", get(drains)));
    let good = relay(&bench, "good");
    let edge = bench.edge(&[dead_port(), draining.address, good.address], &[dead_port()]).await;
    let mut sockets = Vec::new();
    while asked.load(Ordering::SeqCst) == 0 {
        let (answer, socket) = edge.open().await;
        assert_eq!((answer.status, answer.head.contains("name: good")), (101, true), "{answer:?}");
        sockets.push(socket);
    }
    let edge = bench.edge(&[draining.address], &[dead_port()]).await;
    let (answer, _) = edge.open().await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: ") && !answer.head.contains(DRAINING.as_str()), "{answer:?}");
}

#[tokio::test]
async fn with_no_relay_ready_an_editor_is_told_when_to_come_back() {
    let bench = Bench::new();
    let relays = [relay(&bench, "ada"), relay(&bench, "bob")];
    let edge = bench.edge(&[relays[0].address, relays[1].address], &[dead_port()]).await;
    for relay in &relays {
        relay.readiness.set(false);
        edge.until_up(Role::Relay, relay.address, false).await;
    }
    let (answer, _) = edge.open().await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 5\r\n"), "{answer:?}");
    assert_eq!(edge.metric("vvs_gateway_refused_total{reason=\"none_ready\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_page_comes_from_another_web_when_one_cannot_be_reached() {
    let bench = Bench::new();
    for method in ["POST", "GET"] {
        let ((mut ada, _), (bob, _)) = (web(&bench, "ada"), web(&bench, "bob"));
        ada.readiness.set(false);
        let edge = bench.edge(&[dead_port()], &[ada.address, bob.address]).await;
        edge.until_up(Role::Web, ada.address, false).await;
        ada.readiness.set(true);
        edge.until_up(Role::Web, ada.address, true).await;
        // Asked whether it can serve, it still says so.
        ada.close_port().await;
        while edge.is_up(Role::Web, ada.address) {
            let answer = edge.send(method, "/").await;
            assert_eq!((answer.status, &*answer.body), (200, "bob"), "{method} {answer:?}");
        }
        edge.until_busy(Role::Web, bob.address, 0).await;
    }
}

/// Sends a request to a web that dies before it answers, while there is another one: the answer, and how often the two
/// got it.
async fn interrupted(method: &str) -> (u16, usize, usize) {
    let bench = Bench::new();
    let ((mut ada, at_ada), (bob, at_bob)) = (web(&bench, "ada"), web(&bench, "bob"));
    bob.readiness.set(false);
    let edge = bench.edge(&[dead_port()], &[ada.address, bob.address]).await;
    edge.until_up(Role::Web, bob.address, false).await;
    let dies = async {
        until(|| at_ada.load(Ordering::SeqCst) > 0).await;
        bob.readiness.set(true);
        edge.until_up(Role::Web, bob.address, true).await;
        ada.kill();
        until(|| at_bob.load(Ordering::SeqCst) > 0).await;
    };
    let status = tokio::select! {
        answer = edge.send(method, "/slow") => answer.status,
        // The second one has it, and keeps it.
        () = dies => 0,
    };
    (status, at_ada.load(Ordering::SeqCst), at_bob.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_get_is_sent_again_and_a_post_that_may_have_been_received_is_not() {
    assert_eq!(interrupted("GET").await, (0, 1, 1));
    assert_eq!(interrupted("POST").await, (502, 1, 0));
}

#[tokio::test]
async fn an_address_that_cannot_be_read_names_its_setting() {
    let bench = Bench::new();
    for (relays, shown) in [("relay", "\"relay\""), ("relay:1,b", "\"b\""), ("relay:1,", "\"\"")] {
        let refused = bench.refused(relays).await.to_string();
        assert_eq!(refused, format!("VVS_GATEWAY_RELAY_ADDR: {shown} is not HOST:PORT"));
    }
}
