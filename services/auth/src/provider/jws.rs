//! A signed token as it arrives: its three parts (RFC 7515, section 3.1), its header, its
//! signature. This module does not know what the claims mean, and returns them only after it has
//! verified the signature.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use super::Distrust;
use super::claim::Claims;
use crate::key::from_base64url;

/// Longest token, in bytes.
const MAX_LEN: usize = 8192;

/// A token whose signature is not verified yet.
pub(super) struct Jws<'a> {
    header: Map<String, Value>,
    payload: Map<String, Value>,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Parses a token. Of two members with one name the last counts, for every check and for every
    /// reader of the claims (RFC 7519, section 4).
    pub(super) fn parse(token: &'a str) -> Result<Self, Distrust> {
        if token.len() > MAX_LEN {
            return Err(Distrust::Malformed);
        }

        let (signed, signature) = token.rsplit_once('.').ok_or(Distrust::Malformed)?;

        // A fourth part would leave a dot in the payload, which is no base64url.
        let (header, payload) = signed.split_once('.').ok_or(Distrust::Malformed)?;
        from_base64url(signature).ok_or(Distrust::Malformed)?;

        Ok(Self {
            header: object(header)?,
            payload: object(payload)?,
            signed,
            signature,
        })
    }

    /// Returns a member of the header, which must be text if it is present.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>, Distrust> {
        self.header
            .get(name)
            .map(|value| value.as_str().ok_or(Distrust::Malformed))
            .transpose()
    }

    pub(super) fn key_id(&self) -> Result<Option<&str>, Distrust> {
        self.header("kid")
    }

    /// Returns the algorithm, if it is one of the accepted ones.
    pub(super) fn algorithm(&self, accepted: &[(&str, Algorithm)]) -> Result<Algorithm, Distrust> {
        // No extension is known here, so whatever is critical is too much (RFC 7515, section
        // 4.1.11).
        if self.header.contains_key("crit") {
            return Err(Distrust::Critical);
        }
        let name = self.header("alg")?.ok_or(Distrust::Malformed)?;
        let found = accepted.iter().find(|(accepted, _)| *accepted == name);
        found
            .map(|(_, algorithm)| *algorithm)
            .ok_or(Distrust::WrongAlgorithm)
    }

    /// Returns the claims, if the signature is valid.
    pub(super) fn verify(
        self,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Claims, Distrust> {
        match crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm) {
            Ok(true) => Ok(Claims(self.payload)),
            Ok(false) | Err(_) => Err(Distrust::BadSignature),
        }
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Distrust> {
    let json = from_base64url(part).ok_or(Distrust::Malformed)?;
    serde_json::from_slice(&json).map_err(|_cause| Distrust::Malformed)
}
