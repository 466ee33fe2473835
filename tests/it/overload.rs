//! More than a server can or should take, of everything that anybody may send it: whoever sends it
//! meets a limit or a deadline, and everyone else is served meanwhile.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vvs_auth::peer::Role;
use vvs_proto::relay::{self, DeliverAuthRequest};
use vvs_proto::types;
use vvs_runtime::http::Connector;
use vvs_runtime::rpc::{reason, within};
use vvs_runtime::tls::Identity;
use vvs_runtime::tls::stream::Dialled;
use vvs_tests::database::Database;
use vvs_tests::nats::NatsServer;
use vvs_tests::root;
use vvs_tests::split::Split;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Editor, Stack};

use hoard::{Hoard, Outcome, connect_from, handshake, read_head};

mod hoard;
mod share;

/// How many sockets the hoarder of the tests wants.
const ATTEMPTS: usize = 10_000;
/// How many of his attempts are under way at once.
const AT_ONCE: usize = 50;
/// What an address may have by default.
const LOGINS_PER_ADDRESS: usize = 20;
/// Where hoarders and floods come from. Everybody else here comes from 127.0.0.1, which counts
/// apart.
const HOARDER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const KEYS: &str = "/.well-known/jwks.json";

fn host(stack: &Stack) -> String {
    stack.addresses().public_url.authority().to_owned()
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// A person signs in from start to end.
async fn sign_in(stack: &Stack) -> Editor {
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, success) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    assert_eq!(success["type"], "auth:success");
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(
        browser.get(&approved.location()).await.status,
        StatusCode::OK
    );

    editor
}

async fn reached(stack: &Stack, setting: &str) -> f64 {
    stack
        .metric(&format!(
            "vvs_limits_reached_total{{setting=\"{setting}\"}}"
        ))
        .await
}

/// The lines about limits, by setting: how often each was reached according to each line.
fn lines(log: &str) -> HashMap<String, Vec<f64>> {
    let mut lines: HashMap<_, Vec<_>> = HashMap::new();
    for line in log
        .lines()
        .filter(|line| line.contains("a limit was reached"))
    {
        let value = |name: &str| {
            line.split_once(name)
                .unwrap()
                .1
                .split(' ')
                .next()
                .unwrap()
                .trim_matches('"')
        };
        lines
            .entry(value("setting=").to_owned())
            .or_default()
            .push(value("times=").parse().unwrap());
    }

    lines
}

/// Each limit has been written about, and no more than once a second since `began`.
fn assert_told(log: &str, began: Instant, settings: &[&str]) {
    let lines = lines(log);
    let seconds = began.elapsed().as_secs() + 2;
    for (setting, times) in &lines {
        assert!(
            times.len() as u64 <= seconds,
            "{} lines about {setting} in {seconds} s",
            times.len()
        );
    }

    for setting in settings {
        assert!(lines.contains_key(*setting), "{setting}: {lines:?}");
    }
}

/// The gateway's own place in front of a relay.
struct Edge {
    connector: Connector,
    relay: SocketAddr,
}

impl Edge {
    fn of(split: &Split) -> Self {
        let files = vvs_mesh::pki::files(split.stack.data().path(), Role::Gateway);
        let connector = Connector {
            identity: Identity::load(files).unwrap(),
            check: Arc::new(|_certificate| Ok(())),
            alpn: b"http/1.1",
            timeout: PATIENCE,
        };
        Self {
            connector,
            relay: split.relay.as_ref().unwrap().ws,
        }
    }

    async fn connect(&self) -> std::io::Result<Dialled<TcpStream>> {
        self.connector.connect(&self.relay.to_string()).await
    }

    /// Over a connection whose kernel takes little that nobody reads, and no more later.
    async fn connect_narrowly(&self) -> TlsStream<TcpStream> {
        let Connector {
            identity,
            check,
            alpn,
            ..
        } = &self.connector;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = socket.connect(self.relay).await.unwrap();
        let config = identity.client(check.clone(), alpn).unwrap();

        TlsConnector::from(config)
            .connect(ServerName::IpAddress(self.relay.ip().into()), stream)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn one_address_that_opens_ten_thousand_sockets_gets_its_twenty_and_others_sign_in_meanwhile()
{
    let stack = Stack::start().await;
    let (hoard, began) = (Arc::new(Hoard::default()), Instant::now());
    let (address, host) = (stack.addresses().public, host(&stack));
    let mut hoarding = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (hoard, host) = (hoard.clone(), host.clone());
        hoarding.spawn(async move {
            let mut kept = Vec::new();
            for _ in 0..ATTEMPTS / AT_ONCE {
                kept.extend(
                    hoard
                        .attempt(connect_from(HOARDER, address).await, &host, "/ws", "")
                        .await,
                );
            }
            kept
        });
    }

    until("he has his share", async || {
        hoard.sockets() == LOGINS_PER_ADDRESS
    })
    .await;
    let mut editor = sign_in(&stack).await;
    let _connections = hoarding.join_all().await;
    assert_eq!(
        (hoard.sockets(), hoard.attempts()),
        (LOGINS_PER_ADDRESS, ATTEMPTS)
    );

    editor.read_on().await;
    stack
        .until_metric("vvs_connections", |value| {
            value.to_bits() == 21.0_f64.to_bits()
        })
        .await;
    let settings = [
        "VVS_RELAY_MAX_LOGINS_PER_ADDRESS",
        "VVS_GATEWAY_CONNECTIONS_PER_MINUTE",
        "VVS_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS",
    ];
    assert_told(&stack.log(), began, &settings);
    for setting in settings {
        assert!(reached(&stack, setting).await > 1.0, "{setting}");
    }

    // Others still get in while he has all that.
    sign_in(&stack).await;
}

#[tokio::test]
async fn at_the_relay_itself_ten_thousand_handshakes_for_one_address_are_its_twenty() {
    let split = Split::relay(Database::Sqlite, &[]).await;
    let (edge, hoard, began) = (
        Arc::new(Edge::of(&split)),
        Arc::new(Hoard::default()),
        Instant::now(),
    );
    let mut hoarding = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (edge, hoard) = (edge.clone(), hoard.clone());
        hoarding.spawn(async move {
            // A connection that was refused is used again, as the gateway does.
            let mut spare = None;
            for _ in 0..ATTEMPTS / AT_ONCE {
                let stream = if let Some(stream) = spare.take() {
                    Ok(stream)
                } else {
                    edge.connect().await
                };

                spare = hoard
                    .attempt(
                        stream,
                        "localhost",
                        "/ws",
                        "x-forwarded-for: 203.0.113.7\r\n",
                    )
                    .await;
            }
        });
    }

    until("he has his share", async || {
        hoard.sockets() == LOGINS_PER_ADDRESS
    })
    .await;
    sign_in(&split.stack).await;
    hoarding.join_all().await;
    assert_eq!(
        (hoard.sockets(), hoard.attempts()),
        (LOGINS_PER_ADDRESS, ATTEMPTS)
    );

    let log = split.relay.as_ref().unwrap().process.log();
    assert_told(
        &log,
        began,
        &[
            "VVS_RELAY_MAX_LOGINS_PER_ADDRESS",
            "VVS_RELAY_HANDSHAKES_PER_MINUTE",
        ],
    );

    for reason in ["logins_per_address", "handshake_rate"] {
        let refused = split
            .relay_metric(&format!(
                "vvs_handshakes_refused_total{{reason=\"{reason}\"}}"
            ))
            .await;
        assert!(refused > 1.0, "{refused}: {reason}");
    }

    sign_in(&split.stack).await;
}

#[tokio::test]
async fn sockets_for_a_session_are_bounded_and_end_after_their_ten_seconds() {
    let stack = Stack::start_with(&["--relay-handshake-burst", "20"]).await;
    let (hoard, address, host) = (Hoard::default(), stack.addresses().public, host(&stack));
    let attempt = async || {
        hoard
            .attempt(
                connect_from(HOARDER, address).await,
                &host,
                "/ws?for=session",
                "",
            )
            .await
    };
    let mut kept = Vec::new();
    for _ in 0..50 {
        kept.extend(attempt().await);
    }

    assert_eq!((hoard.sockets(), kept.len()), (20, 30));

    sign_in(&stack).await;
    let ends = timeout(PATIENCE, hoard.ends()).await.unwrap();
    assert!(
        ends.len() == 20 && ends.iter().all(|end| *end == Some(4000)),
        "{ends:?}"
    );
    assert_eq!(
        reached(&stack, "VVS_RELAY_SIGN_IN_TIME").await.to_bits(),
        20.0_f64.to_bits()
    );
    assert!(attempt().await.is_none());
    assert_eq!(hoard.sockets(), 21);
}

#[tokio::test]
async fn a_relay_whose_memory_is_used_up_says_when_to_come_back_and_keeps_whom_it_has() {
    // For three sockets and a little.
    let stack = Stack::start_with(&["--relay-max-memory", "50000"]).await;
    let mut editors = Vec::new();
    for _ in 0..3 {
        editors.push(stack.editor().await);
    }

    let stream = TcpStream::connect(stack.addresses().public).await.unwrap();
    let Outcome::Refused(status, head, _) = handshake(stream, &host(&stack), "/ws", "").await
    else {
        panic!("a socket more than there is memory for")
    };

    assert!(
        status == 503 && head.contains("retry-after: 10\r\n"),
        "{head}"
    );
    assert_eq!(
        stack
            .metric("vvs_handshakes_refused_total{reason=\"memory\"}")
            .await
            .to_bits(),
        1.0_f64.to_bits()
    );

    let kept = stack.metric("vvs_relay_memory_bytes").await;
    assert!((49_152.0..50_000.0).contains(&kept), "{kept}");

    for editor in &mut editors {
        editor.read_on().await;
    }

    drop(editors);
    stack
        .until_metric("vvs_relay_memory_bytes", |value| value < 1.0)
        .await;
    sign_in(&stack).await;
}

/// A text frame as a client sends it, masked with zeroes.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn an_editor_that_reads_nothing_is_closed_as_too_slow_and_then_reset() {
    let split = Split::relay(
        Database::Sqlite,
        &["--relay-messages-per-minute", "1000000"],
    )
    .await;
    let stream = Edge::of(&split).connect_narrowly().await;
    let Outcome::Socket(socket) = handshake(stream, "localhost", "/ws", "").await else {
        panic!("no socket")
    };

    let mut stream = socket.into_inner();
    let closes = "vvs_closes_total{code=\"4001\"}";

    // Each is answered, until no kernel takes more of the answers.
    let batch = frame(r#"{"type":"x"}"#).repeat(1000);
    let flooding = async {
        while split.relay_metric(closes).await < 1.0 {
            if timeout(Duration::from_millis(100), stream.write_all(&batch))
                .await
                .is_ok_and(|written| written.is_err())
            {
                break;
            }
        }
    };

    timeout(PATIENCE, flooding).await.unwrap();
    split.until_relay_metric(closes, |value| value > 0.0).await;
    split
        .until_relay_metric("vvs_connections", |value| value < 1.0)
        .await;

    // As the kernel has it: the library would write first, and hear of the reset there.
    let (mut stream, _) = stream.into_inner();
    let reading = async {
        let mut scratch = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut scratch).await {
                Ok(1..) => {}
                end => return end.map_err(|cause| cause.kind()),
            }
        }
    };

    assert_eq!(
        timeout(PATIENCE, reading).await.unwrap(),
        Err(ErrorKind::ConnectionReset)
    );

    split
        .until_relay_metric(
            "vvs_limits_reached_total{setting=\"VVS_RELAY_SEND_QUEUE_BYTES\"}",
            |value| value > 0.0,
        )
        .await;
    sign_in(&split.stack).await;
}

#[tokio::test]
async fn an_editor_that_has_stopped_is_closed_and_the_edge_lets_go_of_it_too() {
    let stack = Stack::start_with(&[
        "--relay-heartbeat-interval",
        "500ms",
        "--relay-heartbeat-timeout",
        "500ms",
    ])
    .await;

    // Its machine is there, and it does nothing: no ping is answered, no close either.
    let stopped = stack.editor().await;
    stack
        .until_metric("vvs_closes_total{code=\"4002\"}", |value| value > 0.0)
        .await;
    stack
        .until_metric("vvs_connections", |value| value < 1.0)
        .await;
    let busy = async || {
        let page = stack
            .browser()
            .get_at(stack.addresses().admin, "/metrics")
            .await
            .body;
        let line = page
            .lines()
            .find(|line| line.starts_with("vvs_gateway_member_in_flight{role=\"relay\""));
        !line.unwrap().ends_with(" 0")
    };
    until("the edge keeps it", async || !busy().await).await;
    drop(stopped);
}

#[tokio::test]
async fn a_frame_that_is_never_finished_does_not_keep_its_socket() {
    let stack = Stack::start_with(&[
        "--relay-heartbeat-interval",
        "500ms",
        "--relay-heartbeat-timeout",
        "500ms",
    ])
    .await;
    let stream = connect_from(HOARDER, stack.addresses().public)
        .await
        .unwrap();
    let Outcome::Socket(socket) = handshake(stream, &host(&stack), "/ws", "").await else {
        panic!("no socket")
    };

    // Inside a frame there is no room for a pong.
    let mut stream = socket.into_inner();
    stream
        .write_all(&frame("a frame of which the end is missing")[..20])
        .await
        .unwrap();
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .ok();
    assert!(
        all.windows(4)
            .any(|window| window == [0x88, 0x02, 0x0F, 0xA2]),
        "no close with 4002"
    );

    sign_in(&stack).await;
}

/// Something that is begun and never ended, and what a server says of it before it closes.
const UNFINISHED: [(&str, &str); 4] = [
    ("", ""),
    ("GET /ws HTTP/1.1\r\nhost: ", ""),
    (
        "POST /login/approve HTTP/1.1\r\nhost: HOST\r\ncontent-length: 10\r\nconnection: \
         close\r\n\r\na",
        "HTTP/1.1 408 ",
    ),
    (
        "GET /ws HTTP/1.1\r\nhost: HOST\r\nconnection: upgrade\r\nupgrade: \
         websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: \
         dGhlIHNhbXBsZSBub25jZQ==\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 408 ",
    ),
];

#[tokio::test]
async fn hundreds_of_slow_clients_are_closed_and_others_sign_in_meanwhile() {
    let slow = [
        "--gateway-header-timeout",
        "3s",
        "--gateway-body-timeout",
        "3s",
    ];
    let flags = [&slow[..], &["--gateway-max-bodies-per-address", "200"]].concat();
    let stack = Stack::start_with(&flags).await;
    let (address, host) = (stack.addresses().public, host(&stack));
    let mut slow = JoinSet::new();
    let mut begun = Vec::new();
    for number in 0..400 {
        let (request, answer) = UNFINISHED[number % UNFINISHED.len()];
        let mut stream = connect_from(HOARDER, address).await.unwrap();
        stream
            .write_all(request.replace("HOST", &host).as_bytes())
            .await
            .unwrap();
        begun.push((stream, request, answer));
    }

    sign_in(&stack).await;

    for (mut stream, request, answer) in begun {
        slow.spawn(async move {
            let mut told = Vec::new();
            stream.read_to_end(&mut told).await.ok();
            let told = String::from_utf8_lossy(&told).into_owned();
            assert!(
                told.starts_with(answer) && told.is_empty() == answer.is_empty(),
                "{request:?}: {told:?}"
            );
        });
    }

    timeout(PATIENCE, slow.join_all()).await.unwrap();
    assert!(reached(&stack, "VVS_GATEWAY_HEADER_TIMEOUT").await >= 200.0);
    assert_eq!(
        reached(&stack, "VVS_GATEWAY_BODY_TIMEOUT").await.to_bits(),
        200.0_f64.to_bits()
    );
}

#[tokio::test]
async fn at_the_relay_a_handshake_that_is_never_finished_is_closed() {
    let split = Split::relay(Database::Sqlite, &["--relay-header-timeout", "5s"]).await;
    let relay = split.relay.as_ref().unwrap();
    let mut silent = Vec::new();
    for address in [relay.ws, relay.rpc].repeat(100) {
        silent.push(TcpStream::connect(address).await.unwrap());
    }

    // Over TLS, with headers that never end.
    let mut dribbling = Edge::of(&split).connect().await.unwrap();
    dribbling
        .write_all(b"GET /ws HTTP/1.1\r\nhost: ")
        .await
        .unwrap();
    sign_in(&split.stack).await;
    let closed = join_all(
        silent
            .iter_mut()
            .map(async |stream| stream.read(&mut [0]).await.unwrap_or(0)),
    );
    assert!(
        timeout(PATIENCE, closed)
            .await
            .unwrap()
            .iter()
            .all(|length| *length == 0)
    );
    assert_eq!(
        timeout(PATIENCE, dribbling.read(&mut [0]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );

    let refused = split
        .relay_metric("vvs_handshakes_refused_total{reason=\"slow\"}")
        .await;
    assert!(refused >= 200.0, "{refused}");
}

#[tokio::test]
async fn over_one_http2_connection_bodies_that_never_end_are_refused_and_others_sign_in_meanwhile()
{
    let flags = [
        "--gateway-body-timeout",
        "2s",
        "--gateway-max-streams",
        "50",
    ];
    let stack = Stack::start_with(&flags).await;
    let stream = TokioIo::new(
        connect_from(HOARDER, stack.addresses().public)
            .await
            .unwrap(),
    );
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });

    // The first answer brings along how many may be under way.
    let asked = Request::get(format!("http://{}{KEYS}", host(&stack)));
    let mut first = client.clone();
    let asked = first
        .send_request(
            asked
                .body(StreamBody::new(stream::empty().boxed()))
                .unwrap(),
        )
        .await;
    assert_eq!(asked.unwrap().status(), StatusCode::OK);

    let url = format!("http://{}/login/approve", host(&stack));
    let asking = (0..300).map(|_| {
        let (mut client, url) = (client.clone(), url.clone());
        async move {
            let body =
                StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>().boxed());
            client
                .send_request(Request::post(url).body(body).unwrap())
                .await
                .unwrap()
                .status()
        }
    });
    let (answers, _) = tokio::join!(timeout(PATIENCE, join_all(asking)), sign_in(&stack));
    assert!(
        answers
            .unwrap()
            .iter()
            .all(|status| *status == StatusCode::REQUEST_TIMEOUT)
    );
    assert_eq!(
        reached(&stack, "VVS_GATEWAY_BODY_TIMEOUT").await.to_bits(),
        300.0_f64.to_bits()
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_a_place_from_other_bodies_and_from_nothing_else() {
    let often = [
        "--gateway-connections-per-minute",
        "1000000",
        "--gateway-requests-per-minute",
        "1000000",
    ];
    let flags = [
        "--gateway-max-bodies",
        "1",
        "--gateway-max-requests",
        "1",
        "--gateway-body-timeout",
        "30s",
    ];
    let stack = Stack::start_with(&[&often[..], &flags].concat()).await;
    let mut editor = stack.editor().await;
    let request = format!(
        "POST /login/approve HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\na",
        host(&stack)
    );
    let mut slow = connect_from(HOARDER, stack.addresses().public)
        .await
        .unwrap();
    slow.write_all(request.as_bytes()).await.unwrap();
    let post = async || stack.browser().post("/login/approve", &[("a", "b")]).await;
    until("another body is refused", async || {
        post().await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(post().await.headers["retry-after"], "5");
    assert!(reached(&stack, "VVS_GATEWAY_MAX_BODIES").await >= 2.0);

    // What has no body waits for nobody's.
    assert_eq!(stack.browser().get(KEYS).await.status, StatusCode::OK);

    editor.read_on().await;
    drop(slow);
    until("it is read", async || {
        post().await.status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_requests_is_no_flood_of_lines() {
    let stack = Stack::start_with(&["--gateway-requests-per-minute", "1"]).await;
    let began = Instant::now();
    let mut stream = connect_from(HOARDER, stack.addresses().public)
        .await
        .unwrap();
    let request = format!("GET {KEYS} HTTP/1.1\r\nhost: {}\r\n\r\n", host(&stack));
    let mut statuses = Vec::new();
    for _ in 0..500 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, mut rest) = read_head(&mut stream).await.unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap()
            .parse()
            .unwrap();
        while rest.len() < length {
            stream.read_buf(&mut rest).await.unwrap();
        }

        statuses.push(head[9..12].to_owned());
    }

    assert!(
        statuses[0] == "200" && statuses[1..].iter().all(|status| status == "429"),
        "{statuses:?}"
    );

    let log = stack.log();
    assert_told(&log, began, &["VVS_GATEWAY_REQUESTS_PER_MINUTE"]);
    assert_eq!(
        log.lines()
            .filter(|line| line.contains("client=127.0.0.2"))
            .count(),
        1,
        "{log}"
    );
    assert_eq!(
        reached(&stack, "VVS_GATEWAY_REQUESTS_PER_MINUTE")
            .await
            .to_bits(),
        499.0_f64.to_bits()
    );
}

/// A delivery for a login that no relay has ever had.
fn unknown(number: usize) -> DeliverAuthRequest {
    let expires_at = Some(prost_types::Timestamp {
        seconds: 4_000_000_000,
        nanos: 0,
    });
    DeliverAuthRequest {
        request_id: "0b9e7a4c-52b1-4c1f-9d3a-7a5d2f6e8c10".to_owned(),
        connection_id: format!("{number:08x}-52b1-4c1f-9d3a-7a5d2f6e8c10"),
        token: "nobody's".to_owned(),
        token_expires_at: expires_at,
        user: Some(types::User {
            id: "nobody".to_owned(),
            ..types::User::default()
        }),
        session: Some(relay::Session {
            id: "none".to_owned(),
            expires_at,
        }),
    }
}

/// Answers to so many deliveries at once, by how many got each.
async fn storm(split: &Split, count: usize) -> HashMap<String, usize> {
    let relay = split
        .stack
        .caller(Role::Web)
        .relay(split.relay.as_ref().unwrap().rpc);
    let delivering = (0..count).map(|number| {
        let mut relay = relay.clone();
        async move {
            let refused = relay
                .deliver_auth(within(unknown(number), PATIENCE))
                .await
                .unwrap_err();
            if reason(&refused).is_empty() {
                format!("{refused:?}")
            } else {
                reason(&refused)
            }
        }
    });
    let mut counts = HashMap::new();
    for answer in timeout(PATIENCE, join_all(delivering)).await.unwrap() {
        *counts.entry(answer).or_default() += 1;
    }

    // The last is of one that did not say in time that it has heard, for there was too much.
    let known = ["LOGIN_UNKNOWN", "OVERLOADED", "BACKPLANE_DOWN"];
    assert!(
        counts
            .keys()
            .all(|answer: &String| known.contains(&&**answer)),
        "{counts:?}"
    );
    assert!(
        counts.contains_key("LOGIN_UNKNOWN") && counts.contains_key("OVERLOADED"),
        "{counts:?}"
    );

    counts
}

#[tokio::test]
async fn a_storm_of_deliveries_for_nobody_asks_other_relays_so_much_and_others_sign_in_meanwhile() {
    let server = NatsServer::start().await;
    let servers = format!("nats://{}", server.address());
    let split = Split::relay(
        Database::Sqlite,
        &["--relay-backplane", &servers, "--relay-max-asks", "100"],
    )
    .await;
    let (counts, _) = tokio::join!(storm(&split, 600), sign_in(&split.stack));
    let full = split
        .relay_metric("vvs_backplane_requests_total{outcome=\"full\"}")
        .await;
    assert_eq!(
        full.to_bits(),
        f64::from(u32::try_from(counts["OVERLOADED"]).unwrap()).to_bits()
    );
}

#[tokio::test]
async fn a_storm_of_calls_meets_their_limit_and_when_it_is_over_all_is_well() {
    let server = NatsServer::start().await;
    let servers = format!("nats://{}", server.address());
    let split = Split::relay(
        Database::Sqlite,
        &["--relay-backplane", &servers, "--relay-max-calls", "100"],
    )
    .await;
    let began = Instant::now();
    let counts = storm(&split, 3000).await;
    let reached = split
        .relay_metric("vvs_limits_reached_total{setting=\"VVS_RELAY_MAX_CALLS\"}")
        .await;
    assert_eq!(
        reached.to_bits(),
        f64::from(u32::try_from(counts["OVERLOADED"]).unwrap()).to_bits()
    );

    let log = split.relay.as_ref().unwrap().process.log();
    assert_told(&log, began, &["VVS_RELAY_MAX_CALLS"]);
    assert!(!log.contains("OVERLOADED"), "a line for each");

    sign_in(&split.stack).await;
}

/// Something that somebody can change.
#[test]
fn every_limit_is_told_by_the_name_of_a_setting() {
    use clap::CommandFactory as _;
    let mut cli = vvs_mesh::Cli::command();
    cli.build();
    let up = cli.find_subcommand("up").unwrap();
    let known: Vec<_> = up
        .get_arguments()
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect();
    let root = root();
    let mut told = 0;
    for file in [
        "services/relay/src/limit.rs",
        "services/relay/src/lib.rs",
        "services/relay/src/socket.rs",
        "services/relay/src/backplane/nats/ask.rs",
        "services/relay/src/backplane/nats/hear.rs",
        "services/relay/src/session/frame.rs",
        "services/sessions/src/limit.rs",
        "services/sessions/src/rpc/feed.rs",
        "services/sessions/src/store/audit.rs",
        "services/sessions/src/store/browser.rs",
        "services/sessions/src/store/room.rs",
        "services/identity/src/people.rs",
        "gateway/src/error.rs",
        "gateway/src/lib.rs",
        "gateway/src/route.rs",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for literal in text.split('"').skip(1).step_by(2) {
            if literal.starts_with("VVS_")
                && literal
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            {
                assert!(
                    known.iter().any(|setting| setting == literal),
                    "{file}: {literal}"
                );
                told += 1;
            }
        }
    }

    assert!(told > 20, "{told}");
}
