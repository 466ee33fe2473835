//! Whether a proof of possession is valid on a socket, and in our own words why not.

use vvs_auth::Error;
use vvs_auth::device::Thumbprint;
use vvs_auth::proof::{self, Expected, Proof};
use vvs_proto::Secret;
use vvs_proto::frame::AuthErrorCode;

/// Why a proof is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unproven {
    Bad(&'static str),
    /// The socket has accepted as many as it can remember.
    TooMany,
}

/// Why a frame with a proof is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Proof(Unproven),
    Otherwise(AuthErrorCode),
}

impl From<Unproven> for NotTaken {
    fn from(why: Unproven) -> Self {
        Self::Proof(why)
    }
}

impl From<AuthErrorCode> for NotTaken {
    fn from(code: AuthErrorCode) -> Self {
        Self::Otherwise(code)
    }
}

/// Checks everything except that it is used once. `key`: the key that it must be by, where that is
/// known.
pub(crate) fn check(
    proof: &Secret,
    expected: &Expected<'_>,
    key: Option<&Thumbprint>,
) -> Result<Proof, &'static str> {
    match proof::check(proof.expose(), expected) {
        Ok(proof) if key.is_none_or(|key| *key == proof.key) => Ok(proof),
        Ok(_) => Err("made with another key"),
        Err(Error::Proof(why) | Error::DeviceKey(why)) => Err(why),
        Err(_) => Err("not checked"),
    }
}
