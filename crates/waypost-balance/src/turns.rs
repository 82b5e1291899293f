//! Whose turn it is: one count for each thread, so that threads do not fight over a cache line.
//!
//! A count that all threads share costs a pick some 10 ns when one thread uses it and 50 to 100 ns when two do, since its
//! cache line then travels with every pick. With a count of its own, a thread neither waits nor needs an atomic
//! read-modify-write.

use crate::padded::CachePadded;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The turns of one picker, over places from 0 on.
pub(crate) struct Turns {
    /// By [`Stripe`]: the next place, or [`UNSET`] before the thread's first turn.
    next: Box<[CachePadded<AtomicUsize>]>,
    /// Where the first thread begins; any number.
    start: usize,
    /// How many threads have begun.
    begun: AtomicUsize,
}

/// The number of a thread, which no other living thread has while there are no more than [`STRIPES`] threads that pick.
struct Stripe(usize);

/// With more threads than this, some share a count. Two that use it at the same instant may then take the same turn.
const STRIPES: usize = 64;
const UNSET: usize = usize::MAX;
/// How far apart two threads begin, before the remainder by the number of places: a prime near 2^32 by the golden ratio, so that the
/// remainders are spread.
const APART: usize = 2_654_435_761;

/// Which stripes are taken: a bit for each.
static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static STRIPE: Stripe = Stripe::take();
}

// === impl Turns ===

impl Turns {
    /// The first thread begins at `start`, each further one elsewhere.
    pub(crate) fn starting_at(start: usize) -> Self {
        let next = std::iter::repeat_with(|| CachePadded::new(AtomicUsize::new(UNSET))).take(STRIPES);
        Self { next: next.collect(), start, begun: AtomicUsize::new(0) }
    }

    /// The same turns for another number of places.
    pub(crate) fn carried_over(&self) -> Self {
        let next =
            self.next.iter().map(|next| CachePadded::new(AtomicUsize::new(next.load(Ordering::Relaxed))));
        let begun = AtomicUsize::new(self.begun.load(Ordering::Relaxed));
        Self { next: next.collect(), start: self.start, begun }
    }

    /// Takes a turn: a place below `places`, which must not be 0 and is the same at every call.
    pub(crate) fn take(&self, places: usize) -> usize {
        let stripe = STRIPE.try_with(|stripe| stripe.0).unwrap_or(0);
        let next = &self.next[stripe % STRIPES];
        let mut place = next.load(Ordering::Relaxed);
        if place >= places {
            place = self.begin(place, places);
        }
        let following = place + 1;
        next.store(if following == places { 0 } else { following }, Ordering::Relaxed);
        place
    }

    /// This thread's first turn, or the first since there were more places.
    #[cold]
    fn begin(&self, place: usize, places: usize) -> usize {
        if place != UNSET {
            return place % places;
        }
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        self.start.wrapping_add(before.wrapping_mul(APART)) % places
    }
}

// === impl Stripe ===

impl Stripe {
    /// The lowest that is free, or any if none is.
    fn take() -> Self {
        let mut taken = TAKEN.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones();
            let Some(bit) = 1_u64.checked_shl(free) else { return Self(STRIPES) };
            match TAKEN.compare_exchange_weak(taken, taken | bit, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Self(free as usize),
                Err(found) => taken = found,
            }
        }
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        if self.0 < STRIPES {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    fn taken(turns: &Turns, count: usize, places: usize) -> Vec<usize> {
        (0..count).map(|_| turns.take(places)).collect()
    }

    #[test]
    fn a_thread_goes_round() {
        let turns = Turns::starting_at(usize::MAX - 1);
        let start = (usize::MAX - 1) % 3;
        assert_eq!(taken(&turns, 4, 3), [start, (start + 1) % 3, (start + 2) % 3, start]);
    }

    #[test]
    fn turns_are_kept_when_there_are_more_or_fewer_places() {
        let turns = Turns::starting_at(0);
        assert_eq!(taken(&turns, 4, 5), [0, 1, 2, 3]);
        assert_eq!(taken(&turns.carried_over(), 2, 9), [4, 5]);
        assert_eq!(taken(&turns.carried_over(), 2, 3), [1, 2]);
    }

    #[test]
    fn threads_begin_apart_and_each_goes_round() {
        const THREADS: usize = 8;
        let turns = Turns::starting_at(0);
        let firsts = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mine = taken(&turns, 200, 100);
                    assert!(mine.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 100), "{mine:?}");
                    *firsts.lock().unwrap().entry(mine[0]).or_insert(0) += 1;
                });
            }
        });
        let firsts = firsts.into_inner().unwrap();
        // A thread may go on with the stripe of one that has ended, where that one stood: after two rounds, at its start.
        assert!(firsts.keys().all(|first| (0..THREADS).any(|n| n.wrapping_mul(APART) % 100 == *first)));
    }
}
