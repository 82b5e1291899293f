//! How a [`Registry`](crate::Registry) behaves.

use std::{sync::Arc, time::Duration};

use waypost_model::Layout;

/// Options of a [`Registry`](crate::Registry).
///
/// ```
/// use std::time::Duration;
/// use waypost_registry::{Conflict, RegistryOptions};
///
/// let options = RegistryOptions::new(waypost_model::layout("grpc", None)?)
///     .ttl(Duration::from_secs(15))
///     .conflict(Conflict::Reject);
/// # let _ = options;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    pub(crate) layout: Arc<dyn Layout>,
    pub(crate) ttl: Duration,
    pub(crate) conflict: Conflict,
    pub(crate) leases: LeasePolicy,
    pub(crate) grace: Duration,
    pub(crate) deadline: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) in_flight: usize,
    pub(crate) resolve: bool,
}

/// What the first registration does when its key exists already and belongs to a lease that is not ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflict {
    /// Takes the key over. The other registration notices, yields, and takes the key back when it is deleted.
    #[default]
    Replace,
    /// Is refused, finally, with [`RegisterError::Conflict`](crate::RegisterError::Conflict).
    Reject,
}

/// How many instances share a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeasePolicy {
    /// As many as fit into [`KEYS_PER_LEASE`] keys: renewals cost per process, not per instance.
    #[default]
    Shared,
    /// One each. Layouts that put the id of the lease into the key always have this.
    PerInstance,
}

/// The most keys that are put under one lease. etcd deletes the keys of a lease in one revision, and the events of a
/// revision are sent as one message to each watcher; this bounds that message.
pub const KEYS_PER_LEASE: usize = 1_000;

// === impl RegistryOptions ===

impl RegistryOptions {
    /// The defaults of `layout`: its TTL, and everything else as the methods below say.
    pub fn new(layout: Arc<dyn Layout>) -> Self {
        Self {
            ttl: layout.default_ttl(),
            layout,
            conflict: Conflict::default(),
            leases: LeasePolicy::default(),
            grace: Duration::from_secs(1),
            deadline: Duration::from_secs(5),
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            in_flight: 8,
            resolve: true,
        }
    }

    /// The TTL to ask etcd for, by default the layout's. etcd may grant a longer one (its minimum is 2 s with default
    /// election timeouts); renewals follow what was granted.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What happens when the key exists, [`Conflict::Replace`] by default.
    pub fn conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// How many instances share a lease, [`LeasePolicy::Shared`] by default.
    pub fn leases(mut self, leases: LeasePolicy) -> Self {
        self.leases = leases;
        self
    }

    /// How long a graceful shutdown waits, after the keys are deleted, for watchers to have seen it: 1 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long an operation that waits for etcd (a deregistration, a change of status) waits: 5 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The ceilings of the delays between retries: from `first`, doubling, to `longest`; 100 ms and 10 s by default.
    /// Each delay is uniform between zero and its ceiling.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first, longest);
        self
    }

    /// How many requests may be in flight to etcd at once, for all instances of the registry: 8 by default, at least 1.
    pub fn in_flight(mut self, requests: usize) -> Self {
        self.in_flight = requests.max(1);
        self
    }

    /// Whether a host that nobody can dial (`0.0.0.0`, `::`) is replaced by an address of this machine, see
    /// [`advertise`](crate::advertise): on by default. Off, such a host is refused.
    pub fn resolve_address(mut self, resolve: bool) -> Self {
        self.resolve = resolve;
        self
    }
}
