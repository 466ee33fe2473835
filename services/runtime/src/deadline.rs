//! The time that a caller gives a call.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Returns the time that the caller allows for this call (gRPC over HTTP/2, "Timeout"); `None` when
/// it set no time, or an unreadable one.
pub fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    time(metadata.get("grpc-timeout")?.to_str().ok()?)
}

pub(crate) fn time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }

    let amount: u64 = digits.parse().ok()?;

    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit_of_the_specification() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        for bad in ["", "S", "123456789S", "-1S", "5x", "5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
