//! The sessions role over its own port, on SQLite and on PostgreSQL: who may do what, and what
//! those who watch hear.

use std::time::Duration;

use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use vvs_auth::device::DeviceKey;
use vvs_auth::peer::Role;
use vvs_auth::token::SigningKey;
use vvs_proto::internal::editors_client::EditorsClient;
use vvs_proto::internal::{
    ActivateSessionsRequest, Activation, EndSessionRequest, RecordRefusedProofRequest,
};
use vvs_proto::session as wire;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::token::tokens_client::TokensClient;
use vvs_proto::token::watch_revocations_response::Event;
use vvs_proto::token::{WatchRevocationsRequest, WatchRevocationsResponse};
use vvs_proto::types::{Device, RevocationReason};
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

fn editors(stack: &Stack, role: Role) -> EditorsClient<TracedChannel> {
    stack.caller(role).editors(stack.addresses().sessions_rpc)
}

fn tokens(stack: &Stack, role: Role) -> TokensClient<TracedChannel> {
    stack.caller(role).tokens(stack.addresses().sessions_rpc)
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
        device: Some(Device {
            jwk,
            ..Device::default()
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
    let request = ActivateSessionsRequest {
        activations: vec![Activation {
            session_id: session.id.clone(),
            address: String::new(),
        }],
    };
    let answer = editors(stack, Role::Relay)
        .activate_sessions(request)
        .await
        .unwrap();
    assert_eq!(answer.into_inner().not_activated, []);

    session
}

async fn revoke(stack: &Stack, role: Role, id: &str) -> Result<(), String> {
    let request = wire::RevokeSessionRequest {
        session_id: id.to_owned(),
        reason: RevocationReason::SignedOutByUser.into(),
        ..wire::RevokeSessionRequest::default()
    };
    caller(stack, role)
        .revoke_session(request)
        .await
        .map(drop)
        .map_err(|status| reason(&status))
}

/// Ends a session as a relay does for its editor, without the editor's proof.
async fn end(stack: &Stack, role: Role, id: &str) -> Result<(), String> {
    let request = EndSessionRequest {
        session_id: id.to_owned(),
        reason: RevocationReason::Logout.into(),
        ..EndSessionRequest::default()
    };
    editors(stack, role)
        .end_session(request)
        .await
        .map(drop)
        .map_err(|status| reason(&status))
}

async fn a_relay_needs_the_editors_word_and_web_does_not(stack: Stack) {
    let bound = active_session(&stack, 1, jwk()).await;
    assert_eq!(
        end(&stack, Role::Relay, &bound.id).await.unwrap_err(),
        "BAD_PROOF"
    );
    for role in [Role::Relay, Role::Backend] {
        assert_eq!(
            revoke(&stack, role, &bound.id).await.unwrap_err(),
            "PEER_NOT_ALLOWED"
        );
    }
    assert_eq!(
        end(&stack, Role::Web, &bound.id).await.unwrap_err(),
        "PEER_NOT_ALLOWED"
    );

    revoke(&stack, Role::Web, &bound.id).await.unwrap();
    let bearer = active_session(&stack, 2, String::new()).await;
    end(&stack, Role::Relay, &bearer.id).await.unwrap();
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
    let record_refused = async |role| {
        editors(&stack, role)
            .record_refused_proof(RecordRefusedProofRequest::default())
            .await
            .map(drop)
            .map_err(|status| reason(&status))
    };
    record(Role::Web, wire::AuditEvent::Denied).await.unwrap();
    record_refused(Role::Relay).await.unwrap();
    assert_eq!(
        (
            record(Role::Relay, wire::AuditEvent::Denied).await,
            record_refused(Role::Web).await
        ),
        (
            Err("PEER_NOT_ALLOWED".to_owned()),
            Err("PEER_NOT_ALLOWED".to_owned())
        )
    );

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

async fn next(stream: &mut Streaming<WatchRevocationsResponse>) -> Result<Option<Event>, Status> {
    let told = tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .unwrap()?;
    Ok(told.map(|told| told.event.unwrap()))
}

async fn a_stop_does_not_wait_for_those_who_watch(stack: Stack) {
    let session = active_session(&stack, 1, jwk()).await;
    let request = WatchRevocationsRequest::default();
    let mut stream = tokens(&stack, Role::Backend)
        .watch_revocations(request)
        .await
        .unwrap()
        .into_inner();
    while !matches!(
        next(&mut stream).await.unwrap().unwrap(),
        Event::CaughtUp(_)
    ) {}

    revoke(&stack, Role::Web, &session.id).await.unwrap();

    loop {
        match next(&mut stream).await.unwrap().unwrap() {
            Event::Revocation(entry) => {
                break assert_eq!((entry.sequence, entry.session_id), (1, session.id));
            }
            Event::CaughtUp(_) | Event::Heartbeat(_) => {}
        }
    }

    stack.stop(Role::Sessions).await;
    // Not the end of the feed, after which a plain loop would follow nothing.
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(
        (ended.code(), &*reason(&ended)),
        (Code::Unavailable, "DRAINING")
    );
    assert!(ended.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_watcher_that_may_not_watch_is_refused() {
    let stack = Stack::start().await;
    let request = WatchRevocationsRequest::default();
    let told = tokens(&stack, Role::Web)
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
