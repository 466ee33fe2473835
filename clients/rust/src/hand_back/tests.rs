//! The loopback page, as browsers and others reach it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

async fn send(uri: &str, request: &str) -> String {
    let address = uri.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(request.replace("ADDRESS", address).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(HEADER_TIMEOUT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();

    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: ADDRESS\r\norigin: http://ADDRESS\r\ncontent-type: {FORM}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Delivers it as our own page does, and returns the status.
pub(crate) async fn bring(uri: &str, body: &str) -> u16 {
    status(&send(uri, &post(body)).await)
}

const GOOD: &str = "connection_id=id-1&code=fake-code&state=fake-state";

#[tokio::test]
async fn the_page_is_constant_and_runs_no_script_but_its_own() {
    let page = HandBack::listen().await.unwrap();
    let answer = send(
        &page.uri(),
        "GET / HTTP/1.1\r\nhost: ADDRESS\r\nconnection: close\r\n\r\n",
    )
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(status(head), 200);

    let script = body
        .split_once("<script>")
        .unwrap()
        .1
        .split_once("</script>")
        .unwrap()
        .0;
    let hash = BASE64_STANDARD.encode(digest(&SHA256, script.as_bytes()));
    assert!(
        head.contains(&format!("script-src 'sha256-{hash}';"))
            && head.contains("default-src 'none'"),
        "{head}"
    );
    assert!(
        head.contains("no-store") && head.contains("no-referrer"),
        "{head}"
    );
}

#[tokio::test]
async fn what_our_own_page_brings_is_handed_on_and_its_person_is_told() {
    let mut page = HandBack::listen().await.unwrap();
    let uri = page.uri();

    for (ours, expected) in [(true, 200), (false, 400)] {
        let (answered, ()) = tokio::join!(bring(&uri, GOOD), async {
            let brought = page.next().await;
            assert_eq!(brought.connection_id, "id-1");
            assert_eq!(
                (brought.code.expose(), brought.state.expose()),
                ("fake-code", "fake-state")
            );
            brought.answer.send(ours).unwrap();
        });
        assert_eq!(answered, expected);
    }
}

#[tokio::test]
async fn nobody_else_can_bring_anything() {
    let mut page = HandBack::listen().await.unwrap();
    let uri = page.uri();
    let good = post(GOOD);
    for (request, expected) in [
        (good.replace("origin: http://ADDRESS\r\n", ""), 403),
        (
            good.replace("origin: http://ADDRESS", "origin: http://localhost"),
            403,
        ),
        (good.replace("origin: http://ADDRESS", "origin: null"), 403),
        (
            good.replace("host:", "sec-fetch-site: cross-site\r\nhost:"),
            403,
        ),
        (good.replace(FORM, "text/plain"), 403),
        (good.replace("host: ADDRESS", "host: localhost"), 421),
        (good.replace("host: ADDRESS", "host: evil.example"), 421),
        (good.replace("POST / ", "PUT / "), 405),
        (good.replace("POST / ", "POST /other "), 404),
        (good.replace("POST / ", "POST /?code=fake-code "), 404),
        (post("connection_id=id-1&code=fake-code"), 400),
        (post(&format!("{GOOD}&code=another")), 400),
        (
            post(&format!("{GOOD}&padding={}", "x".repeat(MAX_BODY))),
            400,
        ),
    ] {
        assert_eq!(status(&send(&uri, &request).await), expected, "{request}");
    }

    assert!(page.brought.try_recv().is_err(), "something got through");
}

#[tokio::test]
async fn an_idle_connection_of_a_browser_is_in_nobodys_way() {
    let mut page = HandBack::listen().await.unwrap();
    let _idle = TcpStream::connect(page.address).await.unwrap();
    let uri = page.uri();
    let (answered, ()) = tokio::join!(bring(&uri, GOOD), async {
        page.next().await.answer.send(true).unwrap();
    });
    assert_eq!(answered, 200);
}
