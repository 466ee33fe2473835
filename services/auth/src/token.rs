//! The access tokens that we sign, and how they are checked: JWT, ES256, `typ: at+jwt` (RFC 9068,
//! section 2.1). Other modules keep the keys and know what was revoked.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::device::Thumbprint;
use crate::key::{base64url, random};

/// The claims of a token. Times are seconds since 1970 (RFC 7519, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The public origin.
    pub iss: String,
    /// User id.
    pub sub: String,
    pub aud: String,
    /// Session id.
    pub sid: String,
    pub jti: String,
    pub iat: i64,
    pub exp: i64,
    /// When the session ends, even if this token expires earlier.
    pub sxp: i64,
    /// The key that must be proven together with the token (RFC 7800, section 3); a bearer token
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Signed while the session waited for its editor's acknowledgement. A relay that receives this
    /// token may have to report that the editor has it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pending: bool,
}

/// An empty claim is omitted.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(claim: &bool) -> bool {
    !claim
}

/// The key that the token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The device key's thumbprint (RFC 9449, section 6.1).
    pub jkt: Thumbprint,
}

/// A public key as published (RFC 7517, section 4; RFC 7518, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kty: String,
    pub crv: String,
    pub x: String,
    pub y: String,
    pub kid: String,
    pub alg: String,
    pub r#use: String,
}

/// A set of public keys (RFC 7517, section 5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

/// A P-256 key that signs tokens.
pub struct SigningKey {
    kid: String,
    key: EncodingKey,
    public: Jwk,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Generates a private key in PKCS #8 (RFC 5208).
    pub fn generate() -> Result<Vec<u8>, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_cause| Error::Crypto("P-256"))?;
        Ok(pair
            .to_pkcs8v1()
            .map_err(|_cause| Error::Crypto("PKCS #8"))?
            .as_ref()
            .to_vec())
    }

    /// Reads a private key in PKCS #8. The key id is random, so that it does not reveal the key's
    /// age.
    pub fn from_pkcs8(kid: &str, der: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_cause| Error::Crypto("PKCS #8"))?;

        // An uncompressed point: 0x04, then 32 bytes each (SEC 1, section 2.3.3).
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(Error::Crypto("P-256 point"));
        };

        let public = Jwk {
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            x: base64url(x),
            y: base64url(y),
            kid: kid.to_owned(),
            alg: "ES256".to_owned(),
            r#use: "sig".to_owned(),
        };

        Ok(Self {
            kid: kid.to_owned(),
            key: EncodingKey::from_ec_der(der),
            public,
        })
    }

    /// Returns the public half.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs the claims.
    pub fn sign(&self, claims: &Claims) -> Result<SecretString, Error> {
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::ES256)
        };
        let token = jsonwebtoken::encode(&header, claims, &self.key)
            .map_err(|_cause| Error::Crypto("sign"))?;
        Ok(token.into())
    }
}

/// Longest token, in bytes.
const MAX_LEN: usize = 4096;
/// The header's `typ`.
const TYPE: &str = "at+jwt";

/// Why a token is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("not a token of ours")]
    Malformed,
    #[error("signed with a key that is not known here")]
    UnknownKey,
    #[error("the signature does not match")]
    BadSignature,
    #[error("from another issuer")]
    WrongIssuer,
    #[error("for another audience")]
    WrongAudience,
    #[error("expired")]
    Expired,
}

/// Checks tokens with a fixed set of keys.
pub struct Verifier {
    keys: HashMap<String, DecodingKey>,
    issuer: String,
    audience: String,
    validation: Validation,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Omits keys that are not EC P-256 keys for signatures.
    pub fn new(keys: &JwkSet, issuer: &str, audience: &str) -> Self {
        let keys = keys
            .keys
            .iter()
            .filter(|key| key.kty == "EC" && key.crv == "P-256" && key.alg == "ES256");
        let keys = keys.filter_map(|key| {
            Some((
                key.kid.clone(),
                DecodingKey::from_ec_components(&key.x, &key.y).ok()?,
            ))
        });
        let mut validation = Validation::new(Algorithm::ES256);

        // Judged below, against the time and the names that are passed in.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();

        Self {
            keys: keys.collect(),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            validation,
        }
    }

    pub fn knows(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Checks a token at a time in seconds since 1970. Does not know what was revoked.
    ///
    /// # Errors
    ///
    /// [`Distrust`] says why. It is [`Distrust::Expired`] only when everything else is right.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, Distrust> {
        let key = self.keys.get(&kid(token)?).ok_or(Distrust::UnknownKey)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|cause| {
                if *cause.kind() == ErrorKind::InvalidSignature {
                    Distrust::BadSignature
                } else {
                    Distrust::Malformed
                }
            })?;
        let claims = claims.claims;
        if claims.iss != self.issuer {
            return Err(Distrust::WrongIssuer);
        }

        if claims.aud != self.audience {
            return Err(Distrust::WrongAudience);
        }

        if now >= claims.exp || now >= claims.sxp {
            return Err(Distrust::Expired);
        }

        Ok(claims)
    }
}

/// Returns the `kid` of a text that looks like one of our tokens.
fn kid(token: &str) -> Result<String, Distrust> {
    if token.len() > MAX_LEN {
        return Err(Distrust::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_cause| Distrust::Malformed)?;
    let is_ours = header.typ.as_deref() == Some(TYPE)
        && header.alg == Algorithm::ES256
        && header.crit.is_none();
    header.kid.filter(|_| is_ours).ok_or(Distrust::Malformed)
}

/// Returns the name of the key that signed a text that looks like one of our tokens. It proves
/// nothing.
pub fn key_id(token: &str) -> Option<String> {
    kid(token).ok()
}

/// Returns the claims of a token, unverified, to find out which session it names. They prove
/// nothing.
pub fn unverified(token: &str) -> Option<Claims> {
    kid(token).ok()?;
    jsonwebtoken::dangerous::insecure_decode::<Claims>(token)
        .ok()
        .map(|data| data.claims)
}

/// Generates a random id for a token or a key: 16 bytes, base64url.
pub fn random_id() -> Result<String, Error> {
    Ok(base64url(&random::<16>()?))
}

#[cfg(test)]
mod tests;
