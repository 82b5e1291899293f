//! What every way of balancing has in common: a policy builds pickers, a picker picks.

use crate::{EndpointState, Roster};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// A way of balancing: builds a [`Picker`] for every new set of ready endpoints.
pub trait Policy: Send + Sync + fmt::Debug {
    /// The name that configuration and metrics use: `round_robin`.
    fn name(&self) -> &'static str;

    /// Builds the picker for `ready`: the endpoints that have a connection, in the order of their
    /// addresses. Those that have just been connected open their gates when the picker is in use.
    ///
    /// `previous` is the picker that this one replaces, so that what it has learnt can be carried over (downcast it: a
    /// `&dyn Picker` is a `&dyn Any`); it is `None` the first time, and may be the work of another policy. May cost time
    /// and memory in the number of endpoints: it runs once per change of the set, not per call.
    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker>;
}

/// Picks an endpoint for each call. Immutable to its users: what it learns, it keeps in atomics.
pub trait Picker: Any + Send + Sync {
    /// The endpoint for a call, as an index into the `ready` that this picker was built for; `None` if none can be used.
    ///
    /// Must be wait-free or nearly so, and must not allocate. An endpoint whose gate is [closed](crate::Gate::Closed) is
    /// never picked. Among the others, in this order: open ones that the call has not tried, ejected ones that it has not
    /// tried, open ones, ejected ones: a retry goes to another endpoint while there is one, and a fleet that is all ejected
    /// is used rather than none.
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize>;
}

/// What one call tells the picker.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PickRequest<'a> {
    /// The time of the pick.
    pub now: Instant,
    /// What keeps calls together under the hashing policies: the same hash goes to the same endpoint. Others ignore it.
    pub hash: Option<u64>,
    /// The endpoints that this call has already tried.
    pub exclude: &'a [Arc<EndpointState>],
    /// Uniform over all of `u64`.
    pub random: &'a dyn Fn() -> u64,
}

// === impl Policy ===

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        (**self).build(ready, previous)
    }
}

// === impl PickRequest ===

impl<'a> PickRequest<'a> {
    /// The first attempt of a call without a hash.
    pub fn new(now: Instant, random: &'a dyn Fn() -> u64) -> Self {
        Self { now, hash: None, exclude: &[], random }
    }

    /// With the hash of the call.
    pub fn with_hash(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    /// With the endpoints that the call has already tried.
    pub fn with_exclude(mut self, exclude: &'a [Arc<EndpointState>]) -> Self {
        self.exclude = exclude;
        self
    }

    /// Whether the call has already tried this endpoint.
    pub fn excludes(&self, endpoint: &Arc<EndpointState>) -> bool {
        self.exclude.iter().any(|tried| Arc::ptr_eq(tried, endpoint))
    }
}

impl fmt::Debug for PickRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickRequest")
            .field("hash", &self.hash)
            .field("exclude", &self.exclude)
            .finish_non_exhaustive()
    }
}
