//! The process's metrics, in one registry that is passed to the code that counts. Each role defines
//! its own names, except those that every process has.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub use crate::counter::{Counters, count};
use crate::limit::Reached;

type Gauges = Family<[(&'static str, String); 1], Gauge>;

/// A handle to the registry of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    certificates: Gauges,
    /// WebSocket and TLS handshakes that were refused, by reason.
    pub handshakes_refused: Counters,
    /// Limits that were reached.
    pub reached: Reached,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::default())),
            certificates: Gauges::default(),
            handshakes_refused: Counters::default(),
            reached: Reached::default(),
        };
        metrics.register(
            "vvs_certificate_expiry_seconds",
            "When the certificate in use expires, seconds since 1970",
            metrics.certificates.clone(),
        );
        metrics.register(
            "vvs_handshakes_refused",
            "Handshakes refused, by reason",
            metrics.handshakes_refused.clone(),
        );
        let counters = metrics.reached.counters.clone();
        metrics.register(
            "vvs_limits_reached",
            "How often somebody came up against a limit, by its setting",
            counters,
        );

        #[cfg(target_os = "linux")]
        metrics.register(
            "process_resident_memory_bytes",
            "Memory of the process",
            crate::memory::Resident,
        );

        metrics
    }
}

impl Metrics {
    /// Adds a metric; counters are exported with `_total` after their name.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .register(name, help, metric);
    }

    /// Returns the gauge of one certificate's end.
    pub fn certificate_expiry(&self, name: &'static str) -> Gauge {
        self.certificates
            .get_or_create_owned(&[("certificate", name.to_owned())])
    }

    /// Returns all metrics in the text format that Prometheus scrapes.
    pub fn scrape(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            tracing::error!("metrics cannot be written as text");
        }
        text
    }
}
