//! The device key of an editor, which proves to a server repeatedly that this is the editor that
//! signed in. Knows nothing of sockets and stores.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, digest::SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vvs_proto::frame::Secret;

use crate::error::Error;

/// A P-256 key pair, made for one sign-in. It is stored with the credential, as PKCS#8 in
/// base64url; only the public half goes to a server.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Secret", into = "Secret")]
pub struct DeviceKey(Arc<Pair>);

struct Pair {
    pair: EcdsaKeyPair,
    pkcs8: Secret,
}

/// The purpose of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    Hello,
    Resume,
    Authenticate,
    Refresh,
    Logout,
}

impl DeviceKey {
    pub fn generate() -> Result<Self, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|Unspecified| Error::Crypto)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|Unspecified| Error::Crypto)?;
        let pkcs8 = Secret::new(BASE64URL.encode(pkcs8));
        Ok(Self(Arc::new(Pair { pair, pkcs8 })))
    }

    /// The public half as a JWK (RFC 7517), as `hello` takes it.
    pub fn jwk(&self) -> Value {
        // An uncompressed point: 4, then x and y with 32 bytes each.
        let (x, y) = self.0.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": BASE64URL.encode(x), "y": BASE64URL.encode(y)})
    }

    /// Makes a `vvs-pop+jwt`: valid once, for this `use`, on the socket with this `nonce`.
    /// `audience` is the server's origin as configured, without a slash at the end; `token` is the
    /// one presented with [`Use::Authenticate`], and otherwise empty. Only a system without random
    /// numbers makes an empty proof, which servers refuse.
    pub fn proof(&self, r#use: Use, audience: &str, nonce: &str, token: Option<&str>) -> Secret {
        Secret::new(self.sign(r#use, audience, nonce, token).unwrap_or_default())
    }

    fn sign(
        &self,
        r#use: Use,
        audience: &str,
        nonce: &str,
        token: Option<&str>,
    ) -> Result<String, Unspecified> {
        let mut jti = [0; 16];
        rand::fill(&mut jti)?;
        let header = json!({"alg": "ES256", "typ": "vvs-pop+jwt", "jwk": self.jwk()});
        let mut payload =
            json!({"aud": audience, "nonce": nonce, "jti": BASE64URL.encode(jti), "use": r#use});
        if let Some(token) = token {
            payload["ath"] = BASE64URL
                .encode(digest::digest(&SHA256, token.as_bytes()))
                .into();
        }

        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&payload));
        let signature = self.0.pair.sign(&SystemRandom::new(), signed.as_bytes())?;

        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }
}

impl From<DeviceKey> for Secret {
    fn from(key: DeviceKey) -> Self {
        key.0.pkcs8.clone()
    }
}

impl TryFrom<Secret> for DeviceKey {
    type Error = Error;

    /// Reads the output of [`Secret::from`].
    fn try_from(pkcs8: Secret) -> Result<Self, Error> {
        let der = BASE64URL
            .decode(pkcs8.expose())
            .map_err(|_cause| Error::Crypto)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_cause| Error::Crypto)?;
        Ok(Self(Arc::new(Pair { pair, pkcs8 })))
    }
}

impl PartialEq for DeviceKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk() == other.jwk()
    }
}

impl Eq for DeviceKey {}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[device key]")
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn read(part: &str) -> Value {
        serde_json::from_slice(&BASE64URL.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_proof_is_signed_and_bound_to_key_server_socket_use_and_token() {
        let key = DeviceKey::generate().unwrap();
        let proof = key.proof(
            Use::Authenticate,
            "https://vvs.example.org",
            "nonce-1",
            Some("fake.token"),
        );
        let (signed, signature) = proof.expose().rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(
            &ECDSA_P256_SHA256_FIXED,
            key.0.pair.public_key().as_ref().to_vec(),
        );
        public
            .verify(signed.as_bytes(), &BASE64URL.decode(signature).unwrap())
            .unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        assert_eq!(
            read(header),
            json!({"alg": "ES256", "typ": "vvs-pop+jwt", "jwk": key.jwk()})
        );

        let mut payload = read(payload);
        let jti = payload["jti"].take();
        assert_eq!(BASE64URL.decode(jti.as_str().unwrap()).unwrap().len(), 16);

        // printf fake.token | openssl dgst -sha256 -binary | basenc --base64url
        let ath = "vPhqM-vuTyUw7KPyuYwQlly8xVdHXsbM0RPyj6SY88g";
        let expected = json!({"aud": "https://vvs.example.org", "nonce": "nonce-1", "jti": null, "use": "authenticate", "ath": ath});
        assert_eq!(payload, expected);
    }

    #[test]
    fn no_two_proofs_are_the_same_and_only_authenticate_names_a_token() {
        let key = DeviceKey::generate().unwrap();
        let payload = |r#use| {
            let proof = key.proof(r#use, "https://vvs.example.org", "nonce-1", None);
            read(proof.expose().split('.').nth(1).unwrap())
        };
        assert_ne!(payload(Use::Refresh)["jti"], payload(Use::Refresh)["jti"]);
        assert_eq!(payload(Use::Refresh).as_object().unwrap().len(), 4);
    }

    #[test]
    fn a_stored_key_is_read_back_and_nothing_else_is() {
        let key = DeviceKey::generate().unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<DeviceKey>(&text).unwrap(), key);
        assert_ne!(DeviceKey::generate().unwrap(), key);
        for text in [r#""""#, r#""AAAA""#, "null", &text.replace('M', "N")] {
            assert!(serde_json::from_str::<DeviceKey>(text).is_err(), "{text}");
        }
        assert!(!format!("{key:?}").contains(&text[1..20]));
    }

    #[test]
    fn the_public_key_is_a_jwk_without_the_private_half() {
        let jwk = DeviceKey::generate().unwrap().jwk();
        assert_eq!((&jwk["kty"], &jwk["crv"]), (&"EC".into(), &"P-256".into()));
        assert!(
            ["x", "y"].iter().all(|name| BASE64URL
                .decode(jwk[name].as_str().unwrap())
                .unwrap()
                .len()
                == 32)
        );
        assert_eq!(jwk.as_object().unwrap().len(), 4);
    }
}
