//! The order in which a client that does not connect to all endpoints connects to them, and where in it that client begins.

use std::collections::BTreeSet;
use std::ops::Bound;
use waypost_balance::Subset;
use waypost_model::Endpoint;

/// An endpoint by its rank.
pub(super) type Place = (u64, Endpoint);

/// All endpoints, by rank. Where a numbered client begins depends on how many there are; the beginning is kept as a place and its index,
/// and follows each change by a step or two. So a change costs the logarithm of the fleet's size.
pub(super) struct Order {
    subset: Subset,
    places: BTreeSet<Place>,
    /// Of `places`, and the `index`th of them. `None` if and only if there is none.
    start: Option<Place>,
    index: usize,
}

// === impl Order ===

impl Order {
    pub(super) fn new(subset: Subset) -> Self {
        Self { subset, places: BTreeSet::new(), start: None, index: 0 }
    }

    pub(super) fn subset(&self) -> &Subset {
        &self.subset
    }

    /// Where the client begins.
    pub(super) fn start(&self) -> Option<&Place> {
        self.start.as_ref()
    }

    /// Each once, from the start on and round the end.
    pub(super) fn round(&self) -> impl Iterator<Item = &Place> {
        let after = self.start.iter().flat_map(|start| self.places.range(start..));
        let before = self.start.iter().flat_map(|start| self.places.range(..start));
        after.chain(before)
    }

    /// Adds one that is not there yet, and says its rank.
    pub(super) fn insert(&mut self, endpoint: &Endpoint) -> u64 {
        let rank = self.subset.rank(endpoint);
        let place = (rank, endpoint.clone());
        self.index += usize::from(self.start.as_ref().is_some_and(|start| place < *start));
        if self.start.is_none() {
            self.start = Some(place.clone());
        }
        self.places.insert(place);
        self.follow();
        rank
    }

    pub(super) fn remove(&mut self, place: &Place) {
        if !self.places.remove(place) {
            return;
        }
        let Some(start) = &self.start else { return };
        if place < start {
            self.index -= 1;
        } else if place == start {
            // Whoever comes next has its index; the last has one less.
            let next = self.next(start);
            if next.is_none() {
                self.index = self.places.len().saturating_sub(1);
            }
            self.start = next.or_else(|| self.places.last().cloned());
        }
        self.follow();
    }

    /// Brings the start to where it belongs.
    fn follow(&mut self) {
        let target = self.subset.start(self.places.len());
        while let Some(start) = &self.start
            && self.index != target
        {
            let step = if self.index < target { self.next(start) } else { self.previous(start) };
            // The target is less than the number of places, so there is one to step to.
            let Some(step) = step else { return };
            self.index = if self.index < target { self.index + 1 } else { self.index - 1 };
            self.start = Some(step);
        }
    }

    fn next(&self, place: &Place) -> Option<Place> {
        self.places.range((Bound::Excluded(place), Bound::Unbounded)).next().cloned()
    }

    fn previous(&self, place: &Place) -> Option<Place> {
        self.places.range(..place).next_back().cloned()
    }
}

/// Those of `within` that come after `last` and before `start`, going round; first those that are farthest from `start`.
pub(super) fn beyond<'a>(
    within: &'a BTreeSet<Place>,
    start: &'a Place,
    last: &'a Place,
) -> impl Iterator<Item = &'a Place> {
    let after = (Bound::Excluded(last), Bound::Unbounded);
    // What is chosen goes round the end if its last place comes before its first.
    let (before, after) = if last < start {
        (within.range((Bound::Excluded(last), Bound::Excluded(start))), None)
    } else {
        (within.range(..start), Some(within.range(after)))
    };
    before.rev().chain(after.into_iter().flat_map(Iterator::rev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroUsize;
    use waypost_balance::ClientNumber;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new("127.0.0.1", port).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_it_is_what_the_subset_would_choose_anew(
            number in any::<u64>(), size in 1_usize..8, steps in prop::collection::vec((1_u16..40, any::<bool>()), 0..150),
        ) {
            let subset = Subset::numbered(&ClientNumber::from(number), NonZeroUsize::new(size).unwrap());
            let mut order = Order::new(subset.clone());
            let mut fleet = BTreeSet::new();
            for (port, comes) in steps {
                let endpoint = endpoint(port);
                match (comes, fleet.contains(&endpoint)) {
                    (true, false) => {
                        order.insert(&endpoint);
                        fleet.insert(endpoint);
                    }
                    (false, true) => {
                        order.remove(&(subset.rank(&endpoint), endpoint.clone()));
                        fleet.remove(&endpoint);
                    }
                    _ => {}
                }
                prop_assert_eq!(order.index, subset.start(fleet.len()));
                prop_assert_eq!(order.round().count(), fleet.len());
                prop_assert_eq!(order.round().next(), order.places.iter().nth(order.index));
                let first: BTreeSet<_> = order.round().take(size).map(|(_, endpoint)| endpoint).collect();
                let all: Vec<_> = fleet.iter().collect();
                let chosen: BTreeSet<_> = subset.choose(&fleet).into_iter().map(|at| all[at]).collect();
                prop_assert_eq!(first, chosen);
            }
        }

        #[test]
        fn beyond_is_whatever_is_not_between_start_and_last(
            within in prop::collection::btree_set(0_u64..20, 0..12), start in 0_u64..20, last in 0_u64..20,
        ) {
            let place = |rank| (rank, endpoint(1));
            let within: BTreeSet<Place> = within.into_iter().map(place).collect();
            let between = |rank: u64| (rank + 20 - start) % 20 <= (last + 20 - start) % 20;
            let distance = |rank: u64| (rank + 20 - start) % 20;
            let (start, last) = (place(start), place(last));
            let found: Vec<u64> = beyond(&within, &start, &last).map(|(rank, _)| *rank).collect();
            let mut others: Vec<u64> = within.iter().map(|(rank, _)| *rank).filter(|rank| !between(*rank)).collect();
            others.sort_by_key(|rank| std::cmp::Reverse(distance(*rank)));
            prop_assert_eq!(found, others);
        }
    }
}
