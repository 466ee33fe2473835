//! Why a provider refuses. The pages decide what a person reads about it.

use crate::fetch::Failed;

/// Why a provider refuses.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request names neither a login nor the account.
    #[error("MalformedLink")]
    MalformedLink,
    /// The provider has no such path.
    #[error("NotFound")]
    NotFound,
    /// The development provider was called from another machine.
    #[error("DevelopmentOnly")]
    DevelopmentOnly,
    /// The development provider was called through a proxy or a tunnel.
    #[error("DevelopmentThrough")]
    DevelopmentThrough,
    /// A call to the identity provider.
    #[error("the identity provider: {0}")]
    Provider(#[from] Failed),
    /// The data that the browser brought from the provider is not trusted.
    #[error("the sign-in is not to be believed: {0}")]
    NotBelieved(String),
    /// The provider knows the person, and they may not sign in.
    #[error("may not sign in: {0}")]
    NotAllowed(&'static str),
    /// The person is no longer signed in at the provider, or the sign-in was ended.
    #[error("the sign-in is over: {0}")]
    SignInOver(&'static str),
    #[error("the person asks too often")]
    TooOften,
    /// A part of this installation does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("{0}")]
    Broken(String),
    #[error(transparent)]
    Crypto(#[from] vvs_auth::Error),
}

impl Refusal {
    /// Returns whether the browser's stored sign-in is no longer valid.
    pub fn ends_sign_in(&self) -> bool {
        matches!(self, Self::NotAllowed(_) | Self::SignInOver(_))
    }

    /// Returns the name in metrics and JSON answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::MalformedLink
            | Self::NotFound
            | Self::DevelopmentOnly
            | Self::DevelopmentThrough => "malformed",
            Self::Provider(_) => "provider",
            Self::NotBelieved(_) | Self::NotAllowed(_) | Self::SignInOver(_) => "not_signed_in",
            Self::TooOften => "too_often",
            Self::Unavailable(_) => "unavailable",
            Self::Broken(_) | Self::Crypto(_) => "broken",
        }
    }

    /// Logs it once, where it takes effect. Only a fault of ours is an error.
    pub(crate) fn log(&self, request_id: &str) {
        match self {
            // A provider's refusal of a call is about our settings; anything else of its passes.
            Self::Broken(_) | Self::Crypto(_) | Self::Provider(Failed::Refused { .. }) => {
                tracing::error!(request_id, cause = %self, "failed");
            }
            Self::Unavailable(_)
            | Self::Provider(Failed::Unavailable { .. } | Failed::Unreadable { .. }) => {
                tracing::warn!(request_id, cause = %self, "failed");
            }
            Self::MalformedLink
            | Self::NotFound
            | Self::DevelopmentOnly
            | Self::DevelopmentThrough
            | Self::NotBelieved(_)
            | Self::NotAllowed(_)
            | Self::SignInOver(_)
            | Self::TooOften => tracing::info!(request_id, cause = %self, "refused"),
        }
    }
}
