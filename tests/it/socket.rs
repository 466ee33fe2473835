//! `/ws` from outside, through the gateway: who gets a WebSocket, and what is counted.

use http::{Method, StatusCode};
use serde_json::json;
use tokio_tungstenite::tungstenite::{Error, Message};
use vvs_tests::{Editor, Stack};

use futures_util::SinkExt as _;

fn status(refused: &Error) -> StatusCode {
    match refused {
        Error::Http(response) => response.status(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_frame_says_all_that_a_bare_editor_needs() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let frame = &editor.connection;
    assert_eq!(
        frame["loginUrl"],
        stack.addresses().public_url.join(&editor.login_path())
    );
    assert_eq!(
        frame["heartbeat"],
        json!({"intervalMs": 25_000, "timeoutMs": 8_000})
    );
    assert_eq!(
        (&frame["expiresIn"], &frame["binding"]),
        (&json!(600), &json!("confirm"))
    );
    assert_eq!(editor.id(), editor.id().to_lowercase());

    // 16 bytes in base64url without padding.
    assert_eq!(frame["nonce"].as_str().unwrap().len(), 22);

    for time in ["expiresAt", "serverTime"] {
        let text = frame[time].as_str().unwrap();
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    }

    let other = stack.editor().await;
    assert_ne!(
        (other.id(), other.user_code()),
        (editor.id(), editor.user_code())
    );
}

#[tokio::test]
async fn a_foreign_page_gets_no_socket() {
    let stack = Stack::start_with(&["--relay-allowed-origins", "https://ide.example"]).await;
    for origin in ["https://evil.example", "null", "http://ide.example"] {
        let refused = Editor::try_connect(&stack, &[("origin", origin)])
            .await
            .unwrap_err();
        assert_eq!(status(&refused), StatusCode::FORBIDDEN, "{origin}");
    }

    // Whoever lists it as for the first hop alone has it looked at all the same.
    for options in ["Upgrade, Origin", "origin, upgrade"] {
        let headers = [("origin", "https://evil.example"), ("connection", options)];
        let refused = Editor::try_connect(&stack, &headers).await.unwrap_err();
        assert_eq!(status(&refused), StatusCode::FORBIDDEN, "{options}");
    }

    for origin in ["vscode-file://vscode-app", "https://ide.example"] {
        Editor::try_connect(&stack, &[("origin", origin)])
            .await
            .unwrap();
    }

    assert_eq!(
        stack
            .metric("vvs_handshakes_refused_total{reason=\"origin\"}")
            .await
            .to_bits(),
        5.0_f64.to_bits()
    );
}

#[tokio::test]
async fn a_plain_get_is_told_to_upgrade_and_an_unknown_purpose_is_refused() {
    let stack = Stack::start().await;
    let page = stack.browser().get("/ws").await;
    assert_eq!(page.status, StatusCode::UPGRADE_REQUIRED);
    assert_eq!(page.headers["upgrade"], "websocket");

    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let page = stack
        .browser()
        .request(Method::GET, "/ws?for=dancing", &headers)
        .await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn compression_is_never_accepted() {
    let stack = Stack::start().await;
    // The client library refuses an extension that it cannot speak, so this fails if one is
    // accepted.
    Editor::try_connect(
        &stack,
        &[("sec-websocket-extensions", "permessage-deflate")],
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_gets_its_share_of_unfinished_logins_and_has_it_back_when_one_is_over() {
    let stack = Stack::start_with(&["--relay-max-logins-per-address", "2"]).await;
    let (mut first, _second) = (stack.editor().await, stack.editor().await);
    let refused = Editor::try_connect(&stack, &[]).await.unwrap_err();
    assert_eq!(status(&refused), StatusCode::TOO_MANY_REQUESTS);

    let Error::Http(response) = &*refused else {
        unreachable!()
    };

    assert!(response.headers().contains_key("retry-after"));

    first.send(json!({"type": "auth:cancel"})).await;
    assert_eq!(first.close_code().await, 1000);

    // The place is free once the relay has seen the socket go.
    stack
        .until_metric("vvs_connections", |value| value <= 1.0)
        .await;
    stack.editor().await;
    let counted = stack
        .metric("vvs_handshakes_refused_total{reason=\"logins_per_address\"}")
        .await;
    assert!((1.0..1.5).contains(&counted));
}

#[tokio::test]
async fn a_full_relay_says_so() {
    let stack = Stack::start_with(&["--relay-max-connections", "1"]).await;
    let _held = stack.editor().await;
    let refused = Editor::try_connect(&stack, &[]).await.unwrap_err();
    assert_eq!(status(&refused), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_flood_of_handshakes_is_slowed_down() {
    let stack = Stack::start_with(&[
        "--relay-handshake-burst",
        "3",
        "--relay-handshakes-per-minute",
        "1",
    ])
    .await;
    for _ in 0..3 {
        stack.editor().await;
    }

    let refused = Editor::try_connect(&stack, &[]).await.unwrap_err();
    assert_eq!(status(&refused), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_socket_and_is_counted() {
    let stack = Stack::start().await;
    for (message, code) in [
        (Message::binary(vec![1, 2, 3]), 4502),
        (Message::text("not json"), 4502),
        (Message::text("[]"), 4502),
        (
            Message::text(json!({"type": "ping", "pad": "x".repeat(9000)}).to_string()),
            1009,
        ),
    ] {
        let mut editor = stack.editor().await;
        editor.socket.send(message).await.unwrap();
        assert_eq!(editor.close_code().await, code);
    }

    let counted = stack.metric("vvs_closes_total{code=\"4502\"}").await;
    assert!((3.0..3.5).contains(&counted), "{counted}");
}

#[tokio::test]
async fn a_frame_of_unknown_type_or_shape_is_answered_and_the_socket_stays() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    for (frame, code) in [
        (json!({"type": "dance"}), "unknown_type"),
        (json!({"type": "auth:ack"}), "malformed"),
        (json!({"type": "token:refresh", "proof": "x"}), "not_now"),
    ] {
        editor.send(frame).await;
        let answer = editor.next().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code))
        );
    }

    editor.read_on().await;
}

#[tokio::test]
async fn editors_are_asked_to_come_back_when_the_server_stops() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let (frame, ()) = tokio::join!(
        async {
            let frame = editor.next().await;
            assert_eq!(editor.close_code().await, 4000);
            frame
        },
        stack.shut_down()
    );
    assert_eq!(frame["type"], "reconnect");
}
