//! What can be said about a fleet: for a call that finds no endpoint, for statistics and metrics.

use super::Fleet;
use super::link::{Link, Phase};
use imbl::OrdMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{EndpointState, Gate};
use waypost_model::{Endpoint, InstanceKey, Status};

/// Whether waiting may help a call that finds no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing has been read from the registry yet.
    Unread,
    /// An endpoint is ready: if it was not picked, its connection has just closed, and the next table says more.
    Ready,
    /// No endpoint is ready, and for one at least the first attempt to connect is still under way, or waits for a call.
    Connecting,
    /// No endpoint is ready, and each has failed or is not to be used.
    Unavailable,
}

/// A count of everything at one instant. Cheap to clone: the maps are shared with the fleet, which changes its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census {
    /// Since when no endpoint has been ready.
    pub(crate) unready_since: Option<Instant>,
    pub(crate) registered: usize,
    pub(crate) draining: usize,
    pub(crate) down: usize,
    /// Instances that are up and speak nothing that we can, with the reason.
    pub(crate) unusable: OrdMap<InstanceKey, Arc<str>>,
    by_address: OrdMap<Endpoint, EndpointReport>,
    leaving: Vec<EndpointReport>,
    phases: [usize; LinkPhase::COUNT],
    undecided: usize,
    untried: usize,
}

/// One endpoint at one instant; the counters in `state` go on.
#[derive(Debug, Clone)]
pub(crate) struct EndpointReport {
    pub(crate) state: Arc<EndpointState>,
    pub(crate) phase: LinkPhase,
    /// Of the last attempt that failed, or why the last connection was closed.
    pub(crate) error: Option<Arc<str>>,
    pub(crate) failures: u32,
    pub(crate) ejections: u64,
    /// Why it was last ejected, and for how long.
    pub(crate) ejection: Option<Arc<str>>,
}

/// [`Phase`] without its instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkPhase {
    Idle,
    Connecting,
    Ready,
    Unfit,
    Waiting,
    Leaving,
}

// === impl Census ===

impl Census {
    /// Of nothing, none of which has been ready since `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { unready_since: Some(now), ..Self::default() }
    }

    /// As of now: what the fleet keeps up to date, and the connections that are leaving and still have calls.
    pub(super) fn take(fleet: &Fleet) -> Self {
        let busy = fleet.leaving.values().filter(|leaving| leaving.state.in_flight() > 0);
        // Connections that followed each other have their calls under one state.
        let states: HashMap<_, _> =
            busy.map(|leaving| (Arc::as_ptr(&leaving.state), &leaving.state)).collect();
        let leaving = states.into_values().map(|state| EndpointReport {
            state: Arc::clone(state),
            phase: LinkPhase::Leaving,
            error: None,
            failures: 0,
            ejections: 0,
            ejection: None,
        });
        Self { leaving: leaving.collect(), ..fleet.census.clone() }
    }

    /// Every endpoint in the order of address, then those that are leaving.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &EndpointReport> {
        self.by_address.values().chain(&self.leaving)
    }

    pub(crate) fn count(&self, phase: LinkPhase) -> usize {
        match phase {
            LinkPhase::Leaving => self.leaving.len(),
            phase => self.phases[phase as usize],
        }
    }

    /// Endpoints whose first attempt to connect has not ended.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided
    }

    /// Endpoints that nothing was tried with yet.
    pub(super) fn untried(&self) -> usize {
        self.untried
    }

    pub(super) fn count_instance(&mut self, status: Status, more: bool) {
        let count = |number: &mut usize| if more { *number += 1 } else { *number -= 1 };
        count(&mut self.registered);
        match status {
            Status::Draining => count(&mut self.draining),
            Status::Down => count(&mut self.down),
            Status::Up => {}
        }
    }

    /// A link is there from now on; it is idle.
    pub(super) fn add(&mut self, endpoint: Endpoint, link: &Link) {
        self.phases[LinkPhase::Idle as usize] += 1;
        self.untried += usize::from(link.phase.is_untried());
        self.by_address.insert(endpoint, EndpointReport::of(link));
    }

    /// A link that is idle is gone.
    pub(super) fn remove(&mut self, endpoint: &Endpoint, link: &Link) {
        self.phases[LinkPhase::Idle as usize] -= 1;
        self.untried -= usize::from(link.phase.is_untried());
        self.by_address.remove(endpoint);
    }

    /// A link has changed from `before`.
    pub(super) fn update(&mut self, endpoint: &Endpoint, before: Phase, link: &Link) {
        self.phases[LinkPhase::of(before) as usize] -= 1;
        self.phases[LinkPhase::of(link.phase) as usize] += 1;
        self.undecided += usize::from(link.phase.is_undecided());
        self.undecided -= usize::from(before.is_undecided());
        self.untried += usize::from(link.phase.is_untried());
        self.untried -= usize::from(before.is_untried());
        if let Some(report) = self.by_address.get_mut(endpoint) {
            *report = EndpointReport::of(link);
        }
    }
}

// === impl EndpointReport ===

impl EndpointReport {
    fn of(link: &Link) -> Self {
        Self {
            state: Arc::clone(&link.state),
            phase: LinkPhase::of(link.phase),
            error: link.error.clone(),
            failures: link.failures,
            ejections: link.ejections.count,
            ejection: link.ejections.cause.clone(),
        }
    }

    /// Whether it is ready and set aside for its failures.
    pub(crate) fn is_ejected(&self) -> bool {
        self.phase == LinkPhase::Ready && self.state.gate() == Gate::Ejected
    }
}

// === impl LinkPhase ===

impl LinkPhase {
    const COUNT: usize = 5;

    pub(super) fn of(phase: Phase) -> Self {
        match phase {
            Phase::Idle { .. } => Self::Idle,
            Phase::Queued { .. } | Phase::Connecting { .. } => Self::Connecting,
            Phase::Ready { .. } => Self::Ready,
            Phase::Unfit { .. } => Self::Unfit,
            Phase::Waiting { .. } => Self::Waiting,
        }
    }
}
