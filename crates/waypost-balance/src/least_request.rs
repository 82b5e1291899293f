//! `least_request`: the less loaded of two.

use crate::choose::{Rank, below, best_from, rank};
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

impl LeastRequestPicker {
    /// `drawn` if it can be used, else the best after it.
    fn settle(&self, drawn: usize, request: &PickRequest<'_>) -> Option<(usize, Rank)> {
        match rank(self.ready.get(drawn)?, request) {
            Some(Rank::Fresh) => Some((drawn, Rank::Fresh)),
            _ => best_from(&self.ready, drawn, request),
        }
    }
}

impl Picker for LeastRequestPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let count = self.ready.len();
        let first_drawn = below((request.random)(), count);
        let (first, first_rank) = self.settle(first_drawn, request)?;
        if count == 1 {
            return Some(first);
        }
        // One of the others, counted from the first, so that the two are never the same endpoint.
        let second_drawn = (first + 1 + below((request.random)(), count - 1)) % count;
        let (second, second_rank) = self.settle(second_drawn, request)?;
        let keep_first = first_rank < second_rank
            || (first_rank == second_rank && self.ready[first].in_flight() <= self.ready[second].in_flight());
        Some(if keep_first { first } else { second })
    }
}
