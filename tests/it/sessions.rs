//! The sessions role over its own port, on SQLite and on PostgreSQL: who may do what, and what
//! those who watch hear.

use std::time::Duration;

use tonic::{Code, Status, Streaming};
use vvs_auth::device::DeviceKey;
use vvs_auth::peer::Role;
use vvs_auth::token::SigningKey;
use vvs_proto::session as wire;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::watch_revocations_response::Event;
use vvs_runtime::rpc::reason;
use vvs_runtime::trace::TracedChannel;
use vvs_tests::Stack;
use vvs_tests::postgres::{PASSWORD, Postgres};

async fn on_postgresql() -> Stack {
    let url = Postgres::shared().await.database().await;
    let stack = Stack::start_with(&["--sessions-database-url", &url]).await;
    stack.secrets().add(PASSWORD);
    stack
}

fn caller(stack: &Stack, role: Role) -> SessionsClient<TracedChannel> {
    stack.caller(role).sessions(stack.addresses().sessions_rpc)
}

/// A public key as an editor sends it.
fn jwk() -> String {
    let key = SigningKey::from_pkcs8("editor", &SigningKey::generate().unwrap()).unwrap();
    let public = serde_json::to_value(key.public()).unwrap();
    DeviceKey::from_value(&public).unwrap().to_json()
}

async fn active_session(stack: &Stack, number: u32, jwk: String) -> wire::Session {
    let request = wire::CreateSessionRequest {
        request_id: format!("00000000-0000-4000-8000-{number:012}"),
        identity: Some(wire::Identity {
            provider: "dev".to_owned(),
            subject: "ada".to_owned(),
            ..wire::Identity::default()
        }),
        device: Some(wire::Device {
            jwk,
            ..wire::Device::default()
        }),
        ..wire::CreateSessionRequest::default()
    };
    let made = caller(stack, Role::Web)
        .create_session(request)
        .await
        .unwrap()
        .into_inner();
    stack.secrets().add(&made.token.unwrap().token);
    let session = made.session.unwrap();
    let request = wire::ActivateSessionRequest {
        session_id: session.id.clone(),
        address: String::new(),
    };
    caller(stack, Role::Relay)
        .activate_session(request)
        .await
        .unwrap();

    session
}

async fn revoke(stack: &Stack, role: Role, id: &str) -> Result<(), String> {
    let request = wire::RevokeSessionRequest {
        session_id: id.to_owned(),
        reason: "test".to_owned(),
        ..wire::RevokeSessionRequest::default()
    };
    caller(stack, role)
        .revoke_session(request)
        .await
        .map(drop)
        .map_err(|status| reason(&status))
}

async fn a_relay_needs_the_editors_word_and_web_does_not(stack: Stack) {
    let bound = active_session(&stack, 1, jwk()).await;
    assert_eq!(
        revoke(&stack, Role::Relay, &bound.id).await.unwrap_err(),
        "BAD_PROOF"
    );
    assert_eq!(
        revoke(&stack, Role::Backend, &bound.id).await.unwrap_err(),
        "PEER_NOT_ALLOWED"
    );

    revoke(&stack, Role::Web, &bound.id).await.unwrap();
    let bearer = active_session(&stack, 2, String::new()).await;
    revoke(&stack, Role::Relay, &bearer.id).await.unwrap();
}

async fn each_role_tells_the_audit_log_what_is_its_own_to_tell(stack: Stack) {
    let record = async |role, event: wire::AuditEvent| {
        let request = wire::RecordAuditRequest {
            event: event.into(),
            ..wire::RecordAuditRequest::default()
        };
        caller(&stack, role)
            .record_audit(request)
            .await
            .map(drop)
            .map_err(|status| reason(&status))
    };
    record(Role::Web, wire::AuditEvent::Denied).await.unwrap();
    record(Role::Relay, wire::AuditEvent::ProofRefused)
        .await
        .unwrap();

    for (role, event) in [
        (Role::Relay, wire::AuditEvent::Denied),
        (Role::Web, wire::AuditEvent::ProofRefused),
    ] {
        assert_eq!(record(role, event).await.unwrap_err(), "PEER_NOT_ALLOWED");
    }

    assert_eq!(
        record(Role::Web, wire::AuditEvent::Unspecified)
            .await
            .unwrap_err(),
        "MALFORMED"
    );

    let log = stack.log();
    assert!(
        log.lines()
            .any(|line| line.contains("audit") && line.contains("event=\"denied\"")),
        "{log}"
    );
}

async fn next(
    stream: &mut Streaming<wire::WatchRevocationsResponse>,
) -> Result<Option<Event>, Status> {
    let told = tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .unwrap()?;
    Ok(told.map(|told| told.event.unwrap()))
}

async fn a_stop_does_not_wait_for_those_who_watch(stack: Stack) {
    let session = active_session(&stack, 1, jwk()).await;
    let request = wire::WatchRevocationsRequest::default();
    let mut stream = caller(&stack, Role::Backend)
        .watch_revocations(request)
        .await
        .unwrap()
        .into_inner();
    while !matches!(
        next(&mut stream).await.unwrap().unwrap(),
        Event::CaughtUp(0)
    ) {}

    revoke(&stack, Role::Web, &session.id).await.unwrap();

    loop {
        match next(&mut stream).await.unwrap().unwrap() {
            Event::Revocation(entry) => {
                break assert_eq!((entry.sequence, entry.session_id), (1, session.id));
            }
            Event::CaughtUp(_) | Event::Heartbeat(_) | Event::PendingSince(_) => {}
        }
    }

    stack.stop(Role::Sessions).await;
    assert!(
        next(&mut stream).await.is_ok_and(|ended| ended.is_none()),
        "the stream was cut"
    );
}

#[tokio::test]
async fn a_watcher_that_may_not_watch_is_refused() {
    let stack = Stack::start().await;
    let request = wire::WatchRevocationsRequest::default();
    let told = caller(&stack, Role::Web)
        .watch_revocations(request)
        .await
        .unwrap_err();
    assert_eq!(told.code(), Code::PermissionDenied);
}

macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(vvs_tests::Stack::start().await).await;
            })*
        }

        mod on_postgresql {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::on_postgresql().await).await;
            })*
        }
    };
}

on_both_databases! {
    a_relay_needs_the_editors_word_and_web_does_not
    each_role_tells_the_audit_log_what_is_its_own_to_tell
    a_stop_does_not_wait_for_those_who_watch
}
