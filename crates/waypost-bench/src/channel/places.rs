//! Tells what updates do to picks from what the system does to them.
//!
//! What an update causes recurs at the same place after the swap of the table; an interrupt or the hypervisor does not. So picks are
//! numbered from the swap on, and a place counts as slow when it was so after more than one update in twenty. The first place is the last
//! pick by the old table: it may have been reading that when it was replaced.

/// So many times the median is slow.
const SLOW: u32 = 10;
/// Picks that are numbered at each swap: the last by the old table, and those after it.
const PLACES: usize = 1_000;
/// In more than one of so many updates.
const OFTEN: usize = 20;

/// The picks of a round, in their order.
pub(crate) struct Timed {
    /// Nanoseconds.
    pub(crate) times: Vec<u32>,
    /// Those that were the first by a new table, in their order.
    pub(crate) swaps: Vec<usize>,
}

/// How often each place after a swap was slow, over all rounds.
pub(crate) struct Places {
    slow: Vec<usize>,
    swaps: usize,
}

// === impl Timed ===

impl Timed {
    /// In nanoseconds.
    pub(crate) fn median(&self) -> u32 {
        let mut times = self.times.clone();
        let middle = times.len() / 2;
        if times.is_empty() { 0 } else { *times.select_nth_unstable(middle).1 }
    }

    /// How many took longer than that.
    pub(crate) fn above(&self, limit: u32) -> usize {
        self.times.iter().filter(|&&time| time > limit).count()
    }

    /// Ten times the median; what is above is slow.
    pub(crate) fn limit(&self) -> u32 {
        self.median().saturating_mul(SLOW)
    }
}

// === impl Places ===

impl Places {
    pub(crate) fn new() -> Self {
        Self { slow: vec![0; PLACES], swaps: 0 }
    }

    pub(crate) fn add(&mut self, timed: &Timed) {
        let limit = timed.limit();
        for &swap in &timed.swaps {
            let Some(window) = swap.checked_sub(1).and_then(|last| timed.times.get(last..last + PLACES))
            else {
                continue;
            };
            self.swaps += 1;
            for (slow, _) in self.slow.iter_mut().zip(window).filter(|(_, time)| **time > limit) {
                *slow += 1;
            }
        }
    }

    /// The swaps that were looked at.
    pub(crate) fn swaps(&self) -> usize {
        self.swaps
    }

    /// The places that were slow in more than one update of twenty.
    pub(crate) fn recurring(&self) -> usize {
        self.slow.iter().filter(|&&slow| slow * OFTEN > self.swaps).count()
    }

    /// At how many of them the last pick by the old table was slow, and the first by the new one.
    pub(crate) fn beside_swap(&self) -> (usize, usize) {
        (self.slow[0], self.slow[1])
    }

    /// At how many the place was that was slow most often.
    pub(crate) fn worst(&self) -> usize {
        self.slow.iter().max().copied().unwrap_or(0)
    }

    /// How often any of them was.
    pub(crate) fn all(&self) -> usize {
        self.slow.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty swaps 2,000 picks apart, and at each of them a slow pick where `slow` says, counted from the last by the old table.
    fn places(slow: impl Fn(usize) -> usize) -> Places {
        let swaps = (0..40).map(|n| n * 2_000 + 1).collect();
        let mut timed = Timed { times: vec![100; 82_000], swaps };
        for n in 0..40 {
            timed.times[n * 2_000 + slow(n)] = 1_001;
        }
        assert_eq!(timed.above(timed.limit()), 40);
        let mut places = Places::new();
        places.add(&timed);
        places
    }

    #[test]
    fn what_recurs_is_a_place() {
        assert_eq!(places(|_| 700).recurring(), 1);
        let old = places(|n| if n < 3 { 0 } else { 1_500 });
        assert_eq!((old.recurring(), old.beside_swap(), old.worst(), old.all()), (1, (3, 0), 3, 3));
        assert_eq!(places(|_| 1).beside_swap(), (0, 40));
    }

    #[test]
    fn what_does_not_recur_is_none() {
        let everywhere = places(|n| n * 20);
        assert_eq!((everywhere.recurring(), everywhere.all(), everywhere.swaps()), (0, 40, 40));
        assert_eq!(
            places(|n| if n < 2 { 0 } else { 1_500 }).recurring(),
            0,
            "two of forty are one in twenty"
        );
    }

    #[test]
    fn swaps_without_all_their_places_are_left_out() {
        let mut places = Places::new();
        places.add(&Timed { times: vec![100; 3_000], swaps: vec![0, 1_000, 2_500] });
        assert_eq!(places.swaps(), 1);
    }
}
