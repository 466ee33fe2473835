//! Why a provider cannot be used at all.

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_WEB_IDENTITY (--web-identity) is not set")]
    NoIdentity,
    /// Settings that contradict each other, each with its name.
    #[error("{}", .0.join("; "))]
    Settings(Vec<String>),
    #[error("cannot make calls to an identity provider: {0}")]
    Fetch(#[from] reqwest::Error),
    #[error(
        "VVS_WEB_IDENTITY (--web-identity) is dev, which signs in anyone as anyone: it runs on \
         loopback only, not at {0}"
    )]
    DevelopmentOffLoopback(String),
    #[error("the key file cannot be used: {0}")]
    Key(#[from] vvs_auth::Error),
}
