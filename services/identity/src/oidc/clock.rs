//! The time during a request.

use time::OffsetDateTime;
use tokio::time::Instant;

/// The time during a request: a token that a slow provider has just made is not from the future.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    began_at: OffsetDateTime,
    began: Instant,
}

impl Clock {
    pub(super) fn new(now: OffsetDateTime) -> Self {
        Self {
            began_at: now,
            began: Instant::now(),
        }
    }

    /// Seconds since 1970.
    pub(super) fn now(self) -> i64 {
        (self.began_at + self.began.elapsed()).unix_timestamp()
    }
}
