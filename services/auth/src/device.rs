//! An editor's public device key: EC P-256, as a JWK (RFC 7517) on the wire. The private half never
//! leaves the editor.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::key::{base64url, from_base64url};

/// Bytes of a coordinate (RFC 7518, section 6.2.1.2), and of a SHA-256.
const LEN: usize = 32;

/// Names a public key: the base64url SHA-256 of its JWK (RFC 7638).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Thumbprint(String);

impl Thumbprint {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Thumbprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let is_one = from_base64url(&text).is_some_and(|hash| hash.len() == LEN);
        if is_one {
            Ok(Self(text))
        } else {
            Err(Error::DeviceKey(
                "a thumbprint is the base64url of 32 bytes",
            ))
        }
    }
}

impl FromStr for Thumbprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.to_owned().try_into()
    }
}

/// A public key on P-256. Two keys are equal when they are the same point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    x: String,
    y: String,
}

impl DeviceKey {
    /// Reads a JWK.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceKey`] when it is not an EC P-256 key, when its point is not on the curve, and
    /// when it contains a private half: a program that sends one gives secrets away.
    pub fn from_value(jwk: &Value) -> Result<Self, Error> {
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        if member("kty") != Some("EC") || member("crv") != Some("P-256") {
            return Err(Error::DeviceKey("kty must be EC and crv P-256"));
        }

        if jwk.get("d").is_some() {
            return Err(Error::DeviceKey(
                "it holds the private half, which must stay in the editor",
            ));
        }

        let coordinate = |name| {
            let bytes = member(name)
                .and_then(from_base64url)
                .filter(|bytes| bytes.len() == LEN);
            bytes.ok_or(Error::DeviceKey(
                "x and y must be the base64url of 32 bytes each",
            ))
        };
        let (x, y) = (coordinate("x")?, coordinate("y")?);

        // An uncompressed point (SEC 1, section 2.3.3).
        let point = [&[4], &x[..], &y[..]].concat();
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .map_err(|_cause| Error::DeviceKey("the point is not on P-256"))?;

        Ok(Self {
            x: base64url(&x),
            y: base64url(&y),
        })
    }

    /// Reads a JWK as JSON text.
    ///
    /// # Errors
    /// As [`DeviceKey::from_value`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Self::from_value(
            &serde_json::from_str(text).map_err(|_cause| Error::DeviceKey("it is not JSON"))?,
        )
    }

    /// The point's coordinates, base64url.
    pub(crate) fn coordinates(&self) -> (&str, &str) {
        (&self.x, &self.y)
    }

    /// The JWK with its required members only, in lexicographic order (RFC 7638, section 3.2).
    pub fn to_json(&self) -> String {
        format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            self.x, self.y
        )
    }

    /// The name by which tokens and tickets refer to this key.
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint(base64url(
            digest::digest(&digest::SHA256, self.to_json().as_bytes()).as_ref(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The key of RFC 7515, appendix A.3.1.
    fn key() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    #[test]
    fn what_a_key_is_called_besides_its_point_does_not_change_its_name() {
        let plain = DeviceKey::from_value(&key()).unwrap();
        let mut dressed = key();
        dressed["kid"] = json!("mine");
        dressed["use"] = json!("sig");
        let dressed = DeviceKey::from_value(&dressed).unwrap();
        assert_eq!(plain.thumbprint(), dressed.thumbprint());

        // As `jwk.thumbprint(SHA256)` of another library computes it.
        assert_eq!(
            plain.thumbprint().as_str(),
            "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
        );
        assert_eq!(DeviceKey::from_json(&plain.to_json()).unwrap(), plain);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let with = |name: &str, value: Value| {
            let mut key = key();
            key[name] = value;
            key
        };
        for bad in [
            json!(null),
            json!("text"),
            json!({}),
            with("kty", json!("RSA")),
            with("crv", json!("P-384")),
            with("x", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEV")),
            with("x", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVA")),
            with("y", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
            with("y", json!(7)),
            with("d", json!("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI")),
        ] {
            assert!(DeviceKey::from_value(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_thumbprint_is_32_bytes() {
        assert!(
            "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
                .parse::<Thumbprint>()
                .is_ok()
        );
        for bad in ["", "abc", "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-", "*"] {
            assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
        }
    }
}
