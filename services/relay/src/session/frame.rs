//! The frames that tell an editor about its session, and their effects on its socket.

use std::time::Duration;

use time::OffsetDateTime;
use vvs_auth::token::Distrust;
use vvs_proto::frame::{ErrorCode, FailureCode, RelayFrame, Session, UserId, close};

use super::Effect;
use crate::authority::{Failure, Fresh};
use crate::pause::{moment_within, retry_after};
use crate::wire::{millis, seconds_left, timestamp, token_expired as token_expired_frame};

/// Spreads windows that are told the same, so that they do not come back at the same moment.
const SPREAD: Duration = Duration::from_secs(1);

pub(super) fn ok(
    user_id: &str,
    session_id: &str,
    session_ends: OffsetDateTime,
    now: OffsetDateTime,
) -> RelayFrame {
    RelayFrame::AuthOk {
        user: UserId {
            id: user_id.to_owned(),
        },
        session: Session {
            id: session_id.to_owned(),
            expires_at: timestamp(session_ends),
            expires_in: seconds_left(session_ends, now),
        },
        server_time: timestamp(now),
        token: None,
        token_expires_at: None,
        token_expires_in: None,
    }
}

pub(super) fn ok_with_token(fresh: &Fresh, now: OffsetDateTime) -> RelayFrame {
    RelayFrame::AuthOk {
        user: UserId {
            id: fresh.user_id.clone(),
        },
        session: Session {
            id: fresh.session_id.clone(),
            expires_at: timestamp(fresh.session_expires_at),
            expires_in: seconds_left(fresh.session_expires_at, now),
        },
        server_time: timestamp(now),
        token: Some(fresh.token.clone()),
        token_expires_at: Some(timestamp(fresh.token_expires_at)),
        token_expires_in: Some(seconds_left(fresh.token_expires_at, now)),
    }
}

pub(super) fn token(fresh: &Fresh, now: OffsetDateTime) -> RelayFrame {
    RelayFrame::AuthToken {
        token: fresh.token.clone(),
        token_expires_at: timestamp(fresh.token_expires_at),
        token_expires_in: seconds_left(fresh.token_expires_at, now),
    }
}

/// Only what sessions itself has said is terminal; everything else may be a matter of time.
pub(super) fn failure(failure: Failure) -> Vec<Effect> {
    let terminal =
        |code, message, with| vec![failed(code, message, true, None), Effect::Close(with)];
    let passing = |code, message, after| vec![failed(code, message, false, after)];

    match failure {
        Failure::Revoked => terminal(
            FailureCode::Revoked,
            "this session was signed out",
            close::REVOKED,
        ),
        Failure::Expired => terminal(
            FailureCode::Expired,
            "this session has expired",
            close::BAD_CREDENTIAL,
        ),
        Failure::UnknownSession => terminal(
            FailureCode::UnknownSession,
            "there is no such session",
            close::BAD_CREDENTIAL,
        ),
        Failure::BadProof => {
            let message = "the proof is missing, was used before, or was not made for this with \
                this key on this socket";
            passing(FailureCode::BadProof, message, None)
        }
        Failure::TooOften(after) => {
            let message = "this session was refreshed too often; the session is as it was";
            passing(
                FailureCode::Unavailable,
                message,
                Some(after + moment_within(SPREAD)),
            )
        }
        Failure::BadToken => passing(FailureCode::BadToken, "this token names no session", None),
        Failure::Unavailable => {
            let message = "nobody can answer this at the moment; the session is as it was";
            passing(FailureCode::Unavailable, message, Some(retry_after()))
        }
    }
}

/// `after`: when the relay may know more.
pub(super) fn bad_token(distrust: Distrust, after: Option<Duration>) -> Vec<Effect> {
    vec![failed(
        FailureCode::BadToken,
        &format!("the token cannot be used: {distrust}"),
        false,
        after,
    )]
}

pub(super) fn bearer_is_not_refreshed() -> Vec<Effect> {
    vec![failed(
        FailureCode::BadToken,
        "a session without a device key has one token, until it ends",
        false,
        None,
    )]
}

/// Refuses the newest socket.
pub(super) fn too_many_sockets() -> Vec<Effect> {
    let message = "this session has as many connections as it may; the session is as it was";
    let told = failed(
        FailureCode::Unavailable,
        message,
        false,
        Some(retry_after()),
    );
    vec![Effect::Reached("VVS_RELAY_MAX_SOCKETS_PER_SESSION"), told]
}

pub(super) fn stale_feed(after: Duration) -> Vec<Effect> {
    let message = "this server has not heard for a while which sessions were signed out";
    vec![failed(FailureCode::StaleFeed, message, false, Some(after))]
}

pub(super) fn token_expired() -> Vec<Effect> {
    vec![
        Effect::Send(token_expired_frame()),
        Effect::Close(close::RECONNECT),
    ]
}

pub(super) fn expiring(left: Duration) -> Vec<Effect> {
    // A timer is a moment late, and a day is a day.
    let expires_in = (left + Duration::from_millis(500)).as_secs();
    vec![Effect::Send(RelayFrame::SessionExpiring { expires_in })]
}

pub(super) fn revoked(reason: &str) -> Vec<Effect> {
    vec![
        Effect::Send(RelayFrame::SessionRevoked {
            reason: reason.to_owned(),
        }),
        Effect::Close(close::REVOKED),
    ]
}

pub(super) fn ended() -> Vec<Effect> {
    vec![
        Effect::Send(RelayFrame::SessionEnded),
        Effect::Close(close::NORMAL),
    ]
}

pub(crate) fn new_socket() -> Vec<Effect> {
    let reason = "this socket has taken all the proofs that it can remember".to_owned();
    vec![
        Effect::Send(RelayFrame::Reconnect {
            after_ms: 0,
            reason,
        }),
        Effect::Close(close::RECONNECT),
    ]
}

pub(super) fn not_now() -> Vec<Effect> {
    let message = "this does not fit what this socket is doing".to_owned();
    vec![Effect::Send(RelayFrame::Error {
        code: ErrorCode::NotNow,
        message,
    })]
}

fn failed(code: FailureCode, message: &str, terminal: bool, after: Option<Duration>) -> Effect {
    let retry_after_ms = after.map(millis);
    Effect::Send(RelayFrame::AuthFailure {
        code,
        message: message.to_owned(),
        terminal,
        retry_after_ms,
    })
}
