//! What one peer may hold of sessions and of a relay, and that others are served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use vvs_auth::peer::Role;
use vvs_proto::relay::{GetLoginRequest, LoginState};
use vvs_proto::token::{GetSigningKeysRequest, WatchRevocationsRequest, WatchRevocationsResponse};
use vvs_runtime::http::Connector;
use vvs_runtime::rpc::reason;
use vvs_runtime::tls::Identity;
use vvs_tests::Stack;
use vvs_tests::stack::PATIENCE;

/// Streams that are asked for, and those that there are for one SPIFFE id by default.
const ASKED: usize = 2000;
const BOUND: usize = 1500;

async fn sign_in(stack: &Stack) {
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(
        approved.status,
        http::StatusCode::SEE_OTHER,
        "{}",
        approved.body
    );
}

fn assert_busy(refused: &Status) {
    assert_eq!(
        (refused.code(), &*reason(refused)),
        (Code::ResourceExhausted, "PEER_BUSY"),
        "{refused:?}"
    );
    assert!(refused.get_details_retry_info().is_some());
}

/// Follows the feed so many times, as a backend of four processes, and a few at the same time:
/// followers take turns, and one that waits too long for its turn is told so instead.
async fn follow(
    stack: &Stack,
    times: usize,
) -> Vec<Result<Streaming<WatchRevocationsResponse>, Status>> {
    let processes = [(); 4].map(|()| {
        stack
            .caller(Role::Backend)
            .tokens(stack.addresses().sessions_rpc)
    });
    let follow = |at: usize| {
        let mut tokens = processes[at % processes.len()].clone();
        async move {
            Ok(tokens
                .watch_revocations(WatchRevocationsRequest::default())
                .await?
                .into_inner())
        }
    };

    stream::iter((0..times).map(follow))
        .buffer_unordered(8)
        .collect()
        .await
}

#[tokio::test]
async fn a_backend_that_follows_two_thousand_times_is_refused_beyond_its_bound_and_others_are_served()
 {
    let stack = Stack::start().await;
    let followed = follow(&stack, ASKED).await;
    let (held, refused): (Vec<_>, Vec<_>) = followed.into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), refused.len()), (BOUND, ASKED - BOUND));

    for refused in &refused {
        assert_busy(refused.as_ref().unwrap_err());
    }

    let setting = "vvs_limits_reached_total{setting=\"VVS_SESSIONS_MAX_STREAMS_PER_PEER\"}";
    assert!(stack.metric(setting).await >= 500.0);

    // Another kind of call, other peers, and whoever signs in.
    for role in [Role::Backend, Role::Web, Role::Relay] {
        let mut tokens = stack.caller(role).tokens(stack.addresses().sessions_rpc);
        tokens
            .get_signing_keys(GetSigningKeysRequest {})
            .await
            .unwrap();
    }

    let mut relay = stack
        .caller(Role::Relay)
        .tokens(stack.addresses().sessions_rpc);
    relay
        .watch_revocations(WatchRevocationsRequest::default())
        .await
        .unwrap();
    sign_in(&stack).await;

    // What it gives back is its own again.
    drop(held);
    let again = async { while follow(&stack, 1).await[0].is_err() {} };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn calls_of_one_peer_under_way_are_bounded_over_all_its_connections() {
    let stack = Stack::start_with(&["--relay-max-calls-per-peer", "3"]).await;
    let editor = stack.editor().await;
    let look = |known_state: LoginState| {
        let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
        let request = GetLoginRequest {
            connection_id: editor.id().to_owned(),
            known_state: known_state.into(),
        };
        async move { relay.get_login(request).await }
    };

    // Three wait for another state, and the fourth does not.
    let looking = select_all((0..4).map(|_| Box::pin(look(LoginState::Waiting))));
    let (refused, _, waiting) = timeout(PATIENCE, looking).await.unwrap();
    assert_busy(&refused.unwrap_err());

    drop(waiting);
    let again = async { while look(LoginState::Unspecified).await.is_err() {} };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded_and_those_of_others_are_not_among_them() {
    let flags = [
        "--sessions-max-connections-per-peer",
        "5",
        "--relay-max-connections-per-peer",
        "5",
    ];
    let stack = Stack::start_with(&flags).await;
    for address in [stack.addresses().sessions_rpc, stack.addresses().relay_rpc] {
        let data = stack.data();
        let connector = Connector {
            identity: Identity::load(vvs_mesh::pki::files(data.path(), Role::Backend)).unwrap(),
            check: Arc::new(|_certificate| Ok(())),
            alpn: b"h2",
            timeout: Duration::from_secs(5),
        };
        let mut held = Vec::new();
        for _ in 0..10 {
            held.extend(connector.connect(&address.to_string()).await.ok());
        }

        let line = "vvs_handshakes_refused_total{reason=\"connections_per_peer\"}";
        let before = if address == stack.addresses().sessions_rpc {
            0.0
        } else {
            5.0
        };

        stack
            .until_metric(line, |count| count >= before + 5.0)
            .await;
        drop(held);
    }

    sign_in(&stack).await;
}
