//! What the targets share: a key that signs whatever header and payload the fuzzer makes up,
//! because a bare fuzzer never gets behind a signature, and whoever holds a key does.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use vvs_auth::key::base64url;
use vvs_auth::token::{Jwk, SigningKey};

/// One for each run: what is found does not depend on it.
struct Key {
    pair: EcdsaKeyPair,
    public: Jwk,
}

static KEY: LazyLock<Key> = LazyLock::new(|| {
    let pkcs8 = SigningKey::generate().expect("a new key");
    Key {
        pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .expect("a key just made"),
        public: SigningKey::from_pkcs8("k", &pkcs8)
            .expect("a key just made")
            .public()
            .clone(),
    }
});

/// The half that verifies, with the key id `k`.
pub fn public() -> &'static Jwk {
    &KEY.public
}

/// A good signature over a header and a payload, which stand in two lines. `JWK` stands for the
/// public key.
pub fn sign(lines: &str) -> Option<String> {
    let (header, payload) = lines.split_once('\n')?;
    let Jwk { kty, crv, x, y, .. } = public();
    let header = header.replace(
        "JWK",
        &format!(r#"{{"kty":"{kty}","crv":"{crv}","x":"{x}","y":"{y}"}}"#),
    );
    let message = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    let signature = KEY
        .pair
        .sign(&SystemRandom::new(), message.as_bytes())
        .ok()?;

    Some(format!("{message}.{}", base64url(signature.as_ref())))
}
