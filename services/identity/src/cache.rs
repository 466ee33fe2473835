//! Values that are fetched from a provider on demand and cached: its keys, its description. A flood
//! of requests for missing values causes one call, and a caller that hangs up ends no call that
//! others wait for.

use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::asking::Asking;
use crate::fetch::Failed;

/// The minimum time between two calls, whatever their results.
pub(crate) const GAP: Duration = Duration::from_secs(10);
/// How long an old value is used while no newer one can be fetched. A withdrawn key must stop
/// working at some time.
pub(crate) const OLD: Duration = Duration::from_hours(24);

/// Fetches it.
pub(crate) type Source<T> = Box<dyn Fn() -> Asking<'static, Result<T, Failed>> + Send + Sync>;

/// A value of a provider that is fetched and cached.
pub(crate) struct Cache<T> {
    shared: Arc<CacheState<T>>,
    tasks: TaskTracker,
}

struct CacheState<T> {
    what: &'static str,
    source: Source<T>,
    fresh: Duration,
    known: Lock<Option<Fetched<T>>>,
    /// Held while a call is under way: later callers wait for its answer.
    turn: Arc<Mutex<Option<LastCall>>>,
}

struct Fetched<T> {
    value: Arc<T>,
    at: Instant,
}

impl<T> Clone for Fetched<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            at: self.at,
        }
    }
}

/// The last call: when it was made, and whether it failed.
struct LastCall {
    at: Instant,
    failed: bool,
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// `what` names it in the log; `fresh` is how long it is not fetched again.
    pub(crate) fn new(
        what: &'static str,
        source: Source<T>,
        fresh: Duration,
        tasks: TaskTracker,
    ) -> Self {
        let shared = CacheState {
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

    /// Returns the last fetched value, however stale, without a call.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.shared.known().map(|known| known.value)
    }

    /// Returns the newest value. It may not be enough: then the provider has no better one. An
    /// error means that nobody can say.
    pub(crate) async fn get(&self, is_enough: impl Fn(&T) -> bool) -> Result<Arc<T>, Failed> {
        let is_good =
            |known: &Fetched<T>| known.at.elapsed() < self.shared.fresh && is_enough(&known.value);
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

impl<T> CacheState<T> {
    async fn call(
        self: Arc<Self>,
        mut turn: OwnedMutexGuard<Option<LastCall>>,
    ) -> Result<Arc<T>, Failed> {
        let at = Instant::now();
        let answer = (self.source)().await.map(Arc::new);
        if let Ok(value) = &answer {
            *self.lock() = Some(Fetched {
                value: value.clone(),
                at,
            });
        }

        *turn = Some(LastCall {
            at,
            failed: answer.is_err(),
        });

        answer
    }

    fn known(&self) -> Option<Fetched<T>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Fetched<T>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
