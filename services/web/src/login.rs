//! One login as one browser sees it: the relay's state, the browser's memory, and the resulting
//! page. Knows no cookie, no page and no call.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use vvs_auth::key::Keyring;
use vvs_identity::SignIn;
use vvs_proto::{ConnectionId, Phase, RequestId, ReturnUri};

use crate::editor::Editor;
use crate::error::Refusal;
use crate::failure::Trouble;

/// The relay's view of a login.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) state: Phase,
    pub(crate) user_code: String,
    pub(crate) editor: Editor,
    /// The editor's public device key as JSON; empty for an editor without one.
    pub(crate) device_key: String,
    /// Where the browser will take the one-time code; `None` when the person types it, or when
    /// there is no code.
    pub(crate) return_uri: Option<ReturnUri>,
    /// Where the editor connected from.
    pub(crate) address: IpAddr,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
}

/// A browser's memory of a login that it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Seconds since 1970.
    pub(crate) expires_at: i64,
    /// The delivery of this browser's approval.
    pub(crate) approved: Option<String>,
    /// The session that was made for it.
    pub(crate) session: Option<String>,
    pub(crate) acked: bool,
}

impl Seen {
    pub(crate) fn new(view: &View) -> Self {
        Self {
            expires_at: view.expires_at.unix_timestamp(),
            approved: None,
            session: None,
            acked: false,
        }
    }

    /// Returns whether a login that no relay holds may still have an editor that comes back.
    pub(crate) fn is_live(&self, now: OffsetDateTime) -> bool {
        now.unix_timestamp() < self.expires_at
    }
}

/// The state of a login for one browser.
pub(crate) enum Standing {
    /// Waits for a decision.
    Open(View),
    /// Waits for its editor.
    Away,
    /// Approved here; the editor waits for the code that this browser takes back.
    Held,
    /// Approved here; the editor does not have it yet, and why.
    Approved(Trouble),
    /// Approved here and received by the editor; the relay's view, while it has one.
    Done(Option<View>),
}

/// Returns the state of a login, or why there is nothing to see.
pub(crate) fn stand(
    found: Result<View, Refusal>,
    entry: Option<&Seen>,
    now: OffsetDateTime,
) -> Result<Standing, Refusal> {
    let approved = entry.is_some_and(|entry| entry.approved.is_some());
    match found {
        Ok(view) => match view.state {
            // The relay that had the approval is gone, and the editor has found another one.
            Phase::Waiting | Phase::Away if approved => Ok(Standing::Approved(Trouble::EditorAway)),
            Phase::Waiting => Ok(Standing::Open(view)),
            Phase::Away => Ok(Standing::Away),
            Phase::Held if approved => Ok(Standing::Held),
            Phase::Sent if approved => Ok(Standing::Approved(Trouble::Unacknowledged)),
            Phase::Held | Phase::Sent => Err(Refusal::Claimed),
            Phase::Acked if approved => Ok(Standing::Done(Some(view))),
            Phase::Acked => Err(Refusal::Over),
            failed @ (Phase::Denied | Phase::Cancelled | Phase::Expired | Phase::Burned) => {
                Err(Refusal::Ended(failed))
            }
        },
        Err(Refusal::EditorAway) => Ok(away(approved)),
        Err(Refusal::Unknown) => match entry {
            Some(entry) if entry.acked => Ok(Standing::Done(None)),
            Some(entry) if entry.is_live(now) => Ok(away(approved)),
            Some(_) | None => Err(Refusal::Unknown),
        },
        Err(other) => Err(other),
    }
}

fn away(approved: bool) -> Standing {
    if approved {
        Standing::Approved(Trouble::EditorAway)
    } else {
        Standing::Away
    }
}

/// Checks whether an approval may continue. The relay decides which of several approvals has the
/// login: only there can no approval overtake another, and a form that a double click sent twice
/// must not conflict with itself.
pub(crate) fn may_deliver(
    found: Result<View, Refusal>,
    entry: Option<&Seen>,
    now: OffsetDateTime,
) -> Result<View, Refusal> {
    match found {
        Ok(view) if view.state.is_failed() => Err(Refusal::Ended(view.state)),
        // Nothing is begun for an editor that may never come back.
        Ok(view)
            if view.state == Phase::Away && entry.is_none_or(|entry| entry.approved.is_none()) =>
        {
            Err(Refusal::EditorAway)
        }
        found => or_away(found, entry, now),
    }
}

/// Treats a login that nobody holds during its time as one whose editor may come back.
pub(crate) fn or_away<T>(
    answer: Result<T, Refusal>,
    entry: Option<&Seen>,
    now: OffsetDateTime,
) -> Result<T, Refusal> {
    match answer {
        Err(Refusal::Unknown) if entry.is_some_and(|entry| entry.is_live(now)) => {
            Err(Refusal::EditorAway)
        }
        answer => answer,
    }
}

/// Names the delivery of this login to this user. The name is the same for every repetition, and no
/// client can choose it.
pub(crate) fn request_id(keys: &Keyring, id: ConnectionId, sign_in: &SignIn) -> RequestId {
    let SignIn {
        provider,
        subject,
        provider_session,
        ..
    } = sign_in;
    let mac = keys.mac(&[&id.to_string(), provider, subject, provider_session]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&mac[..16]);
    RequestId::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
