//! The development sign-in is for the person at the machine: whom it answers, and what it says to
//! the others.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vvs_tests::command::{Running, command, run};
use vvs_tests::nginx::Nginx;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Browser, Editor, Page, Secrets, Stack};

const REFUSED: &str = "Not through a proxy or a tunnel";
const ASKS: &str = "Enter the key of this server";
const TRUSTED: [&str; 2] = ["--gateway-trusted-proxies", "127.0.0.0/8,::1/128"];

/// What a proxy makes of a request for the sign-in, byte for byte, and what comes back.
async fn ask(stack: &Stack, editor: &Editor, version: &str, headers: &str) -> String {
    ask_at(stack.addresses().public, editor, version, headers).await
}

/// The same, by way of whoever is at this address.
async fn ask_at(address: SocketAddr, editor: &Editor, version: &str, headers: &str) -> String {
    let path = editor.login_path();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} {version}\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();

    String::from_utf8(answer).unwrap()
}

fn is_refused(answer: &str) -> bool {
    answer.split(' ').nth(1) == Some("403")
        && answer.contains(REFUSED)
        && !answer.contains("/dev/sign-in")
}

#[tokio::test]
async fn a_proxy_or_tunnel_that_shows_itself_gets_a_page_that_says_why() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;

    // Nginx as it comes: HTTP/1.0, the upstream's own name for a host, and no header of its own.
    assert!(is_refused(&ask(&stack, &editor, "HTTP/1.0", "").await));

    for header in [
        "Forwarded: for=127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: dev.example.com",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 vegur",
        "CF-Ray: 8a1b2c3d4e5f6789-FRA",
        "CF-Connecting-IP: ::1",
        "True-Client-IP: 127.0.0.1",
        "Cdn-Loop: cloudflare",
        "Fastly-Client-IP: 127.0.0.1",
        "x-original-forwarded-for: 127.0.0.1",
    ] {
        let answer = ask(&stack, &editor, "HTTP/1.1", &format!("{header}\r\n")).await;
        assert!(is_refused(&answer), "{header}: {answer}");
    }

    // What the edge says to web is the edge's alone to say.
    assert!(is_refused(
        &ask(&stack, &editor, "HTTP/1.1", "X-Forwarded-Through: \r\n").await
    ));

    let answer = ask(&stack, &editor, "HTTP/1.1", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("/dev/sign-in"),
        "{answer}"
    );

    editor.read_on().await;
}

#[tokio::test]
async fn no_form_is_taken_through_a_proxy() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let (mut browser, origin) = (stack.browser(), stack.addresses().public_url.to_string());
    let form = browser.get(&editor.login_path()).await;
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &form.field("csrf")),
        ("email", "ada@example.com"),
    ];
    for header in [
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.0 proxy"),
        ("forwarded", "for=\"[::1]\""),
    ] {
        let headers = [
            ("origin", &*origin),
            ("sec-fetch-site", "same-origin"),
            header,
        ];
        let refused = browser.post_from("/dev/sign-in", &fields, &headers).await;
        assert!(
            refused.status == StatusCode::FORBIDDEN && refused.body.contains(REFUSED),
            "{}",
            refused.body
        );
        assert!(!refused.headers.contains_key("set-cookie"));
    }

    assert_eq!(
        browser.post("/dev/sign-in", &fields).await.status,
        StatusCode::SEE_OTHER
    );

    editor.read_on().await;
}

#[tokio::test]
async fn a_trusted_proxy_is_answered_for_this_machine_alone() {
    let stack = Stack::start_with(&TRUSTED).await;
    let mut editor = stack.editor().await;
    for (version, headers) in [
        (
            "HTTP/1.0",
            "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n",
        ),
        (
            "HTTP/1.1",
            "X-Forwarded-For: ::1\r\nX-Real-IP: 127.0.0.1\r\nVia: 1.1 squid\r\n",
        ),
        ("HTTP/1.1", "X-Forwarded-For: ::ffff:127.0.0.1\r\n"),
        ("HTTP/1.1", "Forwarded: for=\"[::1]:4711\";proto=http\r\n"),
        ("HTTP/1.1", ""),
    ] {
        let answer = ask(&stack, &editor, version, headers).await;
        assert!(
            answer.contains("/dev/sign-in"),
            "{version} {headers}: {answer}"
        );
    }

    for (version, headers) in [
        ("HTTP/1.0", ""),
        ("HTTP/1.1", "X-Real-IP: 203.0.113.7\r\n"),
        (
            "HTTP/1.1",
            "X-Forwarded-For: 127.0.0.1\r\nCF-Connecting-IP: 203.0.113.7\r\n",
        ),
        (
            "HTTP/1.1",
            "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=203.0.113.7\r\n",
        ),
        ("HTTP/1.1", "Forwarded: for=unknown\r\n"),
        ("HTTP/1.1", "X-Forwarded-Proto: https\r\n"),
    ] {
        let answer = ask(&stack, &editor, version, headers).await;
        assert!(is_refused(&answer), "{version} {headers}: {answer}");
    }

    editor.read_on().await;
}

/// How people put nginx in front of a server, by what stands beside `proxy_pass`.
/// The first is all that nginx does without being told, before 1.29.7.
const STOCK: &str = "proxy_http_version 1.0;";
const COMMON: &str = "proxy_http_version 1.1; proxy_set_header Host $proxy_host; \
    proxy_set_header X-Real-IP $remote_addr; \
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
    proxy_set_header X-Forwarded-Proto $scheme;";
/// Drops the port of the public URL.
const HOST: &str = "proxy_set_header Host $host;";

async fn through(nginx: &Nginx, editor: &Editor, headers: &str) -> String {
    ask_at(nginx.address(), editor, "HTTP/1.1", headers).await
}

#[tokio::test]
async fn a_real_nginx_in_front_gets_a_page_that_says_why() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let upstream = stack.addresses().public;

    for settings in [STOCK, COMMON] {
        let nginx = Nginx::start(upstream, settings).await;
        let page = through(&nginx, &editor, "").await;
        assert!(is_refused(&page), "{settings}: {page}");
    }

    let nginx = Nginx::start(upstream, HOST).await;
    let page = through(&nginx, &editor, "").await;
    assert_eq!(page.split(' ').nth(1), Some("421"), "{page}");

    editor.read_on().await;
}

#[tokio::test]
async fn a_real_nginx_that_is_trusted_is_answered_for_this_machine_alone() {
    let stack = Stack::start_with(&TRUSTED).await;
    let mut editor = stack.editor().await;
    let upstream = stack.addresses().public;
    let elsewhere = "X-Forwarded-For: 203.0.113.7\r\n";

    let nginx = Nginx::start(upstream, COMMON).await;
    let page = through(&nginx, &editor, "").await;
    assert!(page.contains("/dev/sign-in"), "{page}");
    let page = through(&nginx, &editor, elsewhere).await;
    assert!(page.contains("Only on the machine itself"), "{page}");

    let nginx = Nginx::start(upstream, STOCK).await;
    let page = through(&nginx, &editor, "").await;
    assert!(is_refused(&page), "it does not name who called it: {page}");

    editor.read_on().await;
}

/// `up` as a program, its key if it has one, and where it serves.
async fn up(
    flags: &[&str],
    secrets: &Secrets,
) -> (Running, tempfile::TempDir, Option<String>, String) {
    let data = tempfile::tempdir().unwrap();
    let ports = [
        "--listen",
        "--relay-rpc-addr",
        "--sessions-rpc-addr",
        "--admin-addr",
    ];
    let ports = ports
        .iter()
        .flat_map(|flag| [*flag, "127.0.0.1:0"])
        .collect::<Vec<_>>();
    let arguments = [
        &["up", "--data-dir", data.path().to_str().unwrap()],
        &*ports,
        flags,
    ]
    .concat();
    let mut up = Running::start(command("vvs-mesh", &arguments), secrets);
    let lines = up.lines_until("ready http://127.0.0.1:").await;
    let key = lines
        .iter()
        .find_map(|line| line.strip_prefix("dev-key "))
        .map(str::to_owned);
    if let Some(key) = &key {
        secrets.add_shown(key);
    }

    secrets.add_key_files(data.path());
    let url = lines
        .last()
        .unwrap()
        .strip_prefix("ready ")
        .unwrap()
        .to_owned();

    (up, data, key, url)
}

/// The link of the reference editor, as a browser opens it.
async fn link(url: &str, secrets: &Secrets) -> (Running, tempfile::TempDir, String) {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let arguments = [
        "login",
        "--server",
        url,
        "--no-browser",
        "--store",
        "file",
        "--state-dir",
        folder,
    ];
    let mut editor = Running::start(command("vvs", &arguments), secrets);
    let line = editor.error_line("/login?connection_id=").await;
    let path = line
        .trim()
        .split_once('#')
        .unwrap()
        .0
        .strip_prefix(url)
        .unwrap()
        .to_owned();

    (editor, state, path)
}

#[tokio::test]
async fn a_login_against_a_plain_up_is_one_click_and_no_key() {
    let secrets = Secrets::default();
    let (_up, _data, key, url) = up(&[], &secrets).await;
    assert_eq!(key, None);

    let (_editor, _state, path) = link(&url, &secrets).await;
    let mut browser = Browser::at(&url, &secrets);
    let page = browser.get(&path).await;
    assert!(
        page.status == StatusCode::OK && page.body.contains("action=\"/dev/sign-in\""),
        "{}",
        page.body
    );
    assert!(!page.body.contains("/dev/key"), "{}", page.body);

    // The click.
    assert_eq!(
        browser.sign_in_at(&path, "ada").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_up_with_a_key_prints_it_once_and_asks_each_browser_once() {
    let secrets = Secrets::default();
    let (mut up, _data, key, url) = up(&["--dev-key"], &secrets).await;
    let key = key.unwrap();
    let (_editor, _state, path) = link(&url, &secrets).await;
    let mut browser = Browser::at(&url, &secrets);
    let asked = browser.get(&path).await;
    assert!(
        asked.status == StatusCode::FORBIDDEN && asked.body.contains(ASKS),
        "{}",
        asked.body
    );

    let id = path.split_once('=').unwrap().1;
    let shown = async |browser: &mut Browser, page: &Page, key: &str| {
        browser
            .post(
                "/dev/key",
                &[
                    ("connection_id", id),
                    ("csrf", &page.field("csrf")),
                    ("key", key),
                ],
            )
            .await
    };
    let wrong = shown(&mut browser, &asked, "not-the-key").await;
    assert!(
        wrong.status == StatusCode::FORBIDDEN && wrong.body.contains(ASKS),
        "{}",
        wrong.body
    );
    assert_eq!(shown(&mut browser, &asked, &key).await.location(), path);
    assert_eq!(
        browser.sign_in_at(&path, "ada").await.status,
        StatusCode::OK
    );
    assert!(
        Browser::at(&url, &secrets)
            .get(&path)
            .await
            .body
            .contains(ASKS),
        "another browser is asked too"
    );

    up.signal("TERM");
    assert_eq!(up.exit_code().await, 0);
    assert!(!up.log().contains(&key));
}

#[tokio::test]
async fn a_key_beside_another_identity_provider_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let key = "VVS_DEV_KEY (--dev-key) is set, but";

    for identity in ["clerk", "oidc"] {
        for command in [&["up"][..], &["check", "up"]] {
            let mut arguments = command.to_vec();
            arguments.extend(["--data-dir", folder, "--web-identity", identity]);
            let (_, _, errors) = run("vvs-mesh", &arguments).await;
            assert!(!errors.contains(key), "{errors}");

            arguments.push("--dev-key");
            let (code, out, errors) = run("vvs-mesh", &arguments).await;
            assert_eq!((code, &*out), (78, ""), "{errors}");
            assert!(errors.contains(key), "{errors}");
        }
    }
}
