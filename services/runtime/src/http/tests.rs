//! The server over real sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use axum::Router;
use axum::extract::Extension;
use bytes::Bytes;
use http::header::CONNECTION;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::bench::PATIENCE;

/// Starts a plain server with these limits, and returns its counters.
async fn serve(limits: Limits, router: Router) -> (SocketAddr, Metrics, CancellationToken) {
    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    let server = Server::new(limits, metrics.clone(), stop.clone(), TaskTracker::new());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    server
        .tasks
        .clone()
        .spawn(server.serve(Listener { tcp, tls: None }, router));
    (address, metrics, stop)
}

/// Limits with which quiet connections end soon.
fn quick() -> Limits {
    let settings = Names {
        idle_timeout: "IDLE",
        max_connections: "MOST",
        handshake_timeout: "SLOW",
    };
    let (handshake_timeout, idle_timeout) =
        (Duration::from_millis(200), Some(Duration::from_millis(200)));

    Limits {
        handshake_timeout,
        idle_timeout,
        settings,
        ..Limits::default()
    }
}

/// Waits until a condition holds.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_that_is_cut_is_reset_and_another_one_is_closed() {
    for is_cut in [false, true] {
        let upgrade = async move |Extension(connection): Extension<Connection>,
                                  mut request: Request<Body>| {
            let upgraded = hyper::upgrade::on(&mut request);
            TaskTracker::new().spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                stream.write_all(b"there").await.unwrap();
                if is_cut {
                    connection.cut.set();
                }
            });

            Response::builder()
                .status(101)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "x")
                .body(Body::empty())
                .unwrap()
        };
        let (address, _, _stop) = serve(Limits::default(), Router::new().fallback(upgrade)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();

        let mut told = Vec::new();
        let end = timeout(PATIENCE, client.read_to_end(&mut told))
            .await
            .unwrap()
            .map_err(|cause| cause.kind());
        assert!(
            told.ends_with(b"there") || is_cut,
            "{}",
            String::from_utf8_lossy(&told)
        );
        assert_eq!(end.err(), is_cut.then_some(ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn an_http2_connection_ends_when_nothing_is_asked_over_it_and_not_while_something_is() {
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        "here"
    };
    let (address, metrics, _stop) = serve(quick(), Router::new().fallback(slow)).await;
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = TaskTracker::new().spawn(connection);
    let answer = client
        .send_request(
            Request::get("http://x/")
                .body(Full::<Bytes>::default())
                .unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "here"
    );

    timeout(PATIENCE, connection)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        metrics.reached.times("IDLE"),
        0,
        "it went when it was asked to"
    );
}

#[tokio::test]
async fn whoever_does_not_take_what_it_asked_for_is_cut_off() {
    let large = async || vec![0_u8; 64 * 1024 * 1024];
    let (address, metrics, _stop) = serve(quick(), Router::new().fallback(large)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until(|| metrics.reached.times("IDLE") == 1).await;
    let mut got = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut got))
        .await
        .unwrap()
        .ok();
    assert!(
        got.starts_with(b"HTTP/1.1 200 ") && got.len() < 64 * 1024 * 1024,
        "{}",
        got.len()
    );
}

#[tokio::test]
async fn when_all_places_are_taken_that_is_told_and_the_next_one_comes_in_when_one_is_free() {
    let limits = Limits {
        max_connections: 1,
        handshake_timeout: PATIENCE,
        idle_timeout: None,
        ..quick()
    };
    let (address, metrics, _stop) = serve(limits, Router::new().fallback(async || "here")).await;
    let first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    until(|| metrics.reached.times("MOST") == 1).await;
    drop(first);
    second
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();

    let mut answer = String::new();
    timeout(PATIENCE, second.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.ends_with("here"), "{answer}");
}

#[tokio::test]
async fn whoever_asks_for_nothing_is_told_of_by_the_setting() {
    let (address, metrics, _stop) = serve(quick(), Router::new()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, client.read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    assert_eq!(metrics.reached.times("SLOW"), 1);
}

#[tokio::test]
async fn over_http2_so_many_requests_are_under_way_at_once() {
    let (go_on, at_once, most) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::<AtomicUsize>::default(),
    );
    let waits = {
        let (go_on, at_once, most) = (go_on.clone(), at_once.clone(), most.clone());
        async move || {
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            go_on.acquire().await.unwrap().forget();
            at_once.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let limits = Limits {
        max_streams: 2,
        ..Limits::default()
    };
    let (address, _, _stop) = serve(limits, Router::new().fallback(waits)).await;
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    TaskTracker::new().spawn(connection);
    let ask = || {
        let mut client = client.clone();
        let request = Request::get("http://x/")
            .body(Full::<Bytes>::default())
            .unwrap();
        TaskTracker::new().spawn(async move { client.send_request(request).await.unwrap() })
    };

    // Until then the client does not know how many it may send.
    go_on.add_permits(1);
    ask().await.unwrap();
    let asking: Vec<_> = (0..5).map(|_| ask()).collect();
    until(|| at_once.load(Ordering::SeqCst) == 2).await;

    for (number, asked) in asking.into_iter().enumerate() {
        go_on.add_permits(1);
        assert_eq!(asked.await.unwrap().status(), 200);
        until(|| at_once.load(Ordering::SeqCst) == 2.min(4 - number)).await;
    }

    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_has_come_when_the_server_stops_is_answered() {
    let (accepted, was_accepted) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let admission: Admission = Arc::new(move |_| {
        accepted.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        Ok(Arc::new(()) as Guard)
    });
    let limits = Limits {
        admission: Some(admission),
        ..Limits::default()
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let server = Server::new(limits, Metrics::default(), stop.clone(), tasks.clone());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    tasks.spawn(server.serve(
        Listener { tcp, tls: None },
        Router::new().fallback(async || "here"),
    ));
    was_accepted.recv_timeout(PATIENCE).unwrap();
    stop.cancel();
    go_on.send(()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();

    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_stops_says_so_to_its_peers_and_serves_on_until_they_have_heard_it() {
    let readiness = Readiness::default();
    readiness.set(true);
    let limits = Limits {
        readiness: Some(readiness),
        ..Limits::default()
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut server = Server::new(limits, Metrics::default(), stop.clone(), tasks.clone());
    server.notice = PATIENCE * 10;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    tasks.spawn(server.serve(
        Listener { tcp, tls: None },
        Router::new().fallback(async || "here"),
    ));
    let ask = |client: &mut std::net::TcpStream, request: &str| {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = vec![0; 1024];
        let length = client.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let mut before = std::net::TcpStream::connect(address).unwrap();
    assert!(ask(&mut before, "OPTIONS *").starts_with("HTTP/1.1 204"));

    stop.cancel();
    let mut after = std::net::TcpStream::connect(address).unwrap();

    for client in [&mut before, &mut after] {
        assert!(ask(client, "OPTIONS *").starts_with("HTTP/1.1 503"));
        assert!(ask(client, "GET /").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_server_says_itself_whether_it_can_serve_and_upgrades_nothing_while_it_drains() {
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let told = |method: &str, target: &str, header: &str| {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header, "websocket")
            .body(())
            .unwrap();
        let answer = own_answer(&request, &readiness, &stop)?;
        Some((
            answer.status().as_u16(),
            answer.headers().contains_key(DRAINING),
        ))
    };
    assert_eq!(told("OPTIONS", "*", "x"), Some((503, false)));

    readiness.set(true);
    assert_eq!(told("OPTIONS", "*", "x"), Some((204, false)));

    for (method, target, header) in [
        ("GET", "/ws", "upgrade"),
        ("OPTIONS", "/", "x"),
        ("GET", "/", "x"),
    ] {
        assert_eq!(told(method, target, header), None, "{method} {target}");
    }

    stop.cancel();
    assert_eq!(told("OPTIONS", "*", "x"), Some((503, false)));
    assert_eq!(told("GET", "/ws", "upgrade"), Some((503, true)));
    assert_eq!(told("POST", "/vvs.relay.v1.Relay/DeliverAuth", "x"), None);
}
