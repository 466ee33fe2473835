//! The public keys of a provider, and when they are fetched for a token.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use vvs_auth::provider::{KeySet, key_id};

use crate::cache::{Cache, Source};
use crate::fetch::Failed;

/// How long keys are not fetched again if the required ones are cached.
const FRESH: Duration = Duration::from_mins(5);

/// The keys of one provider.
pub(crate) struct ProviderKeys(Cache<KeySet>);

impl ProviderKeys {
    pub(crate) fn new(source: Source<KeySet>, tasks: TaskTracker) -> Self {
        Self(Cache::new("the keys", source, FRESH, tasks))
    }

    /// Returns the set with which to check this token. It may lack the token's key, and then the
    /// token is not trusted; an error means that nobody can say.
    pub(crate) async fn for_token(&self, token: &str) -> Result<Arc<KeySet>, Failed> {
        let key = key_id(token);
        self.0
            .get(|set| key.as_deref().is_none_or(|key| set.knows(key)))
            .await
    }
}

/// Reads a key set of a provider; a set without a usable key is an error.
pub(crate) fn parse(host: &str, answer: &[u8]) -> Result<KeySet, Failed> {
    let set = str::from_utf8(answer)
        .ok()
        .and_then(|json| KeySet::from_jwks(json).ok())
        .filter(|set| !set.is_empty());
    set.ok_or_else(|| Failed::Unreadable {
        host: host.to_owned(),
        cause: "no JWK set with a usable key".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::cache::{GAP, OLD};

    /// Returns a token that names a key in its header and proves nothing.
    fn token(key: &str) -> String {
        let part = |json: &str| vvs_auth::key::base64url(json.as_bytes());
        format!(
            "{}.{}.c2ln",
            part(&format!(r#"{{"alg":"RS256","kid":"{key}"}}"#)),
            part("{}")
        )
    }

    /// Returns a set with one key of each of these names.
    fn set(names: &[&str]) -> KeySet {
        let n = vvs_auth::key::base64url(&[0xc1; 256]);
        let key = |name: &&str| {
            format!(
                r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{name}","n":"{n}","e":"AQAB"}}"#
            )
        };
        let keys: Vec<_> = names.iter().map(key).collect();
        KeySet::from_jwks(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap()
    }

    /// Returns keys that are named after the number of the call, and the number of calls.
    fn numbered(is_up: fn(u32) -> bool) -> (ProviderKeys, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let keys = ProviderKeys::new(
            Box::new(move || {
                let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
                Box::pin(async move {
                    if is_up(call) {
                        Ok(set(&["always", &call.to_string()]))
                    } else {
                        Err(Failed::paused(GAP))
                    }
                })
            }),
            TaskTracker::new(),
        );

        (keys, calls)
    }

    #[test]
    fn a_set_without_a_usable_key_is_none() {
        for bad in [
            &b"{}"[..],
            br#"{"keys":[]}"#,
            br#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
            b"<html>",
            b"\xff",
        ] {
            assert!(parse("id.test", bad).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_made_up_keys_asks_once_in_ten_seconds() {
        let (keys, calls) = numbered(|_| true);
        for round in 1..=3 {
            for made_up in 0..100 {
                keys.for_token(&token(&format!("made-up-{made_up}")))
                    .await
                    .unwrap();
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
    async fn what_nobody_could_ask_about_is_not_said_to_be_unknown() {
        let (keys, _) = numbered(|call| call == 1);
        keys.for_token(&token("1")).await.unwrap();
        tokio::time::advance(GAP).await;

        // The call fails for the first; the second comes too soon for another.
        for _ in 0..2 {
            assert!(keys.for_token(&token("new")).await.is_err());
            keys.for_token(&token("1")).await.unwrap();
        }

        tokio::time::advance(OLD).await;
        assert!(
            keys.for_token(&token("1")).await.is_err(),
            "a withdrawn key is believed forever"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_hangs_up_ends_no_call() {
        let (ask, asked) = (
            Arc::new(tokio::sync::Notify::new()),
            Arc::new(AtomicU32::new(0)),
        );
        let (gate, counted) = (ask.clone(), asked.clone());
        let source: Source<KeySet> = Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let gate = gate.clone();
            Box::pin(async move {
                gate.notified().await;
                Ok(set(&["1"]))
            })
        });
        let keys = ProviderKeys::new(source, TaskTracker::new());
        let wanted = token("1");
        let hang_up = tokio::time::timeout(Duration::from_secs(1), keys.for_token(&wanted));
        assert!(hang_up.await.is_err());

        ask.notify_one();
        assert!(keys.for_token(&token("1")).await.unwrap().knows("1"));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
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
