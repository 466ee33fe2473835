//! How much memory the process uses, read at each scrape.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// A gauge under the name that Prometheus' own libraries use.
#[derive(Debug)]
pub(crate) struct Resident;

impl EncodeMetric for Resident {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        encoder.encode_gauge(&resident(&status).unwrap_or_default())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Returns `VmRSS` of proc(5) in bytes.
fn resident(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<i64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            resident("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  5124 kB\n"),
            Some(5124 * 1024)
        );
        assert_eq!(resident("VmRSS:\t"), None);
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(resident(&own).unwrap() > 1024 * 1024);
    }
}
