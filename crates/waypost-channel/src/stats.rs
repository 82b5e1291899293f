//! What a channel can say of itself at one instant.

use crate::fleet::{Census, EndpointReport, LinkPhase};
use crate::meter::{self, CodeCounts, LatencyHistogram, Meter};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use waypost_model::{Endpoint, InstanceKey};

/// The state of a channel at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Instances in the registry, whatever their status.
    pub registered: usize,
    /// Of those, the ones that are draining.
    pub draining: usize,
    /// Of those, the ones that are down.
    pub down: usize,
    /// Instances that are up and that the channel cannot speak to, with the reason: no TLS configuration, another protocol.
    pub unusable: Vec<(InstanceKey, Arc<str>)>,
    /// Every endpoint, in the order of address; then those that have left and still finish calls.
    pub endpoints: Vec<EndpointStats>,
}

/// The state of one endpoint at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// The instance that is registered there.
    pub key: InstanceKey,
    /// The address.
    pub endpoint: Endpoint,
    /// What the channel does with it.
    pub state: EndpointStatus,
    /// Calls under way, streams included.
    pub in_flight: u32,
    /// Calls that have ended there.
    pub calls: u64,
    /// Of those, the ones that failed through the endpoint's fault: a lost connection or a reset, `UNAVAILABLE`, `INTERNAL`,
    /// `DATA_LOSS`, `DEADLINE_EXCEEDED`.
    pub failures: u64,
    /// How often it was set aside because its calls went badly.
    pub ejections: u64,
    /// Why it is set aside now, and for how long: `5 failures in a row, for 30s`.
    pub ejection: Option<Arc<str>>,
    /// Attempts of calls that were sent there. Zero in a [`Pool`](crate::Pool), which does not look into calls, as the next two are.
    pub picks: u64,
    /// Attempts that have ended there, by status; `CANCELLED` are those that the caller, or another hedge, has ended.
    pub codes: CodeCounts,
    /// How long those took that the endpoint has ended.
    pub latency: LatencyHistogram,
    /// Why the last attempt to connect failed, or why the last connection was closed.
    pub last_error: Option<Arc<str>>,
}

/// The calls of a channel since it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallStats {
    /// Calls that have ended, by the status that their callers got; `CANCELLED` are those that the caller has ended.
    pub codes: CodeCounts,
    /// How long they took, with all their attempts.
    pub latency: LatencyHistogram,
    /// Attempts that followed a failure.
    pub retries: u64,
    /// Attempts that were sent while others were under way.
    pub hedges: u64,
    /// Attempts that followed one which was certainly not processed.
    pub unprocessed: u64,
    /// Service configs that were refused.
    pub rejected_configs: u64,
}

/// What a channel does with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointStatus {
    /// It is not connected to: it is not one of the channel's subset, or no call has wanted it yet.
    Idle,
    /// A connection is being made.
    Connecting,
    /// It takes calls.
    Ready,
    /// It is connected, and set aside because its calls went badly.
    Ejected,
    /// It is connected, and does not serve: see [`ChannelBuilder::health_check`](crate::ChannelBuilder::health_check).
    Unhealthy,
    /// It could not be connected to; the next attempt waits for its time.
    Waiting,
    /// It has left, and finishes the calls that it has.
    Leaving,
}

// === impl ChannelStats ===

impl ChannelStats {
    pub(crate) fn of(census: &Census) -> Self {
        Self {
            registered: census.registered,
            draining: census.draining,
            down: census.down,
            unusable: census.unusable.iter().map(|(key, reason)| (key.clone(), Arc::clone(reason))).collect(),
            endpoints: census.endpoints().map(EndpointStats::of).collect(),
        }
    }

    /// How many endpoints take calls.
    pub fn ready(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.state == EndpointStatus::Ready).count()
    }

    /// Calls under way, over all endpoints.
    pub fn in_flight(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| u64::from(endpoint.in_flight)).sum()
    }
}

// === impl EndpointStats ===

impl EndpointStats {
    fn of(report: &EndpointReport) -> Self {
        let state = match report.phase {
            LinkPhase::Ready if report.is_ejected() => EndpointStatus::Ejected,
            LinkPhase::Ready => EndpointStatus::Ready,
            LinkPhase::Idle => EndpointStatus::Idle,
            LinkPhase::Connecting => EndpointStatus::Connecting,
            LinkPhase::Unfit => EndpointStatus::Unhealthy,
            LinkPhase::Waiting => EndpointStatus::Waiting,
            LinkPhase::Leaving => EndpointStatus::Leaving,
        };
        let meter = report.state.annexed::<Meter>();
        Self {
            key: report.state.key(),
            endpoint: report.state.endpoint().clone(),
            state,
            in_flight: report.state.in_flight(),
            calls: report.state.calls(),
            failures: report.state.failures(),
            ejections: report.ejections,
            ejection: report.ejection.clone(),
            picks: meter.map_or(0, |meter| meter.picks.load(Ordering::Relaxed)),
            codes: meter.map(|meter| meter.codes.counts()).unwrap_or_default(),
            latency: meter.map(|meter| meter.latency.read()).unwrap_or_default(),
            last_error: report.error.clone(),
        }
    }
}

// === impl CallStats ===

impl CallStats {
    /// Of this channel and another.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            codes: meter::sum(self.codes.into_iter().chain(other.codes)),
            latency: self.latency.plus(&other.latency),
            retries: self.retries + other.retries,
            hedges: self.hedges + other.hedges,
            unprocessed: self.unprocessed + other.unprocessed,
            rejected_configs: self.rejected_configs + other.rejected_configs,
        }
    }
}

// === impl EndpointStatus ===

impl EndpointStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Connecting,
        Self::Ready,
        Self::Ejected,
        Self::Unhealthy,
        Self::Waiting,
        Self::Leaving,
    ];

    /// In lower case, as metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Waiting => "waiting",
            Self::Leaving => "leaving",
        }
    }
}

impl fmt::Display for EndpointStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
