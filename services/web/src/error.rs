//! Everything that can go wrong in this role, and the one place that decides what a browser is
//! shown of it: a fixed reason, never a cause.

use std::net::SocketAddr;

use vvs_proto::Phase;

use crate::failure::Reason;
use crate::fetch::Failed;
use crate::page::Trouble;

/// Why web cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_WEB_IDENTITY (--web-identity) is not set")]
    NoIdentity,
    /// Settings that do not fit together, each with its name.
    #[error("{}", .0.join("; "))]
    Settings(Vec<String>),
    #[error("cannot make calls to an identity provider: {0}")]
    Fetch(#[from] reqwest::Error),
    #[error(
        "VVS_WEB_IDENTITY (--web-identity) is dev, which lets in anyone as anyone: it runs on \
         loopback only, not at {0}"
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
    #[error("the person asks too often")]
    TooOften,
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
    /// A call to the identity provider.
    #[error("the identity provider: {0}")]
    Provider(#[from] Failed),
    /// What the browser brought from the provider is not to be believed.
    #[error("the sign-in is not to be believed: {0}")]
    NotBelieved(String),
    /// The provider knows the person, and they may not sign in.
    #[error("may not sign in: {0}")]
    NotAllowed(&'static str),
    /// The provider says that the person is signed in no more, or the sign-in was ended.
    #[error("the sign-in is over: {0}")]
    SignInOver(&'static str),
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
    /// What the page says.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Request(reason) => *reason,
            Self::Unknown | Self::Over => Reason::LoginOver,
            Self::Ended(state) => match state {
                Phase::Denied => Reason::Denied,
                Phase::Cancelled => Reason::Cancelled,
                Phase::Expired => Reason::Expired,
                Phase::Burned => Reason::Burned,
                Phase::Waiting | Phase::Held | Phase::Sent | Phase::Away | Phase::Acked => {
                    Reason::LoginOver
                }
            },
            Self::EditorRefused => Reason::EditorRefused,
            Self::EditorCannotBind => Reason::EditorCannotBind,
            Self::UnsafeReturn => Reason::UnsafeReturn,
            Self::Claimed => Reason::Claimed,
            Self::SessionsFull => Reason::SessionsFull,
            Self::PendingFull => Reason::PendingFull,
            Self::TooOften => Reason::TooOften,
            Self::EditorAway | Self::Unavailable { .. } => Reason::Unavailable,
            // A provider's refusal of a call is about our settings; anything else of its passes.
            Self::Unexpected { .. }
            | Self::Incomplete { .. }
            | Self::Crypto(_)
            | Self::Provider(Failed::Refused { .. }) => Reason::Broken,
            Self::Provider(Failed::Unavailable { .. } | Failed::Unreadable { .. }) => {
                Reason::ProviderUnavailable
            }
            Self::NotBelieved(_) => Reason::NotBelieved,
            Self::NotAllowed(_) => Reason::NotAllowed,
            Self::SignInOver(_) => Reason::SignInOver,
            Self::Unchecked(_) => Reason::Unchecked,
            Self::NotEnded(_) => Reason::NotEnded,
        }
    }

    /// Whether what the browser keeps of a sign-in is good for nothing any more.
    pub(crate) fn ends_sign_in(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::SignInOver(_))
    }

    /// What a delivery page says, when the same delivery may still succeed.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::EditorAway => Some(Trouble::EditorAway),
            Self::Unavailable { .. } | Self::Unchecked(_) => Some(Trouble::Unavailable),
            Self::Provider(Failed::Unavailable { .. } | Failed::Unreadable { .. }) => {
                Some(Trouble::ProviderUnavailable)
            }
            Self::Provider(Failed::Refused { .. })
            | Self::NotBelieved(_)
            | Self::NotAllowed(_)
            | Self::SignInOver(_)
            | Self::NotEnded(_)
            | Self::Request(_)
            | Self::Unknown
            | Self::Over
            | Self::Ended(_)
            | Self::EditorRefused
            | Self::EditorCannotBind
            | Self::UnsafeReturn
            | Self::Claimed
            | Self::SessionsFull
            | Self::PendingFull
            | Self::TooOften
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
            Self::UnsafeReturn => "unsafe_return",
            Self::Claimed => "claimed",
            Self::SessionsFull => "sessions_full",
            Self::PendingFull => "pending_full",
            Self::TooOften => "too_often",
            Self::EditorAway => "editor_away",
            Self::Unavailable { .. } | Self::Unchecked(_) | Self::NotEnded(_) => "unavailable",
            Self::Unexpected { .. } | Self::Incomplete { .. } | Self::Crypto(_) => "broken",
            Self::Provider(_) => "provider",
            Self::NotBelieved(_) | Self::NotAllowed(_) | Self::SignInOver(_) => "not_signed_in",
        }
    }

    /// Written down once, where the answer is made.
    pub(crate) fn log(&self, request_id: &str) {
        match self.reason() {
            Reason::Broken => tracing::error!(request_id, cause = %self, "failed"),
            Reason::Unavailable
            | Reason::ProviderUnavailable
            | Reason::Unchecked
            | Reason::NotEnded => {
                tracing::warn!(request_id, cause = %self, "failed");
            }
            Reason::MalformedLink
            | Reason::MalformedForm
            | Reason::LoginOver
            | Reason::Denied
            | Reason::Cancelled
            | Reason::Expired
            | Reason::Burned
            | Reason::EditorRefused
            | Reason::EditorCannotBind
            | Reason::UnsafeReturn
            | Reason::Claimed
            | Reason::CrossSite
            | Reason::StaleForm
            | Reason::OtherBrowser
            | Reason::NotSignedIn
            | Reason::NotBelieved
            | Reason::NotAllowed
            | Reason::SignInOver
            | Reason::SessionsFull
            | Reason::PendingFull
            | Reason::TooOften
            | Reason::DevelopmentOnly
            | Reason::DevelopmentThrough
            | Reason::TooManyGuesses
            | Reason::NotFound
            | Reason::WrongMethod => tracing::info!(request_id, cause = %self, "refused"),
        }
    }
}
