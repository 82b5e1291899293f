//! `round_robin`: the endpoints in turn.

use crate::choose::{draw_best, is_fresh};
use crate::{EndpointState, PickRequest, Picker, Policy};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Gives calls to the endpoints in turn. Among `n` endpoints that take calls, no two differ by more than one call.
///
/// The turn is kept when the set changes. Clients that all start at the first endpoint would all meet there: give each a
/// start of its own with [`starting_at`](Self::starting_at).
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    start: usize,
}

struct RoundRobinPicker {
    ready: Arc<[Arc<EndpointState>]>,
    turn: AtomicUsize,
}

/// How often a pick moves on by a turn before it searches: passing over by turns spreads the calls of an endpoint that is
/// set aside over all others, where a search would give them all to its neighbour.
pub(crate) const TURNS: usize = 8;

// === impl RoundRobin ===

impl RoundRobin {
    /// Starts somewhere else for each `start`: give it a random number.
    pub fn starting_at(start: usize) -> Self {
        // Half of the range is left, so that the turn does not wrap within the life of a process.
        Self { start: start >> 1 }
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn build(&self, ready: Arc<[Arc<EndpointState>]>, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let turn = previous
            .and_then(|previous| (previous as &dyn Any).downcast_ref::<RoundRobinPicker>())
            .map_or(self.start, |previous| previous.turn.load(Ordering::Relaxed));
        Arc::new(RoundRobinPicker { ready, turn: AtomicUsize::new(turn) })
    }
}

// === impl RoundRobinPicker ===

impl Picker for RoundRobinPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let count = self.ready.len();
        // A second attempt takes no turn: of two endpoints one of which fails, it would always leave the next turn to
        // the failing one. Nor does it go to the neighbour, which would get the retries of all.
        let turns = if request.exclude.is_empty() { count.min(TURNS) } else { 0 };
        for _ in 0..turns {
            let index = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(count)?;
            if is_fresh(&self.ready[index], request) {
                return Some(index);
            }
        }
        // At random: turns are taken eight at a time here, which in a fleet of eight that is all ejected always ends
        // at the same one.
        draw_best(&self.ready, |_| 1, request)
    }
}
