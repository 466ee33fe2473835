//! Unsolicited messages from Clerk, delivered by Svix: whether a delivery is genuine, and which
//! user it signs out. A delivery is a hint that may come late, twice, out of order or never.
//! Important changes are also polled in [`super::recheck`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;
use serde_json::Value;
use vvs_proto::types::RevocationReason;

/// The longest delivery, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// How far a delivery's time may be from ours, in seconds.
const TOLERANCE: i64 = 5 * 60;
/// How many deliveries are remembered, and how long the id of one may be. A forgotten delivery is
/// processed again, which does no harm: a session that is signed out stays signed out.
const MAX_SEEN: usize = 1024;
const MAX_ID: usize = 256;

/// The reason that the editors receive.
const DELETED: RevocationReason = RevocationReason::UserDeleted;
pub(super) const BANNED: RevocationReason = RevocationReason::UserBanned;
const REVOKED: RevocationReason = RevocationReason::ProviderSessionRevoked;
const ENDED: RevocationReason = RevocationReason::ProviderSessionEnded;

/// Receives deliveries.
pub(super) struct Inbox {
    key: hmac::Key,
    end_with_session: bool,
    /// Deliveries that are processed.
    seen: Mutex<VecDeque<String>>,
}

/// The user to sign out, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) subject: String,
    /// Empty for all sessions of the user.
    pub(super) provider_session: String,
    pub(super) reason: RevocationReason,
    /// Whether editors are signed out too, and not only browsers.
    pub(super) editors: bool,
}

/// The content of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Webhook {
    /// The same when it is sent again.
    pub(super) id: String,
    /// `None` when it does not concern us.
    pub(super) ended: Option<Ended>,
}

/// Why a delivery is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadWebhook {
    /// A header is missing or not text, or the genuine body has an unexpected format.
    Malformed,
    Forged,
    /// Genuine, but too old or from the future: perhaps a replay.
    Late,
}

impl BadWebhook {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Late => "late",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Forged | Self::Late => StatusCode::UNAUTHORIZED,
        }
    }
}

#[derive(Deserialize)]
struct WebhookBody {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl Inbox {
    pub(super) fn new(secret: &SecretSlice<u8>, end_with_session: bool) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        Self {
            key,
            end_with_session,
            seen: Mutex::default(),
        }
    }

    /// Reads a delivery at a time in seconds since 1970. It parses nothing before it has verified
    /// the signature.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: i64,
    ) -> Result<Webhook, BadWebhook> {
        let header = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .ok_or(BadWebhook::Malformed)
        };
        let (id, timestamp, signatures) = (
            header("svix-id")?,
            header("svix-timestamp")?,
            header("svix-signature")?,
        );
        if !(1..=MAX_ID).contains(&id.len()) {
            return Err(BadWebhook::Malformed);
        }

        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();

        // While a secret changes there is one signature for each.
        let is_genuine = signatures
            .split(' ')
            .filter_map(|entry| entry.strip_prefix("v1,"))
            .any(|signature| {
                STANDARD
                    .decode(signature)
                    .is_ok_and(|tag| hmac::verify(&self.key, &signed, &tag).is_ok())
            });
        if !is_genuine {
            return Err(BadWebhook::Forged);
        }

        let at: i64 = timestamp.parse().map_err(|_cause| BadWebhook::Malformed)?;
        if at.abs_diff(now) > TOLERANCE.unsigned_abs() {
            return Err(BadWebhook::Late);
        }

        Ok(Webhook {
            id: id.to_owned(),
            ended: self.ended(body)?,
        })
    }

    fn ended(&self, body: &[u8]) -> Result<Option<Ended>, BadWebhook> {
        let WebhookBody { kind, data } =
            serde_json::from_slice(body).map_err(|_cause| BadWebhook::Malformed)?;

        // An empty id would stand for everybody's, or for all of a user's.
        let id = |name| {
            data.get(name)
                .and_then(Value::as_str)
                .filter(|id| !id.is_empty())
                .ok_or(BadWebhook::Malformed)
        };
        let is = |name| data.get(name) == Some(&Value::Bool(true));
        let (subject, provider_session, reason, editors) = match kind.as_str() {
            "user.deleted" => (id("id")?, "", DELETED, true),
            // Not when locked: anybody who types wrong passwords can cause that.
            "user.updated" if is("banned") || is("deprovisioned") => (id("id")?, "", BANNED, true),
            "session.revoked" => (id("user_id")?, id("id")?, REVOKED, true),
            "session.ended" | "session.removed" => {
                (id("user_id")?, id("id")?, ENDED, self.end_with_session)
            }
            _ => return Ok(None),
        };

        let (subject, provider_session) = (subject.to_owned(), provider_session.to_owned());

        Ok(Some(Ended {
            subject,
            provider_session,
            reason,
            editors,
        }))
    }

    /// Returns whether a delivery is processed.
    pub(super) fn has_seen(&self, id: &str) -> bool {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|known| known == id)
    }

    /// Records that a delivery is processed: only now, so that a failed one is processed when it
    /// comes again.
    pub(super) fn remember(&self, id: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.pop_front();
        }
        seen.push_back(id);
    }
}

#[cfg(test)]
mod tests;
