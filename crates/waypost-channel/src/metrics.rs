//! What monitoring sees: counted in atomics, read when it asks.
//!
//! Endpoints come and go; a metric per endpoint that is kept would grow for ever. So the endpoints are read from the channel at
//! each scrape, and one that has left is gone from the next.

use crate::channel::Inner;
use crate::code;
use crate::meter::{self, CodeCounts, LatencyHistogram};
use crate::stats::{CallStats, ChannelStats, EndpointStats, EndpointStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The metrics of any number of channels, under one set of names.
///
/// Make one, [register](Self::register) it once, and give it to each
/// [`ChannelBuilder::metrics`](crate::ChannelBuilder::metrics). A channel that is gone is gone from the metrics, and so is an endpoint
/// that has left. Channels to the same service are added up: an endpoint that two of them are connected to counts twice among the
/// endpoints by state.
///
/// | name | labels | |
/// |---|---|---|
/// | `waypost_channel_calls_total` | `service`, `code` | calls that have ended, by gRPC status |
/// | `waypost_channel_call_seconds` | `service` | how long they took, with all their attempts: a histogram |
/// | `waypost_channel_retries_total` | `service`, `kind` | attempts beyond the first: `retry` after a failure, `hedge`, or `unprocessed` by the endpoint before |
/// | `waypost_channel_config_rejected_total` | `service` | service configs that were refused: the last good one stays |
/// | `waypost_channel_instances` | `service` | registered instances |
/// | `waypost_channel_endpoints` | `service`, `state` | endpoints by state |
/// | `waypost_channel_in_flight` | `service`, `endpoint` | attempts under way |
/// | `waypost_channel_picks_total` | `service`, `endpoint` | attempts that were sent there |
/// | `waypost_channel_endpoint_calls_total` | `service`, `endpoint` | attempts that have ended there |
/// | `waypost_channel_endpoint_failures_total` | `service`, `endpoint`, `code` | of those, the ones that ended otherwise than with `OK`, by gRPC status; `CANCELLED` are those that the caller, or another hedge, has ended |
/// | `waypost_channel_ejections_total` | `service`, `endpoint` | how often it was set aside because its calls went badly |
/// | `waypost_channel_endpoint_seconds` | `service`, `endpoint` | how long those took that an endpoint has ended: a histogram |
///
/// Those of endpoints are left out for a channel with more endpoints than the [limit](Self::with_endpoint_limit).
#[derive(Clone)]
pub struct ChannelMetrics {
    channels: Arc<Mutex<Vec<Weak<Inner>>>>,
    most_endpoints: Arc<AtomicUsize>,
}

type Labels = Vec<(&'static str, String)>;

enum Value {
    Number(u64),
    Latency(LatencyHistogram),
}

type Point = (Labels, Value);

struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    points: fn(&Sample) -> Vec<Point>,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "waypost_channel_calls",
        help: "Calls that have ended, by gRPC status",
        kind: MetricType::Counter,
        points: |sample| codes(&[], &sample.calls.codes),
    },
    Family {
        name: "waypost_channel_call_seconds",
        help: "How long calls took, with all their attempts",
        kind: MetricType::Histogram,
        points: |sample| vec![(Vec::new(), Value::Latency(sample.calls.latency))],
    },
    Family {
        name: "waypost_channel_retries",
        help: "Attempts beyond the first",
        kind: MetricType::Counter,
        points: Sample::retries,
    },
    Family {
        name: "waypost_channel_config_rejected",
        help: "Service configs that were refused",
        kind: MetricType::Counter,
        points: |sample| vec![(Vec::new(), Value::Number(sample.calls.rejected_configs))],
    },
    Family {
        name: "waypost_channel_instances",
        help: "Registered instances",
        kind: MetricType::Gauge,
        points: |sample| vec![(Vec::new(), Value::Number(sample.registered as u64))],
    },
    Family {
        name: "waypost_channel_endpoints",
        help: "Endpoints by state",
        kind: MetricType::Gauge,
        points: Sample::states,
    },
    Family {
        name: "waypost_channel_in_flight",
        help: "Attempts under way",
        kind: MetricType::Gauge,
        points: |sample| sample.by_endpoint(|stats| u64::from(stats.in_flight)),
    },
    Family {
        name: "waypost_channel_picks",
        help: "Attempts that were sent to an endpoint",
        kind: MetricType::Counter,
        points: |sample| sample.by_endpoint(|stats| stats.picks),
    },
    Family {
        name: "waypost_channel_endpoint_calls",
        help: "Attempts that have ended at an endpoint",
        kind: MetricType::Counter,
        points: |sample| sample.by_endpoint(|stats| stats.calls),
    },
    Family {
        name: "waypost_channel_endpoint_failures",
        help: "Attempts that have ended at an endpoint otherwise than with OK, by gRPC status",
        kind: MetricType::Counter,
        points: Sample::failures,
    },
    Family {
        name: "waypost_channel_ejections",
        help: "How often an endpoint was set aside because its calls went badly",
        kind: MetricType::Counter,
        points: |sample| sample.by_endpoint(|stats| stats.ejections),
    },
    Family {
        name: "waypost_channel_endpoint_seconds",
        help: "How long attempts took that an endpoint has ended",
        kind: MetricType::Histogram,
        points: Sample::latencies,
    },
];

const MOST_ENDPOINTS: usize = 1000;

/// The channels to one service at the time of the scrape.
struct Sample {
    service: String,
    calls: CallStats,
    registered: usize,
    endpoints: Vec<EndpointStats>,
    /// By address, those of channels that are not too large to show them. An address that has left and come back may still finish calls of
    /// its first life, and several channels may be connected to it: it is shown once, and what was counted there is added up.
    shown: BTreeMap<String, Vec<usize>>,
}

// === impl ChannelMetrics ===

impl Default for ChannelMetrics {
    fn default() -> Self {
        Self { channels: Arc::default(), most_endpoints: Arc::new(AtomicUsize::new(MOST_ENDPOINTS)) }
    }
}

impl ChannelMetrics {
    /// Of no channel yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows no metrics of single endpoints for channels with more than so many: 1,000 by default. An endpoint has about 20 series.
    pub fn with_endpoint_limit(self, endpoints: usize) -> Self {
        self.most_endpoints.store(endpoints, Ordering::Relaxed);
        self
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
        let most = self.most_endpoints.load(Ordering::Relaxed);
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
        for channel in channels.iter().filter_map(Weak::upgrade) {
            let sample = Sample::of(&channel, most);
            let sample = match samples.remove(&sample.service) {
                Some(others) => others.plus(sample),
                None => sample,
            };
            samples.insert(sample.service.clone(), sample);
        }
        samples.into_values().collect()
    }
}

impl Collector for ChannelMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.samples();
        for Family { name, help, kind, points } in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for sample in &samples {
                for (labels, value) in points(sample) {
                    let service = ("service", sample.service.clone());
                    let labels: Labels = std::iter::once(service).chain(labels).collect();
                    value.encode(*kind, family.encode_family(&labels)?)?;
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

// === impl Value ===

impl Value {
    fn encode(self, kind: MetricType, mut point: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Number(number) if matches!(kind, MetricType::Counter) => {
                ConstCounter::new(number).encode(point)
            }
            Self::Number(number) => ConstGauge::new(number).encode(point),
            Self::Latency(latency) => {
                let bound =
                    |bound: Option<std::time::Duration>| bound.map_or(f64::MAX, |bound| bound.as_secs_f64());
                let buckets: Vec<_> = latency.buckets().map(|(at, count)| (bound(at), count)).collect();
                let (sum, count) = (latency.sum().as_secs_f64(), latency.count());
                point.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            }
        }
    }
}

// === impl Sample ===

impl Sample {
    fn of(channel: &Inner, most_endpoints: usize) -> Self {
        let ChannelStats { registered, endpoints, .. } = channel.pool.stats();
        let mut shown: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        if endpoints.len() <= most_endpoints {
            for (index, endpoint) in endpoints.iter().enumerate() {
                shown.entry(endpoint.endpoint.to_string()).or_default().push(index);
            }
        }
        let service = channel.shared.service().to_owned();
        Self { service, calls: channel.call_stats(), registered, endpoints, shown }
    }

    /// Of these channels, and of one more to the same service.
    fn plus(mut self, other: Self) -> Self {
        let before = self.endpoints.len();
        self.endpoints.extend(other.endpoints);
        for (at, lives) in other.shown {
            self.shown.entry(at).or_default().extend(lives.into_iter().map(|index| before + index));
        }
        // Both see the same registry, perhaps not at the same time.
        let registered = self.registered.max(other.registered);
        Self { calls: self.calls.plus(other.calls), registered, ..self }
    }

    fn retries(&self) -> Vec<Point> {
        let CallStats { retries, hedges, unprocessed, .. } = &self.calls;
        let kinds = [("retry", retries), ("hedge", hedges), ("unprocessed", unprocessed)];
        kinds.map(|(kind, count)| (vec![("kind", kind.to_owned())], Value::Number(*count))).into()
    }

    fn states(&self) -> Vec<Point> {
        let count = |state| self.endpoints.iter().filter(|endpoint| endpoint.state == state).count();
        let point = |state: EndpointStatus| {
            (vec![("state", state.as_str().to_owned())], Value::Number(count(state) as u64))
        };
        EndpointStatus::ALL.map(point).into()
    }

    /// Each address with the endpoints that it has been.
    fn lives(&self) -> impl Iterator<Item = (Labels, impl Iterator<Item = &EndpointStats>)> {
        self.shown.iter().map(|(at, lives)| {
            let lives = lives.iter().filter_map(|index| self.endpoints.get(*index));
            (vec![("endpoint", at.clone())], lives)
        })
    }

    fn by_endpoint(&self, value: fn(&EndpointStats) -> u64) -> Vec<Point> {
        self.lives().map(|(labels, lives)| (labels, Value::Number(lives.map(value).sum()))).collect()
    }

    fn failures(&self) -> Vec<Point> {
        let failures = self.lives().flat_map(|(labels, lives)| {
            let failed = lives.flat_map(|stats| &stats.codes).filter(|(code, _)| *code != tonic::Code::Ok);
            codes(&labels, &meter::sum(failed.copied()))
        });
        failures.collect()
    }

    fn latencies(&self) -> Vec<Point> {
        let sum = |lives: &mut dyn Iterator<Item = &EndpointStats>| {
            lives.fold(LatencyHistogram::default(), |sum, stats| sum.plus(&stats.latency))
        };
        self.lives().map(|(labels, mut lives)| (labels, Value::Latency(sum(&mut lives)))).collect()
    }
}

/// A point for each code.
fn codes(labels: &[(&'static str, String)], counts: &CodeCounts) -> Vec<Point> {
    let point = |(code, count): &(tonic::Code, u64)| {
        let code = ("code", code::name(*code).to_owned());
        (labels.iter().cloned().chain([code]).collect(), Value::Number(*count))
    };
    counts.iter().map(point).collect()
}
