//! What the calls of a channel and the bodies of their responses share.

use crate::meter::Counters;
use crate::plan::Plan;
use crate::pool::service_of;
use crate::replay::Store;
use crate::service_config::InvalidServiceConfig;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use waypost_model::Scope;

pub(crate) struct Shared {
    pub(crate) plan: ArcSwap<Plan>,
    pub(crate) counters: Counters,
    /// Why the newest service config is not in use.
    pub(crate) config_error: ArcSwapOption<InvalidServiceConfig>,
    /// What is kept of requests that are streams.
    pub(crate) kept: Arc<Store>,
    pub(crate) scope: Scope,
}

// === impl Shared ===

impl Shared {
    /// The service, as texts and metrics name it.
    pub(crate) fn service(&self) -> &str {
        service_of(&self.scope)
    }
}
