//! `weighted_round_robin`: the endpoints in turn, as often as their weights say.

use crate::choose::{draw_best, is_fresh};
use crate::round_robin::TURNS;
use crate::schedule::schedule;
use crate::turns::Turns;
use crate::weights::Weights;
use crate::{PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::sync::Arc;

/// Gives calls to the endpoints in turn, each as often as its weight says, and spread evenly: with weights 5, 1 and 1
/// the first is not picked five times on end.
///
/// The turns of one round are worked out when the picker is built, so that a pick is one count and one look-up, each
/// thread having its own turn as under [`RoundRobin`](crate::RoundRobin). (The alternatives keep a lock or a queue that every pick reorders, as earliest-deadline-first schedulers
/// do, or skip over turns, as gRPC's static stride scheduler does, which takes time in the ratio of the weights.)
/// Within a round, and from its start, no endpoint is ever a full call ahead of or behind its share. A round has as
/// many turns as the weights have in lowest terms, so weights of 100 and 200 make a round of three; it is exact up to
/// 16,384 turns (or four for each endpoint), and rounded to that many beyond.
///
/// Weights are read when the picker is built, so they may change at any time; the turn is kept then. Weight 0 means
/// no calls, unless no other endpoint takes any. If all weights are 0, all are equal.
#[derive(Debug, Clone, Default)]
pub struct WeightedRoundRobin {
    start: usize,
}

struct WeightedRoundRobinPicker {
    ready: Roster,
    weights: Weights,
    round: Arc<[u32]>,
    turns: Turns,
}

// === impl WeightedRoundRobin ===

impl WeightedRoundRobin {
    /// Starts somewhere else for each `start`: give it a random number, so that clients do not all start at the same
    /// endpoint.
    pub fn starting_at(start: usize) -> Self {
        Self { start }
    }
}

impl Policy for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "weighted_round_robin"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let weights = Weights::of(&ready);
        let previous =
            previous.and_then(|previous| (previous as &dyn Any).downcast_ref::<WeightedRoundRobinPicker>());
        let round = match previous {
            Some(previous) if previous.weights == weights => Arc::clone(&previous.round),
            _ => Arc::from(schedule(&weights)),
        };
        let turns =
            previous.map_or_else(|| Turns::starting_at(self.start), |previous| previous.turns.carried_over());
        Arc::new(WeightedRoundRobinPicker { ready, weights, round, turns })
    }
}

// === impl WeightedRoundRobinPicker ===

impl Picker for WeightedRoundRobinPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        // A second attempt takes no turn: that of the failing endpoint would always go to the next one.
        let turns = if request.exclude.is_empty() { self.round.len().min(TURNS) } else { 0 };
        for _ in 0..turns {
            let index = self.round[self.turns.take(self.round.len())] as usize;
            if is_fresh(&self.ready, index, request) {
                return Some(index);
            }
        }
        draw_best(&self.ready, |index| self.weights.get(index), request)
    }
}
