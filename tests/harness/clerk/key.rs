//! Keys that sign session tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

/// One key of an instance.
pub(super) struct Key {
    pub(super) id: String,
    signing: EncodingKey,
    /// The public half, as the dashboard shows it.
    pub(super) pem: String,
    jwk: Value,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Key").field(&self.id).finish()
    }
}

impl Key {
    pub(super) fn generate(id: String) -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let signing = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let found =
            serde_json::to_value(Jwk::from_encoding_key(&signing, Algorithm::RS256).unwrap())
                .unwrap();
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": found["n"], "e": found["e"],
        });

        Self {
            id,
            signing,
            pem: pair.public_key_pem(),
            jwk,
        }
    }

    /// A JWT of this header and these claims, whatever they say.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = crypto::sign(signed.as_bytes(), &self.signing, Algorithm::RS256).unwrap();
        format!("{signed}.{signature}")
    }
}

/// The set of them. An instance may have keys of other kinds there, which are not for session
/// tokens.
pub(super) fn jwks(keys: &[Key]) -> Value {
    let other = json!({
        "kty": "OKP", "use": "sig", "alg": "EdDSA", "crv": "Ed25519", "kid": "ins_other",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let all: Vec<_> = std::iter::once(&other)
        .chain(keys.iter().map(|key| &key.jwk))
        .collect();
    json!({"keys": all})
}
