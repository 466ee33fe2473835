//! How often each address may do something; those of shared networks more often.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use vvs_runtime::forwarded::subscriber;
use vvs_runtime::share::Networks;

/// Beyond this the limiter's arithmetic ends.
pub(crate) const MOST_PER_MINUTE: u32 = 1_000_000;

/// Counts by address.
#[derive(Debug)]
pub(crate) struct Rate {
    /// By how many times as often its addresses may.
    limiters: Vec<(u32, DefaultKeyedRateLimiter<IpAddr>)>,
}

impl Rate {
    /// As many a minute, and as many at once.
    pub(crate) fn new(per_minute: NonZeroU32, networks: &Networks) -> Self {
        let mut times: Vec<_> = networks
            .shared
            .iter()
            .map(|shared| shared.times)
            .chain([1])
            .collect();
        times.sort_unstable();
        times.dedup();
        let limiter = |times: u32| {
            let per_minute = per_minute
                .get()
                .saturating_mul(times)
                .min(MOST_PER_MINUTE.max(per_minute.get()));
            let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
            (times, RateLimiter::keyed(quota))
        };

        Self {
            limiters: times.into_iter().map(limiter).collect(),
        }
    }

    /// Counts one of this address, or says how long it is until there is one.
    pub(crate) fn check(&self, address: IpAddr, networks: &Networks) -> Result<(), Duration> {
        let times = networks.times(address);
        let Some((_, limiter)) = self.limiters.iter().find(|(known, _)| *known == times) else {
            return Ok(());
        };
        let checked = limiter.check_key(&subscriber(address));
        checked.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets the counts of addresses that have been quiet.
    pub(crate) fn forget_quiet(&self) {
        for (_, limiter) in &self.limiters {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}
