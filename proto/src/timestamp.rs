//! Times of the contracts.

use prost_types::Timestamp;
use time::{Duration, OffsetDateTime};

/// A whole second since 1970.
pub fn seconds(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// A time to the nanosecond.
pub fn exact(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or_default(),
    }
}

/// Reads a time of a message, if it has one that we can count to.
pub fn read(timestamp: Option<Timestamp>) -> Option<OffsetDateTime> {
    let Timestamp { seconds, nanos } = timestamp?;
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .checked_add(Duration::nanoseconds(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_crosses_is_what_it_was() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_800_000_000_123_456_789).unwrap();
        assert_eq!(read(Some(exact(at))), Some(at));
        assert_eq!(
            read(Some(seconds(at.unix_timestamp()))),
            at.replace_nanosecond(0).ok()
        );

        assert_eq!(read(None), None);
        assert_eq!(read(Some(seconds(i64::MAX))), None);
    }
}
