//! What the driver, the calls and the bodies of their responses share.

use crate::budget::Budget;
use crate::metrics::Counters;
use crate::table::{Pace, Table};
use arc_swap::ArcSwap;
use std::sync::Arc;
use waypost_model::{Scope, Snapshot};

pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    /// The snapshot that the table takes into account: stored after it.
    pub(crate) applied: ArcSwap<Snapshot>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) budget: Budget,
    pub(crate) counters: Counters,
    pub(crate) scope: Scope,
}

// === impl Shared ===

impl Shared {
    /// The service, as texts and metrics name it.
    pub(crate) fn service(&self) -> &str {
        match &self.scope {
            Scope::Service(service) => service.as_str(),
            Scope::Catalog => "all services",
        }
    }
}
