//! Counts the bytes that all holders keep together. It counts only data that the relay knows of.
//! The memory of the process also includes memory that its allocator keeps for later, so by that
//! measure a relay that was full once would stay full.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// Bytes that are kept, and how many there may be before new holders are refused.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    kept: Arc<AtomicUsize>,
    most: usize,
}

/// Bytes that a holder keeps until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    kept: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            kept: Arc::default(),
            most,
        }
    }

    /// Counts bytes that are kept in any event.
    pub(crate) fn keep(&self, bytes: usize) -> Share {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        Share {
            bytes,
            kept: self.kept.clone(),
        }
    }

    /// Counts bytes for a new holder; `None` when that is too much.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let share = self.keep(bytes);
        (self.kept() <= self.most).then_some(share)
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Sets the number of bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        // Most of the time it is as it was, and then nobody else's cache is disturbed.
        if bytes > self.bytes {
            self.kept.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.kept.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl EncodeMetric for Memory {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&i64::try_from(self.kept()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_new_gets_memory_when_it_is_full_and_what_is_given_back_is_free_again() {
        let memory = Memory::new(100);
        let mut first = memory.take(60).unwrap();
        assert!(memory.take(41).is_none());

        let second = memory.take(40).unwrap();

        // Existing holders may grow, at the cost of new ones.
        first.set(80);
        assert_eq!(memory.kept(), 120);

        drop(second);
        assert!(memory.take(21).is_none());

        first.set(10);
        assert_eq!(memory.kept(), 10);

        drop((memory.take(90).unwrap(), first));
        assert_eq!(memory.kept(), 0);
    }
}
