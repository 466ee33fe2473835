//! The only place where this role reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::browser::Millis;
use crate::session::Seconds;

/// Returns the current time.
pub(crate) fn clock() -> Seconds {
    clock_millis() / 1000
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this role reads the clock"
)]
pub(crate) fn clock_millis() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
