//! The public edge from outside: whom it believes, what it refuses and counts, and how it answers
//! for those behind it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Error;
use tokio_util::task::TaskTracker;
use vvs_auth::peer::Role;
use vvs_client::{DEFAULT, Event, Input, Keep, Options, Outcome, Profile};
use vvs_proto::Secret;
use vvs_proto::relay::GetLoginRequest;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Authority, Editor, Page, Stack, tls_client};

/// The one address that tests come from is a proxy's.
const BEHIND_PROXY: [&str; 2] = ["--gateway-trusted-proxies", "127.0.0.0/8"];
const KEYS: &str = "/.well-known/jwks.json";

async fn refused(stack: &Stack, reason: &str) -> f64 {
    stack
        .metric(&format!("vvs_gateway_refused_total{{reason=\"{reason}\"}}"))
        .await
}

async fn closed(stack: &Stack, reason: &str) -> f64 {
    stack
        .metric(&format!(
            "vvs_handshakes_refused_total{{reason=\"{reason}\"}}"
        ))
        .await
}

#[track_caller]
fn assert_count(count: f64, expected: u32) {
    assert_eq!(
        count.to_bits(),
        f64::from(expected).to_bits(),
        "{count} and not {expected}"
    );
}

/// Everything up to the end of the connection, which the server makes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // One that is closed with bytes of ours unread ends in a reset.
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .ok();
    String::from_utf8(bytes).unwrap()
}

/// Sends these bytes, and says what comes until the server closes; nothing when it does not let us
/// in.
async fn raw(stack: &Stack, bytes: &str) -> String {
    let mut stream = TcpStream::connect(stack.addresses().public).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.ok();
    rest(&mut stream).await
}

fn host(stack: &Stack) -> String {
    stack.addresses().public_url.authority().to_owned()
}

/// A whole request for the keys, after which the server closes.
fn last_request(stack: &Stack) -> String {
    format!(
        "GET {KEYS} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        host(stack)
    )
}

async fn get_as(stack: &Stack, path: &str, forwarded: &str) -> Page {
    stack
        .browser()
        .request(Method::GET, path, &[("x-forwarded-for", forwarded)])
        .await
}

fn status(refused: &Error) -> StatusCode {
    match refused {
        Error::Http(response) => response.status(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_public_host_and_three_methods_are_served() {
    let stack = Stack::start().await;
    let mut browser = stack.browser();
    for path in [KEYS, "/login", "/ws"] {
        for host in ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1"] {
            let page = browser.request(Method::GET, path, &[("host", host)]).await;
            assert_eq!(
                page.status,
                StatusCode::MISDIRECTED_REQUEST,
                "{path} {host}"
            );
        }

        let nameless = Request::get(path).body(Full::default()).unwrap();
        assert_eq!(
            browser
                .send(stack.addresses().public, nameless)
                .await
                .status,
            StatusCode::BAD_REQUEST
        );

        for method in [
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
            Method::PATCH,
        ] {
            let page = browser.request(method.clone(), path, &[]).await;
            assert_eq!(
                page.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{path} {method}"
            );
            assert_eq!(page.headers["allow"], "GET, HEAD, POST");
        }
    }

    assert_count(refused(&stack, "foreign_host").await, 12);
    assert_count(refused(&stack, "no_host").await, 3);
    assert_count(refused(&stack, "method").await, 15);
    let head = browser.request(Method::HEAD, KEYS, &[]).await;
    assert_eq!((head.status, &*head.body), (StatusCode::OK, ""));
}

#[tokio::test]
async fn the_admin_port_answers_to_no_name_that_it_was_not_told() {
    let stack = Stack::start_with(&["--admin-hosts", "probe.example,relay-0.vvs.svc"]).await;
    let admin = stack.addresses().admin;
    let status = async |host: &str| {
        let request = Request::get("/metrics")
            .header(HOST, host)
            .body(Full::default())
            .unwrap();
        stack.browser().send(admin, request).await.status
    };
    for host in [
        &*admin.to_string(),
        "localhost:9090",
        "10.1.2.3:9090",
        "probe.example",
        "relay-0.vvs.svc:9090",
    ] {
        assert_eq!(status(host).await, StatusCode::OK, "{host}");
    }

    for host in [
        "rebound.example",
        "rebound.example:9090",
        "vvs.svc",
        "localhost.rebound.example",
    ] {
        assert_eq!(
            status(host).await,
            StatusCode::MISDIRECTED_REQUEST,
            "{host}"
        );
    }
}

async fn client_address(stack: &Stack, editor: &Editor) -> String {
    let look = GetLoginRequest {
        connection_id: editor.id().to_owned(),
        known_state: 0,
    };
    let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
    relay
        .get_login(look)
        .await
        .unwrap()
        .into_inner()
        .client_address
}

const FORGED: [(&str, &str); 7] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "https"),
    ("x-real-ip", "203.0.113.7"),
    ("forwarded", "for=203.0.113.7"),
    ("x-request-id", "forged"),
    // Headers that the client would have taken out of the request behind the edge's back.
    ("connection", "x-forwarded-for, x-request-id"),
];

#[tokio::test]
async fn a_client_cannot_say_who_it_is_or_what_its_request_is_called() {
    let stack = Stack::start().await;
    let editor = Editor::try_connect(&stack, &FORGED[..6]).await.unwrap();
    assert_eq!(client_address(&stack, &editor).await, "127.0.0.1");

    // Whoever says such things speaks for a proxy, which the development sign-in does not answer.
    let mut browser = stack.browser();
    assert_eq!(
        browser
            .request(Method::GET, &editor.login_path(), &FORGED)
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        browser.get(&editor.login_path()).await.status,
        StatusCode::OK
    );

    let mut ids = Vec::new();
    for path in ["/nowhere", "/login", KEYS, "/ws"] {
        let page = browser.request(Method::GET, path, &FORGED).await;
        let id = page.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 32 && !ids.contains(&id), "{path}: {id}");

        // The page names the same request as the log does.
        assert_eq!(
            page.body.contains("Request "),
            page.body.contains(&id),
            "{path}: {}",
            page.body
        );
        assert!(stack.log().contains(&id));

        ids.push(id);
    }

    assert!(!stack.log().contains("203.0.113.7") && !stack.log().contains("forged"));
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let stack = Stack::start_with(&BEHIND_PROXY).await;
    for (forwarded, address) in [
        ("203.0.113.7", "203.0.113.7"),
        // What stands left of the first stranger was written by that stranger.
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 127.0.0.9", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
    ] {
        let editor = Editor::try_connect(&stack, &[("x-forwarded-for", forwarded)])
            .await
            .unwrap();
        assert_eq!(
            client_address(&stack, &editor).await,
            address,
            "{forwarded}"
        );
    }
}

#[tokio::test]
async fn the_development_sign_in_answers_nobody_from_elsewhere() {
    let stack = Stack::start_with(&BEHIND_PROXY).await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let form = browser.get(&editor.login_path()).await;
    let origin = stack.addresses().public_url.to_string();
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &form.field("csrf")),
        ("email", "ada@example.com"),
    ];
    for forwarded in [
        "203.0.113.7",
        "127.0.0.1, 203.0.113.7",
        "::ffff:203.0.113.7",
    ] {
        let page = get_as(&stack, &editor.login_path(), forwarded).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{forwarded}");
        let headers = [("origin", &*origin), ("x-forwarded-for", forwarded)];
        let page = browser.post_from("/dev/sign-in", &fields, &headers).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{forwarded}");
        assert!(!page.headers.contains_key("set-cookie"));
    }

    // The same form from this machine is taken.
    assert_eq!(
        browser.post("/dev/sign-in", &fields).await.status,
        StatusCode::SEE_OTHER
    );

    editor.read_on().await;
}

#[tokio::test]
async fn a_body_may_be_so_large_and_take_so_long() {
    let flags = [
        "--gateway-max-body-bytes",
        "100",
        "--gateway-body-timeout",
        "1s",
    ];
    let stack = Stack::start_with(&flags).await;
    let mut browser = stack.browser();
    for (size, status) in [
        (100, StatusCode::FORBIDDEN),
        (101, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = Request::post("/login/approve").header(HOST, host(&stack));
        let body = Full::new(Bytes::from(vec![b'a'; size]));
        let page = browser
            .send(stack.addresses().public, request.body(body).unwrap())
            .await;
        assert_eq!(page.status, status, "{size}");
    }

    let post = format!(
        "POST /login/approve HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
        host(&stack)
    );
    let chunk = "a".repeat(101);
    let unannounced = raw(
        &stack,
        &format!("{post}transfer-encoding: chunked\r\n\r\n65\r\n{chunk}\r\n0\r\n\r\n"),
    )
    .await;
    assert!(unannounced.starts_with("HTTP/1.1 413 "), "{unannounced}");

    let slow = raw(&stack, &format!("{post}content-length: 10\r\n\r\na")).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");

    assert_count(refused(&stack, "body_size").await, 2);
    assert_count(refused(&stack, "body_slow").await, 1);
}

#[tokio::test]
async fn one_address_may_ask_so_often_and_keeps_nobody_else_out() {
    let stack =
        Stack::start_with(&[&BEHIND_PROXY[..], &["--gateway-requests-per-minute", "1"]].concat())
            .await;
    assert_eq!(
        get_as(&stack, KEYS, "203.0.113.7").await.status,
        StatusCode::OK
    );

    let page = get_as(&stack, KEYS, "203.0.113.7").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);

    let wait: u64 = page.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        get_as(&stack, KEYS, "198.51.100.1").await.status,
        StatusCode::OK
    );

    assert_count(refused(&stack, "request_rate").await, 1);
}

/// Connects until the server has a place, asks there, and keeps the place.
async fn hold(stack: &Stack) -> TcpStream {
    let request = last_request(stack).replace("connection: close\r\n", "");
    let holding = async {
        loop {
            let mut stream = TcpStream::connect(stack.addresses().public).await.unwrap();
            stream.write_all(request.as_bytes()).await.ok();
            let mut answer = [0; 12];
            if stream.read_exact(&mut answer).await.is_ok() {
                assert_eq!(&answer, b"HTTP/1.1 200");
                return stream;
            }
        }
    };

    timeout(PATIENCE, holding).await.unwrap()
}

#[tokio::test]
async fn so_many_connections_are_held_and_a_websocket_is_one_for_as_long_as_it_lives() {
    for (flag, reason) in [
        ("--gateway-max-connections", "connections"),
        (
            "--gateway-max-connections-per-address",
            "connections_per_address",
        ),
    ] {
        let stack = Stack::start_with(&[flag, "2"]).await;
        let mut editor = stack.editor().await;
        let held = hold(&stack).await;
        assert_eq!(
            raw(&stack, &last_request(&stack)).await,
            "",
            "{flag}: one too many"
        );

        assert_count(closed(&stack, reason).await, 1);
        drop(held);
        let mut held = hold(&stack).await;
        assert_eq!(
            raw(&stack, &last_request(&stack)).await,
            "",
            "{flag}: the place was given back twice"
        );

        editor.read_on().await;
        drop(editor);
        let _other = hold(&stack).await;

        // Who was in before is served.
        held.write_all(last_request(&stack).as_bytes())
            .await
            .unwrap();
        assert!(rest(&mut held).await.contains("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn behind_a_proxy_each_client_holds_so_many_sockets() {
    let stack = Stack::start_with(
        &[
            &BEHIND_PROXY[..],
            &["--gateway-max-connections-per-address", "1"],
        ]
        .concat(),
    )
    .await;
    let one = [("x-forwarded-for", "203.0.113.7")];
    let held = Editor::try_connect(&stack, &one).await.unwrap();
    let full = Editor::try_connect(&stack, &one).await.unwrap_err();
    assert_eq!(status(&full), StatusCode::TOO_MANY_REQUESTS);

    Editor::try_connect(&stack, &[("x-forwarded-for", "198.51.100.1")])
        .await
        .unwrap();
    assert_count(refused(&stack, "connections_per_address").await, 1);
    drop(held);
    let again = async { while Editor::try_connect(&stack, &one).await.is_err() {} };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn whoever_sends_nothing_or_never_ends_its_headers_is_closed_and_an_editor_is_not() {
    let stack = Stack::start_with(&["--gateway-header-timeout", "1s"]).await;
    let mut editor = stack.editor().await;
    assert_eq!(raw(&stack, "").await, "");
    assert_eq!(
        raw(
            &stack,
            &format!("GET / HTTP/1.1\r\nhost: {}\r\nx-slow: ", host(&stack))
        )
        .await,
        ""
    );

    assert_count(closed(&stack, "slow").await, 2);

    // The same behind a request that was whole.
    let next = raw(
        &stack,
        &format!(
            "GET {KEYS} HTTP/1.1\r\nhost: {}\r\n\r\nGET / HTTP",
            host(&stack)
        ),
    )
    .await;
    assert!(next.starts_with("HTTP/1.1 200 "), "{next}");

    editor.read_on().await;
}

#[tokio::test]
async fn while_a_role_behind_it_is_down_the_edge_says_when_to_come_back() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    stack.stop(Role::Web).await;
    let down = async {
        loop {
            let page = stack.browser().get(KEYS).await;
            if page.status == StatusCode::SERVICE_UNAVAILABLE {
                return page;
            }
        }
    };

    let page = timeout(PATIENCE, down).await.unwrap();
    assert_eq!(
        (&page.headers["retry-after"], &page.headers["cache-control"]),
        (&"5".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert!(page.headers.contains_key("x-request-id"));
    assert!(refused(&stack, "unreachable").await >= 1.0);

    // The other one is none the worse for it.
    editor.read_on().await;
    drop(stack.editor().await);
    stack.stop(Role::Relay).await;
    let down = async {
        loop {
            if let Err(refused) = Editor::try_connect(&stack, &[]).await
                && let Error::Http(response) = *refused
                && response.status() == StatusCode::SERVICE_UNAVAILABLE
            {
                return response;
            }
        }
    };

    assert_eq!(
        timeout(PATIENCE, down).await.unwrap().headers()["retry-after"],
        "5"
    );
}

#[tokio::test]
async fn over_tls_an_editor_signs_in_and_cookies_are_bound_to_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::foreign().certify(folder.path(), &[], None);
    let [cert, key, ca] =
        [&files.cert, &files.key, files.ca.as_ref().unwrap()].map(|path| path.to_str().unwrap());
    let stack = Stack::start_with(&["--gateway-tls-cert", cert, "--gateway-tls-key", key]).await;
    let url = stack.addresses().public_url.to_string();
    assert!(url.starts_with("https://127.0.0.1:"));

    let mut browser = stack.browser().trusting(ca.as_ref());

    let profile = Profile::new(folder.path().join("editor"), DEFAULT, Keep::File).unwrap();
    let options = Options {
        ca_file: files.ca.clone(),
        typed: true,
        ..Options::new(url.parse().unwrap(), profile)
    };
    let (person, inputs) = tokio::sync::mpsc::channel(1);
    let (link, linked) = tokio::sync::oneshot::channel();
    let mut link = Some(link);
    let login = vvs_client::login(&options, inputs, |event| {
        if let (Event::Link { login_url, .. }, Some(link)) = (event, link.take()) {
            link.send(login_url).unwrap();
        }
    });
    let (outcome, lines) = tokio::join!(
        async { timeout(PATIENCE, login).await.unwrap().unwrap() },
        async {
            let login_url = linked.await.unwrap();
            let approval = browser
                .sign_in_at(login_url.strip_prefix(&url).unwrap(), "ada")
                .await;
            assert_eq!(
                approval.headers["strict-transport-security"],
                "max-age=31536000"
            );
            let approved = browser.approve(&approval).await;
            let code = approved
                .code()
                .unwrap_or_else(|| panic!("{}", approved.body));
            person.send(Input::Code(Secret::new(code))).await.unwrap();
            approved
                .headers
                .get_all("set-cookie")
                .iter()
                .map(|line| line.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    );
    let Outcome::SignedIn { credential, .. } = outcome else {
        panic!("{outcome:?}")
    };

    assert_eq!(credential.who(), "ada <ada@example.com>");
    assert!(
        browser
            .cookies
            .keys()
            .all(|name| name.starts_with("__Host-vvs-")),
        "{:?}",
        browser.cookies.keys()
    );
    assert_eq!(browser.cookies.len(), 3);
    assert!(
        !lines.is_empty()
            && lines
                .iter()
                .all(|line| line.contains("; Secure") && line.contains("; Path=/;"))
    );

    // Plain HTTP on the same port is no request at all.
    assert!(
        !raw(&stack, &last_request(&stack))
            .await
            .contains("HTTP/1.1 200")
    );

    // The connection may be closed before it is counted.
    stack
        .until_metric("vvs_handshakes_refused_total{reason=\"tls\"}", |refused| {
            refused >= 1.0
        })
        .await;
}

#[tokio::test]
async fn over_http2_the_same_is_served_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::foreign().certify(folder.path(), &[], None);
    let [cert, key] = [&files.cert, &files.key].map(|path| path.to_str().unwrap());
    let stack = Stack::start_with(&["--gateway-tls-cert", cert, "--gateway-tls-key", key]).await;
    let mut config = tls_client(&files.ca.unwrap());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = stack.addresses().public;
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(connection);

    for (authority, path, status) in [
        (&*host(&stack), KEYS, StatusCode::OK),
        ("evil.example", KEYS, StatusCode::MISDIRECTED_REQUEST),
        // A WebSocket needs HTTP/1.1 (RFC 6455), and HTTP/2 forbids the header that says so
        // elsewhere.
        (&host(&stack), "/ws", StatusCode::UPGRADE_REQUIRED),
    ] {
        let request = Request::get(format!("https://{authority}{path}"))
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.status(), status, "{authority}{path}");
        assert!(
            answer.headers().contains_key("x-request-id")
                && !answer.headers().contains_key("upgrade")
        );
    }
}

#[tokio::test]
async fn over_tls_a_silent_client_is_closed_too() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::foreign().certify(folder.path(), &[], None);
    let [cert, key] = [&files.cert, &files.key].map(|path| path.to_str().unwrap());
    let flags = [
        "--gateway-tls-cert",
        cert,
        "--gateway-tls-key",
        key,
        "--gateway-header-timeout",
        "300ms",
    ];
    let stack = Stack::start_with(&flags).await;
    assert_eq!(raw(&stack, "").await, "");

    assert_count(closed(&stack, "slow").await, 1);
}
