//! How often each address may do something; addresses of shared networks may do it more often.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use vvs_runtime::forwarded::subscriber;
use vvs_runtime::share::Networks;

/// The greatest rate that the limiter's arithmetic allows.
pub(crate) const MOST_PER_MINUTE: u32 = 1_000_000;

/// Counts by address.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The factor of a shared network, and the limiter for its addresses.
    limiters: Vec<(u32, DefaultKeyedRateLimiter<IpAddr>)>,
}

impl Rate {
    /// Allows this many a minute, and as many in one burst.
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

    /// Counts one event of this address, or returns how long until the next one is allowed.
    pub(crate) fn check(&self, address: IpAddr, networks: &Networks) -> Result<(), Duration> {
        let times = networks.times(address);
        let Some((_, limiter)) = self.limiters.iter().find(|(known, _)| *known == times) else {
            return Ok(());
        };
        let checked = limiter.check_key(&subscriber(address));
        checked.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Deletes the counts of quiet addresses.
    pub(crate) fn forget_quiet(&self) {
        for (_, limiter) in &self.limiters {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}
