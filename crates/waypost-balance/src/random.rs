//! `random`: any endpoint.

use crate::choose::{below, draw_best, is_fresh};
use crate::{PickRequest, Picker, Policy, Roster};
use std::sync::Arc;

/// Gives each call to an endpoint at random, all with the same chance.
///
/// It has no state to share between threads and needs no start of its own per client. Loads are less even than those of
/// [`RoundRobin`](crate::RoundRobin): of `m` calls per endpoint, about the square root of `m` more or less.
#[derive(Debug, Clone, Default)]
pub struct Random;

struct RandomPicker {
    ready: Roster,
}

// === impl Random ===

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn build(&self, ready: Roster, _previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        Arc::new(RandomPicker { ready })
    }
}

// === impl RandomPicker ===

impl Picker for RandomPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let drawn = below((request.random)(), self.ready.len());
        if is_fresh(&self.ready, drawn, request) {
            return Some(drawn);
        }
        draw_best(&self.ready, |_| 1, request)
    }
}
