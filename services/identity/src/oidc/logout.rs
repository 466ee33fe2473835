//! The provider's message that somebody is no longer signed in (OpenID Connect Back-Channel Logout
//! 1.0).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use vvs_auth::provider::Distrust;
use vvs_auth::provider::oidc::{Logout, verify_logout_token};
use vvs_proto::types::RevocationReason;
use vvs_runtime::metrics::count;

use super::Oidc;
use crate::fetch::Failed;
use crate::provider::{PlainRequest, Response};
use crate::refusal::Refusal;
use crate::sessions::Whose;

/// The longest logout, in bytes.
pub(super) const MAX_BODY: usize = 16 * 1024;
/// The reason when the provider has ended sessions; the editor receives it.
const BY_PROVIDER: RevocationReason = RevocationReason::SignedOutAtProvider;
/// Tokens that are remembered.
const MAX_HEARD: usize = 16 * 1024;

#[derive(Deserialize)]
struct LogoutForm {
    logout_token: String,
}

/// Why a logout is not carried out.
#[derive(Debug, thiserror::Error)]
enum LogoutFault {
    #[error("no form with one logout_token")]
    NoToken,
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// Its keys cannot be fetched.
    #[error(transparent)]
    Keys(#[from] Failed),
    #[error(transparent)]
    Sessions(#[from] Refusal),
}

/// Returns the token of a form that has one.
fn read(request: &PlainRequest<'_>) -> Option<LogoutForm> {
    let is_form = |headers: &HeaderMap| {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (kind, _) = content_type.split_once(';').unwrap_or((content_type, ""));
        Some(
            kind.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded"),
        )
    };
    is_form(request.headers)?.then_some(())?;

    serde_urlencoded::from_bytes(request.body?).ok()
}

fn json(status: StatusCode, body: &'static str) -> Response {
    let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// The result of a logout token.
#[derive(Debug, PartialEq, Eq)]
enum LogoutOutcome {
    New {
        revoked: u32,
    },
    /// It was carried out before, and sessions that were approved since then stay.
    Again,
}

impl Oidc {
    /// `POST /api/auth/oidc/logout`.
    pub(super) async fn logged_out(&self, request: PlainRequest<'_>) -> Response {
        let heard = match read(&request) {
            Some(LogoutForm { logout_token }) => {
                self.hear(&logout_token, request.now.unix_timestamp()).await
            }
            None => Err(LogoutFault::NoToken),
        };

        let request_id = request.request_id;
        let (outcome, status, body) = match heard {
            Ok(LogoutOutcome::New { revoked }) => {
                tracing::info!(request_id, revoked, "the provider has ended a sign-in");
                ("revoked", StatusCode::OK, "{}")
            }
            Ok(LogoutOutcome::Again) => ("repeated", StatusCode::OK, "{}"),
            Err(cause @ (LogoutFault::NoToken | LogoutFault::Distrust(_))) => {
                tracing::info!(request_id, %cause, "a logout was refused");
                (
                    "refused",
                    StatusCode::BAD_REQUEST,
                    r#"{"error":"invalid_request"}"#,
                )
            }
            Err(cause @ (LogoutFault::Keys(_) | LogoutFault::Sessions(_))) => {
                tracing::warn!(request_id, %cause, "a logout could not be carried out");
                (
                    "failed",
                    StatusCode::SERVICE_UNAVAILABLE,
                    r#"{"error":"temporarily_unavailable"}"#,
                )
            }
        };

        count(&self.logouts, "outcome", outcome);

        json(status, body)
    }

    /// Ends the sign-ins that the provider says are over: in browsers, whichever process they ask,
    /// and the sessions that were approved there.
    async fn hear(&self, token: &str, now: i64) -> Result<LogoutOutcome, LogoutFault> {
        let keys = self.keys.for_token(token).await?;
        let logout = verify_logout_token(token, &keys, &self.issuer, &self.client_id, now)?;
        if !self.heard.add(&logout.jti, now) {
            return Ok(LogoutOutcome::Again);
        }

        let Logout {
            subject,
            session,
            jti,
            ..
        } = logout;
        let whose = Whose {
            provider: &self.issuer,
            subject: subject.as_deref().unwrap_or_default(),
            provider_session: session.as_deref().unwrap_or_default(),
        };
        let revoked = self.sessions.end(whose, true, BY_PROVIDER).await;
        if revoked.is_err() {
            // The provider may send it once more.
            self.heard.forget(&jti);
        }

        Ok(LogoutOutcome::New { revoked: revoked? })
    }
}

/// Accepted tokens, which are valid once, by their `jti`, and when, in seconds since 1970.
#[derive(Default)]
pub(super) struct HeardTokens(Mutex<HashMap<String, i64>>);

impl HeardTokens {
    /// Adds a token. Returns whether it is new. The oldest makes room when there are too many.
    fn add(&self, jti: &str, at: i64) -> bool {
        let mut heard = self.lock();
        if heard.contains_key(jti) {
            return false;
        }

        if heard.len() >= MAX_HEARD {
            let oldest = heard
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(jti, _)| jti.clone());
            oldest.and_then(|jti| heard.remove(&jti));
        }

        heard.insert(jti.to_owned(), at);

        true
    }

    fn forget(&self, jti: &str) {
        self.lock().remove(jti);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_new_once_and_the_oldest_that_was_heard_makes_room() {
        let tokens = HeardTokens::default();
        for at in 0..i64::try_from(MAX_HEARD).unwrap() {
            assert!(tokens.add(&at.to_string(), at));
        }

        assert!(!tokens.add("0", 1_000_000), "nothing new has come");
        assert!(
            tokens.add("new", 1_000_000)
                && !tokens.add("new", 1_000_001)
                && !tokens.add("1", 1_000_001)
        );
        assert_eq!(tokens.lock().len(), MAX_HEARD);
        assert!(tokens.add("0", 1_000_001), "the oldest is still there");

        tokens.forget("new");
        assert!(tokens.add("new", 1_000_002));
    }
}
