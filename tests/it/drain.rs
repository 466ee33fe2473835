//! Processes that are told to stop: whoever uses them goes on with another one, and nobody loses
//! anything.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;
use vvs_client::DeviceKey;
use vvs_proto::frame::close;
use vvs_tests::command::command;
use vvs_tests::database::Database;
use vvs_tests::nats::NatsServer;
use vvs_tests::split::{Relay, Split};
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Editor, Install};

use crate::survive::Held;

/// Two relays; the first is the stack's.
async fn two_relays(server: &NatsServer) -> (Split, Relay) {
    let servers = format!("nats://{}", server.address());
    let flags = ["--relay-backplane", &*servers, "--grace", "10s"];
    let split = Split::relay(Database::Sqlite, &flags).await;
    let other = split.another_relay().await;
    (split, other)
}

/// The editor is asked to connect again.
async fn sent_away(editor: &mut Editor) {
    let frame = editor.next().await;
    assert_eq!(frame["type"], "reconnect", "{frame}");
    assert!(frame["afterMs"].as_u64().unwrap() <= 2000);
    assert_eq!(editor.close_code().await, close::RECONNECT);
}

/// Shows the code on a socket that has just taken up its login, and acknowledges.
async fn finish(held: &mut Held, editor: &mut Editor, split: &Split) {
    let success = editor.complete(&held.code(), "typed").await;
    editor.ack(&success).await;
    assert_succeeded(held, &success, split).await;
}

/// The browser is told so, and the token is good.
async fn assert_succeeded(held: &mut Held, success: &Value, split: &Split) {
    let done = held.deliver(StatusCode::SEE_OTHER).await;
    assert_eq!(
        held.browser.get(&done.location()).await.status,
        StatusCode::OK
    );
    Install::of(held.key.clone(), success)
        .sign_on(&split.stack)
        .await;
}

#[tokio::test]
async fn each_login_and_each_session_goes_on_on_the_other_relay() {
    let server = NatsServer::start().await;
    let (mut split, other) = two_relays(&server).await;
    let stack = &split.stack;
    let install = Install::make(stack, stack.addresses().sessions_rpc, "ada").await;
    let mut signed_in = install.sign_on(stack).await;
    let (mut waiting, key) = (stack.editor().await, DeviceKey::generate().unwrap());
    let ticket = waiting.hello(&key, None).await["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut browser = stack.browser();
    let approval = browser.sign_in(&waiting, "ada").await;
    let (mut held, mut sent) = (Held::new(stack).await, Held::new(stack).await);
    assert_eq!(
        held.editor.complete("BBBB-BBBB", "typed").await["attemptsLeft"],
        4
    );

    let code = sent.code();
    let success = sent.editor.complete(&code, "typed").await;
    assert_eq!(success["type"], "auth:success", "{success}");

    split.relay.as_ref().unwrap().process.signal("TERM");
    let mut stopping = split.lead_to(other).unwrap();
    let waits = async {
        sent_away(&mut waiting).await;
        let mut editor = Editor::for_session(&split.stack).await;
        editor.resume(&ticket, &key).await;

        // The approval is of the page that was loaded before.
        let page = browser.approve(&approval).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);

        let pending = editor.next().await;
        assert_eq!(
            (&pending["type"], &pending["attemptsLeft"]),
            (&json!("auth:pending"), &json!(5))
        );

        finish(
            &mut Held {
                editor: waiting,
                key,
                ticket,
                browser,
                page,
            },
            &mut editor,
            &split,
        )
        .await;
    };

    let is_held = async {
        sent_away(&mut held.editor).await;
        let mut editor = held.resume(&split.stack).await;
        let pending = editor.next().await;
        assert_eq!(
            (&pending["type"], &pending["attemptsLeft"]),
            (&json!("auth:pending"), &json!(4))
        );
        finish(&mut held, &mut editor, &split).await;
    };

    let is_signed_in = async {
        sent_away(&mut signed_in).await;
        install.sign_on(&split.stack).await;
        // All others are gone before this one is.
        sent.editor
            .send(json!({"type": "auth:ack", "messageId": success["messageId"], "ok": true}))
            .await;
        sent_away(&mut sent.editor).await;
        assert_succeeded(&mut sent, &success, &split).await;
    };

    tokio::join!(waits, is_held, is_signed_in);
    assert_eq!(stopping.process.exit_code().await, 0);
    assert!(
        !stopping.process.log().contains("were cut"),
        "{}",
        stopping.process.log()
    );
}

#[tokio::test]
async fn a_bare_editor_is_signed_in_on_a_relay_that_stops_through_another_one() {
    let server = NatsServer::start().await;
    let (mut split, other) = two_relays(&server).await;
    let mut editor = split.stack.editor().await;
    split.relay.as_ref().unwrap().process.signal("TERM");
    let mut stopping = split.lead_to(other).unwrap();
    sign_in_bare(&split, &mut editor).await;
    assert_eq!(stopping.process.exit_code().await, 0);
}

#[tokio::test]
async fn a_bare_editor_is_signed_in_on_the_only_relay_while_that_stops() {
    let split = Split::relay(Database::Sqlite, &["--grace", "10s"]).await;
    let mut editor = split.stack.editor().await;
    split.relay.as_ref().unwrap().process.signal("TERM");
    sign_in_bare(&split, &mut editor).await;
}

async fn sign_in_bare(split: &Split, editor: &mut Editor) {
    let mut browser = split.stack.browser();
    let approval = browser.sign_in(editor, "ada").await;
    let (approved, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        // It is sent away as soon as it has its token, or a little later.
        sent_away(editor).await;
    });
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(
        browser.get(&approved.location()).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn replacing_every_relay_web_and_sessions_loses_no_login_and_signs_nobody_out() {
    let arguments = [
        "roll",
        "--roles",
        "relay,web,sessions",
        "--editors",
        "10",
        "--logins",
        "4",
        "--grace",
        "6",
    ];
    let output = command(
        "vvs-load",
        &[&arguments[..], &["--most-at-once", "100", "--json"]].concat(),
    )
    .output();
    let output = timeout(PATIENCE * 10, output).await.unwrap().unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{errors}");

    let report: Value = serde_json::from_str(&out).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3 + 2 + 2 + 1, "{report}");

    let sum = |column: &str| {
        rows.iter()
            .map(|row| row[column].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(
        sum("logins") >= 10 && sum("bare logins") >= 2 && sum("reconnects") >= 10,
        "{report}"
    );
    assert_eq!((sum("failed"), sum("signed out")), (0, 0), "{report}");
}
