//! How much one editor and one person may ask of this role: the settings, and how often each
//! session is refreshed.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use vvs_auth::device::Thumbprint;
use vvs_runtime::limit::Reached;

use crate::Error;
use crate::id::SessionId;
use crate::session::{DAY, Seconds};

/// For how long a session was not refreshed that gives way to a new one.
pub(crate) const SILENCE: Seconds = 7 * DAY;
/// The longest time between two refreshes that are written down.
const MAX_INTERVAL: Duration = Duration::from_mins(10);
/// Editors whose refreshes are counted at once; a few bytes each.
const MAX_COUNTED: usize = 100_000;

/// The settings of limits.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// How long after a refresh a session's next ones change nothing and write nothing down: their
    /// tokens end when the first one's does; half the life of a token at most; 0s switches it off
    #[arg(
        id = "sessions-refresh-interval",
        long,
        env = "VVS_SESSIONS_REFRESH_INTERVAL",
        default_value = "30s",
        value_parser = interval
    )]
    pub refresh_interval: Duration,
    /// Refreshes of one session each minute, for each process of this role; further ones get
    /// `REFRESHED_TOO_OFTEN`
    #[arg(
        id = "sessions-refreshes-per-minute",
        long,
        env = "VVS_SESSIONS_REFRESHES_PER_MINUTE",
        default_value = "20",
        value_parser = rate
    )]
    pub refreshes_per_minute: NonZeroU32,
    /// Rows that one person adds to the audit log within a day; further ones are only in this
    /// role's own log. What belongs to nobody counts as one person's
    #[arg(
        id = "sessions-audits-per-day",
        long,
        env = "VVS_SESSIONS_AUDITS_PER_DAY",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub audits_per_day: u32,
    /// Sessions of one user that are live or wait for their editor. Beyond it one that was not
    /// refreshed for 7 days gives way to a new one; if all were, the new one gets
    /// `SESSIONS_FULL`. 0 switches it off
    #[arg(
        id = "sessions-max-per-user",
        long,
        env = "VVS_SESSIONS_MAX_PER_USER",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=1000)
    )]
    pub max_per_user: u32,
    /// Sessions of one user that wait for their editor; the next one gets `PENDING_FULL`
    #[arg(
        id = "sessions-max-pending-per-user",
        long,
        env = "VVS_SESSIONS_MAX_PENDING_PER_USER",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub max_pending_per_user: u32,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    if interval <= MAX_INTERVAL {
        Ok(interval)
    } else {
        Err("must be from 0s to 10m".to_owned())
    }
}

/// Beyond a million the limiter's arithmetic ends.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "must be from 1 to 1000000".to_owned())
}

type Editor = (SessionId, Thumbprint);

/// How often each session is refreshed with a key, as far as this process sees it.
#[derive(Debug)]
pub(crate) struct Refreshes<C: Clock = DefaultClock> {
    limiter: RateLimiter<Editor, DashMapStateStore<Editor>, C, NoOpMiddleware<C::Instant>>,
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
    /// Whoever makes up so many keys that there is no room costs more by that than by refreshing.
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

    /// Forgets those that have been quiet; call now and then.
    pub(crate) fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::store::tests::device_key;

    /// More than any test makes.
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
