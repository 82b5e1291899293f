//! What picks read of an endpoint, that of all endpoints close together.
//!
//! A pick looks at endpoints that nobody has looked at for thousands of picks. Within [`EndpointState`](crate::EndpointState) what it reads
//! would be far apart: of 10,000 endpoints it was spread over 10 MB and half of the sets of a cache, so that most picks waited for the
//! third level of cache and for a page's address too. These are *vitals*: 16 bytes for an endpoint, 160 KB for 10,000.

use crate::Gate;
use crate::latency::Estimate;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether an endpoint takes calls, and what it carries.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) latency: Estimate,
    pub(crate) in_flight: AtomicU32,
    /// [`CLOSED`] and [`EJECTED`] are independent: a connection that comes back does not end an ejection. Above them the losses that
    /// were not settled yet. Calls are taken while all of it is 0.
    pub(crate) gate: AtomicU32,
}

/// The vitals of one endpoint, which has them until this is dropped.
///
/// Whoever keeps a reference to them beyond that sees another endpoint's: keep the [`EndpointState`](crate::EndpointState) with it.
#[derive(Debug)]
pub(crate) struct Seat(&'static Vitals);

pub(crate) const CLOSED: u32 = 1;
pub(crate) const EJECTED: u32 = 2;
/// One of the [losses](crate::EndpointState::lose), which are counted in the bits above.
pub(crate) const LOSS: u32 = 4;

/// A line of the cache.
#[repr(align(64))]
struct Line([Vitals; IN_A_LINE]);

const IN_A_LINE: usize = 4;
/// Lines of a slab: 4 KB.
const LINES: usize = 64;

const _: () = assert!(size_of::<Line>() == 64);

/// Vitals that are nobody's. Slabs are never given back, but what is in them is used again: there are as many as there ever were
/// endpoints at a time.
static FREE: Mutex<Vec<&'static Vitals>> = Mutex::new(Vec::new());

// === impl Vitals ===

impl Vitals {
    const fn new() -> Self {
        Self { latency: Estimate::new(), in_flight: AtomicU32::new(0), gate: AtomicU32::new(CLOSED) }
    }

    pub(crate) fn gate(&self) -> Gate {
        match self.gate.load(Ordering::Acquire) {
            0 => Gate::Open,
            EJECTED => Gate::Ejected,
            _ => Gate::Closed,
        }
    }

    pub(crate) fn admits(&self) -> bool {
        self.gate.load(Ordering::Acquire) == 0
    }

    /// `true` while it is set aside, whether or not it has a connection.
    pub(crate) fn is_ejected(&self) -> bool {
        self.gate.load(Ordering::Acquire) & EJECTED != 0
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

// === impl Seat ===

impl Seat {
    /// New vitals: [closed](CLOSED), with nothing in flight and nothing measured.
    pub(crate) fn take() -> Self {
        let mut free = free();
        loop {
            match free.pop() {
                Some(vitals) => return Self(vitals),
                None => free.extend(slab()),
            }
        }
    }

    pub(crate) fn vitals(&self) -> &'static Vitals {
        self.0
    }
}

impl Deref for Seat {
    type Target = Vitals;

    fn deref(&self) -> &Vitals {
        self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Vitals { latency, in_flight, gate } = self.0;
        latency.forget();
        in_flight.store(0, Ordering::Relaxed);
        gate.store(CLOSED, Ordering::Relaxed);
        // Whoever takes them next sees this by the lock.
        free().push(self.0);
    }
}

fn free() -> MutexGuard<'static, Vec<&'static Vitals>> {
    // Nothing that holds it panics.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More of them, from the last to be taken to the first: the first of each line, then the second, so that few endpoints, which all
/// threads write to at the same time, have a line each where they are all there ever were.
fn slab() -> impl Iterator<Item = &'static Vitals> {
    let line = || Line([const { Vitals::new() }; IN_A_LINE]);
    let lines: &'static [Line] = Vec::leak(std::iter::repeat_with(line).take(LINES).collect());
    (0..IN_A_LINE).rev().flat_map(move |nth| lines.iter().rev().map(move |line| &line.0[nth]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{Gauge, Sample, Tick};
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    fn place(vitals: &Vitals) -> usize {
        std::ptr::from_ref(vitals).addr()
    }

    #[test]
    fn a_slab_is_dense_and_the_first_of_it_have_a_line_each() {
        let mut places: Vec<_> = slab().map(place).collect();
        places.reverse();
        let lines = |places: &[usize]| places.iter().map(|place| place / 64).collect::<BTreeSet<_>>().len();
        assert_eq!((lines(&places[..LINES]), lines(&places)), (LINES, LINES));
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 16));
    }

    #[test]
    fn nobody_has_the_vitals_of_another_and_what_is_given_back_is_as_new() {
        let now = Instant::now();
        let seats: Vec<_> = std::iter::repeat_with(Seat::take).take(1_000).collect();
        let places: BTreeSet<_> = seats.iter().map(|seat| place(seat)).collect();
        assert_eq!(places.len(), 1_000);
        for seat in &seats {
            assert_eq!((seat.gate(), seat.in_flight(), seat.latency.is_known()), (Gate::Closed, 0, false));
            seat.gate.store(EJECTED | LOSS, Ordering::Relaxed);
            seat.in_flight.store(7, Ordering::Relaxed);
            let gauge = Gauge { decay: 1.0, failure_penalty: 1.0 };
            seat.latency.record(gauge, Tick::between(now, now), Sample::Answered(Duration::from_secs(1)));
            assert!(seat.latency.is_known());
        }
        drop(seats);
        let again: Vec<_> = std::iter::repeat_with(Seat::take).take(1_000).collect();
        for seat in &again {
            assert_eq!((seat.gate.load(Ordering::Relaxed), seat.in_flight()), (CLOSED, 0));
            assert!(!seat.latency.is_known());
        }
        assert!(again.iter().any(|seat| places.contains(&place(seat))));
    }
}
