//! Proof of possession: an editor shows that it holds its device key, now, on this socket, for this
//! one purpose. The caller checks whose key it must be, and that a proof is used only once.

use aws_lc_rs::digest;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::Error;
use crate::device::{DeviceKey, Thumbprint};
use crate::key::base64url;

/// The header's `typ`.
pub const TYPE: &str = "vvs-pop+jwt";
/// Longest proof, in bytes.
const MAX_LEN: usize = 2048;
/// Longest `jti`, in bytes.
const MAX_JTI: usize = 128;

/// The purpose of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    Hello,
    Resume,
    Authenticate,
    Refresh,
    Logout,
}

/// The values that a valid proof must contain.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The public origin that the editor was configured with: scheme and authority, no slash.
    pub audience: &'a str,
    /// The nonce of the socket on which the proof arrived.
    pub nonce: &'a str,
    pub uses: &'a [Use],
    /// The token that the editor presented with it; a proof for [`Use::Authenticate`] is valid for
    /// only one token.
    pub token: Option<&'a str>,
}

/// A valid proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub key: Thumbprint,
    /// A proof is valid once: the caller remembers this id for as long as the nonce is valid.
    pub jti: String,
    pub r#use: Use,
}

#[derive(Deserialize)]
struct Payload {
    aud: String,
    nonce: String,
    jti: String,
    r#use: Use,
    ath: Option<String>,
}

/// Checks a compact JWS (RFC 7515, section 3.1).
///
/// # Errors
/// [`Error::Proof`] says which check failed.
pub fn check(compact: &str, expected: &Expected<'_>) -> Result<Proof, Error> {
    let fail = |what| Err(Error::Proof(what));
    let (key, payload) = signed(compact)?;
    if payload.aud != expected.audience {
        return fail("aud");
    }

    if payload.nonce != expected.nonce {
        return fail("nonce");
    }

    if !expected.uses.contains(&payload.r#use) {
        return fail("use");
    }

    if payload.jti.is_empty() || payload.jti.len() > MAX_JTI {
        return fail("jti");
    }

    let hash = expected.token.map(hash);
    if payload.r#use == Use::Authenticate && (hash.is_none() || payload.ath != hash) {
        return fail("ath");
    }

    Ok(Proof {
        key: key.thumbprint(),
        jti: payload.jti,
        r#use: payload.r#use,
    })
}

/// Returns the key that signed a proof, even if the proof is otherwise invalid. This shows that
/// somebody has seen a proof of this key, not that anybody holds the key now.
pub fn signer(compact: &str) -> Option<Thumbprint> {
    signed(compact).ok().map(|(key, _)| key.thumbprint())
}

fn signed(compact: &str) -> Result<(DeviceKey, Payload), Error> {
    let fail = |what| Err(Error::Proof(what));
    if compact.len() > MAX_LEN {
        return fail("too long");
    }

    let header =
        jsonwebtoken::decode_header(compact).map_err(|_cause| Error::Proof("not a JWS"))?;
    if header.typ.as_deref() != Some(TYPE)
        || header.alg != Algorithm::ES256
        || header.crit.is_some()
    {
        return fail("typ, alg or crit");
    }

    let jwk = header
        .jwk
        .and_then(|jwk| serde_json::to_value(jwk).ok())
        .ok_or(Error::Proof("jwk"))?;
    let key = DeviceKey::from_value(&jwk)?;
    let payload = verify(compact, &key)?;

    Ok((key, payload))
}

fn verify(compact: &str, key: &DeviceKey) -> Result<Payload, Error> {
    let mut validation = Validation::new(Algorithm::ES256);
    // No claim of a proof is a time, and its `aud` is checked with the rest.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode(compact, &key.decoding()?, &validation);
    decoded
        .map(|data| data.claims)
        .map_err(|_cause| Error::Proof("signature or members"))
}

/// Returns the value of `ath` for a token.
fn hash(token: &str) -> String {
    base64url(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

impl DeviceKey {
    pub(crate) fn decoding(&self) -> Result<DecodingKey, Error> {
        let (x, y) = self.coordinates();
        DecodingKey::from_ec_components(x, y).map_err(|_cause| Error::Proof("jwk"))
    }
}

#[cfg(test)]
mod tests;
