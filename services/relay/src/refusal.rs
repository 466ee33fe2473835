//! The refusals of the relay, and the only place that decides what callers see of them.

use tonic::{Code, Status};
use vvs_proto::types::ErrorReason;
use vvs_runtime::rpc;

use crate::login::Objection;

/// Why a call on a login got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{field} is missing or malformed")]
    Malformed { field: &'static str },
    #[error("no relay holds this login")]
    Unknown,
    #[error("the login is over")]
    Over,
    #[error("the editor did not take the sign-in")]
    EditorRefused,
    #[error("the editor cannot reach the minimum binding")]
    EditorCannotBind,
    #[error("another delivery has claimed the login")]
    Claimed,
    #[error("the editor is away and may come back")]
    Away,
    #[error("the login does not keep up")]
    Draining,
    #[error("this relay has as much to do as it may")]
    Overloaded,
    #[error("other relays cannot be asked, or do not answer")]
    BackplaneDown,
    #[error("the sessions role does not answer")]
    SessionsDown,
    #[error(transparent)]
    NotAllowed(#[from] vvs_auth::Error),
}

impl Refusal {
    fn outside(&self) -> (Code, ErrorReason) {
        match self {
            Self::Malformed { .. } => (Code::InvalidArgument, ErrorReason::Malformed),
            Self::Unknown => (Code::NotFound, ErrorReason::LoginUnknown),
            Self::Over => (Code::FailedPrecondition, ErrorReason::LoginOver),
            Self::EditorRefused => (Code::FailedPrecondition, ErrorReason::EditorRefused),
            Self::EditorCannotBind => (Code::FailedPrecondition, ErrorReason::EditorCannotBind),
            Self::Claimed => (Code::AlreadyExists, ErrorReason::LoginClaimed),
            Self::Away => (Code::Unavailable, ErrorReason::EditorAway),
            Self::Draining => (Code::Unavailable, ErrorReason::Draining),
            Self::Overloaded => (Code::Unavailable, ErrorReason::Overloaded),
            Self::BackplaneDown => (Code::Unavailable, ErrorReason::BackplaneDown),
            Self::SessionsDown => (Code::Unavailable, ErrorReason::SessionsDown),
            Self::NotAllowed(vvs_auth::Error::PeerBusy { .. }) => {
                (Code::ResourceExhausted, ErrorReason::PeerBusy)
            }
            Self::NotAllowed(_) => (Code::PermissionDenied, ErrorReason::PeerNotAllowed),
        }
    }

    fn field(&self) -> Option<&'static str> {
        if let Self::Malformed { field } = self {
            Some(field)
        } else {
            None
        }
    }
}

impl From<Objection> for Refusal {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Away => Self::Away,
            Objection::Claimed => Self::Claimed,
            Objection::Over => Self::Over,
            Objection::EditorRefused => Self::EditorRefused,
            Objection::Expired => Self::Unknown,
        }
    }
}

/// Callers see the code and the reason. The message can name a peer, so it stays in our own log.
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = refusal.outside();
        let reason = reason.word();
        // The limit has been told of, and of these there may be any number.
        if !matches!(
            refusal,
            Refusal::Overloaded | Refusal::NotAllowed(vvs_auth::Error::PeerBusy { .. })
        ) {
            tracing::info!(reason, detail = %refusal, "refused");
        }
        rpc::status(code, reason, refusal.field())
    }
}
