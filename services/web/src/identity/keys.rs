//! A provider's public keys, fetched when they are needed and kept. An unknown key may be a new one, so it is asked for;
//! a flood of made-up ones asks once.

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use vvs_auth::provider::{KeySet, key_id};

use crate::fetch::Failed;
use crate::identity::Asking;

/// How long a set is not asked for again while it has the keys that are needed.
const FRESH: Duration = Duration::from_mins(5);
/// The least time between two calls, whatever they came to.
const GAP: Duration = Duration::from_secs(10);

/// Fetches the set.
pub(crate) type Source = Box<dyn Fn() -> Asking<'static, Result<KeySet, Failed>> + Send + Sync>;

/// The keys of one provider.
pub(crate) struct Keys {
    source: Source,
    known: Lock<Option<Known>>,
    /// Held while a call is under way: whoever comes meanwhile waits for its answer. When the last one was made, and what
    /// it failed with.
    turn: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Known {
    set: Arc<KeySet>,
    until: Instant,
}

impl Keys {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, known: Lock::default(), turn: Mutex::default() }
    }

    /// The set to judge this token with. It may lack the token's key, and then the token is not to be believed; an error
    /// means that nobody can say.
    pub(crate) async fn for_token(&self, token: &str) -> Result<Arc<KeySet>, Failed> {
        let key = key_id(token);
        let has = |known: &Known| key.as_deref().is_none_or(|key| known.set.knows(key));
        let is_good = |known: &Known| Instant::now() < known.until && has(known);
        if let Some(known) = self.known().filter(is_good) {
            return Ok(known.set);
        }
        let mut last = self.turn.lock().await;
        let known = self.known();
        let is_too_soon = last.is_some_and(|last| last.elapsed() < GAP);
        match known {
            Some(known) if is_good(&known) || is_too_soon => return Ok(known.set),
            None if is_too_soon => return Err(Failed::paused(GAP)),
            Some(_) | None => {}
        }
        *last = Some(Instant::now());
        match (self.source)().await {
            Ok(set) => {
                let set = Arc::new(set);
                *self.lock() = Some(Known { set: set.clone(), until: Instant::now() + FRESH });
                Ok(set)
            }
            // Old keys are better than none: a provider publishes a new one before it uses it. For an unknown key they say
            // nothing.
            Err(cause) => match known.filter(has) {
                Some(known) => {
                    tracing::warn!(%cause, "a provider's keys could not be fetched; the last ones stay in use");
                    Ok(known.set)
                }
                None => Err(cause),
            },
        }
    }

    fn known(&self) -> Option<Known> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Names a key in its header and proves nothing.
    fn token(key: &str) -> String {
        let part = |json: &str| vvs_auth::key::base64url(json.as_bytes());
        format!("{}.{}.c2ln", part(&format!(r#"{{"alg":"RS256","kid":"{key}"}}"#)), part("{}"))
    }

    /// A set with one key of each of these names.
    fn set(names: &[&str]) -> KeySet {
        let n = vvs_auth::key::base64url(&[0xc1; 256]);
        let key =
            |name: &&str| format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{name}","n":"{n}","e":"AQAB"}}"#);
        let keys: Vec<_> = names.iter().map(key).collect();
        KeySet::from_jwks(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap()
    }

    /// Keys that are called like the number of the call; how often they were asked for.
    fn numbered(is_up: fn(u32) -> bool) -> (Keys, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let keys = Keys::new(Box::new(move || {
            let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                if is_up(call) { Ok(set(&["always", &call.to_string()])) } else { Err(Failed::paused(GAP)) }
            })
        }));
        (keys, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_made_up_keys_asks_once_in_ten_seconds() {
        let (keys, calls) = numbered(|_| true);
        for round in 1..=3 {
            for made_up in 0..100 {
                keys.for_token(&token(&format!("made-up-{made_up}"))).await.unwrap();
            }
            assert_eq!(calls.load(Ordering::Relaxed), round);
            tokio::time::advance(GAP).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_found_and_a_known_one_asks_nobody() {
        let (keys, calls) = numbered(|_| true);
        assert!(keys.for_token(&token("1")).await.unwrap().knows("1"));
        tokio::time::advance(GAP).await;
        keys.for_token(&token("1")).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert!(keys.for_token(&token("2")).await.unwrap().knows("2"));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_grows_old_and_stays_in_use_while_there_is_no_other() {
        let (keys, calls) = numbered(|call| call == 1);
        keys.for_token(&token("always")).await.unwrap();
        tokio::time::advance(FRESH).await;
        assert!(keys.for_token(&token("always")).await.unwrap().knows("1"));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        // What the old set does not know may be a new key: nobody can say.
        tokio::time::advance(GAP).await;
        assert!(keys.for_token(&token("other")).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_down_is_not_asked_by_every_request() {
        let (keys, calls) = numbered(|call| call > 1);
        for _ in 0..10 {
            assert!(keys.for_token(&token("1")).await.is_err());
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        tokio::time::advance(GAP).await;
        keys.for_token(&token("always")).await.unwrap();
    }
}
