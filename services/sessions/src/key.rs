//! The keys that sign tokens: kept in the store under the key file's seal, read once when sessions starts. Knows neither
//! the key file itself nor what a token says.

use secrecy::SecretString;
use vvs_auth::key::{Keyring, base64url, from_base64url};
use vvs_auth::token::{Claims, JwkSet, SigningKey, random_id};

use crate::Error;
use crate::session::Seconds;
use crate::store::Store;

/// What the seal is for, so that nothing sealed for another purpose opens as a signing key.
const PURPOSE: &str = "vvs.sessions.signing-key";

/// A private key as the store holds it.
#[derive(Debug)]
pub(crate) struct SealedKey {
    pub(crate) kid: String,
    /// base64url of the sealed PKCS #8.
    pub(crate) sealed: String,
}

/// All keys of the store, opened.
#[derive(Debug)]
pub(crate) struct Keys {
    newest: SigningKey,
    /// The public halves of all of them: a JWK set as JSON.
    jwks: String,
}

impl Keys {
    /// Reads the store's keys, and makes the first one when there is none.
    pub(crate) async fn load(store: &Store, keyring: &Keyring, now: Seconds) -> Result<Self, Error> {
        let keyring = keyring.derive(PURPOSE)?;
        let mut sealed = store.signing_keys().await?;
        if sealed.is_empty() {
            // Another process that starts now may be first; then its key is read.
            store.add_first_signing_key(&generate(&keyring)?, now).await?;
            sealed = store.signing_keys().await?;
        }
        let mut keys = sealed.iter().map(|key| open(&keyring, key)).collect::<Result<Vec<_>, _>>()?;
        let public = JwkSet { keys: keys.iter().map(|key| key.public().clone()).collect() };
        let jwks = serde_json::to_string(&public).map_err(|_cause| vvs_auth::Error::Crypto("JWKS"))?;
        Ok(Self { newest: keys.pop().ok_or(vvs_auth::Error::Crypto("no signing key"))?, jwks })
    }

    /// Signs with the newest key.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<SecretString, Error> {
        Ok(self.newest.sign(claims)?)
    }

    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }
}

fn generate(keyring: &Keyring) -> Result<SealedKey, Error> {
    let kid = random_id()?;
    let sealed = base64url(&keyring.seal(&kid, &SigningKey::generate()?)?);
    Ok(SealedKey { kid, sealed })
}

/// The key id is part of the seal, so that rows cannot be swapped.
fn open(keyring: &Keyring, key: &SealedKey) -> Result<SigningKey, Error> {
    let sealed = from_base64url(&key.sealed).ok_or(Error::WrongKeyFile)?;
    let plain = keyring.open(&key.kid, &sealed).map_err(|_cause| Error::WrongKeyFile)?;
    Ok(SigningKey::from_pkcs8(&key.kid, &plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Place;

    fn key_file() -> String {
        Keyring::generate().unwrap()
    }

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text).unwrap()
    }

    #[tokio::test]
    async fn the_keys_are_the_same_after_a_restart() {
        let (place, keyring) = (Place::new(), ring(&key_file()));
        let first = Keys::load(&place.open().await, &keyring, 1).await.unwrap();
        let second = Keys::load(&place.open().await, &keyring, 2).await.unwrap();
        assert_eq!(first.jwks(), second.jwks());
    }

    #[tokio::test]
    async fn two_first_starts_at_once_make_one_key() {
        let (place, keyring) = (Place::new(), ring(&key_file()));
        let (one, two) = (place.open().await, place.open().await);
        let (one, two) = tokio::join!(Keys::load(&one, &keyring, 1), Keys::load(&two, &keyring, 1));
        assert_eq!(one.unwrap().jwks(), two.unwrap().jwks());
    }

    #[tokio::test]
    async fn another_key_file_is_refused_and_says_what_to_do() {
        let place = Place::new();
        let store = place.open().await;
        let (old, new) = (key_file(), key_file());
        let made = Keys::load(&store, &ring(&old), 1).await.unwrap();

        let refused = Keys::load(&store, &ring(&new), 2).await.unwrap_err();
        assert!(matches!(refused, Error::WrongKeyFile));
        assert!(refused.to_string().contains("use the key file that they were encrypted with"));

        // As the second line it still opens.
        assert_eq!(Keys::load(&store, &ring(&(new + &old)), 3).await.unwrap().jwks(), made.jwks());
    }

    #[tokio::test]
    async fn a_sealed_key_opens_under_its_own_id_only() {
        let keyring = ring(&key_file());
        let mut key = generate(&keyring).unwrap();
        open(&keyring, &key).unwrap();
        key.kid = random_id().unwrap();
        assert!(matches!(open(&keyring, &key), Err(Error::WrongKeyFile)));
    }

    #[tokio::test]
    async fn no_private_key_stands_in_the_database_files() {
        let (place, keyring) = (Place::new(), ring(&key_file()));
        let store = place.open().await;
        Keys::load(&store, &keyring, 1).await.unwrap();
        let sealed = store.signing_keys().await.unwrap().remove(0);
        let opened = keyring.derive(PURPOSE).unwrap();
        let private = opened.open(&sealed.kid, &from_base64url(&sealed.sealed).unwrap()).unwrap();

        let files = place.bytes();
        let holds = |part: &[u8]| files.windows(part.len()).any(|window| window == part);
        assert!(holds(sealed.sealed.as_bytes()), "the sealed key is not where the test looks");
        assert!(!holds(&private));
        assert!(!holds(base64url(&private).as_bytes()));
        // The private number alone: 32 bytes behind the header of the inner structure (RFC 5915, section 3).
        let at = private.windows(4).position(|window| window == [2, 1, 1, 4]).unwrap() + 5;
        assert!(!holds(&private[at..at + 32]));
    }
}
