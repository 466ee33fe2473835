//! The public keys of a provider. This module does not know where they come from or when they are
//! fetched again.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::Error;
use crate::device::DeviceKey;
use crate::key::from_base64url;

/// The algorithms that a provider may sign with: asymmetric ones that the library can check. A
/// verifier that accepts a shared secret would accept a public key as one.
pub(super) const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Sizes of RSA keys that the library verifies with, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The public keys of a provider.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Whether the set is one key that the operator configured, instead of a set that the provider
    /// publishes.
    is_pinned: bool,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the key is for, if the key names one.
    algorithm: Option<Algorithm>,
    public: DecodingKey,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517, section 5). Omits keys that cannot be used: keys for encryption,
    /// of other types, too small, or broken.
    ///
    /// # Errors
    ///
    /// [`Error::KeySet`] when it is not a JWK set at all.
    pub fn from_jwks(json: &str) -> Result<Self, Error> {
        let jwks: Jwks = serde_json::from_str(json).map_err(|_cause| Error::KeySet)?;
        Ok(Self {
            keys: jwks.keys.iter().filter_map(Key::from_jwk).collect(),
            is_pinned: false,
        })
    }

    /// Reads one public RSA key in PEM (RFC 7468, section 13), for verifying without the network.
    /// Without an id the key is used for every key id that a token names.
    ///
    /// # Errors
    ///
    /// [`Error::PublicKey`] when it is something else, or too small.
    pub fn from_pem(pem: &str, key_id: Option<&str>) -> Result<Self, Error> {
        let block = Pem::iter_from_buffer(pem.as_bytes())
            .next()
            .and_then(Result::ok);
        let block = block
            .filter(|block| block.label == "PUBLIC KEY")
            .ok_or(Error::PublicKey)?;
        let (_, info) =
            SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_cause| Error::PublicKey)?;
        let Ok(PublicKey::RSA(public)) = info.parsed() else {
            return Err(Error::PublicKey);
        };

        let public = rsa(public.modulus, public.exponent).ok_or(Error::PublicKey)?;
        let id = key_id.map(str::to_owned);

        Ok(Self {
            keys: vec![Key {
                id,
                algorithm: None,
                public,
            }],
            is_pinned: true,
        })
    }

    /// Returns whether the set contains no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether a token that names this key can be checked without fetching the keys again.
    pub fn knows(&self, key_id: &str) -> bool {
        self.keys.iter().any(|key| self.is_named(key, key_id))
    }

    /// Returns whether a token must name its key.
    pub(super) fn must_be_named(&self) -> bool {
        !self.is_pinned
    }

    /// Returns the key that a token is signed with. If the token does not name one, the set must
    /// contain only one candidate (OpenID Connect Core, section 10.1).
    pub(super) fn find(&self, key_id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let is_meant =
            |key: &&Key| key_id.is_none_or(|id| self.is_named(key, id)) && key.is_for(algorithm);
        let mut meant = self.keys.iter().filter(is_meant);
        let first = meant.next()?;
        (key_id.is_some() || meant.next().is_none()).then_some(&first.public)
    }

    fn is_named(&self, key: &Key, id: &str) -> bool {
        key.id.as_deref().map_or(self.is_pinned, |own| own == id)
    }
}

impl Key {
    /// `None` for a key that cannot be used.
    fn from_jwk(jwk: &Value) -> Option<Self> {
        let member = |name| jwk.get(name).and_then(Value::as_str);
        let bytes = |name| member(name).and_then(from_base64url);

        // A private half that everybody can read signs whatever anybody wants.
        let is_for_others = jwk.get("use").is_some_and(|r#use| r#use != "sig")
            || jwk.get("key_ops").is_some_and(|ops| {
                !ops.as_array()
                    .is_some_and(|ops| ops.contains(&"verify".into()))
            })
            || jwk.get("d").is_some();
        if is_for_others {
            return None;
        }

        let public = match member("kty")? {
            "RSA" => rsa(&bytes("n")?, &bytes("e")?)?,
            "EC" => DeviceKey::from_value(jwk).ok()?.decoding().ok()?,
            "OKP" if member("crv") == Some("Ed25519") => {
                let point = ParsedPublicKey::new(&ED25519, bytes("x")?).ok()?;
                DecodingKey::from_ed_der(point.as_ref())
            }
            _ => return None,
        };

        let algorithm = match jwk.get("alg") {
            Some(name) => Some(ALGORITHMS.iter().find(|(known, _)| name == known)?.1),
            None => None,
        };

        Some(Self {
            id: member("kid").map(str::to_owned),
            algorithm,
            public,
        })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.public.family() == algorithm.family()
            && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// Accepts big-endian numbers, including those with leading zeros that some providers write.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<DecodingKey> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect::<Vec<_>>()
    };
    let (modulus, exponent) = (number(modulus), number(exponent));
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;

    RSA_BITS
        .contains(&bits)
        .then(|| DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

#[cfg(test)]
mod tests;
