//! What calls are told of their service while the channel runs.

use crate::budget::Budget;
use crate::driver::now;
use crate::service_config::ServiceConfig;
use crate::settings::RetryPolicy;
use std::sync::Arc;

/// Immutable, replaced as a whole when there is another service config. A call keeps the plan that it began with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Arc<ServiceConfig>,
    pub(crate) budget: Arc<Budget>,
}

// === impl Plan ===

impl Plan {
    /// Under the first config that there is.
    pub(crate) fn new(config: Arc<ServiceConfig>, policy: &RetryPolicy) -> Self {
        let budget = Budget::of(config.retry_throttling, policy, now());
        Self { config, budget: Arc::new(budget) }
    }

    /// Under another config. The budget goes on as it is unless another one is asked for, as in gRFC A6.
    pub(crate) fn next(&self, config: Arc<ServiceConfig>, policy: &RetryPolicy) -> Self {
        if config.retry_throttling == self.config.retry_throttling {
            return Self { config, budget: Arc::clone(&self.budget) };
        }
        Self::new(config, policy)
    }
}
