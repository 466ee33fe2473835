//! Calls to Clerk's Backend API, each made once, and the meaning of its answers. Knows no browser
//! and no token.

use http::StatusCode;
use reqwest::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vvs_auth::provider::KeySet;

use super::user::ClerkUser;
use crate::fetch::{Failed, Fetch};
use crate::keys;

/// The version of the answers' format.
const VERSION: &str = "2026-05-12";
/// Clerk's code for an unknown object. A 404 without it comes from an intermediary.
const UNKNOWN: &str = "resource_not_found";
/// The longest text of a refusal that goes into our log, in characters.
const MAX_TEXT: usize = 100;

/// The Backend API of one instance.
pub(super) struct Api {
    pub(super) base: String,
    pub(super) secret_key: SecretString,
    pub(super) fetch: Fetch,
}

/// A browser's session with Clerk, as far as it is used.
#[derive(Deserialize)]
pub(super) struct ClerkSession {
    id: String,
    pub(super) user_id: String,
    status: String,
}

impl ClerkSession {
    pub(super) fn is_active(&self) -> bool {
        self.status == "active"
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
    clerk_trace_id: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

impl Api {
    /// Returns a user; `None` when Clerk has none with this id.
    pub(super) async fn user(&self, id: &str) -> Result<Option<ClerkUser>, Failed> {
        self.find("users", id, |user: &ClerkUser| &user.id).await
    }

    /// Returns a browser's session; `None` when Clerk has none with this id.
    pub(super) async fn session(&self, id: &str) -> Result<Option<ClerkSession>, Failed> {
        self.find("sessions", id, |session: &ClerkSession| &session.id)
            .await
    }

    /// Returns the keys that tokens are signed with.
    pub(super) async fn keys(&self) -> Result<KeySet, Failed> {
        let request = self.request("jwks")?;
        let host = host(&request);
        let body = self
            .send(request)
            .await?
            .ok_or_else(|| unreadable(&host, "there are no keys"))?;
        keys::parse(&host, &body)
    }

    async fn find<T: DeserializeOwned>(
        &self,
        kind: &str,
        id: &str,
        own: fn(&T) -> &str,
    ) -> Result<Option<T>, Failed> {
        // Nothing else is an id of Clerk's, and nothing else may become a part of a path.
        if id.is_empty()
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        {
            return Ok(None);
        }

        let request = self.request(&format!("{kind}/{id}"))?;
        let host = host(&request);
        let Some(body) = self.send(request).await? else {
            return Ok(None);
        };

        // Not the parser's words: they may hold what it has read.
        let found: T = serde_json::from_slice(&body)
            .map_err(|_cause| unreadable(&host, "it is not of the form asked for"))?;

        if own(&found) == id {
            Ok(Some(found))
        } else {
            Err(unreadable(&host, "it is about something else"))
        }
    }

    fn request(&self, path: &str) -> Result<Request, Failed> {
        let request = self.fetch.get(&format!("{}/v1/{path}", self.base));
        let request = request
            .bearer_auth(self.secret_key.expose_secret())
            .header("clerk-api-version", VERSION);
        request
            .build()
            .map_err(|cause| unreadable(&self.base, &cause.without_url().to_string()))
    }

    /// Returns the body of an answer; `None` when Clerk says that the object does not exist.
    async fn send(&self, request: Request) -> Result<Option<Vec<u8>>, Failed> {
        let host = host(&request);
        let (status, headers, body) = self.fetch.send(request).await?;
        if status.is_success() {
            return Ok(Some(body));
        }

        let refusal: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        let code = refusal
            .errors
            .into_iter()
            .next()
            .map(|entry| entry.code)
            .unwrap_or_default();
        if status == StatusCode::NOT_FOUND && code == UNKNOWN {
            return Ok(None);
        }

        let ray = || {
            headers
                .get("cf-ray")
                .and_then(|value| Some(value.to_str().ok()?.to_owned()))
        };
        let trace = refusal.clerk_trace_id.or_else(ray).unwrap_or_default();

        Err(Failed::Refused {
            host,
            status,
            code: shown(&code),
            trace: shown(&trace),
        })
    }
}

fn host(request: &Request) -> String {
    request.url().host_str().unwrap_or_default().to_owned()
}

fn unreadable(host: &str, cause: &str) -> Failed {
    Failed::Unreadable {
        host: host.to_owned(),
        cause: cause.to_owned(),
    }
}

/// Makes a text safe for a log line.
fn shown(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_graphic)
        .take(MAX_TEXT)
        .collect()
}
