//! Keys from a key file and their uses: sealing values that strangers keep for us, authenticating
//! values that come back, and deriving values that must be equal in all processes. AES-256-GCM,
//! HMAC-SHA-256 and HKDF come from the library.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::Error;

/// Length of every key, in bytes.
pub const KEY_LEN: usize = 32;

/// The keys of one key file. The first makes new values and all of them check existing ones, so a
/// file with two lines rotates the key.
#[derive(Clone)]
pub struct Keyring(Vec<[u8; KEY_LEN]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

impl Keyring {
    /// Reads a key file's text: one or two lines of base64.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let keys = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                STANDARD
                    .decode(line)
                    .ok()
                    .and_then(|key| key.try_into().ok())
                    .ok_or(Error::KeyFile)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || keys.len() > 2 {
            return Err(Error::KeyFile);
        }

        Ok(Self(keys))
    }

    /// Generates a new key file's text.
    pub fn generate() -> Result<String, Error> {
        Ok(STANDARD.encode(random::<KEY_LEN>()?) + "\n")
    }

    /// Derives independent keys for one purpose, so that a value made for one purpose is useless
    /// for another (RFC 5869).
    pub fn derive(&self, purpose: &str) -> Result<Self, Error> {
        let derive = |key: &[u8; KEY_LEN]| {
            let mut out = [0; KEY_LEN];
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"vvs")
                .extract(key)
                .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut out))
                .map_err(|_cause| Error::Crypto("HKDF"))?;
            Ok(out)
        };
        Ok(Self(
            self.0.iter().map(derive).collect::<Result<_, Error>>()?,
        ))
    }

    /// Encrypts and authenticates `plain`. `context` is authenticated with it and must be the same
    /// for opening it.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0[0])
            .map_err(|_cause| Error::Crypto("AES-GCM key"))?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_cause| Error::Crypto("AES-GCM seal"))?;
        sealed.splice(0..0, nonce.as_ref().iter().copied());
        Ok(sealed)
    }

    /// Opens a value that [`Keyring::seal`] sealed with any of these keys and the same context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(Error::Sealed)?;
        self.0
            .iter()
            .find_map(|key| {
                let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut body = body.to_vec();
                let plain = key
                    .open_in_place(nonce, Aad::from(context.as_bytes()), &mut body)
                    .ok()?;
                Some(plain.to_vec())
            })
            .ok_or(Error::Sealed)
    }

    /// Returns the HMAC-SHA-256 over the parts, each with its length, so that no two lists of parts
    /// are the same bytes.
    pub fn mac(&self, parts: &[&str]) -> [u8; KEY_LEN] {
        let mut out = [0; KEY_LEN];
        out.copy_from_slice(
            hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, &self.0[0]),
                &framed(parts),
            )
            .as_ref(),
        );
        out
    }

    /// Returns whether `tag` equals [`Keyring::mac`] of the parts under any of these keys, in
    /// constant time.
    pub fn check_mac(&self, parts: &[&str], tag: &[u8]) -> bool {
        let message = framed(parts);
        self.0
            .iter()
            .any(|key| hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &message, tag).is_ok())
    }
}

fn framed(parts: &[&str]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message
}

/// Returns bytes from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_cause| Error::Crypto("random generator"))?;
    Ok(bytes)
}

/// Encodes base64url without padding (RFC 4648, section 5).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url without padding.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        Keyring::parse(&Keyring::generate().unwrap()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_context_only() {
        let ring = ring();
        let sealed = ring.seal("cookie", b"ada").unwrap();
        assert_eq!(ring.open("cookie", &sealed).unwrap(), b"ada");
        assert!(ring.open("ticket", &sealed).is_err());
        assert!(
            ring.derive("other")
                .unwrap()
                .open("cookie", &sealed)
                .is_err()
        );

        let mut bent = sealed.clone();
        *bent.last_mut().unwrap() ^= 1;
        assert!(ring.open("cookie", &bent).is_err());
        assert!(ring.open("cookie", &sealed[..5]).is_err());
    }

    #[test]
    fn an_old_key_still_opens_after_a_rotation() {
        let (old, new) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
        let sealed = Keyring::parse(&old).unwrap().seal("c", b"x").unwrap();
        let tag = Keyring::parse(&old).unwrap().mac(&["a"]);
        let both = Keyring::parse(&(new + &old)).unwrap();
        assert_eq!(both.open("c", &sealed).unwrap(), b"x");
        assert!(both.check_mac(&["a"], &tag));
    }

    #[test]
    fn parts_of_a_mac_cannot_be_shifted() {
        let ring = ring();
        assert!(!ring.check_mac(&["ab", "c"], &ring.mac(&["a", "bc"])));
    }

    #[test]
    fn a_key_file_must_hold_whole_keys() {
        for bad in ["", "\n", "c2hvcnQ=", "not base64!"] {
            assert!(Keyring::parse(bad).is_err());
        }
    }

    #[test]
    fn a_keyring_does_not_print_its_keys() {
        assert_eq!(format!("{:?}", ring()), "Keyring(1 keys)");
    }
}
