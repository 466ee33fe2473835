//! How long to wait before the next try, and how the time differs for each caller.

use std::time::Duration;

/// The time within which an editor is asked to retry.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Returns how long to wait after `tried` failures: twice as long each time up to the maximum,
/// minus up to half at random, so that not all come back at the same moment.
pub(crate) fn backoff((first, most): (Duration, Duration), tried: u32) -> Duration {
    let longest = first.saturating_mul(1 << tried.min(16)).min(most);
    longest.saturating_sub(moment_within(longest / 2))
}

/// Returns when an editor should retry an unavailable call.
pub(crate) fn retry_after() -> Duration {
    RETRY.0 + moment_within(RETRY.1.saturating_sub(RETRY.0))
}

/// Returns a random moment within a time, so that not all act at the same moment.
pub(crate) fn moment_within(time: Duration) -> Duration {
    let fraction = vvs_auth::key::random::<4>().map_or(0, u32::from_be_bytes);
    time.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_to_its_limit_and_is_never_the_same_for_all() {
        let pause = (Duration::from_secs(1), Duration::from_secs(30));
        for (tried, longest) in [(0, 1), (1, 2), (4, 16), (5, 30), (60, 30), (u32::MAX, 30)] {
            let longest = Duration::from_secs(longest);
            let pauses: Vec<_> = (0..50).map(|_| backoff(pause, tried)).collect();
            assert!(
                pauses
                    .iter()
                    .all(|pause| (longest / 2..=longest).contains(pause)),
                "{tried}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
