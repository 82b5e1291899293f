//! What the calls of a channel and the bodies of their responses share.

use crate::budget::Budget;
use crate::metrics::Counters;
use crate::pool::service_of;
use waypost_model::Scope;

pub(crate) struct Shared {
    pub(crate) budget: Budget,
    pub(crate) counters: Counters,
    pub(crate) scope: Scope,
}

// === impl Shared ===

impl Shared {
    /// The service, as texts and metrics name it.
    pub(crate) fn service(&self) -> &str {
        service_of(&self.scope)
    }
}
