//! Which endpoints a call may go to, and the fallback order when the good ones are used up.

use crate::{EndpointState, Gate, PickRequest};
use std::sync::Arc;

/// How good an endpoint is for a call; the lower, the better. `None`: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Fresh,
    FreshEjected,
    Tried,
    TriedEjected,
}

pub(crate) fn rank(endpoint: &Arc<EndpointState>, request: &PickRequest<'_>) -> Option<Rank> {
    match (endpoint.gate(), request.excludes(endpoint)) {
        (Gate::Closed, _) => None,
        (Gate::Open, false) => Some(Rank::Fresh),
        (Gate::Ejected, false) => Some(Rank::FreshEjected),
        (Gate::Open, true) => Some(Rank::Tried),
        (Gate::Ejected, true) => Some(Rank::TriedEjected),
    }
}

/// The best endpoint by rank, going round from `start`; among equals the first. Looks at each endpoint once.
pub(crate) fn best_from(
    ready: &[Arc<EndpointState>],
    start: usize,
    request: &PickRequest<'_>,
) -> Option<(usize, Rank)> {
    let mut best: Option<(usize, Rank)> = None;
    let (before, after) = ready.split_at(start.min(ready.len()));
    let round = after.iter().enumerate().map(|(index, endpoint)| (before.len() + index, endpoint));
    for (index, endpoint) in round.chain(before.iter().enumerate()) {
        match rank(endpoint, request) {
            Some(Rank::Fresh) => return Some((index, Rank::Fresh)),
            Some(rank) if best.is_none_or(|(_, known)| rank < known) => best = Some((index, rank)),
            _ => {}
        }
    }
    best
}

/// Maps a uniform `u64` to `0..bound` (0 for an empty range), by multiplication rather than by division.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the product shifted right by 64 is below `bound`, a usize"
)]
pub(crate) fn below(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}
