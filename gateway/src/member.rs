//! Metrics of the processes behind the edge. Another module decides which of them gets a request.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use vvs_auth::peer::Role;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::pool::{Pool, Sight};

/// A gauge for each member of each role. Members come and go, so the gauge reads them at each
/// scrape.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    pub(crate) pools: [(Role, Pool<()>); 2],
    pub(crate) value: fn(&Sight) -> usize,
}

impl EncodeMetric for Gauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (role, pool) in &self.pools {
            for member in pool.sights() {
                let labels = [
                    ("role", role.as_str().to_owned()),
                    ("address", member.address.to_string()),
                ];
                let value = i64::try_from((self.value)(&member)).unwrap_or(i64::MAX);
                encoder.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Adds the gauges of these members.
pub(crate) fn register(metrics: &Metrics, pools: [(Role, Pool<()>); 2]) {
    let up = Gauge {
        pools,
        value: |member| usize::from(member.is_up),
    };
    let in_flight = Gauge {
        value: |member| member.in_flight,
        ..up.clone()
    };
    let help = "Whether a process behind the edge can serve, as far as is known: 1 or 0";
    metrics.register("vvs_gateway_member_up", help, up);
    let help = "Requests and WebSockets under way at a process behind the edge";
    metrics.register("vvs_gateway_member_in_flight", help, in_flight);
}
