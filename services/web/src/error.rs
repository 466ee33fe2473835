//! Everything that can go wrong in this role, and the one place that decides what a browser is shown of it: a fixed
//! reason, never a cause.

use std::net::SocketAddr;

use crate::failure::Reason;
use crate::login::State;
use crate::page::Trouble;

/// Why web cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_WEB_IDENTITY (--web-identity) is not set")]
    NoIdentity,
    #[error(
        "VVS_WEB_IDENTITY (--web-identity) is dev, which lets in anyone as anyone: it runs on loopback only, not at {0}"
    )]
    DevelopmentOffLoopback(String),
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

/// Why a browser does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Seen from the request alone.
    #[error("{0:?}")]
    Request(Reason),
    #[error("no relay knows this login")]
    Unknown,
    #[error("the login is over")]
    Over,
    #[error("the login has ended: {}", .0.as_str())]
    Ended(State),
    #[error("the editor did not take the sign-in")]
    EditorRefused,
    #[error("the editor cannot reach the minimum binding")]
    EditorCannotBind,
    #[error("another approval has claimed the login")]
    Claimed,
    #[error("the editor is away")]
    EditorAway,
    #[error("{role} does not answer: {code} {reason}")]
    Unavailable { role: &'static str, code: &'static str, reason: String },
    #[error("{role} refuses what it should not: {code} {reason}")]
    Unexpected { role: &'static str, code: &'static str, reason: String },
    #[error("{role} answers without a usable {field}")]
    Incomplete { role: &'static str, field: &'static str },
    #[error(transparent)]
    Crypto(#[from] vvs_auth::Error),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Request(reason)
    }
}

impl Refusal {
    /// What the page says.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Request(reason) => *reason,
            Self::Unknown | Self::Over => Reason::LoginOver,
            Self::Ended(state) => match state {
                State::Denied => Reason::Denied,
                State::Cancelled => Reason::Cancelled,
                State::Expired => Reason::Expired,
                State::Burned => Reason::Burned,
                State::Waiting | State::Held | State::Sent | State::Away | State::Acked => Reason::LoginOver,
            },
            Self::EditorRefused => Reason::EditorRefused,
            Self::EditorCannotBind => Reason::EditorCannotBind,
            Self::Claimed => Reason::Claimed,
            Self::EditorAway | Self::Unavailable { .. } => Reason::Unavailable,
            Self::Unexpected { .. } | Self::Incomplete { .. } | Self::Crypto(_) => Reason::Broken,
        }
    }

    /// What a delivery page says, when the same delivery may still succeed.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::EditorAway => Some(Trouble::EditorAway),
            Self::Unavailable { .. } => Some(Trouble::Unavailable),
            Self::Request(_)
            | Self::Unknown
            | Self::Over
            | Self::Ended(_)
            | Self::EditorRefused
            | Self::EditorCannotBind
            | Self::Claimed
            | Self::Unexpected { .. }
            | Self::Incomplete { .. }
            | Self::Crypto(_) => None,
        }
    }

    /// As metrics and JSON answers spell it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Request(Reason::OtherBrowser) => "other_browser",
            Self::Request(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Over | Self::Ended(_) => "over",
            Self::EditorRefused => "editor_refused",
            Self::EditorCannotBind => "editor_cannot_bind",
            Self::Claimed => "claimed",
            Self::EditorAway => "editor_away",
            Self::Unavailable { .. } => "unavailable",
            Self::Unexpected { .. } | Self::Incomplete { .. } | Self::Crypto(_) => "broken",
        }
    }

    /// Written down once, where the answer is made.
    pub(crate) fn log(&self, request_id: &str) {
        match self.reason() {
            Reason::Broken => tracing::error!(request_id, cause = %self, "failed"),
            Reason::Unavailable => tracing::warn!(request_id, cause = %self, "failed"),
            Reason::MalformedLink
            | Reason::MalformedForm
            | Reason::LoginOver
            | Reason::Denied
            | Reason::Cancelled
            | Reason::Expired
            | Reason::Burned
            | Reason::EditorRefused
            | Reason::EditorCannotBind
            | Reason::Claimed
            | Reason::CrossSite
            | Reason::StaleForm
            | Reason::OtherBrowser
            | Reason::NotSignedIn
            | Reason::DevelopmentOnly
            | Reason::NotFound
            | Reason::WrongMethod => tracing::info!(request_id, cause = %self, "refused"),
        }
    }
}
