//! Metrics. What is about one set is read from its newest snapshot when it is asked for, so that a set that ends
//! leaves no series behind.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use waypost_model::{Freshness, Scope, Snapshot};

use crate::discovery::Sets;

/// What is counted over all sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) resets: Counter,
    pub(crate) changes: Counter,
}

/// Gauges of every watched set.
pub(crate) struct SetsCollector {
    sets: Weak<Sets>,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "waypost_discovery_resets",
            "Times a set was read again since the history of etcd was gone",
            self.resets.clone(),
        );
        registry.register(
            "waypost_discovery_changes",
            "Instances that were added, updated or removed",
            self.changes.clone(),
        );
    }
}

// === impl SetsCollector ===

impl SetsCollector {
    pub(crate) fn new(sets: &Arc<Sets>) -> Self {
        Self { sets: Arc::downgrade(sets) }
    }
}

impl Collector for SetsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(sets) = self.sets.upgrade() else { return Ok(()) };
        let snapshots = sets.snapshots();
        let mut gauge = |name: &str, help: &str, value: fn(&Snapshot) -> f64| {
            if snapshots.is_empty() {
                return Ok(());
            }
            let mut family =
                encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
            for snapshot in &snapshots {
                let service = match snapshot.scope() {
                    Scope::Service(service) => service.as_str(),
                    Scope::Catalog => "*",
                };
                let labels = [("service", service)];
                ConstGauge::new(value(snapshot)).encode(family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        gauge("waypost_discovery_instances", "Instances in the newest snapshot", |snapshot| {
            as_f64(snapshot.len() as u64)
        })?;
        gauge(
            "waypost_discovery_staleness_seconds",
            "How long the newest snapshot has been stale",
            |snapshot| match snapshot.freshness() {
                Freshness::Live => 0.0,
                Freshness::Stale { since, .. } => {
                    SystemTime::now().duration_since(*since).map_or(0.0, |age| age.as_secs_f64())
                }
            },
        )?;
        gauge("waypost_discovery_skipped", "Values in etcd that do not decode", |snapshot| {
            as_f64(snapshot.skipped())
        })
    }
}

impl fmt::Debug for SetsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetsCollector").finish_non_exhaustive()
    }
}

/// Exact for any number of instances below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of keys are far below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
