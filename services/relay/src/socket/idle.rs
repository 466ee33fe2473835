//! How long a socket that came for a session may be without one. This module does not know what the
//! socket does meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// How many times the sign-in time a socket has, when it is told to retry.
const TIMES: u32 = 12;

/// How long a socket may be open without a purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    until: Instant,
    /// The limit, however often it is told to retry.
    at_most: Instant,
}

impl Idle {
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        Self {
            until: now + time,
            at_most: now + time * TIMES,
        }
    }

    pub(super) fn until(self) -> Instant {
        self.until
    }

    /// Returns whether that gave it more time.
    pub(super) fn extend(&mut self, until: Instant) -> bool {
        let before = self.until;
        self.until = before.max(until.min(self.at_most));
        self.until > before
    }
}
