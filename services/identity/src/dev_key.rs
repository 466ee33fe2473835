//! The key of a development installation: printed once at its start, asked of each browser once. It
//! protects the sign-in from clients that reach this machine's port from elsewhere without a sign
//! of it.

use std::fmt;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use secrecy::{ExposeSecret as _, SecretString};
use vvs_auth::key::{Keyring, base64url};
use vvs_runtime::limit::Reached;

use crate::error::Error;

/// The setting of the limit on guesses.
const SETTING: &str = "VVS_WEB_DEV_KEY_GUESSES_PER_MINUTE";

/// The key of a development installation.
pub struct DevKey {
    /// Made for this process, so that the comparison takes the same time for any guess.
    ring: Keyring,
    mark: Vec<u8>,
    guesses: DefaultDirectRateLimiter,
    reached: Reached,
}

impl fmt::Debug for DevKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevKey").finish_non_exhaustive()
    }
}

/// The result of a guess.
#[derive(Debug, PartialEq, Eq)]
pub enum Guess {
    Right,
    Wrong,
    TooMany,
}

impl DevKey {
    pub fn new(
        key: &SecretString,
        per_minute: NonZeroU32,
        reached: Reached,
    ) -> Result<Self, Error> {
        let ring = Keyring::parse(&Keyring::generate()?)?;
        let mark = ring.mac(&[key.expose_secret()]).to_vec();
        Ok(Self {
            ring,
            mark,
            guesses: RateLimiter::direct(Quota::per_minute(per_minute)),
            reached,
        })
    }

    /// Returns the mark that a browser stores once it has entered the key. Each start has a new
    /// mark, and asks again.
    pub fn mark(&self) -> String {
        base64url(&self.mark)
    }

    pub fn guess(&self, text: &str) -> Guess {
        if self.guesses.check().is_err() {
            self.reached.tell(SETTING);
            return Guess::TooMany;
        }
        if self.ring.check_mac(&[text.trim()], &self.mark) {
            Guess::Right
        } else {
            Guess::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(per_minute: u32) -> DevKey {
        DevKey::new(
            &"the-key".into(),
            NonZeroU32::new(per_minute).unwrap(),
            Reached::default(),
        )
        .unwrap()
    }

    #[test]
    fn a_key_fits_as_it_was_printed_and_in_no_other_way() {
        let key = key(100);
        assert_eq!(key.guess(" the-key\n"), Guess::Right);
        for wrong in ["", "the-ke", "the-key-", "THE-KEY", "the key"] {
            assert_eq!(key.guess(wrong), Guess::Wrong, "{wrong}");
        }
    }

    #[test]
    fn guesses_are_counted_and_the_right_one_comes_too_late() {
        let key = key(2);
        assert_eq!(
            [key.guess("a"), key.guess("b"), key.guess("the-key")],
            [Guess::Wrong, Guess::Wrong, Guess::TooMany]
        );
        assert_eq!(key.reached.times(SETTING), 1);
    }

    #[test]
    fn what_a_browser_keeps_is_good_for_one_start_only() {
        assert_ne!(key(1).mark(), key(1).mark());
        assert!(!key(1).mark().contains("the-key"));
    }
}
