//! The delivery as web asks the relay for it: once, whoever asks how often, and for an editor that
//! can take it only.

use http::StatusCode;
use serde_json::json;
use tonic::Code;
use vvs_auth::peer::Role;
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::{self, DeliverAuthRequest, DeliverAuthResponse, GetLoginRequest, Sent};
use vvs_proto::session::{CreateSessionRequest, Identity};
use vvs_proto::types;
use vvs_runtime::rpc::{reason, within};
use vvs_tests::{Editor, Stack};

/// A delivery of a session that exists, as web makes it.
async fn delivery(stack: &Stack, editor: &Editor) -> DeliverAuthRequest {
    let request_id = "0b9e7a4c-52b1-4c1f-9d3a-7a5d2f6e8c10".to_owned();
    let identity = Identity {
        provider: "dev".to_owned(),
        subject: "ada@example.com".to_owned(),
        provider_session: "one".to_owned(),
        ..Identity::default()
    };
    let request = CreateSessionRequest {
        request_id: request_id.clone(),
        identity: Some(identity),
        device: None,
        app: None,
        address: "127.0.0.1".to_owned(),
        connection_id: editor.id().to_owned(),
    };
    let mut sessions = stack
        .caller(Role::Web)
        .sessions(stack.addresses().sessions_rpc);
    let created = sessions.create_session(request).await.unwrap().into_inner();
    let (session, token) = (created.session.unwrap(), created.token.unwrap());

    DeliverAuthRequest {
        request_id,
        connection_id: editor.id().to_owned(),
        token: token.token,
        token_expires_at: token.expires_at,
        user: Some(types::User {
            id: session.user.unwrap().id,
            ..types::User::default()
        }),
        session: Some(relay::Session {
            id: session.id,
            expires_at: session.expires_at,
        }),
    }
}

#[tokio::test]
async fn a_delivery_is_one_push_however_often_it_is_asked_for_and_for_nobody_else() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
    let delivery = delivery(&stack, &editor).await;
    let mut deliver =
        async |request: DeliverAuthRequest| -> Result<DeliverAuthResponse, tonic::Status> {
            let second = std::time::Duration::from_secs(1);
            relay
                .deliver_auth(within(request, second))
                .await
                .map(tonic::Response::into_inner)
        };

    // The editor does not read; the answer comes before the caller has given up.
    let sent = DeliverAuthResponse {
        outcome: Some(Outcome::Sent(Sent {})),
    };
    assert_eq!(deliver(delivery.clone()).await.unwrap(), sent);

    let mut newer = delivery.clone();
    newer.token = "another token of the same session".to_owned();
    assert_eq!(deliver(newer).await.unwrap(), sent);

    let (mut user, mut session, mut request) =
        (delivery.clone(), delivery.clone(), delivery.clone());
    user.user.as_mut().unwrap().id = "mallory".to_owned();
    session.session.as_mut().unwrap().id = "another".to_owned();
    request.request_id = "5f0c2f0e-8f0f-4f59-9a7e-9d3c1c4d7b21".to_owned();
    let others = [user, session, request];
    for other in &others {
        let refused = deliver(other.clone()).await.unwrap_err();
        assert_eq!(
            (refused.code(), &*reason(&refused)),
            (Code::AlreadyExists, "LOGIN_CLAIMED")
        );
    }

    let success = editor.next().await;
    assert_eq!(
        (&success["messageId"], &success["token"]),
        (&json!(delivery.request_id), &json!(delivery.token))
    );

    editor.read_on().await;

    // Once activation is through, the same answer is given for ever.
    let acked = loop {
        let answer = deliver(delivery.clone()).await.unwrap();
        if let Some(Outcome::Acked(acked)) = answer.outcome {
            break acked;
        }
    };

    assert!(acked.at.is_some());
    assert_eq!(
        deliver(delivery).await.unwrap().outcome,
        Some(Outcome::Acked(acked))
    );

    for other in others {
        assert_eq!(
            deliver(other).await.unwrap_err().code(),
            Code::AlreadyExists
        );
    }

    editor.read_on().await;
}

#[tokio::test]
async fn an_editor_that_cannot_bind_as_the_server_asks_gets_nothing_and_its_person_is_told_first() {
    let stack = Stack::start_with(&["--relay-min-binding", "typed"]).await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    for path in [
        editor.login_path(),
        format!("{}&retry=1", editor.login_path()),
    ] {
        let page = browser.get(&path).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(
            page.body.contains("This editor cannot sign in here") && !page.body.contains("<form"),
            "{}",
            page.body
        );
    }

    let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
    let look = GetLoginRequest {
        connection_id: editor.id().to_owned(),
        known_state: 0,
    };
    let delivery = delivery(&stack, &editor).await;
    for refused in [
        relay.deliver_auth(delivery).await.unwrap_err(),
        relay.get_login(look).await.unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), &*reason(&refused)),
            (Code::FailedPrecondition, "EDITOR_CANNOT_BIND")
        );
    }

    editor.read_on().await;
}
