//! Two relays, each a process, that reach each other's logins over NATS. Editors are led to one,
//! web to the other.

use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vvs_proto::frame::close;
use vvs_tests::database::Database;
use vvs_tests::nats::NatsServer;
use vvs_tests::split::{Relay, Split};
use vvs_tests::stack::PATIENCE;

use crate::survive::{Held, assert_signed_in};
use crate::trace::Receiver;

/// Editors come to the relay of the stack, and web to the one beside it.
async fn two_relays(server: &NatsServer) -> (Split, Relay) {
    two_relays_with(server, &[]).await
}

async fn two_relays_with(server: &NatsServer, flags: &[&str]) -> (Split, Relay) {
    let servers = format!("nats://{}", server.address());
    let split = Split::relay(
        Database::Sqlite,
        &[&["--relay-backplane", &servers], flags].concat(),
    )
    .await;
    let other = split.another_relay().await;
    split.lead_web_to(&other);
    (split, other)
}

async fn until_metric(split: &Split, relay: &Relay, line: &str, expected: f64) {
    let reached = async {
        while split.stack.metric_at(relay.admin, line).await.to_bits() != expected.to_bits() {}
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("{line} did not come to {expected}"));
}

#[tokio::test]
async fn a_login_on_one_relay_is_approved_through_another() {
    let server = NatsServer::start().await;
    let (split, other) = two_relays(&server).await;
    let mut held = Held::new(&split.stack).await;
    let code = held.code();
    let success = held.editor.complete(&code, "typed").await;
    let mut editor = std::mem::replace(&mut held.editor, split.stack.editor().await);

    assert_signed_in(&mut held, &mut editor, &success, &split).await;
    assert!(
        split
            .stack
            .metric_at(
                other.admin,
                "vvs_backplane_requests_total{outcome=\"answered\"}"
            )
            .await
            >= 4.0
    );
    assert_eq!(
        split
            .stack
            .metric_at(other.admin, "vvs_logins_total{state=\"WAITING\"}")
            .await
            .to_bits(),
        0.0_f64.to_bits()
    );
}

#[tokio::test]
async fn an_editor_that_moves_to_another_relay_takes_its_login_along() {
    let server = NatsServer::start().await;
    let (split, other) = two_relays(&server).await;
    let mut held = Held::new(&split.stack).await;
    assert_eq!(
        held.editor.complete("BBBB-BBBB", "typed").await["attemptsLeft"],
        4
    );

    split.lead_editors_to(&other);

    // Web is led to the relay that the login has left.
    split.lead_web_to(split.relay.as_ref().unwrap());
    let mut editor = held.resume(&split.stack).await;
    assert_eq!(held.editor.close_code().await, close::LOGIN_OVER);

    let pending = editor.next().await;
    assert_eq!(
        (&pending["type"], &pending["attemptsLeft"]),
        (&json!("auth:pending"), &json!(4))
    );

    let success = editor.complete(&held.code(), "typed").await;
    assert_signed_in(&mut held, &mut editor, &success, &split).await;
}

#[tokio::test]
async fn a_login_whose_relay_is_killed_completes_on_a_second_through_a_third() {
    let server = NatsServer::start().await;
    let (mut split, webs) = two_relays(&server).await;
    let mut held = Held::new(&split.stack).await;
    split.relay.take().unwrap().process.kill().await;
    held.editor.cut_off().await;
    let editors = split.another_relay().await;
    split.lead_editors_to(&editors);
    let (mut editor, success) = held.go_on(&split.stack).await;
    assert_signed_in(&mut held, &mut editor, &success, &split).await;
    assert_eq!(
        split
            .stack
            .metric_at(webs.admin, "vvs_logins_total{state=\"WAITING\"}")
            .await
            .to_bits(),
        0.0_f64.to_bits()
    );
}

#[tokio::test]
async fn a_relay_that_was_stopped_lets_go_of_the_login_that_its_editor_took_along() {
    let server = NatsServer::start().await;
    let (mut split, other) = two_relays(&server).await;
    let mut held = Held::new(&split.stack).await;
    split.relay.as_ref().unwrap().process.signal("STOP");
    let stopped = split.lead_to(other).unwrap();
    let (mut editor, success) = held.go_on(&split.stack).await;
    assert_signed_in(&mut held, &mut editor, &success, &split).await;
    stopped.process.signal("CONT");
    let next = held.editor.close_code().await;
    assert_eq!(next, close::LOGIN_OVER);
    assert_eq!(
        split
            .stack
            .metric_at(stopped.admin, "vvs_logins_total{state=\"SENT\"}")
            .await
            .to_bits(),
        0.0_f64.to_bits()
    );
}

#[tokio::test]
async fn while_nats_is_away_web_is_told_to_try_again_and_the_login_completes_when_it_is_back() {
    let mut server = NatsServer::start().await;
    let (split, other) = two_relays(&server).await;
    let mut held = Held::new(&split.stack).await;
    let relay = split.relay.as_ref().unwrap();
    server.stop();
    until_metric(&split, &other, "vvs_backplane_connected", 0.0).await;
    until_metric(&split, relay, "vvs_backplane_connected", 0.0).await;
    let refused = held.browser.approve(&held.page).await;
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        refused.body
    );

    // The socket is open, and what its own relay can do goes on.
    let code = held.code();
    let success = held.editor.complete(&code, "typed").await;
    assert_eq!(success["type"], "auth:success");

    server.restart().await;
    until_metric(&split, &other, "vvs_backplane_connected", 1.0).await;
    until_metric(&split, relay, "vvs_backplane_connected", 1.0).await;
    let mut editor = std::mem::replace(&mut held.editor, split.stack.editor().await);
    assert_signed_in(&mut held, &mut editor, &success, &split).await;
}

#[tokio::test]
async fn one_approval_is_one_trace_across_two_relays() {
    let (server, receiver, stop) = (
        NatsServer::start().await,
        Receiver::default(),
        CancellationToken::new(),
    );
    let endpoint = receiver.listen(stop.clone()).await;
    let (split, _other) = two_relays_with(&server, &["--otlp-endpoint", &endpoint]).await;
    let mut editor = split.stack.editor().await;
    let mut browser = split.stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(approved.status, StatusCode::SEE_OTHER);

    // From the frame upwards, as far as its spans have arrived.
    let chain = || {
        let spans = receiver.spans();
        let mut at = spans.iter().find(|span| span.name == "push auth:success");
        let mut names = Vec::new();
        while let Some(span) = at {
            names.push(span.name.clone());
            at = spans
                .iter()
                .find(|parent| parent.span_id == span.parent_span_id);
        }
        names
    };
    let deliver = "vvs.relay.v1.Relay/DeliverAuth";
    let expected = [
        "push auth:success",
        "backplane_server",
        "backplane_client",
        deliver,
        deliver,
        "POST /login/approve",
    ];
    let arrived = async {
        while !chain().starts_with(&expected.map(str::to_owned)) {
            split.stack.flush_spans().await;
        }
    };

    tokio::time::timeout(PATIENCE, arrived)
        .await
        .unwrap_or_else(|_| panic!("{:?}", chain()));
    split.stack.secrets().assert_absent(
        &format!("{:?}", receiver.spans()),
        "a span that was sent away",
    );
    stop.cancel();
}

#[tokio::test]
async fn an_unknown_login_is_over_and_not_unavailable_while_a_foreign_client_listens() {
    let server = NatsServer::start().await;
    let stranger = async_nats::connect(server.address()).await.unwrap();
    let _everything = stranger.subscribe(">").await.unwrap();
    stranger.flush().await.unwrap();
    let (split, other) = two_relays(&server).await;
    let relay = split.relay.as_ref().unwrap();

    // Each other, and the stack's own, to which nobody is led.
    for relay in [&other, relay] {
        until_metric(&split, relay, "vvs_backplane_relays", 2.0).await;
    }

    let mut browser = split.stack.browser();
    let path = "/login?connection_id=6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d";
    let over = async {
        loop {
            let page = browser.get(path).await;
            if page.status == StatusCode::GONE {
                break;
            }
            // Until the relay knows which others there are.
            assert_eq!(
                page.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{}",
                page.body
            );
        }
    };

    tokio::time::timeout(PATIENCE, over).await.unwrap();

    // A relay that ends says so, and nobody waits for it.
    let third = split.another_relay().await;
    until_metric(&split, &other, "vvs_backplane_relays", 3.0).await;
    third.process.signal("TERM");
    until_metric(&split, &other, "vvs_backplane_relays", 2.0).await;
    assert_eq!(browser.get(path).await.status, StatusCode::GONE);

    // One that the other relay holds is found.
    let mut held = Held::new(&split.stack).await;
    let code = held.code();
    assert_eq!(
        held.editor.complete(&code, "typed").await["type"],
        "auth:success"
    );
}
