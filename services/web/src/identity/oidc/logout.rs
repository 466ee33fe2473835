//! The provider's word that somebody is signed in no more (OpenID Connect Back-Channel Logout 1.0).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::Form;
use axum::extract::rejection::FormRejection;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use vvs_auth::provider::Distrust;
use vvs_auth::provider::oidc::{Logout, verify_logout_token};
use vvs_runtime::metrics::count;

use super::Oidc;
use crate::call::Whose;
use crate::error::Refusal;
use crate::fetch::Failed;
use crate::header;
use crate::identity::SignIn;
use crate::visit::{Answer, Visit, with_headers};

/// Why sessions end that the provider has ended: what the editor hears.
const BY_PROVIDER: &str = "signed_out_at_provider";
/// Logouts that are remembered.
const MAX_HEARD: usize = 16 * 1024;

#[derive(Deserialize)]
pub(super) struct Told {
    logout_token: String,
}

/// Why a logout is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Deaf {
    #[error("no form with one logout_token")]
    NoToken,
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// Its keys are not to be had.
    #[error(transparent)]
    Keys(#[from] Failed),
    #[error(transparent)]
    Sessions(#[from] Refusal),
}

/// `POST /api/auth/oidc/logout`.
pub(super) async fn logout(
    Extension(oidc): Extension<Arc<Oidc>>,
    visit: Visit,
    told: Result<Form<Told>, FormRejection>,
) -> Response {
    let heard = match told {
        Ok(Form(told)) => oidc.hear(&told.logout_token, visit.now.unix_timestamp()).await,
        Err(_rejection) => Err(Deaf::NoToken),
    };
    let request_id = &visit.request_id;
    let (outcome, status, body) = match heard {
        Ok(Heard::New { revoked }) => {
            tracing::info!(request_id, revoked, "the provider has ended a sign-in");
            ("revoked", StatusCode::OK, "{}")
        }
        Ok(Heard::Again) => ("repeated", StatusCode::OK, "{}"),
        Err(cause @ (Deaf::NoToken | Deaf::Distrust(_))) => {
            tracing::info!(request_id, %cause, "a logout was refused");
            ("refused", StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#)
        }
        Err(cause @ (Deaf::Keys(_) | Deaf::Sessions(_))) => {
            tracing::warn!(request_id, %cause, "a logout could not be carried out");
            ("failed", StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"temporarily_unavailable"}"#)
        }
    };
    count(&oidc.logouts, "outcome", outcome);
    visit.finish(Ok(json(status, body)))
}

fn json(status: StatusCode, body: &str) -> Answer {
    let mut headers = header::common();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_headers(status, headers, body.to_owned())
}

/// What a logout token has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    New {
        revoked: u32,
    },
    /// It was carried out before, and what was approved since then stays.
    Again,
}

impl Oidc {
    /// Ends what was approved with a sign-in that the provider says is over.
    async fn hear(&self, token: &str, now: i64) -> Result<Heard, Deaf> {
        let keys = self.keys.for_token(token).await?;
        let logout = verify_logout_token(token, &keys, &self.issuer, &self.client_id, now)?;
        if !self.heard.tokens.add(&logout.jti, now) {
            return Ok(Heard::Again);
        }
        // First, so that nothing is approved with it while the rest goes on.
        self.heard.end(&logout, now);
        let Logout { subject, session, jti, .. } = logout;
        let whose = Whose {
            provider: &self.issuer,
            subject: subject.as_deref().unwrap_or_default(),
            provider_session: session.as_deref().unwrap_or_default(),
        };
        let revoked = self.sessions.revoke_identity(&whose, BY_PROVIDER).await;
        if revoked.is_err() {
            // The provider may send it once more.
            self.heard.tokens.forget(&jti);
        }
        Ok(Heard::New { revoked: revoked? })
    }
}

/// What was heard, as far as this process remembers.
#[derive(Default)]
pub(super) struct Memory {
    /// Tokens, which are good once.
    tokens: Latest,
    /// Sessions at the provider that are over.
    sessions: Latest,
    /// Subjects all of whose sessions are over.
    subjects: Latest,
}

impl Memory {
    fn end(&self, logout: &Logout, now: i64) {
        match (&logout.session, &logout.subject) {
            (Some(session), _) => self.sessions.set(session, now),
            (None, Some(subject)) => self.subjects.set(subject, now),
            (None, None) => {}
        }
    }

    /// Whether the provider has ended it since it was made. One made in the same second may be the one that was ended.
    pub(super) fn ends(&self, sign_in: &SignIn) -> bool {
        let since = |at: Option<i64>| at.is_some_and(|at| sign_in.at <= at);
        since(self.sessions.get(&sign_in.provider_session)) || since(self.subjects.get(&sign_in.subject))
    }
}

/// When the latest things were, in seconds since 1970.
#[derive(Default)]
struct Latest(Mutex<HashMap<String, i64>>);

impl Latest {
    /// Whether it is new.
    fn add(&self, name: &str, at: i64) -> bool {
        let is_new = self.get(name).is_none();
        if is_new {
            self.set(name, at);
        }
        is_new
    }

    /// At the cost of the oldest, when there are too many.
    fn set(&self, name: &str, at: i64) {
        let mut latest = self.lock();
        if latest.len() >= MAX_HEARD && !latest.contains_key(name) {
            let oldest = latest.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
            oldest.and_then(|name| latest.remove(&name));
        }
        latest.insert(name.to_owned(), at);
    }

    fn get(&self, name: &str) -> Option<i64> {
        self.lock().get(name).copied()
    }

    fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::dev;

    fn logout(subject: Option<&str>, session: Option<&str>) -> Logout {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (subject, session) = (text(subject), text(session));
        Logout { subject, session, jti: "j".to_owned(), issued_at: 0, expires_at: 0 }
    }

    fn sign_in(email: &str, session: &str, at: i64) -> SignIn {
        dev::sign_in(email, "", session.to_owned(), at).ok().unwrap()
    }

    #[test]
    fn a_session_at_the_provider_ends_alone_and_a_subject_with_all_of_them() {
        let memory = Memory::default();
        memory.end(&logout(Some("ada@a.test"), Some("s-1")), 1000);
        assert!(memory.ends(&sign_in("ada@a.test", "s-1", 999)) && memory.ends(&sign_in("ada@a.test", "s-1", 1000)));
        assert!(!memory.ends(&sign_in("ada@a.test", "s-2", 999)));
        assert!(!memory.ends(&sign_in("ada@a.test", "s-1", 1001)), "a later sign-in is another one");

        memory.end(&logout(Some("ada@a.test"), None), 2000);
        assert!(memory.ends(&sign_in("ada@a.test", "s-2", 2000)) && memory.ends(&sign_in("ada@a.test", "s-3", 1)));
        assert!(!memory.ends(&sign_in("ada@a.test", "s-2", 2001)) && !memory.ends(&sign_in("bob@a.test", "s-9", 1)));
        // A session that is called like a subject.
        memory.end(&logout(None, Some("bob@a.test")), 3000);
        assert!(!memory.ends(&sign_in("bob@a.test", "s-9", 1)));
    }

    #[test]
    fn the_oldest_that_was_heard_makes_room() {
        let latest = Latest::default();
        for at in 0..i64::try_from(MAX_HEARD).unwrap() {
            latest.set(&at.to_string(), at);
        }
        latest.set("2", 1_000_000);
        assert_eq!(latest.get("0"), Some(0), "nothing new has come");
        latest.set("new", 1_000_001);
        latest.set("newer", 1_000_002);
        latest.set("newest", 1_000_003);
        assert_eq!(latest.lock().len(), MAX_HEARD);
        assert_eq!((latest.get("1"), latest.get("2"), latest.get("3")), (None, Some(1_000_000), None));
    }
}
