//! Counters with one label.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// A counter with one label.
pub type Counters = Family<[(&'static str, String); 1], Counter>;

/// Adds one to the counter of this label.
pub fn count(counters: &Counters, label: &'static str, value: impl Into<String>) {
    counters.get_or_create(&[(label, value.into())]).inc();
}
