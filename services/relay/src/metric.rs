//! The metrics of the relay.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use vvs_runtime::metrics::{Counters, Metrics};

/// The relay's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) connections: Gauge,
    pub(crate) logins: Counters,
    pub(crate) logins_given_up: Counter,
    pub(crate) closes: Counters,
    pub(crate) handshakes_refused: Counters,
    pub(crate) deliveries: Counters,
    pub(crate) delivery_seconds: Histogram,
}

impl Counts {
    pub(crate) fn register(registry: &Metrics) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            logins: Counters::default(),
            logins_given_up: Counter::default(),
            closes: Counters::default(),
            handshakes_refused: registry.handshakes_refused.clone(),
            deliveries: Counters::default(),
            delivery_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        registry.register(
            "vvs_connections",
            "WebSockets held now",
            metrics.connections.clone(),
        );
        registry.register(
            "vvs_logins",
            "Logins that came to a state",
            metrics.logins.clone(),
        );
        let given_up = metrics.logins_given_up.clone();
        registry.register(
            "vvs_logins_given_up",
            "Logins forgotten because too many had lost their socket",
            given_up,
        );
        registry.register(
            "vvs_closes",
            "WebSockets closed, by code",
            metrics.closes.clone(),
        );
        registry.register(
            "vvs_deliveries",
            "DeliverAuth calls, by status code",
            metrics.deliveries.clone(),
        );
        let seconds = metrics.delivery_seconds.clone();
        registry.register(
            "vvs_delivery_seconds",
            "DeliverAuth from call to answer",
            seconds,
        );

        metrics
    }
}
