//! What a channel can say of itself at one instant.

use crate::fleet::{Census, EndpointReport, LinkPhase};
use std::fmt;
use std::sync::Arc;
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
    /// Why the last attempt to connect failed, or why the last connection was closed.
    pub last_error: Option<Arc<str>>,
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
            LinkPhase::Waiting => EndpointStatus::Waiting,
            LinkPhase::Leaving => EndpointStatus::Leaving,
        };
        Self {
            key: report.state.key(),
            endpoint: report.state.endpoint().clone(),
            state,
            in_flight: report.state.in_flight(),
            calls: report.state.calls(),
            failures: report.state.failures(),
            ejections: report.ejections,
            ejection: report.ejection.clone(),
            last_error: report.error.clone(),
        }
    }
}

// === impl EndpointStatus ===

impl EndpointStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Connecting, Self::Ready, Self::Ejected, Self::Waiting, Self::Leaving];

    /// In lower case, as metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
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
