//! The weights of a set of endpoints, as a picker reads them when it is built.

use crate::EndpointState;
use std::sync::Arc;

/// One weight per endpoint. Not all of them are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weights(Box<[u32]>);

// === impl Weights ===

impl Weights {
    /// The weights that the endpoints are registered with. Weight 0 means no share of the load; where all are 0,
    /// there is nothing to share by, and all are equal.
    pub(crate) fn of(ready: &[Arc<EndpointState>]) -> Self {
        let mut weights: Box<[u32]> = ready.iter().map(|endpoint| endpoint.weight()).collect();
        if weights.iter().all(|&weight| weight == 0) {
            weights.fill(1);
        }
        Self(weights)
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// 0 where there is no such endpoint.
    pub(crate) fn get(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
impl Weights {
    pub(crate) fn from_slice(weights: &[u32]) -> Self {
        Self(weights.into())
    }
}
