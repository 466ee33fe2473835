//! The proofs of possession of one socket: which are valid, and why others are not.

use std::fmt;
use std::sync::Arc;

use vvs_auth::Error;
use vvs_auth::device::Thumbprint;
use vvs_auth::proof::{self, Expected, Proof, Use};
use vvs_proto::Secret;
use vvs_proto::frame::AuthErrorCode;

use crate::authority::Authority;

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

/// The nonce of one socket, and the proofs that it has accepted.
pub(crate) struct Proofs {
    authority: Arc<Authority>,
    /// Every proof on this socket is made over it, so that one from another socket is useless here.
    nonce: String,
    /// The `jti` of each accepted proof: each is valid once.
    used: Vec<String>,
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proofs")
    }
}

impl Proofs {
    pub(crate) fn new(authority: Arc<Authority>, nonce: String) -> Self {
        Self {
            authority,
            nonce,
            used: Vec::new(),
        }
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Accepts a proof, once on this socket. `key`: the key that it must be by, where that is
    /// known.
    pub(crate) fn take(
        &mut self,
        proof: &Secret,
        r#use: Use,
        token: Option<&Secret>,
        key: Option<&Thumbprint>,
    ) -> Result<Proof, Unproven> {
        if self.used.len() >= self.authority.terms().proofs_per_socket {
            // A new socket has a new nonce, and what was used here is worth nothing there.
            return Err(Unproven::TooMany);
        }

        let (nonce, token) = (self.nonce.as_str(), token.map(Secret::expose));
        let expected = Expected {
            audience: self.authority.origin(),
            nonce,
            uses: &[r#use],
            token,
        };
        let proof = check(proof, &expected, key).map_err(Unproven::Bad)?;
        if self.used.contains(&proof.jti) {
            return Err(Unproven::Bad("used before"));
        }

        self.used.reserve_exact(1);
        self.used.push(proof.jti.clone());

        Ok(proof)
    }
}

/// Checks everything except that it is used once. `key`: the key that it must be by, where that is
/// known.
fn check(
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
