//! An editor install that is signed in: what it keeps, and how it came to that without a browser.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use vvs_auth::peer::Role;
use vvs_client::DeviceKey;
use vvs_proto::internal::{ActivateSessionsRequest, Activation};
use vvs_proto::session::{CreateSessionRequest, Identity};
use vvs_proto::types::Device;

use crate::{Editor, Stack};

/// What an editor keeps.
#[derive(Debug, Clone)]
pub struct Install {
    pub key: DeviceKey,
    pub token: String,
    pub session_id: String,
}

impl Install {
    /// From a frame with a token and a session.
    pub fn of(key: DeviceKey, frame: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            key,
            token: text(&frame["token"]),
            session_id: text(&frame["session"]["id"]),
        }
    }

    /// Makes a session as web does after an approval, and activates it as a relay does after the
    /// acknowledgement. The token is one that says so.
    pub async fn make(stack: &Stack, sessions: SocketAddr, name: &str) -> Self {
        // Each of its own, in the form of a UUID v4.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let key = DeviceKey::generate().unwrap();
        let jwk = key.jwk().to_string();
        let identity = Identity {
            provider: "dev".to_owned(),
            subject: format!("{name}@example.com"),
            provider_session: "one".to_owned(),
            ..Identity::default()
        };
        let request = CreateSessionRequest {
            request_id: format!("{number:08x}-0000-4000-8000-000000000000"),
            identity: Some(identity),
            device: Some(Device {
                name: "laptop".to_owned(),
                jwk,
                ..Device::default()
            }),
            ..CreateSessionRequest::default()
        };
        let mut web = stack.caller(Role::Web).sessions(sessions);
        let created = web
            .create_session(request.clone())
            .await
            .unwrap()
            .into_inner();
        let session_id = created.session.unwrap().id;
        let activation = Activation {
            session_id: session_id.clone(),
            address: String::new(),
        };
        let activate = ActivateSessionsRequest {
            activations: vec![activation],
        };
        stack
            .caller(Role::Relay)
            .editors(sessions)
            .activate_sessions(activate)
            .await
            .unwrap();
        let token = web
            .create_session(request)
            .await
            .unwrap()
            .into_inner()
            .token
            .unwrap()
            .token;
        stack.secrets().add(&token);

        Self {
            key,
            token,
            session_id,
        }
    }

    /// The same token with another signature: no relay can say more about it than about one of a
    /// retired key.
    #[must_use]
    pub fn with_bent_token(&self) -> Self {
        let (signed, signature) = self.token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        Self {
            token: format!("{signed}.{first}{}", &signature[1..]),
            ..self.clone()
        }
    }

    /// Connects and shows the token; the socket and the answer.
    pub async fn connect(&self, stack: &Stack) -> (Editor, Value) {
        let mut editor = Editor::for_session(stack).await;
        let answer = editor.authenticate(&self.token, Some(&self.key)).await;
        (editor, answer)
    }

    /// The same, when it can only go well.
    pub async fn sign_on(&self, stack: &Stack) -> Editor {
        let (editor, answer) = self.connect(stack).await;
        assert_eq!(
            (&answer["type"], &answer["session"]["id"]),
            (&"auth:ok".into(), &self.session_id.as_str().into()),
            "{answer}"
        );
        editor
    }
}
