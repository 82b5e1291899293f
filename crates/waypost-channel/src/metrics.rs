//! What monitoring sees: counted in atomics, read when it asks.
//!
//! Endpoints come and go; a metric per endpoint that is kept would grow for ever. So the endpoints are read from the channel at
//! each scrape, and one that has left is gone from the next.

use crate::channel::Inner;
use crate::code::{CODE_NAMES, CODES, index};
use crate::stats::{ChannelStats, EndpointStats, EndpointStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tonic::Code;

/// The metrics of any number of channels, under one set of names.
///
/// Make one, [register](Self::register) it once, and give it to each
/// [`ChannelBuilder::metrics`](crate::ChannelBuilder::metrics). A channel that is gone is gone from the metrics.
///
/// | name | labels | |
/// |---|---|---|
/// | `waypost_channel_calls_total` | `service`, `code` | calls that have ended, by gRPC status |
/// | `waypost_channel_retries_total` | `service`, `kind` | attempts beyond the first: `retry` after a failure, `hedge`, or `unprocessed` by the endpoint before |
/// | `waypost_channel_config_rejected_total` | `service` | service configs that were refused: the last good one stays |
/// | `waypost_channel_instances` | `service` | registered instances |
/// | `waypost_channel_endpoints` | `service`, `state` | endpoints by state |
/// | `waypost_channel_in_flight` | `service`, `endpoint` | calls under way |
/// | `waypost_channel_endpoint_calls_total` | `service`, `endpoint` | calls that have ended there |
/// | `waypost_channel_endpoint_failures_total` | `service`, `endpoint` | of those, the ones that the endpoint failed |
#[derive(Clone, Default)]
pub struct ChannelMetrics {
    channels: Arc<Mutex<Vec<Weak<Inner>>>>,
}

/// What a channel counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By gRPC code.
    codes: [AtomicU64; CODES],
    retried: AtomicU64,
    sent_elsewhere: AtomicU64,
    hedged: AtomicU64,
    rejected_configs: AtomicU64,
}

/// A label besides the service, and a value.
type Point = (Option<(&'static str, String)>, u64);

struct Family {
    name: &'static str,
    help: &'static str,
    counter: bool,
    points: fn(&Sample) -> Vec<Point>,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "waypost_channel_calls",
        help: "Calls that have ended, by gRPC status",
        counter: true,
        points: Sample::calls,
    },
    Family {
        name: "waypost_channel_retries",
        help: "Attempts beyond the first",
        counter: true,
        points: Sample::retries,
    },
    Family {
        name: "waypost_channel_config_rejected",
        help: "Service configs that were refused",
        counter: true,
        points: |sample| vec![(None, sample.rejected_configs)],
    },
    Family {
        name: "waypost_channel_instances",
        help: "Registered instances",
        counter: false,
        points: Sample::instances,
    },
    Family {
        name: "waypost_channel_endpoints",
        help: "Endpoints by state",
        counter: false,
        points: Sample::states,
    },
    Family {
        name: "waypost_channel_in_flight",
        help: "Calls under way",
        counter: false,
        points: |sample| sample.by_endpoint(|stats| u64::from(stats.in_flight)),
    },
    Family {
        name: "waypost_channel_endpoint_calls",
        help: "Calls that have ended at an endpoint",
        counter: true,
        points: |sample| sample.by_endpoint(|stats| stats.calls),
    },
    Family {
        name: "waypost_channel_endpoint_failures",
        help: "Calls that an endpoint failed",
        counter: true,
        points: |sample| sample.by_endpoint(|stats| stats.failures),
    },
];

/// One channel at the time of the scrape.
struct Sample {
    service: String,
    codes: [u64; CODES],
    retried: u64,
    sent_elsewhere: u64,
    hedged: u64,
    rejected_configs: u64,
    stats: ChannelStats,
}

// === impl Counters ===

impl Counters {
    /// A call has ended for its caller.
    pub(crate) fn ended(&self, code: Code) {
        self.codes[index(code)].fetch_add(1, Ordering::Relaxed);
    }

    /// A call is tried again after a failure.
    pub(crate) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// A call goes to a further endpoint while it has no answer.
    pub(crate) fn hedged(&self) {
        self.hedged.fetch_add(1, Ordering::Relaxed);
    }

    /// A service config was refused.
    pub(crate) fn config_rejected(&self) {
        self.rejected_configs.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that was not processed goes to another endpoint.
    pub(crate) fn sent_elsewhere(&self) {
        self.sent_elsewhere.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl ChannelMetrics ===

impl ChannelMetrics {
    /// Of no channel yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the metrics to `registry`. Once: a registry has no use for the same names twice.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    pub(crate) fn add(&self, channel: &Arc<Inner>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|channel| channel.strong_count() > 0);
        channels.push(Arc::downgrade(channel));
    }

    fn samples(&self) -> Vec<Sample> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        channels.iter().filter_map(Weak::upgrade).map(|channel| Sample::of(&channel)).collect()
    }
}

impl Collector for ChannelMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.samples();
        for Family { name, help, counter, points } in FAMILIES {
            let kind = if *counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for sample in &samples {
                for (label, value) in points(sample) {
                    let service = ("service", sample.service.clone());
                    let labels: Vec<_> = std::iter::once(service).chain(label).collect();
                    let point = family.encode_family(&labels)?;
                    if *counter {
                        ConstCounter::new(value).encode(point)?;
                    } else {
                        ConstGauge::new(value).encode(point)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ChannelMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelMetrics").finish_non_exhaustive()
    }
}

// === impl Sample ===

impl Sample {
    fn of(channel: &Inner) -> Self {
        let counters = &channel.shared.counters;
        Self {
            service: channel.shared.service().to_owned(),
            codes: std::array::from_fn(|code| counters.codes[code].load(Ordering::Relaxed)),
            retried: counters.retried.load(Ordering::Relaxed),
            sent_elsewhere: counters.sent_elsewhere.load(Ordering::Relaxed),
            hedged: counters.hedged.load(Ordering::Relaxed),
            rejected_configs: counters.rejected_configs.load(Ordering::Relaxed),
            stats: channel.pool.stats(),
        }
    }

    fn calls(&self) -> Vec<Point> {
        let codes = CODE_NAMES.iter().zip(self.codes);
        codes.filter(|(_, count)| *count > 0).map(|(name, count)| point("code", *name, count)).collect()
    }

    fn retries(&self) -> Vec<Point> {
        let kinds = [("retry", self.retried), ("hedge", self.hedged), ("unprocessed", self.sent_elsewhere)];
        kinds.map(|(kind, count)| point("kind", kind, count)).into()
    }

    fn instances(&self) -> Vec<Point> {
        vec![(None, self.stats.registered as u64)]
    }

    fn states(&self) -> Vec<Point> {
        let count = |state| self.stats.endpoints.iter().filter(|endpoint| endpoint.state == state).count();
        EndpointStatus::ALL.map(|state| point("state", state.as_str(), count(state) as u64)).into()
    }

    fn by_endpoint(&self, value: fn(&EndpointStats) -> u64) -> Vec<Point> {
        let endpoints = self.stats.endpoints.iter();
        // An address that has left and come back may still finish calls of its first life: it is shown once.
        let mut points: Vec<(String, u64)> =
            endpoints.map(|stats| (stats.endpoint.to_string(), value(stats))).collect();
        points.sort();
        points.dedup_by(|(later, more), (first, sum)| {
            let same = later == first;
            *sum += if same { *more } else { 0 };
            same
        });
        points.into_iter().map(|(at, value)| point("endpoint", at, value)).collect()
    }
}

fn point(label: &'static str, of: impl Into<String>, value: u64) -> Point {
    (Some((label, of.into())), value)
}
