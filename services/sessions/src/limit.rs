//! Counts how often each session is refreshed.

use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use vvs_auth::device::Thumbprint;
use vvs_runtime::limit::Reached;

use crate::Error;
use crate::id::SessionId;
use crate::session::{DAY, Seconds};

/// How long a session must be without a refresh before it gives way to a new one.
pub(crate) const SILENCE: Seconds = 7 * DAY;
/// Editors whose refreshes are counted at the same time; a few bytes each.
const MAX_COUNTED: usize = 100_000;

type Refresher = (SessionId, Thumbprint);

/// How often each session is refreshed with a key, as counted by this process.
#[derive(Debug)]
pub(crate) struct Refreshes<C: Clock = DefaultClock> {
    limiter: RateLimiter<Refresher, DashMapStateStore<Refresher>, C, NoOpMiddleware<C::Instant>>,
    reached: Reached,
}

impl<C: Clock> Refreshes<C> {
    pub(crate) fn new(per_minute: NonZeroU32, reached: Reached, clock: C) -> Self {
        let limiter = RateLimiter::new(
            Quota::per_minute(per_minute),
            DashMapStateStore::default(),
            clock,
        );
        Self { limiter, reached }
    }

    /// Counts one, with the key that was proven: nobody else's calls count against an editor.
    /// Making up enough keys to fill the table costs more than refreshing.
    pub(crate) fn count(&self, id: &SessionId, key: &Thumbprint) -> Result<(), Error> {
        if self.limiter.len() >= MAX_COUNTED {
            return Ok(());
        }

        self.limiter
            .check_key(&(id.clone(), key.clone()))
            .map_err(|until| {
                self.reached.tell("VVS_SESSIONS_REFRESHES_PER_MINUTE");
                Error::RefreshedTooOften {
                    id: id.clone(),
                    retry_after: until.wait_time_from(self.limiter.clock().now()),
                }
            })
    }

    /// Deletes the counts of quiet sessions; call it now and then.
    pub(crate) fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::store::tests::device_key;

    /// A rate above that of every test.
    pub(crate) fn refreshes() -> Arc<Refreshes> {
        Arc::new(Refreshes::new(
            NonZeroU32::new(1_000_000).unwrap(),
            Reached::default(),
            DefaultClock::default(),
        ))
    }

    fn twenty(clock: &FakeRelativeClock) -> Refreshes<FakeRelativeClock> {
        Refreshes::new(
            NonZeroU32::new(20).unwrap(),
            Reached::default(),
            clock.clone(),
        )
    }

    #[test]
    fn an_editor_that_refreshes_too_often_is_told_when_to_come_back_and_no_other_one_is() {
        let clock = FakeRelativeClock::default();
        let refreshes = twenty(&clock);
        let (id, other) = (SessionId::mint().unwrap(), SessionId::mint().unwrap());
        let (key, strange) = (device_key().thumbprint(), device_key().thumbprint());
        for _ in 0..20 {
            refreshes.count(&id, &key).unwrap();
        }

        let Err(Error::RefreshedTooOften { retry_after, .. }) = refreshes.count(&id, &key) else {
            panic!("granted")
        };

        assert_eq!(retry_after, Duration::from_secs(3));
        assert_eq!(
            refreshes.reached.times("VVS_SESSIONS_REFRESHES_PER_MINUTE"),
            1
        );

        refreshes.count(&other, &key).unwrap();
        refreshes.count(&id, &strange).unwrap();
        clock.advance(retry_after);
        refreshes.count(&id, &key).unwrap();
    }

    #[test]
    fn an_editor_that_has_been_quiet_is_forgotten() {
        let clock = FakeRelativeClock::default();
        let refreshes = twenty(&clock);
        refreshes
            .count(&SessionId::mint().unwrap(), &device_key().thumbprint())
            .unwrap();
        refreshes.forget_quiet();
        assert_eq!(refreshes.limiter.len(), 1);
        clock.advance(Duration::from_mins(1));
        refreshes.forget_quiet();
        assert_eq!(refreshes.limiter.len(), 0);
    }
}
