//! What can be said about a fleet: for a call that finds no endpoint, for statistics and metrics.

use super::link::{Link, Phase};
use super::{Fleet, Route};
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{EndpointState, Gate};
use waypost_model::{InstanceKey, Status};

/// Whether waiting may help a call that finds no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing has been read from the registry yet.
    Unread,
    /// An endpoint is ready: if it was not picked, its connection has just closed, and the next table says more.
    Ready,
    /// No endpoint is ready, and for one at least the first attempt to connect is still under way.
    Connecting,
    /// No endpoint is ready, and each has failed or is not to be used.
    Unavailable,
}

/// A count of everything at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    /// Since when no endpoint has been ready.
    pub(crate) unready_since: Option<Instant>,
    pub(crate) registered: usize,
    pub(crate) draining: usize,
    pub(crate) down: usize,
    /// Instances that are up and speak nothing that we can, with the reason.
    pub(crate) unusable: Vec<(InstanceKey, Arc<str>)>,
    pub(crate) endpoints: Vec<EndpointReport>,
}

/// One endpoint at one instant; the counters in `state` go on.
#[derive(Debug, Clone)]
pub(crate) struct EndpointReport {
    pub(crate) state: Arc<EndpointState>,
    pub(crate) phase: LinkPhase,
    /// Of the last attempt that failed, or why the last connection was closed.
    pub(crate) error: Option<Arc<str>>,
    pub(crate) failures: u32,
}

/// [`Phase`] without its instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkPhase {
    Connecting,
    Ready,
    Waiting,
    Leaving,
}

// === impl Census ===

impl Census {
    pub(super) fn take(fleet: &Fleet) -> Self {
        let counted =
            |status| fleet.members.values().filter(|member| member.instance.status == status).count();
        let unusable = fleet.members.iter().filter_map(|(key, member)| match &member.route {
            Route::Nowhere(reason) if member.instance.status == Status::Up => {
                Some((key.clone(), Arc::clone(reason)))
            }
            _ => None,
        });
        let busy = fleet.leaving.iter().filter(|leaving| leaving.state.in_flight() > 0);
        let leaving = busy.map(|leaving| EndpointReport {
            state: Arc::clone(&leaving.state),
            phase: LinkPhase::Leaving,
            error: None,
            failures: 0,
        });
        Self {
            unready_since: fleet.unready_since,
            registered: fleet.members.len(),
            draining: counted(Status::Draining),
            down: counted(Status::Down),
            unusable: unusable.collect(),
            endpoints: fleet.links.values().map(EndpointReport::of).chain(leaving).collect(),
        }
    }

    /// Before anything is known, and after the driver has ended.
    pub(crate) fn empty() -> Self {
        Self {
            unready_since: None,
            registered: 0,
            draining: 0,
            down: 0,
            unusable: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    pub(crate) fn count(&self, phase: LinkPhase) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.phase == phase).count()
    }
}

// === impl EndpointReport ===

impl EndpointReport {
    fn of(link: &Link) -> Self {
        let phase = match link.phase {
            Phase::Connecting { .. } => LinkPhase::Connecting,
            Phase::Ready { .. } => LinkPhase::Ready,
            Phase::Waiting { .. } => LinkPhase::Waiting,
        };
        Self { state: Arc::clone(&link.state), phase, error: link.error.clone(), failures: link.failures }
    }

    /// Whether it is ready and set aside for its failures.
    pub(crate) fn is_ejected(&self) -> bool {
        self.phase == LinkPhase::Ready && self.state.gate() == Gate::Ejected
    }
}
