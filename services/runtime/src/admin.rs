//! The administration port: liveness, readiness, metrics. Plain HTTP, because what asks is a kubelet or a scraper; it
//! tells nothing secret and changes nothing.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Whether a part of the process can serve. A part is not ready until it says so.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<bool>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }

    pub fn get(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the part is ready.
    pub async fn wait(&self) {
        // Fails only without a sender, and we hold one.
        self.0.subscribe().wait_for(|ready| *ready).await.ok();
    }
}

/// `/livez`, `/readyz` (503 until every part is ready) and `/metrics`.
pub fn router(parts: Vec<(&'static str, Readiness)>, metrics: Metrics) -> Router {
    let readyz = move || {
        let waiting: Vec<_> = parts.iter().filter(|(_, part)| !part.get()).map(|(name, _)| *name).collect();
        async move {
            if waiting.is_empty() {
                return (StatusCode::OK, "ready\n".to_owned());
            }
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", waiting.join(", ")))
        }
    };
    let scrape = move || async move {
        ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.scrape())
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
}
