//! The processes behind the edge, as the metrics show them. Which of them gets a request is decided elsewhere.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use vvs_auth::peer::Role;
use vvs_runtime::pool::Pool;

/// A gauge for each member of each role. Members come and go, so they are read when somebody asks.
#[derive(Debug)]
pub(crate) struct Members(pub(crate) [(Role, Pool<()>); 2]);

impl EncodeMetric for Members {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (role, pool) in &self.0 {
            for member in pool.sights() {
                let labels = [("role", role.as_str().to_owned()), ("address", member.address.to_string())];
                encoder.encode_family(&labels)?.encode_gauge(&i64::from(member.is_up))?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
