//! `least_request`: the less loaded of two.

use crate::choose::lesser_of_two;
use crate::{EndpointState, PickRequest, Picker, Policy};
use std::sync::Arc;

/// Draws two endpoints at random and takes the one with fewer calls in flight (power of two choices).
///
/// It needs no knowledge of the whole set, avoids slow endpoints since calls pile up there, and does not herd: clients that
/// see the same loads do not all choose the same endpoint.
#[derive(Debug, Clone, Default)]
pub struct LeastRequest;

struct LeastRequestPicker {
    ready: Arc<[Arc<EndpointState>]>,
}

// === impl LeastRequest ===

impl Policy for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn build(&self, ready: Arc<[Arc<EndpointState>]>, _previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        Arc::new(LeastRequestPicker { ready })
    }
}

// === impl LeastRequestPicker ===

impl Picker for LeastRequestPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        lesser_of_two(&self.ready, EndpointState::in_flight, request)
    }
}
