//! The only source of randomness: secrets that nobody may guess, and pauses that no two editors
//! share.

use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;

use crate::error::Error;

/// 128 bits in base64url.
pub(crate) fn secret() -> Result<String, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_cause| Error::Crypto)?;
    Ok(BASE64URL.encode(bytes))
}

/// Returns a uniformly distributed time from `from` up to `to`.
pub(crate) fn between(from: Duration, to: Duration) -> Duration {
    let mut byte = [0; 2];
    // Without random numbers it is always the same pause, which only costs politeness.
    rand::fill(&mut byte).ok();
    from + to.saturating_sub(from) * u32::from(u16::from_be_bytes(byte)) / 65_536
}

/// Returns the pause before the next try. It doubles from try to try up to `most`, and is cut by up
/// to a half at random, so that editors do not all come back at the same moment.
pub(crate) fn back_off(tries: u32, most: Duration) -> Duration {
    let whole =
        (Duration::from_millis(500) * 2_u32.saturating_pow(tries.saturating_sub(1))).min(most);
    between(whole / 2, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_are_cut_by_at_most_a_half() {
        for (tries, whole) in [
            (0, 500),
            (1, 500),
            (2, 1000),
            (5, 8000),
            (6, 10_000),
            (99, 10_000),
        ] {
            for _ in 0..100 {
                let pause = back_off(tries, Duration::from_secs(10)).as_millis();
                assert!(pause >= whole / 2 && pause <= whole, "{tries}: {pause}");
            }
        }

        let pauses = [0; 20].map(|_| back_off(9, Duration::from_secs(10)));
        assert!(
            pauses.iter().any(|pause| *pause != pauses[0]),
            "all are equal"
        );
    }

    #[test]
    fn no_two_secrets_are_the_same() {
        assert_ne!(secret().unwrap(), secret().unwrap());
        assert_eq!(secret().unwrap().len(), 22);
    }
}
