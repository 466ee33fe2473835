//! The metrics of this role. The exporter adds `_total` to each name.

use prometheus_client::metrics::counter::Counter;
use vvs_runtime::metrics::{Counters, Metrics, count};

use crate::Error;

#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) created: Counter,
    pub(crate) activated: Counter,
    pub(crate) refreshed: Counter,
    pub(crate) revoked: Counter,
    pub(crate) swept: Counter,
    pub(crate) feed_reads: Counter,
    pub(crate) proofs_refused: Counters,
    pub(crate) database_errors: Counters,
}

impl Counts {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(
            "vvs_sessions_created",
            "Sessions made, pending at first",
            counts.created.clone(),
        );
        metrics.register(
            "vvs_sessions_activated",
            "Sessions whose editor has its token",
            counts.activated.clone(),
        );
        metrics.register(
            "vvs_sessions_refreshed",
            "Fresh tokens for a proof of the device key",
            counts.refreshed.clone(),
        );
        metrics.register(
            "vvs_sessions_revoked",
            "Sessions ended by somebody",
            counts.revoked.clone(),
        );
        metrics.register(
            "vvs_sessions_swept",
            "Sessions that nobody activated in time",
            counts.swept.clone(),
        );
        let refused = counts.proofs_refused.clone();
        metrics.register(
            "vvs_sessions_proofs_refused",
            "Proofs that do not hold, by what is wrong",
            refused,
        );
        metrics.register(
            "vvs_sessions_feed_reads",
            "How often the feed of revocations was read for all who follow it",
            counts.feed_reads.clone(),
        );
        metrics.register(
            "vvs_database_errors",
            "What the database did not do, by kind of failure",
            counts.database_errors.clone(),
        );

        counts
    }

    /// Counts a failure of the database.
    pub(crate) fn failed(&self, error: &Error) {
        if let Error::Database { kind, .. } = error {
            count(&self.database_errors, "kind", *kind);
        }
    }
}
