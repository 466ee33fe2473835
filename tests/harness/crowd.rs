//! Many signed-in editors at once, and what they cost the sessions role.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::RETRY_AFTER;
use opentelemetry_sdk::trace::SpanData;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Error;
use vvs_auth::peer::Role;
use vvs_proto::session::revoke_user_sessions_request::Whose;
use vvs_proto::session::{GetSessionRequest, RevokeUserSessionsRequest};
use vvs_proto::types::RevocationReason;

use crate::database::Database;
use crate::split::Split;
use crate::{Editor, Install, Stack};

/// Handshakes under way at once: fewer than the unfinished logins that one address may have.
const AT_ONCE: usize = 16;
/// Editors behind one address: more than the handshakes that it may make at once, and fewer than
/// the connections that it may have.
pub const PER_ADDRESS: usize = 334;

/// What lets a test say where its editors come from, and nobody is asked whether he is there.
const FROM_ANYWHERE: [&str; 4] = [
    "--gateway-trusted-proxies",
    "127.0.0.0/8",
    "--relay-heartbeat-interval",
    "1h",
];

/// What lets anything come from one address.
pub const FLAGS: [&str; 14] = [
    "--gateway-connections-per-minute",
    "1000000",
    "--gateway-max-connections-per-address",
    "20000",
    "--gateway-requests-per-minute",
    "1000000",
    "--relay-heartbeat-interval",
    "1h",
    "--relay-max-logins-per-address",
    "100000",
    "--relay-handshakes-per-minute",
    "1000000",
    "--relay-handshake-burst",
    "1000000",
];

/// Each an install of its own, all of one user as far as that user may have so many.
pub async fn make(stack: &Stack, count: usize) -> Vec<Install> {
    let mut installs = Vec::new();
    for number in 0..count {
        let name = format!(
            "ada{}",
            if number < 100 {
                String::new()
            } else {
                (number / 100).to_string()
            }
        );
        installs.push(Install::make(stack, stack.addresses().sessions_rpc, &name).await);
    }

    installs
}

/// Returns when no token of theirs is good any more.
pub async fn until_expired(installs: &[Install]) {
    let end = installs
        .iter()
        .map(|install| vvs_auth::token::unverified(&install.token).unwrap().exp)
        .max()
        .unwrap();
    while time::OffsetDateTime::now_utc().unix_timestamp() <= end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All connect, and are signed in; their sockets, and what they were told. They come from as many
/// addresses as they need.
pub async fn sign_on(stack: &Stack, installs: &[Install]) -> Vec<(Editor, Value)> {
    let connecting = installs.iter().enumerate().map(async |(number, install)| {
        let mut editor = connect(stack, &format!("198.51.100.{}", 1 + number / PER_ADDRESS)).await;
        let answer = editor
            .authenticate(&install.token, Some(&install.key))
            .await;
        (editor, answer)
    });
    let editors: Vec<_> = stream::iter(connecting).buffered(AT_ONCE).collect().await;
    for (_, answer) in &editors {
        assert_eq!(answer["type"], "auth:ok", "{answer}");
    }

    editors
}

/// A socket from this address; one that is told to come later does.
async fn connect(stack: &Stack, address: &str) -> Editor {
    loop {
        let refused = match Editor::try_for_session(stack, &[("x-forwarded-for", address)]).await {
            Ok(editor) => return editor,
            Err(refused) => refused,
        };

        let Error::Http(response) = *refused else {
            panic!("{refused:?}")
        };

        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);

        let seconds = response.headers()[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// They are all connected, and then their relay is killed and another one started.
pub async fn without_a_relay(
    database: Database,
    count: usize,
    flags: &[&str],
) -> (Split, Vec<Install>) {
    let mut split = Split::relay(database, &[&FROM_ANYWHERE, flags].concat()).await;
    let installs = make(&split.stack, count).await;
    let mut editors = sign_on(&split.stack, &installs).await;
    split.kill_relay().await;
    join_all(editors.iter_mut().map(|(editor, _)| editor.cut_off())).await;
    split.start_relay().await;
    (split, installs)
}

/// How often each method of sessions has been called, but for those with which a relay begins.
pub fn calls(stack: &Stack) -> HashMap<String, usize> {
    let mut calls = HashMap::new();
    let method = |span: &SpanData| {
        let (service, method) = span.name.split_once('/')?;
        let is_of_sessions = service.starts_with("vvs.") && service != "vvs.relay.v1.Relay";
        let is_served = format!("{:?}", span.span_kind) == "Server";
        (is_served && is_of_sessions && !["WatchRevocations", "GetSigningKeys"].contains(&method))
            .then(|| method.to_owned())
    };
    for method in stack.spans().iter().filter_map(method) {
        *calls.entry(method).or_default() += 1;
    }
    calls
}

/// Ends all sessions of a user, as the page of their editors does.
pub async fn revoke_all(stack: &Stack, one: &Install) -> usize {
    let mut sessions = stack
        .caller(Role::Web)
        .sessions(stack.addresses().sessions_rpc);
    let request = GetSessionRequest {
        session_id: one.session_id.clone(),
    };
    let user_id = sessions
        .get_session(request)
        .await
        .unwrap()
        .into_inner()
        .session
        .unwrap()
        .user
        .unwrap()
        .id;
    let request = RevokeUserSessionsRequest {
        whose: Some(Whose::UserId(user_id)),
        reason: RevocationReason::SignedOutByUser.into(),
        ..RevokeUserSessionsRequest::default()
    };

    sessions
        .revoke_user_sessions(request)
        .await
        .unwrap()
        .into_inner()
        .revoked as usize
}

/// The editor hears that its session is over, and why.
pub async fn hears_of_its_end(editor: &mut Editor) {
    let frame = editor.next().await;
    assert_eq!(
        (&frame["type"], &frame["reason"]),
        (&"session:revoked".into(), &"signed_out_by_user".into())
    );
    assert_eq!(editor.close_code().await, 4500);
}
