//! How long a socket that came for a session may be without one. It does not know what the socket
//! does meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// How many times the time for signing in a socket has, when it is told to try again.
const TIMES: u32 = 12;

/// For how long a socket may be there for nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    until: Instant,
    /// However often it is told to try again.
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

    /// Whether that gave it more time.
    pub(super) fn extend(&mut self, until: Instant) -> bool {
        let before = self.until;
        self.until = before.max(until.min(self.at_most));
        self.until > before
    }
}
