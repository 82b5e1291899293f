//! Which endpoints a call may go to, and the fallback order when the good ones are used up.

use crate::{Gate, PickRequest, Roster};

/// gRFC A48: more are not compared.
pub(crate) const MOST_CHOICES: usize = 10;

/// How good an endpoint is for a call; the lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Fresh,
    FreshEjected,
    Tried,
    TriedEjected,
}

/// `None`: there is no such endpoint, or it takes no calls at all.
pub(crate) fn rank(ready: &Roster, index: usize, request: &PickRequest<'_>) -> Option<Rank> {
    let gate = ready.vitals().get(index)?.gate();
    // The endpoint itself is looked at only by a call that has tried some.
    let tried = !request.exclude.is_empty() && request.excludes(&ready[index]);
    match (gate, tried) {
        (Gate::Closed, _) => None,
        (Gate::Open, false) => Some(Rank::Fresh),
        (Gate::Ejected, false) => Some(Rank::FreshEjected),
        (Gate::Open, true) => Some(Rank::Tried),
        (Gate::Ejected, true) => Some(Rank::TriedEjected),
    }
}

/// Whether it is [`Rank::Fresh`].
#[inline]
pub(crate) fn is_fresh(ready: &Roster, index: usize, request: &PickRequest<'_>) -> bool {
    ready.vitals().get(index).is_some_and(|vitals| vitals.admits())
        && (request.exclude.is_empty() || !request.excludes(&ready[index]))
}

/// The best endpoint by rank, going round from `start`; among equals the first. Looks at each endpoint once.
pub(crate) fn best_from(ready: &Roster, start: usize, request: &PickRequest<'_>) -> Option<(usize, Rank)> {
    let mut best: Option<(usize, Rank)> = None;
    let start = start.min(ready.len());
    for index in (start..ready.len()).chain(0..start) {
        match rank(ready, index, request) {
            Some(Rank::Fresh) => return Some((index, Rank::Fresh)),
            Some(rank) if best.is_none_or(|(_, known)| rank < known) => best = Some((index, rank)),
            _ => {}
        }
    }
    best
}

/// One of the endpoints of the best rank, at random by weight. Those of weight 0 come after all others of their rank,
/// and are equal among themselves. Looks at each endpoint twice at most.
pub(crate) fn draw_best(
    ready: &Roster,
    weight: impl Fn(usize) -> u32,
    request: &PickRequest<'_>,
) -> Option<usize> {
    let place = |index: usize| rank(ready, index, request).map(|rank| (rank, weight(index) == 0));
    let mut best = None;
    let mut total = 0_u64;
    for index in 0..ready.len() {
        match (place(index), best) {
            (None, _) => {}
            (Some(place), Some((known, _))) if place > known => {}
            (Some(place), Some((known, _))) if place == known => {
                total = total.saturating_add(u64::from(weight(index).max(1)));
            }
            (Some(place), _) => {
                best = Some((place, index));
                total = u64::from(weight(index).max(1));
            }
        }
    }
    let (best, first) = best?;
    let mut left = scale((request.random)(), total);
    for index in (first..ready.len()).filter(|&index| place(index) == Some(best)) {
        match left.checked_sub(u64::from(weight(index).max(1))) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    // A gate has closed between the two looks.
    Some(first)
}

/// Draws two endpoints and takes the one with the lower load (power of two choices), or whichever is of the better rank. `le` says whether
/// that at the first index has no more load than that at the second.
pub(crate) fn lesser_of_two(
    ready: &Roster,
    le: impl Fn(usize, usize) -> bool,
    request: &PickRequest<'_>,
) -> Option<usize> {
    let count = ready.len();
    let another = |first: usize| around(first + 1 + below((request.random)(), count - 1), count);
    let first = below((request.random)(), count);
    if count < 2 || !is_fresh(ready, first, request) {
        return lesser_by_rank(ready, first, another, le, request);
    }
    // One of the others, counted from the first, so that the two are never the same endpoint.
    let second = another(first);
    if !is_fresh(ready, second, request) {
        return lesser_by_rank(ready, first, |_| second, le, request);
    }
    Some(if le(first, second) { first } else { second })
}

/// The same, where not both are of the best rank.
#[cold]
fn lesser_by_rank(
    ready: &Roster,
    first: usize,
    another: impl Fn(usize) -> usize,
    le: impl Fn(usize, usize) -> bool,
    request: &PickRequest<'_>,
) -> Option<usize> {
    let settle = |drawn: usize| settle(ready, drawn, request);
    let (first, first_rank) = settle(first)?;
    if ready.len() == 1 {
        return Some(first);
    }
    let (second, second_rank) = settle(another(first))?;
    let keep_first = first_rank < second_rank || (first_rank == second_rank && le(first, second));
    Some(if keep_first { first } else { second })
}

/// Draws so many different endpoints and takes the one with the lowest load, or whichever is of the best rank. Of equals the first
/// that was drawn.
pub(crate) fn least_of<L: PartialOrd>(
    ready: &Roster,
    choices: usize,
    load: impl Fn(usize) -> L,
    request: &PickRequest<'_>,
) -> Option<usize> {
    let count = ready.len();
    let choices = choices.min(MOST_CHOICES).min(count);
    // Floyd's way to a random set: Bentley and Floyd, "A Sample of Brilliance", CACM 30(9), 1987. It draws low numbers first, so
    // they are counted from an endpoint of their own.
    let turn = below((request.random)(), count);
    let mut drawn = [count; MOST_CHOICES];
    let mut best: Option<(usize, Rank, L)> = None;
    for n in 0..choices {
        let last = count - choices + n;
        let any = below((request.random)(), last + 1);
        let number = if drawn[..n].contains(&any) { last } else { any };
        drawn[n] = number;
        let (index, rank) = settle(ready, around(turn + number, count), request)?;
        let load = load(index);
        if best.as_ref().is_none_or(|(_, known, least)| rank < *known || (rank == *known && load < *least)) {
            best = Some((index, rank, load));
        }
    }
    best.map(|(index, ..)| index)
}

/// A place that is less than twice round, once round: a division would take longer than the rest of a pick.
fn around(place: usize, count: usize) -> usize {
    if place < count { place } else { place - count }
}

/// The endpoint that was drawn, or else the next one of the best rank. `None` if none takes calls.
fn settle(ready: &Roster, drawn: usize, request: &PickRequest<'_>) -> Option<(usize, Rank)> {
    match rank(ready, drawn, request) {
        Some(Rank::Fresh) => Some((drawn, Rank::Fresh)),
        _ => best_from(ready, drawn, request),
    }
}

/// Maps a uniform `u64` to `0..bound` (0 for an empty range), by multiplication rather than by division.
#[expect(clippy::cast_possible_truncation, reason = "the result is below `bound`, a usize")]
pub(crate) fn below(random: u64, bound: usize) -> usize {
    scale(random, bound as u64) as usize
}

/// Maps a uniform `u64` to `0..bound` (0 for an empty range).
pub(crate) fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}
