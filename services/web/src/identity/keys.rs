//! What is fetched from a provider when it is needed, and kept: its keys, its description. A flood
//! of requests for what is not there asks once, and a caller who hangs up ends no call that others
//! wait for.

use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use vvs_auth::provider::{KeySet, key_id};

use crate::fetch::Failed;
use crate::identity::Asking;

/// How long keys are not asked for again while the ones that are needed are there.
const FRESH: Duration = Duration::from_mins(5);
/// The least time between two calls, whatever they came to.
pub(crate) const GAP: Duration = Duration::from_secs(10);
/// How long what is old is believed while nothing newer is to be had. A key that was withdrawn must
/// end some time.
const OLD: Duration = Duration::from_hours(24);

/// Fetches it.
pub(crate) type Source<T> = Box<dyn Fn() -> Asking<'static, Result<T, Failed>> + Send + Sync>;

/// Something of a provider's that is fetched and kept.
pub(crate) struct Kept<T> {
    shared: Arc<Shared<T>>,
    tasks: TaskTracker,
}

struct Shared<T> {
    what: &'static str,
    source: Source<T>,
    fresh: Duration,
    known: Lock<Option<Known<T>>>,
    /// Held while a call is under way: whoever comes meanwhile waits for its answer.
    turn: Arc<Mutex<Option<Call>>>,
}

struct Known<T> {
    value: Arc<T>,
    at: Instant,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            at: self.at,
        }
    }
}

/// The last call: when it was made, and whether it came to nothing.
struct Call {
    at: Instant,
    failed: bool,
}

impl<T: Send + Sync + 'static> Kept<T> {
    /// `what` it is, for the log; how long it is `fresh`, so that it is not asked for again.
    pub(crate) fn new(
        what: &'static str,
        source: Source<T>,
        fresh: Duration,
        tasks: TaskTracker,
    ) -> Self {
        let shared = Shared {
            what,
            source,
            fresh,
            known: Lock::default(),
            turn: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
            tasks,
        }
    }

    /// What is known without asking, be it old.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.shared.known().map(|known| known.value)
    }

    /// The newest there is. It need not be enough: then the provider has nothing better. An error
    /// means that nobody can say.
    pub(crate) async fn get(&self, is_enough: impl Fn(&T) -> bool) -> Result<Arc<T>, Failed> {
        let is_good =
            |known: &Known<T>| known.at.elapsed() < self.shared.fresh && is_enough(&known.value);
        if let Some(known) = self.shared.known().filter(is_good) {
            return Ok(known.value);
        }

        let turn = self.shared.turn.clone().lock_owned().await;
        let known = self.shared.known();
        if let Some(known) = known.clone().filter(is_good) {
            return Ok(known.value);
        }

        // Better than none: a provider publishes a new key before it uses it.
        let old = known
            .clone()
            .filter(|known| is_enough(&known.value) && known.at.elapsed() < OLD);
        if let Some(call) = turn.as_ref().filter(|call| call.at.elapsed() < GAP) {
            let newest = if call.failed { old } else { known };
            let left = GAP.saturating_sub(call.at.elapsed());
            return newest
                .map(|known| known.value)
                .ok_or_else(|| Failed::paused(left));
        }

        let calling = self.shared.clone().call(turn).in_current_span();
        let answer = self
            .tasks
            .spawn(calling)
            .await
            .unwrap_or_else(|_panicked| Err(Failed::paused(GAP)));

        answer.or_else(|cause| {
            let old = old.ok_or_else(|| cause.clone())?;
            tracing::warn!(%cause, "{} of the provider could not be fetched; what is known stays \
                in use", self.shared.what);
            Ok(old.value)
        })
    }
}

impl<T> Shared<T> {
    async fn call(
        self: Arc<Self>,
        mut turn: OwnedMutexGuard<Option<Call>>,
    ) -> Result<Arc<T>, Failed> {
        let at = Instant::now();
        let answer = (self.source)().await.map(Arc::new);
        if let Ok(value) = &answer {
            *self.lock() = Some(Known {
                value: value.clone(),
                at,
            });
        }

        *turn = Some(Call {
            at,
            failed: answer.is_err(),
        });

        answer
    }

    fn known(&self) -> Option<Known<T>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known<T>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of one provider.
pub(crate) struct Keys(Kept<KeySet>);

impl Keys {
    pub(crate) fn new(source: Source<KeySet>, tasks: TaskTracker) -> Self {
        Self(Kept::new("the keys", source, FRESH, tasks))
    }

    /// The set to judge this token with. It may lack the token's key, and then the token is not to
    /// be believed; an error means that nobody can say.
    pub(crate) async fn for_token(&self, token: &str) -> Result<Arc<KeySet>, Failed> {
        let key = key_id(token);
        self.0
            .get(|set| key.as_deref().is_none_or(|key| set.knows(key)))
            .await
    }
}

/// Reads a key set of a provider; one without a key that can be used is none.
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

    /// Names a key in its header and proves nothing.
    fn token(key: &str) -> String {
        let part = |json: &str| vvs_auth::key::base64url(json.as_bytes());
        format!(
            "{}.{}.c2ln",
            part(&format!(r#"{{"alg":"RS256","kid":"{key}"}}"#)),
            part("{}")
        )
    }

    /// A set with one key of each of these names.
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

    /// Keys that are called like the number of the call; how often they were asked for.
    fn numbered(is_up: fn(u32) -> bool) -> (Keys, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let keys = Keys::new(
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
            "a withdrawn key is believed for ever"
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
        let keys = Keys::new(source, TaskTracker::new());
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
