//! One address: whether there is a connection to it, and what became of the last attempt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::EndpointState;
use waypost_model::InstanceKey;

use super::STABLE;

/// One attempt to connect, and the connection that comes of it. Events of an earlier attempt are known by it and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(super) u64);

/// An address that at least one member sends calls to, or did until its new one is ready.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: Arc<EndpointState>,
    /// Never empty. The first speaks for the address: its weight, zone and metadata count.
    pub(super) owners: BTreeSet<InstanceKey>,
    pub(super) id: ConnectionId,
    pub(super) phase: Phase,
    /// Attempts in a row that have failed.
    pub(super) failures: u32,
    pub(super) error: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting {
        /// Nothing has failed yet since the link was new or had held: its calls wait for the end of this attempt.
        first: bool,
    },
    Ready {
        since: Instant,
    },
    Waiting {
        until: Instant,
    },
}

// === impl Link ===

impl Link {
    pub(super) fn new(state: Arc<EndpointState>, owner: InstanceKey) -> Self {
        Self {
            state,
            owners: BTreeSet::from([owner]),
            id: ConnectionId(0),
            phase: Phase::Connecting { first: true },
            failures: 0,
            error: None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    pub(super) fn is_undecided(&self) -> bool {
        self.phase == Phase::Connecting { first: true }
    }

    pub(super) fn was_stable(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Ready { since } if now.saturating_duration_since(since) >= STABLE)
    }

    pub(super) fn speaks_for(&self, key: &InstanceKey) -> bool {
        self.owners.first() == Some(key)
    }
}
