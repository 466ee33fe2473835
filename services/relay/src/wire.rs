//! The frames that a relay sends, made of what it knows. Deadlines are given as times and as seconds left, because an
//! editor's clock may be wrong by days.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vvs_proto::frame::{self, Binding, FailureCode, Heartbeat, RelayFrame};

use crate::Shared;
use crate::attempt::Attempt;
use crate::login::Grant;

/// A time as RFC 3339, to the second.
fn timestamp(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Whole seconds from `now` until `at`, never negative.
fn seconds_left(at: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((at - now).whole_seconds()).unwrap_or(0)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The first frame on a socket.
pub(crate) fn connection(attempt: &Attempt, shared: &Shared) -> RelayFrame {
    let facts = &attempt.facts;
    RelayFrame::Connection {
        connection_id: facts.id.to_string(),
        user_code: Some(facts.user_code.clone()),
        login_url: Some(shared.public_url.join(&format!("/login?connection_id={}", facts.id))),
        expires_in: Some(facts.ttl.as_secs()),
        expires_at: Some(timestamp(attempt.expires_at())),
        server_time: timestamp(facts.created_at),
        nonce: facts.nonce.clone(),
        binding: Some(Binding::Confirm),
        heartbeat: Heartbeat {
            interval_ms: millis(shared.settings.heartbeat_interval),
            timeout_ms: millis(shared.settings.heartbeat_timeout),
        },
        resumed: None,
    }
}

/// The frame with the token.
pub(crate) fn success(grant: &Grant, now: OffsetDateTime) -> RelayFrame {
    RelayFrame::AuthSuccess {
        token: grant.token.clone(),
        user: frame::User {
            id: grant.user.id.clone(),
            email: grant.user.email.clone(),
            name: grant.user.name.clone(),
            avatar_url: grant.user.avatar_url.clone(),
        },
        message_id: grant.request_id.to_string(),
        session: frame::Session {
            id: grant.session_id.clone(),
            expires_at: timestamp(grant.session_expires_at),
            expires_in: seconds_left(grant.session_expires_at, now),
        },
        token_expires_at: timestamp(grant.token_expires_at),
        token_expires_in: seconds_left(grant.token_expires_at, now),
        server_time: timestamp(now),
    }
}

/// The editor may go on with a fresh token on a new socket.
pub(crate) fn token_expired() -> RelayFrame {
    RelayFrame::AuthFailure {
        code: FailureCode::TokenExpired,
        message: "the token of this socket has expired; connect again and authenticate".to_owned(),
        terminal: false,
        retry_after_ms: None,
    }
}
