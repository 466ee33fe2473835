//! A stranger's login that its victim approves, on a machine where a program redirects in every way
//! that a path can ask for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use vvs_client::DeviceKey;
use vvs_tests::{Chromium, Editor, Stack};

use super::{SIGN_IN, STATE, approve, editor, link, say_who};

/// What makes one careless program or another send a browser on to HOST.
const TRICKS: [&str; 30] = [
    "//HOST/x",
    "//HOST",
    "///HOST/x",
    "/\\HOST/x",
    "\\\\HOST/x",
    "/\\/HOST/x",
    "/\t/HOST/x",
    "/%2fHOST/x",
    "/%2F%2FHOST/x",
    "/%5cHOST/x",
    "/%09/HOST/x",
    "/.//HOST/x",
    "/..//HOST/x",
    "/%2e//HOST/x",
    "/x//HOST/x",
    "/x/..//HOST/x",
    "/x/%2e%2e//HOST/x",
    "/;//HOST/x",
    "/@HOST/x",
    "/http://HOST/x",
    "/go/http://HOST/x",
    "/http:%2f%2fHOST%2fx",
    "/?next=http://HOST/x",
    "/?next=//HOST/x",
    "?next=http://HOST/x",
    "/done?next=http://HOST/x",
    "/done?next=http%3a%2f%2fHOST%2fx",
    "/done/?next=http://HOST/x",
    "/done#//HOST/x",
    "@HOST/x",
];

/// What an editor may ask for.
const ALLOWED: [&str; 3] = ["", "/", "/done"];

const ARRIVED: &str = "<!doctype html><html lang=\"en\"><title>Arrived</title><h1>Arrived</h1>";
const HEARD: &str = "<!doctype html><html lang=\"en\"><title>Evil</title><script>
    fetch('/heard?' + location.hash.slice(1)).then(() => { document.body.innerHTML = '<h1>Arrived</h1>'; })</script>";

/// A server on this machine, and what it was asked for.
struct Site {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Site {
    async fn start(answer: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, targets) = (
            listener.local_addr().unwrap(),
            Arc::<Mutex<Vec<String>>>::default(),
        );
        let (mut serving, heard) = (JoinSet::new(), targets.clone());
        serving.spawn(async move {
            // In here, so that they end with the listener. A browser may open connections that it
            // never uses.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, heard.clone(), answer));
            }
        });

        Self {
            address,
            targets,
            _serving: serving,
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, heard: Arc<Mutex<Vec<String>>>, answer: fn(&str) -> String) {
    let (mut stream, mut request) = (BufReader::new(stream), String::new());
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let target = request.split(' ').nth(1).unwrap().to_owned();
    let answer = answer(&target);
    heard.lock().unwrap().push(target);
    stream.write_all(answer.as_bytes()).await.ok();
}

fn page(html: &str) -> String {
    let length = html.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{html}"
    )
}

/// A program of the victim's, as careless as all of the world's together.
fn redirect(target: &str) -> String {
    let target = target.replace('\\', "/").replace("%09", "\t");
    let target = percent(&target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let place = match (
        query.split_once("next="),
        path.find("http:"),
        path.find("//"),
        path.split_once('@'),
    ) {
        (Some((_, next)), ..) => next.to_owned(),
        (_, Some(at), ..) | (_, _, Some(at), _) => path[at..].to_owned(),
        (_, _, _, Some((_, rest))) => format!("//{rest}"),
        // The most common one of all: it wants a slash at the end.
        _ if !path.ends_with('/') => format!("{path}/"),
        _ => return page(ARRIVED),
    };

    format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: \
         close\r\n\r\n"
    )
}

/// Without the encoding that hides what a path is made of.
fn percent(text: &str) -> String {
    [
        ("%2f", "/"),
        ("%2F", "/"),
        ("%5c", "/"),
        ("%3a", ":"),
        ("%2e", "."),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, letter)| {
        text.replace(code, letter)
    })
}

/// The victim follows the attacker's own link, state and all, signs in, approves, and goes wherever
/// the page leads.
async fn follow(chromium: &Chromium, attacker: &Editor) {
    chromium
        .open(&format!("{}#state={STATE}", link(attacker)))
        .await;
    chromium.arrive(200, SIGN_IN).await;
    say_who(chromium, "ada").await;
    approve(chromium).await;
    chromium.wait_for("//h1[.='Arrived']").await;
}

#[tokio::test]
async fn no_program_of_the_victims_that_redirects_by_path_takes_the_code_to_a_stranger() {
    let stack = Stack::start_with(&["--relay-min-binding", "link"]).await;
    let (evil, local) = (
        Site::start(|_| page(HEARD)).await,
        Site::start(redirect).await,
    );
    let chromium = Chromium::start(&stack, "redirected").await;
    let mut refused = Vec::new();

    for trick in TRICKS.into_iter().chain(ALLOWED) {
        let path = trick.replace("HOST", &evil.address.to_string());
        let (mut attacker, key) = (editor(&stack).await, DeviceKey::generate().unwrap());
        let said = attacker
            .hello(&key, Some(&format!("http://{}{path}", local.address)))
            .await;
        if said["code"] == "bad_return_uri" {
            refused.push(trick);
            continue;
        }

        assert_eq!(said["binding"], "link", "{said}");

        follow(&chromium, &attacker).await;
        assert_eq!(
            *evil.targets.lock().unwrap(),
            [""; 0],
            "{trick} has taken the code to a stranger"
        );
        assert_eq!(attacker.next().await["type"], "auth:pending");

        attacker.read_on().await;
    }

    assert_eq!(refused, TRICKS);

    // The code has left for where the page said, and went round there.
    let targets = local.targets.lock().unwrap().clone();
    assert!(
        ["/", "/done", "/done/"]
            .iter()
            .all(|target| targets.iter().any(|seen| seen == target)),
        "{targets:?}"
    );
}
