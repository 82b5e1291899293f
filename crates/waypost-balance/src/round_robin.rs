//! `round_robin`: the endpoints in turn.

use crate::choose::{draw_best, is_fresh};
use crate::turns::Turns;
use crate::{PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::sync::Arc;

/// Gives calls to the endpoints in turn. Each thread has its own turn, from a start of its own: among `n` endpoints that take
/// calls, no two differ by more than one call for each thread that picks (up to 64 threads).
///
/// Turns are kept when the set changes. Clients that all start at the first endpoint would all meet there: give each a
/// start of its own with [`starting_at`](Self::starting_at).
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    start: usize,
}

struct RoundRobinPicker {
    ready: Roster,
    turns: Turns,
}

/// How often a pick moves on by a turn before it searches: passing over by turns spreads the calls of an endpoint that is
/// set aside over all others, where a search would give them all to its neighbour.
pub(crate) const TURNS: usize = 8;

// === impl RoundRobin ===

impl RoundRobin {
    /// Starts somewhere else for each `start`: give it a random number.
    pub fn starting_at(start: usize) -> Self {
        Self { start }
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let turns = previous
            .and_then(|previous| (previous as &dyn Any).downcast_ref::<RoundRobinPicker>())
            .map_or_else(|| Turns::starting_at(self.start), |previous| previous.turns.carried_over());
        Arc::new(RoundRobinPicker { ready, turns })
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
            let index = self.turns.take(count);
            if is_fresh(&self.ready, index, request) {
                return Some(index);
            }
        }
        // At random: turns are taken eight at a time here, which in a fleet of eight that is all ejected always ends
        // at the same one.
        draw_best(&self.ready, |_| 1, request)
    }
}
