//! The only verifier for tokens of identity providers, Clerk's and OpenID's. It uses no network, no
//! clock and no setting: the caller passes in keys, rules and the time.

mod claim;
pub mod clerk;
mod jws;
mod key_set;
#[cfg(test)]
mod mutation;
pub mod oidc;
#[cfg(test)]
mod testing;

pub use key_set::KeySet;

/// Why a provider's token is not trusted. Contains nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    #[error("not a signed token of the expected form")]
    Malformed,
    #[error("signed with an algorithm that is not accepted")]
    WrongAlgorithm,
    #[error("it demands an extension that is not known here")]
    Critical,
    #[error("a token for something else")]
    WrongKind,
    #[error("signed with a key that is not known here")]
    UnknownKey,
    #[error("the signature does not match")]
    BadSignature,
    #[error("from another issuer")]
    WrongIssuer,
    #[error("for another audience")]
    WrongAudience,
    #[error("made for a party that is not authorized")]
    WrongParty,
    #[error("not the answer to this request: another nonce")]
    WrongNonce,
    #[error("the claim {0} is missing or not what it must be")]
    Claim(&'static str),
    #[error("a member of staff is signed in as the user")]
    Impersonated,
    #[error("the user has tasks to do before the session counts")]
    Pending,
    #[error("not good yet, or issued in the future")]
    NotYet,
    #[error("expired")]
    Expired,
    #[error("issued too long ago")]
    TooOld,
}

impl Distrust {
    /// Returns whether the token is only too old, so that a fresh one would pass.
    /// [`Distrust::UnknownKey`] does not count: it needs fresh keys.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Expired | Self::NotYet | Self::TooOld)
    }
}

/// Longest key id for which a provider is asked, in bytes.
const MAX_KEY_ID: usize = 128;

/// Returns the id of the key that a token says it is signed with, to find out whether fresh keys
/// are needed. It proves nothing.
pub fn key_id(token: &str) -> Option<String> {
    let jws = jws::Jws::parse(token).ok()?;
    let id = jws.key_id().ok()??;
    let is_sane =
        (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_sane.then(|| id.to_owned())
}

#[cfg(test)]
mod tests;
