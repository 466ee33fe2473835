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

use bench::{Bench, Peer, dead_port, settings, until};

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
        let answer = Response::builder()
            .status(101)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket");
        answer.header("name", name).body(Body::empty()).unwrap()
    };
    bench.peer(Role::Relay, Router::new().route("/ws", get(ws)))
}

/// Pages that never come: one of each pool.
const SLOW: [&str; 3] = ["/slow", "/login/status", "/api/auth/oidc/logout"];

/// A web that returns its name on every page except those that never answer; and how often one of
/// these was requested.
fn web(bench: &Bench, name: &'static str) -> (Peer, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let slow = {
        let count = count.clone();
        async move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    };
    let mut router = Router::new();
    for path in SLOW {
        router = router.route(path, any(slow.clone()));
    }

    let router = router.fallback(async move || name);

    (bench.peer(Role::Web, router), count)
}

#[tokio::test]
async fn sockets_go_where_fewer_are_open_and_not_in_turn() {
    let bench = Bench::new();
    let (ada, bob) = (relay(&bench, "ada"), relay(&bench, "bob"));
    bob.readiness.set(false);
    let edge = bench
        .edge(&[ada.address, bob.address], &[dead_port()])
        .await;
    edge.until_up(Role::Relay, bob.address, false).await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(edge.open().await);
    }

    assert!(
        sockets
            .iter()
            .all(|(answer, _)| answer.head.contains("name: ada"))
    );

    bob.readiness.set(true);
    edge.until_up(Role::Relay, bob.address, true).await;
    for _ in 0..6 {
        sockets.push(edge.open().await);
    }

    assert!(
        sockets[6..]
            .iter()
            .all(|(answer, _)| answer.head.contains("name: bob"))
    );

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
            Response::builder()
                .status(503)
                .header(DRAINING, "true")
                .body(Body::empty())
                .unwrap()
        }
    };
    let draining = bench.peer(Role::Relay, Router::new().route("/ws", get(drains)));
    let good = relay(&bench, "good");
    let edge = bench
        .edge(
            &[dead_port(), draining.address, good.address],
            &[dead_port()],
        )
        .await;
    let mut sockets = Vec::new();
    while asked.load(Ordering::SeqCst) == 0 {
        let (answer, socket) = edge.open().await;
        assert_eq!(
            (answer.status, answer.head.contains("name: good")),
            (101, true),
            "{answer:?}"
        );
        sockets.push(socket);
    }

    let edge = bench.edge(&[draining.address], &[dead_port()]).await;
    let (answer, _) = edge.open().await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.head.contains("retry-after: ") && !answer.head.contains(DRAINING.as_str()),
        "{answer:?}"
    );
}

#[tokio::test]
async fn with_no_relay_ready_an_editor_is_told_when_to_come_back() {
    let bench = Bench::new();
    let relays = [relay(&bench, "ada"), relay(&bench, "bob")];
    let edge = bench
        .edge(&[relays[0].address, relays[1].address], &[dead_port()])
        .await;
    for relay in &relays {
        relay.readiness.set(false);
        edge.until_up(Role::Relay, relay.address, false).await;
    }

    let (answer, _) = edge.open().await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 5\r\n"), "{answer:?}");
    assert_eq!(
        edge.metric("vvs_gateway_refused_total{reason=\"none_ready\"}")
            .as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn a_page_comes_from_another_web_when_one_cannot_be_reached() {
    let bench = Bench::new();
    for method in ["POST", "GET"] {
        let ((mut ada, _), (bob, _)) = (web(&bench, "ada"), web(&bench, "bob"));
        ada.readiness.set(false);
        let edge = bench
            .edge(&[dead_port()], &[ada.address, bob.address])
            .await;
        edge.until_up(Role::Web, ada.address, false).await;
        ada.readiness.set(true);
        edge.until_up(Role::Web, ada.address, true).await;

        // Asked whether it can serve, it still says so.
        ada.close_port().await;

        while edge.is_up(Role::Web, ada.address) {
            let answer = edge.send(method, "/").await;
            assert_eq!(
                (answer.status, &*answer.body),
                (200, "bob"),
                "{method} {answer:?}"
            );
        }

        edge.until_busy(Role::Web, bob.address, 0).await;
    }
}

/// Sends a request to a web that dies before it answers, while there is another one. Returns the
/// answer, and how often the two received the request.
async fn interrupted(method: &str) -> (u16, usize, usize) {
    let bench = Bench::new();
    let ((mut ada, at_ada), (bob, at_bob)) = (web(&bench, "ada"), web(&bench, "bob"));
    bob.readiness.set(false);
    let edge = bench
        .edge(&[dead_port()], &[ada.address, bob.address])
        .await;
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

    (
        status,
        at_ada.load(Ordering::SeqCst),
        at_bob.load(Ordering::SeqCst),
    )
}

#[tokio::test]
async fn a_get_is_sent_again_and_a_post_that_may_have_been_received_is_not() {
    assert_eq!(interrupted("GET").await, (0, 1, 1));
    assert_eq!(interrupted("POST").await, (502, 1, 0));
}

#[tokio::test]
async fn an_address_that_cannot_be_read_names_its_setting() {
    let bench = Bench::new();
    for (relays, shown) in [
        ("relay", "\"relay\""),
        ("relay:1,b", "\"b\""),
        ("relay:1,", "\"\""),
    ] {
        let refused = bench.refused(relays).await.to_string();
        assert_eq!(
            refused,
            format!("VVS_GATEWAY_RELAY_ADDR: {shown} is not HOST:PORT")
        );
    }
}

#[tokio::test]
async fn one_address_has_its_share_of_each_pool_and_others_and_other_requests_their_own() {
    let bench = Bench::new();
    let (web, asked) = web(&bench, "web");
    let flags = [
        "--gateway-max-requests-per-address",
        "1",
        "--gateway-max-polls-per-address",
        "1",
        "--gateway-max-hooks-per-address",
        "1",
        "--gateway-max-polls",
        "2",
    ];
    let edge = bench
        .edge_with(&[dead_port()], &[web.address], &flags)
        .await;
    let (ada, bob, cleo) = ([127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]);
    let waiting = async {
        let [page, poll, hook] = SLOW;
        tokio::join!(
            edge.send("GET", page),
            edge.send("GET", poll),
            edge.send("POST", hook)
        );
    };

    let others = async {
        until(|| asked.load(Ordering::SeqCst) == 3).await;

        for (method, path, reason) in [
            ("GET", "/", "requests_per_address"),
            ("GET", "/login/status", "polls_per_address"),
            ("POST", "/webhooks/clerk", "hooks_per_address"),
        ] {
            assert_eq!(
                edge.send_from(ada, method, path).await.status,
                429,
                "{path}"
            );
            let refused = format!("vvs_gateway_refused_total{{reason=\"{reason}\"}}");
            assert_eq!(edge.metric(&refused).as_deref(), Some("1"));
        }

        assert_eq!(edge.send_from(bob, "GET", "/").await.status, 200);
        assert_eq!(
            edge.send_from(bob, "POST", "/webhooks/clerk").await.status,
            200
        );

        // All polls are taken by two; pages are there for everybody.
        let beside = async {
            until(|| asked.load(Ordering::SeqCst) == 4).await;
            assert_eq!(
                edge.send_from(cleo, "GET", "/login/status").await.status,
                503
            );
            assert_eq!(edge.send_from(cleo, "GET", "/").await.status, 200);
        };

        tokio::select! {
            answer = edge.send_from(bob, "GET", "/login/status") => panic!("{answer:?}"),
            () = beside => {}
        }
    };

    tokio::select! {
        () = waiting => panic!("what never comes came"),
        () = others => {}
    }
}

#[test]
fn a_bound_that_is_out_of_its_range_is_refused_and_says_the_range() {
    for (flag, bad, said) in [
        ("--gateway-max-requests-per-address", "0", "1..=1000000"),
        ("--gateway-max-bodies", "1000001", "1..=1000000"),
        (
            "--gateway-hooks-per-minute",
            "0",
            "must be from 1 to 1000000",
        ),
        (
            "--gateway-requests-per-minute",
            "0",
            "must be from 1 to 1000000",
        ),
        (
            "--gateway-places-per-24",
            "7",
            "must be 0, or from 8 to 10000",
        ),
        (
            "--gateway-places-per-48",
            "8",
            "must be 0, or from 16 to 10000",
        ),
        (
            "--gateway-shared-networks",
            "203.0.113.0/24",
            "203.0.113.0/24=20",
        ),
    ] {
        let refused = settings("relay:1", "web:1", &[flag, bad]).unwrap_err();
        assert!(
            refused.contains(flag) && refused.contains(said),
            "{refused}"
        );
    }

    for good in [
        ["--gateway-places-per-24", "0"],
        [
            "--gateway-shared-networks",
            "203.0.113.0/24=20,2001:db8::/32=2",
        ],
    ] {
        settings("relay:1", "web:1", &good).unwrap();
    }
}
