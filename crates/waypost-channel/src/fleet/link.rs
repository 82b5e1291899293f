//! One address: whether there is a connection to it, and what became of the last attempt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::EndpointState;
use waypost_model::{Instance, InstanceKey};

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
    /// Connections that were closed, and the state under which their calls go on.
    pub(super) parted: Vec<(ConnectionId, Arc<EndpointState>)>,
    /// Attempts in a row that have failed.
    pub(super) failures: u32,
    pub(super) error: Option<Arc<str>>,
    /// Its place in the order in which this client connects.
    pub(super) rank: u64,
    /// It is one of those that this client connects to.
    pub(super) within: bool,
    /// How its calls go is watched.
    pub(super) observed: bool,
    pub(super) usage: Usage,
    pub(super) ejections: Ejections,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected to: outside of what this client connects to, or waiting for a call that wants it.
    Idle {
        /// As in [`Connecting`](Self::Connecting).
        first: bool,
    },
    /// To be connected to when it is its turn.
    Queued {
        /// As in [`Connecting`](Self::Connecting).
        first: bool,
        /// Its place in the queue.
        ticket: u64,
    },
    Connecting {
        /// Nothing has failed yet since the link was new or had held: its calls wait for the end of this attempt.
        first: bool,
    },
    Ready {
        /// When it was connected, fit or not.
        since: Instant,
    },
    /// Connected, and not fit for calls: its health service says so.
    Unfit {
        /// As in [`Ready`](Self::Ready).
        since: Instant,
        /// When it was told so.
        told: Instant,
    },
    Waiting {
        until: Instant,
    },
}

/// Since when a connection has been of no use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    calls: u64,
    since: Instant,
}

/// How often it was ejected, and why it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Ejections {
    pub(super) count: u64,
    pub(super) cause: Option<Arc<str>>,
}

// === impl ConnectionId ===

impl ConnectionId {
    pub(super) const NONE: Self = Self(0);
}

// === impl Link ===

impl Link {
    /// A link that is idle.
    pub(super) fn new(state: Arc<EndpointState>, owner: InstanceKey, rank: u64, now: Instant) -> Self {
        Self {
            state,
            owners: BTreeSet::from([owner]),
            id: ConnectionId::NONE,
            phase: Phase::Idle { first: true },
            parted: Vec::new(),
            failures: 0,
            error: None,
            rank,
            within: false,
            observed: false,
            usage: Usage::new(now),
            ejections: Ejections::default(),
        }
    }

    /// The end of a connection closes the state that it had, at whatever time: the next one needs one of its own. Answers the old one.
    pub(super) fn renew(&mut self, now: Instant) -> Arc<EndpointState> {
        let (key, at) = (self.state.key(), self.state.endpoint().clone());
        let fresh = EndpointState::new(key, at, self.state.instance(), now).counting_from(self.state.epoch());
        std::mem::replace(&mut self.state, Arc::new(fresh))
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected_since().is_some()
    }

    /// It counts among those that a client of a limited number of endpoints relies on.
    pub(super) fn is_sound(&self) -> bool {
        self.is_ready() || (self.failures == 0 && !matches!(self.phase, Phase::Unfit { .. }))
    }

    /// A lazy client may send a call here, if need be after connecting.
    pub(super) fn is_reachable(&self) -> bool {
        let on_the_way = matches!(self.phase, Phase::Idle { .. }) || self.phase.is_undecided();
        self.within && (self.is_ready() || on_the_way)
    }

    pub(super) fn connected_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ready { since } | Phase::Unfit { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Since when it is connected: now, if it was not before. Then it is idle from now on as well, not since it was last looked at, which
    /// may be long ago.
    pub(super) fn begun(&mut self, now: Instant) -> Instant {
        self.connected_since().unwrap_or_else(|| {
            self.usage = Usage::from(&self.state, now);
            now
        })
    }

    pub(super) fn was_stable(&self, now: Instant) -> bool {
        self.connected_since().is_some_and(|since| now.saturating_duration_since(since) >= STABLE)
    }

    /// By this registration from now on. Says whether it differs in anything that a policy may go by.
    pub(super) fn is_spoken_for(&self, key: InstanceKey, instance: &Arc<Instance>) -> bool {
        let before = self.state.instance();
        self.state.set_instance(key, Arc::clone(instance));
        let of = |instance: &Instance| (instance.weight, instance.zone.clone(), instance.version.clone());
        of(&before) != of(instance) || before.metadata != instance.metadata
    }

    pub(super) fn speaks_for(&self, key: &InstanceKey) -> bool {
        self.owners.first() == Some(key)
    }
}

// === impl Phase ===

impl Phase {
    /// Nothing was tried yet.
    pub(super) fn is_untried(self) -> bool {
        self == Self::Idle { first: true }
    }

    /// Nothing has failed yet: its calls wait.
    pub(super) fn is_undecided(self) -> bool {
        matches!(self, Self::Connecting { first: true } | Self::Queued { first: true, .. })
    }
}

// === impl Usage ===

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self { calls: 0, since: now }
    }

    /// Of no use from now on, unless there is another call.
    pub(super) fn from(state: &EndpointState, now: Instant) -> Self {
        Self { calls: state.calls(), since: now }
    }

    /// Since when no call has begun, been under way or ended here, as far as was looked.
    pub(super) fn idle_since(&mut self, state: &EndpointState, now: Instant) -> Instant {
        let calls = state.calls();
        if state.in_flight() > 0 || calls != self.calls {
            *self = Self { calls, since: now };
        }
        self.since
    }
}
