//! The frames that a relay sends, made from its state. Deadlines are given as times and as seconds
//! left, because an editor's clock may be wrong by days.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vvs_proto::ConnectionId;
use vvs_proto::frame::{self, AuthErrorCode, FailureCode, Heartbeat, RelayFrame};

use crate::attempt::Attempt;
use crate::clock;
use crate::login::Grant;
use crate::shared::Shared;

/// Formats a time as RFC 3339, to the second.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Returns the whole seconds from `now` until `at`, never negative.
pub(crate) fn seconds_left(at: OffsetDateTime, now: OffsetDateTime) -> u64 {
    u64::try_from((at - now).whole_seconds()).unwrap_or(0)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the frame that names the socket and its login. A login that was resumed has its old id.
pub(crate) fn connection(
    id: ConnectionId,
    nonce: String,
    attempt: Option<&Attempt>,
    resumed: bool,
    shared: &Shared,
) -> RelayFrame {
    // A login that has just begun has all of its time.
    let started = attempt
        .filter(|_| !resumed)
        .map(|attempt| attempt.facts.created_at);
    let now = started.unwrap_or_else(clock::now);
    let expires_at = attempt.map(Attempt::expires_at);

    RelayFrame::Connection {
        connection_id: id.to_string(),
        user_code: attempt.map(|attempt| attempt.facts.user_code.clone()),
        login_url: attempt.map(|_| {
            shared
                .public_url
                .join(&format!("/login?connection_id={id}"))
        }),
        expires_in: expires_at.map(|at| seconds_left(at, now)),
        expires_at: expires_at.map(timestamp),
        server_time: timestamp(now),
        nonce,
        binding: attempt.map(Attempt::binding),
        heartbeat: Heartbeat {
            interval_ms: millis(shared.settings.heartbeat_interval),
            timeout_ms: millis(shared.settings.heartbeat_timeout),
        },
        resumed: resumed.then_some(true),
    }
}

/// Returns the frame with the token.
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

/// Returns the frame for a problem with the login.
pub(crate) fn auth_error(
    code: AuthErrorCode,
    attempts_left: Option<u8>,
    retry_after: Option<Duration>,
) -> RelayFrame {
    let message = match code {
        AuthErrorCode::BadCode if attempts_left == Some(0) => {
            "too many wrong codes; start a new sign-in"
        }
        AuthErrorCode::BadCode => "this is not the code that the browser shows",
        AuthErrorCode::TooLate => "hello comes once, before the link is opened",
        AuthErrorCode::BadReturnUri => {
            "returnUri is neither known here nor an allowed listener: http://127.0.0.1:PORT/ with \
             one plain name at most"
        }
        AuthErrorCode::BadDeviceKey => "deviceKey is not a public EC P-256 key as a JWK",
        AuthErrorCode::BadProof => {
            "the proof does not hold for this server, this socket and this purpose"
        }
        AuthErrorCode::BadTicket => "this ticket is not one of this server's; start a new sign-in",
        AuthErrorCode::NotReady => "this cannot be done right now; try again",
        AuthErrorCode::LoginOver => "this sign-in is over; start a new one",
    };

    let retryable = match code {
        AuthErrorCode::BadCode => attempts_left != Some(0),
        AuthErrorCode::NotReady | AuthErrorCode::BadProof => true,
        AuthErrorCode::TooLate
        | AuthErrorCode::BadReturnUri
        | AuthErrorCode::BadDeviceKey
        | AuthErrorCode::BadTicket
        | AuthErrorCode::LoginOver => false,
    };

    let retry_after_ms = retry_after.map(millis);

    RelayFrame::AuthError {
        code,
        message: message.to_owned(),
        retryable,
        retry_after_ms,
        attempts_left,
    }
}

/// Returns the frame that tells the editor to continue with a fresh token on a new socket.
pub(crate) fn token_expired() -> RelayFrame {
    RelayFrame::AuthFailure {
        code: FailureCode::TokenExpired,
        message: "the token of this socket has expired; connect again and authenticate".to_owned(),
        terminal: false,
        retry_after_ms: None,
    }
}
