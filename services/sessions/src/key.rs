//! The keys that sign tokens: stored under the key file's seal, and rotated. The times in the store
//! decide which key signs, so that all processes agree. Knows neither the key file itself nor the
//! content of a token.

use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use vvs_auth::key::{Keyring, base64url, from_base64url};
use vvs_auth::token::{Claims, JwkSet, SigningKey, random_id};

use crate::Error;
use crate::session::Seconds;
use crate::store::{SealedKey, Store};

/// The purpose of the seal, so that nothing sealed for another purpose opens as a signing key.
const PURPOSE: &str = "vvs.sessions.signing-key";
/// How long a key stays at least after its successor began to sign: for clocks that differ, and for
/// tokens that were signed twice for one approval.
const SLACK: Seconds = 86_400;

/// The schedule of the rotation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// How long a key signs.
    pub(crate) interval: Seconds,
    /// How long a key is published before it signs.
    pub(crate) lead: Seconds,
}

/// All keys of the store, opened.
#[derive(Debug)]
struct OpenedKeys {
    /// The oldest first, each with the time from which it signs.
    keys: Vec<(Seconds, SigningKey)>,
    /// The public halves of all of them: a JWK set as JSON.
    jwks: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct SigningKeys {
    store: Store,
    keyring: Keyring,
    rotation: Rotation,
    set: ArcSwap<OpenedKeys>,
}

impl SigningKeys {
    /// Reads the store's keys, and makes the first one if it has no key.
    pub(crate) async fn load(
        store: &Store,
        keyring: &Keyring,
        rotation: Rotation,
        now: Seconds,
    ) -> Result<Self, Error> {
        let keyring = keyring.derive(PURPOSE)?;
        if store.signing_keys().await?.is_empty() {
            // Another process that starts now may be first; then its key is read.
            store
                .add_signing_key(&generate(&keyring, 1, now, now)?)
                .await?;
        }

        let set = ArcSwap::from_pointee(read(store, &keyring).await?);

        Ok(Self {
            store: store.clone(),
            keyring,
            rotation,
            set,
        })
    }

    /// Makes the next key when its time has come, deletes those whose last token is over, and reads
    /// those that others made.
    pub(crate) async fn turn(&self, now: Seconds) -> Result<(), Error> {
        let keys = self.store.signing_keys().await?;
        if let Some(newest) = keys.last() {
            let due = newest.signs_at.saturating_add(self.rotation.interval);
            if due.saturating_sub(self.rotation.lead) <= now {
                self.add(
                    newest.number + 1,
                    now,
                    due.max(now.saturating_add(self.rotation.lead)),
                )
                .await?;
            }
        }

        for pair in keys.windows(2) {
            let [old, next] = pair else { continue };
            let last = next.signs_at.saturating_add(SLACK);
            if last <= now && !self.store.has_tokens_from(last, now).await? {
                self.store.delete_signing_key(old.number).await?;
                tracing::info!(
                    kid = old.kid,
                    "a signing key is gone: its last token is over"
                );
            }
        }

        self.set
            .store(Arc::new(read(&self.store, &self.keyring).await?));

        Ok(())
    }

    /// Makes the next key now, unless one is already waiting. Returns the key that signs next, and
    /// its time.
    pub(crate) async fn rotate(&self, now: Seconds) -> Result<SealedKey, Error> {
        let newest = self.store.signing_keys().await?.pop();
        let number = newest.as_ref().map_or(1, |newest| newest.number + 1);
        if let Some(waiting) = newest.filter(|newest| newest.signs_at > now) {
            return Ok(waiting);
        }
        self.add(number, now, now.saturating_add(self.rotation.lead))
            .await?;
        let made = self.store.signing_keys().await?.pop();
        made.ok_or(Error::Crypto(vvs_auth::Error::Crypto("no signing key")))
    }

    async fn add(&self, number: i64, now: Seconds, signs_at: Seconds) -> Result<(), Error> {
        let key = generate(&self.keyring, number, now, signs_at)?;
        if self.store.add_signing_key(&key).await? {
            tracing::info!(kid = key.kid, signs_at, "a new signing key is published");
        }
        Ok(())
    }

    /// Signs with the key whose turn it is.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<SecretString, Error> {
        let set = self.set.load();
        let current = set
            .keys
            .iter()
            .rev()
            .find(|(signs_at, _)| *signs_at <= claims.iat)
            .or(set.keys.first());
        let (_, key) = current.ok_or(vvs_auth::Error::Crypto("no signing key"))?;
        Ok(key.sign(claims)?)
    }

    pub(crate) fn jwks(&self) -> Arc<str> {
        self.set.load().jwks.clone()
    }
}

async fn read(store: &Store, keyring: &Keyring) -> Result<OpenedKeys, Error> {
    let sealed = store.signing_keys().await?;
    let opened = sealed
        .iter()
        .map(|key| Ok((key.signs_at, open(keyring, key)?)));
    let keys = opened.collect::<Result<Vec<_>, Error>>()?;
    let public = JwkSet {
        keys: keys.iter().map(|(_, key)| key.public().clone()).collect(),
    };
    let jwks = serde_json::to_string(&public).map_err(|_cause| vvs_auth::Error::Crypto("JWKS"))?;

    Ok(OpenedKeys {
        keys,
        jwks: jwks.into(),
    })
}

fn generate(
    keyring: &Keyring,
    number: i64,
    created_at: Seconds,
    signs_at: Seconds,
) -> Result<SealedKey, Error> {
    let kid = random_id()?;
    let sealed = base64url(&keyring.seal(&kid, &SigningKey::generate()?)?);
    Ok(SealedKey {
        number,
        kid,
        sealed,
        created_at,
        signs_at,
    })
}

/// The key id is part of the seal, so that rows cannot be swapped.
fn open(keyring: &Keyring, key: &SealedKey) -> Result<SigningKey, Error> {
    let sealed = from_base64url(&key.sealed).ok_or(Error::WrongKeyFile)?;
    let plain = keyring
        .open(&key.kid, &sealed)
        .map_err(|_cause| Error::WrongKeyFile)?;
    Ok(SigningKey::from_pkcs8(&key.kid, &plain)?)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::session::Terms;
    use crate::store::tests::{Location, approval, on_both_databases, terms};

    const ROTATION: Rotation = Rotation {
        interval: 1000,
        lead: 100,
    };

    fn key_file() -> String {
        Keyring::generate().unwrap()
    }

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text).unwrap()
    }

    #[tokio::test]
    async fn the_keys_are_the_same_after_a_restart() {
        let (place, keyring) = (Location::new(), ring(&key_file()));
        let first = SigningKeys::load(&place.open().await, &keyring, ROTATION, 1)
            .await
            .unwrap();
        let second = SigningKeys::load(&place.open().await, &keyring, ROTATION, 2)
            .await
            .unwrap();
        assert_eq!(first.jwks(), second.jwks());
    }

    #[tokio::test]
    async fn two_first_starts_at_once_make_one_key() {
        let (place, keyring) = (Location::new(), ring(&key_file()));
        let (one, two) = (place.open().await, place.open().await);
        let (one, two) = tokio::join!(
            SigningKeys::load(&one, &keyring, ROTATION, 1),
            SigningKeys::load(&two, &keyring, ROTATION, 1)
        );
        assert_eq!(one.unwrap().jwks(), two.unwrap().jwks());
    }

    #[tokio::test]
    async fn another_key_file_is_refused_and_says_what_to_do() {
        let place = Location::new();
        let store = place.open().await;
        let (old, new) = (key_file(), key_file());
        let made = SigningKeys::load(&store, &ring(&old), ROTATION, 1)
            .await
            .unwrap();

        let refused = SigningKeys::load(&store, &ring(&new), ROTATION, 2)
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::WrongKeyFile));
        assert!(
            refused
                .to_string()
                .contains("use the key file that they were encrypted with")
        );

        // As the second line it still opens.
        assert_eq!(
            SigningKeys::load(&store, &ring(&(new + &old)), ROTATION, 3)
                .await
                .unwrap()
                .jwks(),
            made.jwks()
        );
    }

    #[tokio::test]
    async fn a_sealed_key_opens_under_its_own_id_only() {
        let keyring = ring(&key_file());
        let mut key = generate(&keyring, 1, 1, 1).unwrap();
        open(&keyring, &key).unwrap();
        key.kid = random_id().unwrap();
        assert!(matches!(open(&keyring, &key), Err(Error::WrongKeyFile)));
    }

    #[tokio::test]
    async fn no_private_key_stands_in_the_database_files() {
        let (place, keyring) = (Location::new(), ring(&key_file()));
        let store = place.open().await;
        SigningKeys::load(&store, &keyring, ROTATION, 1)
            .await
            .unwrap();
        let sealed = store.signing_keys().await.unwrap().remove(0);
        let opened = keyring.derive(PURPOSE).unwrap();
        let private = opened
            .open(&sealed.kid, &from_base64url(&sealed.sealed).unwrap())
            .unwrap();

        let files = place.bytes();
        let holds = |part: &[u8]| files.windows(part.len()).any(|window| window == part);
        assert!(
            holds(sealed.sealed.as_bytes()),
            "the sealed key is not where the test looks"
        );
        assert!(!holds(&private));
        assert!(!holds(base64url(&private).as_bytes()));

        // The private number alone: 32 bytes behind the header of the inner structure (RFC 5915,
        // section 3).
        let at = private
            .windows(4)
            .position(|window| window == [2, 1, 1, 4])
            .unwrap()
            + 5;
        assert!(!holds(&private[at..at + 32]));
    }

    fn claims(iat: Seconds) -> Claims {
        let text = String::new;
        Claims {
            iss: text(),
            sub: text(),
            aud: text(),
            sid: text(),
            jti: text(),
            iat,
            exp: iat + 10,
            sxp: iat + 10,
            cnf: None,
            pending: false,
        }
    }

    /// Returns which key signs at a time, by its position in the published set.
    fn signer(keys: &SigningKeys, now: Seconds) -> usize {
        let token = keys.sign(&claims(now)).unwrap();
        let header = jsonwebtoken::decode_header(token.expose_secret()).unwrap();
        published(keys)
            .iter()
            .position(|kid| Some(kid) == header.kid.as_ref())
            .unwrap()
    }

    fn published(keys: &SigningKeys) -> Vec<String> {
        let set: JwkSet = serde_json::from_str(&keys.jwks()).unwrap();
        set.keys.into_iter().map(|key| key.kid).collect()
    }

    async fn a_key_is_published_before_it_signs_and_every_process_knows_when(place: &Location) {
        let keyring = ring(&key_file());
        let (one, two) = (place.open().await, place.open().await);
        let one = SigningKeys::load(&one, &keyring, ROTATION, 10_000)
            .await
            .unwrap();
        let two = SigningKeys::load(&two, &keyring, ROTATION, 10_000)
            .await
            .unwrap();
        one.turn(10_899).await.unwrap();
        assert_eq!(published(&one).len(), 1);

        let (first, second) = tokio::join!(one.turn(10_900), two.turn(10_900));
        first.unwrap();
        second.unwrap();
        one.turn(10_901).await.unwrap();
        two.turn(10_901).await.unwrap();
        assert_eq!(published(&one).len(), 2, "two processes made two keys");
        assert_eq!(published(&one), published(&two));

        for keys in [&one, &two] {
            assert_eq!(
                [
                    signer(keys, 10_999),
                    signer(keys, 11_000),
                    signer(keys, 11_001)
                ],
                [0, 1, 1]
            );
        }

        // After a long time in which nobody served, the next one still is published first.
        one.turn(50_000).await.unwrap();
        assert_eq!(
            [
                signer(&one, 50_000),
                signer(&one, 50_099),
                signer(&one, 50_100)
            ],
            [1, 1, 2]
        );
    }

    async fn a_key_stays_until_the_last_token_that_it_signed_is_over(place: &Location) {
        let (store, keyring) = (place.open().await, ring(&key_file()));
        let keys = SigningKeys::load(&store, &keyring, ROTATION, 10_000)
            .await
            .unwrap();
        let terms = Terms {
            bearer_ttl: 500_000,
            ..terms()
        };
        let session = store
            .create(&approval(1, "ada"), &terms, 10_500)
            .await
            .unwrap()
            .session;
        store
            .activate(&session.id, "", &terms, 10_501)
            .await
            .unwrap();

        // Made when the next key signed for a long time: its token keeps none that is older.
        store
            .create(&approval(2, "ada"), &terms, 11_001 + SLACK)
            .await
            .unwrap();
        keys.turn(10_900).await.unwrap();
        let first = published(&keys)[0].clone();

        for (now, stays) in [(11_000 + SLACK, true), (510_499, true), (510_500, false)] {
            keys.turn(now).await.unwrap();
            assert_eq!(published(&keys).contains(&first), stays, "at {now}");
        }
    }

    async fn a_rotation_by_hand_publishes_one_key_and_signs_later(place: &Location) {
        let (store, keyring) = (place.open().await, ring(&key_file()));
        let keys = SigningKeys::load(&store, &keyring, ROTATION, 10_000)
            .await
            .unwrap();
        let next = keys.rotate(10_200).await.unwrap();
        assert_eq!(next.signs_at, 10_300);
        assert_eq!(
            keys.rotate(10_250).await.unwrap().kid,
            next.kid,
            "a key that waits was not left alone"
        );

        keys.turn(10_250).await.unwrap();
        assert_eq!(published(&keys).last(), Some(&next.kid));
        assert_eq!([signer(&keys, 10_299), signer(&keys, 10_300)], [0, 1]);
    }

    on_both_databases! {
        a_key_is_published_before_it_signs_and_every_process_knows_when
        a_key_stays_until_the_last_token_that_it_signed_is_over
        a_rotation_by_hand_publishes_one_key_and_signs_later
    }
}
