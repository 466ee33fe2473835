//! The access tokens we sign: JWT, ES256, `typ: at+jwt` (RFC 9068, section 2.1). Keeping the keys is the sessions role's
//! business.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::Error;
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
    /// When the session ends, whatever becomes of this token.
    pub sxp: i64,
}

/// A public key as others read it (RFC 7517, section 4; RFC 7518, section 6.2).
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
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new private key in PKCS #8 (RFC 5208).
    pub fn generate() -> Result<Vec<u8>, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_cause| Error::Crypto("P-256"))?;
        Ok(pair.to_pkcs8v1().map_err(|_cause| Error::Crypto("PKCS #8"))?.as_ref().to_vec())
    }

    /// Reads a private key in PKCS #8. The key id is random, so that it says nothing about the key's age.
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
        Ok(Self { kid: kid.to_owned(), key: EncodingKey::from_ec_der(der), public })
    }

    /// The half that verifies.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs the claims.
    pub fn sign(&self, claims: &Claims) -> Result<SecretString, Error> {
        let header =
            Header { typ: Some("at+jwt".to_owned()), kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, claims, &self.key).map_err(|_cause| Error::Crypto("sign"))?;
        Ok(token.into())
    }
}

/// A new random id for a token or a key: 16 bytes, base64url.
pub fn random_id() -> Result<String, Error> {
    Ok(base64url(&random::<16>()?))
}
