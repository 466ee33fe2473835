//! The errors of this role, and the only place that decides what a browser is shown about them: a
//! fixed reason, never a cause.

use std::net::SocketAddr;

use tracing::Level;
use vvs_identity::Failed;
use vvs_proto::Phase;

use crate::failure::{Reason, Trouble};

/// Why web cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity provider cannot be used.
    #[error(transparent)]
    Identity(#[from] vvs_identity::Error),
    #[error("VVS_WEB_RELAY_ADDR (--web-relay-addr) is not HOST:PORT: {0}")]
    RelayAddr(#[source] tonic::transport::Error),
    #[error("VVS_WEB_SESSIONS_ADDR (--web-sessions-addr) is not HOST:PORT: {0}")]
    SessionsAddr(#[source] tonic::transport::Error),
    #[error("an HTTP port without TLS must be on loopback, not on {0}")]
    PlainOffLoopback(SocketAddr),
    #[error("cannot read a port's own address: {0}")]
    Address(#[from] std::io::Error),
    #[error("the key file cannot be used: {0}")]
    Key(#[from] vvs_auth::Error),
}

/// Why a request of a browser is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Found in the request alone.
    #[error("{0:?}")]
    Request(Reason),
    #[error("no relay knows this login")]
    Unknown,
    #[error("the login is over")]
    Over,
    #[error("the login has ended: {}", .0.as_str())]
    Ended(Phase),
    #[error("the editor did not take the sign-in")]
    EditorRefused,
    #[error("the editor cannot reach the minimum binding")]
    EditorCannotBind,
    #[error("the editor waits for its code where a browser must not be led")]
    UnsafeReturn,
    #[error("another approval has claimed the login")]
    Claimed,
    #[error("the person has too many sessions, and all are in use")]
    SessionsFull,
    #[error("too many sessions of the person wait for their editors")]
    PendingFull,
    #[error("the editor is away")]
    EditorAway,
    #[error("{role} does not answer: {code} {reason}")]
    Unavailable {
        role: &'static str,
        code: &'static str,
        reason: String,
    },
    #[error("{role} refuses what it should not: {code} {reason}")]
    Unexpected {
        role: &'static str,
        code: &'static str,
        reason: String,
    },
    #[error("{role} answers without a usable {field}")]
    Incomplete {
        role: &'static str,
        field: &'static str,
    },
    #[error(transparent)]
    Crypto(#[from] vvs_auth::Error),
    /// The refusal of the identity provider.
    #[error(transparent)]
    Identity(#[from] vvs_identity::Refusal),
    /// Nobody can say whether the sign-in was ended.
    #[error("the sign-in cannot be checked: {0}")]
    Unchecked(String),
    /// This browser has forgotten the sign-in, and sessions does not know that it has ended.
    #[error("the sign-in has not been ended: {0}")]
    NotEnded(String),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Request(reason)
    }
}

impl Refusal {
    /// Returns the reason on the page.
    pub(crate) fn reason(&self) -> Reason {
        self.outside().0
    }

    /// Returns the name in metrics and JSON answers.
    pub(crate) fn as_str(&self) -> &'static str {
        self.outside().1
    }

    /// Returns the public view: the page's reason, and the name in metrics and JSON answers.
    fn outside(&self) -> (Reason, &'static str) {
        match self {
            Self::Request(Reason::OtherBrowser) => (Reason::OtherBrowser, "other_browser"),
            Self::Request(reason) => (*reason, "malformed"),
            Self::Unknown => (Reason::LoginOver, "unknown"),
            Self::Over => (Reason::LoginOver, "over"),
            Self::Ended(state) => (ended(*state), "over"),
            Self::EditorRefused => (Reason::EditorRefused, "editor_refused"),
            Self::EditorCannotBind => (Reason::EditorCannotBind, "editor_cannot_bind"),
            Self::UnsafeReturn => (Reason::UnsafeReturn, "unsafe_return"),
            Self::Claimed => (Reason::Claimed, "claimed"),
            Self::SessionsFull => (Reason::SessionsFull, "sessions_full"),
            Self::PendingFull => (Reason::PendingFull, "pending_full"),
            Self::EditorAway => (Reason::Unavailable, "editor_away"),
            Self::Unavailable { .. } => (Reason::Unavailable, "unavailable"),
            Self::Unchecked(_) => (Reason::Unchecked, "unavailable"),
            Self::NotEnded(_) => (Reason::NotEnded, "unavailable"),
            Self::Unexpected { .. } | Self::Incomplete { .. } | Self::Crypto(_) => {
                (Reason::Broken, "broken")
            }
            Self::Identity(refusal) => (said(refusal), refusal.as_str()),
        }
    }

    /// The sign-in was ended here.
    pub(crate) fn sign_in_over(why: &'static str) -> Self {
        Self::Identity(vvs_identity::Refusal::SignInOver(why))
    }

    /// Returns whether the browser's stored sign-in is no longer valid.
    pub(crate) fn ends_sign_in(&self) -> bool {
        matches!(self, Self::Identity(refusal) if refusal.ends_sign_in())
    }

    /// Returns the text of a delivery page, when the same delivery may still succeed.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let reason = self.reason();
        if matches!(self, Self::EditorAway) {
            Some(Trouble::EditorAway)
        } else if matches!(reason, Reason::Unavailable | Reason::Unchecked) {
            Some(Trouble::Unavailable)
        } else {
            (reason == Reason::ProviderUnavailable).then_some(Trouble::ProviderUnavailable)
        }
    }

    /// Logs it once, where the answer is made.
    pub(crate) fn log(&self, request_id: &str) {
        match self.reason().row().level {
            Level::ERROR => tracing::error!(request_id, cause = %self, "failed"),
            Level::WARN => tracing::warn!(request_id, cause = %self, "failed"),
            _ => tracing::info!(request_id, cause = %self, "refused"),
        }
    }
}

/// Returns the page's reason for a login that has ended.
fn ended(state: Phase) -> Reason {
    match state {
        Phase::Denied => Reason::Denied,
        Phase::Cancelled => Reason::Cancelled,
        Phase::Expired => Reason::Expired,
        Phase::Burned => Reason::Burned,
        Phase::Waiting | Phase::Held | Phase::Sent | Phase::Away | Phase::Acked => {
            Reason::LoginOver
        }
    }
}

/// Returns the page's reason when the identity provider refuses.
fn said(refusal: &vvs_identity::Refusal) -> Reason {
    use vvs_identity::Refusal as Said;

    match refusal {
        Said::MalformedLink => Reason::MalformedLink,
        Said::NotFound => Reason::NotFound,
        Said::DevelopmentOnly => Reason::DevelopmentOnly,
        Said::DevelopmentThrough => Reason::DevelopmentThrough,
        Said::NotBelieved(_) => Reason::NotBelieved,
        Said::NotAllowed(_) => Reason::NotAllowed,
        Said::SignInOver(_) => Reason::SignInOver,
        Said::TooOften => Reason::TooOften,
        Said::Unavailable(_) => Reason::Unavailable,
        Said::Provider(Failed::Unavailable { .. } | Failed::Unreadable { .. }) => {
            Reason::ProviderUnavailable
        }
        // A provider's refusal of a call is about our settings; anything else of its passes.
        Said::Provider(Failed::Refused { .. }) | Said::Broken(_) | Said::Crypto(_) => {
            Reason::Broken
        }
    }
}

/// Converts a refusal of this role for a provider.
impl From<Refusal> for vvs_identity::Refusal {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::Identity(refusal) = refusal {
            refusal
        } else if refusal.reason() == Reason::Broken {
            Self::Broken(refusal.to_string())
        } else {
            Self::Unavailable(refusal.to_string())
        }
    }
}
