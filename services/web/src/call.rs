//! The calls to relay and sessions: deadlines, and the only place that reads their errors. Knows no
//! page and no cookie.

use std::net::IpAddr;
use std::time::Duration;

use tonic::{Code, Status};
use vvs_proto::session::{Session, Token};
use vvs_proto::text::plain;
use vvs_proto::types::User;
use vvs_runtime::rpc::reason;
use vvs_runtime::trace::code_name;

use crate::error::Refusal;
use crate::handback::Handback;

mod browser;
mod provider;
mod relay;
mod sessions;

pub(crate) use relay::Relay;
pub(crate) use sessions::Sessions;

/// For a call that is answered immediately.
const CALL_TIME: Duration = Duration::from_secs(5);

/// Characters of an editor's description of itself.
const MAX_WORDS: usize = 255;

/// Where a person approves from.
pub(crate) struct Requester {
    pub(crate) address: IpAddr,
}

/// A session that sessions has created, and its first token: the content of a delivery.
pub(crate) struct Granted {
    session: Session,
    user: User,
    token: Token,
}

impl Granted {
    pub(crate) fn user_id(&self) -> &str {
        &self.user.id
    }

    pub(crate) fn session_id(&self) -> &str {
        &self.session.id
    }

    /// Returns whether the editor has a token of this session and has used or acknowledged it.
    pub(crate) fn is_active(&self) -> bool {
        self.session.activated_at.is_some()
    }
}

/// How far a delivery got.
pub(crate) enum Delivered {
    /// The editor gets the token when it shows the code that this browser takes back.
    Held(Handback),
    Sent,
    Acked,
}

impl Delivered {
    /// Returns the name in metrics and logs.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Held(_) => "held",
            Self::Sent => "sent",
            Self::Acked => "acked",
        }
    }
}

/// Converts an error of either role. An error without one of our reasons came from the way to the
/// role, unless its code says that the call itself was wrong.
fn refusal(role: &'static str, status: &Status) -> Refusal {
    let (code, reason) = (code_name(status.code()), reason(status));
    match reason.as_str() {
        "LOGIN_UNKNOWN" => Refusal::Unknown,
        // A session that has ended can no longer be handed to anybody.
        "LOGIN_OVER" | "SESSION_UNKNOWN" | "SESSION_REVOKED" | "SESSION_EXPIRED" => Refusal::Over,
        "EDITOR_REFUSED" => Refusal::EditorRefused,
        "EDITOR_CANNOT_BIND" => Refusal::EditorCannotBind,
        // Sessions knows this request under another name or device: another approval was first.
        "LOGIN_CLAIMED" | "REQUEST_CLAIMED" => Refusal::Claimed,
        "EDITOR_AWAY" => Refusal::EditorAway,
        "PEER_BUSY" => Refusal::Unavailable { role, code, reason },
        "SESSIONS_FULL" => Refusal::SessionsFull,
        "PENDING_FULL" => Refusal::PendingFull,
        "" => match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::ResourceExhausted
            | Code::Aborted => Refusal::Unavailable { role, code, reason },
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => Refusal::Unexpected { role, code, reason },
        },
        _ if status.code() == Code::Unavailable => Refusal::Unavailable { role, code, reason },
        _ => Refusal::Unexpected { role, code, reason },
    }
}

/// Returns an editor's text as a page shows it; empty when the editor sent none. The text may come
/// from a relay or a database that is older than the current rule.
fn shown(text: &str) -> String {
    plain(text, MAX_WORDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use vvs_runtime::rpc;

    use super::*;
    use crate::failure::Reason;

    #[test]
    fn every_reason_of_the_contracts_has_its_page() {
        for (code, reason, page) in [
            (Code::NotFound, "LOGIN_UNKNOWN", Reason::LoginOver),
            (Code::FailedPrecondition, "LOGIN_OVER", Reason::LoginOver),
            (Code::NotFound, "SESSION_UNKNOWN", Reason::LoginOver),
            (
                Code::FailedPrecondition,
                "SESSION_REVOKED",
                Reason::LoginOver,
            ),
            (
                Code::FailedPrecondition,
                "SESSION_EXPIRED",
                Reason::LoginOver,
            ),
            (
                Code::FailedPrecondition,
                "EDITOR_REFUSED",
                Reason::EditorRefused,
            ),
            (
                Code::FailedPrecondition,
                "EDITOR_CANNOT_BIND",
                Reason::EditorCannotBind,
            ),
            (Code::AlreadyExists, "LOGIN_CLAIMED", Reason::Claimed),
            (
                Code::ResourceExhausted,
                "SESSIONS_FULL",
                Reason::SessionsFull,
            ),
            (Code::ResourceExhausted, "PENDING_FULL", Reason::PendingFull),
            (Code::Unavailable, "EDITOR_AWAY", Reason::Unavailable),
            (Code::Unavailable, "DRAINING", Reason::Unavailable),
            (Code::Unavailable, "OVERLOADED", Reason::Unavailable),
            (Code::ResourceExhausted, "PEER_BUSY", Reason::Unavailable),
            (Code::Unavailable, "BACKPLANE_DOWN", Reason::Unavailable),
            (Code::Unavailable, "SESSIONS_DOWN", Reason::Unavailable),
            (Code::Unavailable, "DATABASE_DOWN", Reason::Unavailable),
            (Code::InvalidArgument, "MALFORMED", Reason::Broken),
            (Code::PermissionDenied, "PEER_NOT_ALLOWED", Reason::Broken),
            (Code::Internal, "INTERNAL", Reason::Broken),
        ] {
            assert_eq!(
                refusal("relay", &rpc::status(code, reason, None)).reason(),
                page,
                "{reason}"
            );
        }
    }

    #[test]
    fn a_call_that_got_lost_may_be_made_again_and_a_wrong_one_may_not() {
        for (code, page) in [
            // An expired deadline, a connection that was refused, one that broke.
            (Code::Cancelled, Reason::Unavailable),
            (Code::Unavailable, Reason::Unavailable),
            (Code::Unknown, Reason::Unavailable),
            (Code::PermissionDenied, Reason::Broken),
            (Code::Unimplemented, Reason::Broken),
            // Somebody else's "not found" says nothing about a login.
            (Code::NotFound, Reason::Broken),
        ] {
            assert_eq!(
                refusal("relay", &Status::new(code, "")).reason(),
                page,
                "{code:?}"
            );
        }
    }
}
