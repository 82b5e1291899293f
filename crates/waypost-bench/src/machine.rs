//! What the machine has to give at this moment, beside which absolute figures are read: on one that is shared they are its neighbours' too.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Taken in a second, by one thread.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Nanoseconds of a shift, an exclusive or and a multiplication, each on the result of the one before. They take five cycles on processors of
    /// today, and no compiler makes one of several.
    pub step: f64,
    /// Nanoseconds of a load from a working set of so many KiB, each from where the one before has said.
    pub loads: Vec<(usize, f64)>,
    /// The part of a loop that does nothing in which it did not run, in gaps of 4 µs and more.
    pub lost: f64,
}

/// What no loop takes by itself.
const GAP: Duration = Duration::from_micros(4);
const LOOP: Duration = Duration::from_millis(500);
const STEPS: u32 = 50_000_000;
const LOADS: u32 = 400_000;
const LINE: usize = 64;
/// Within the first level of cache, within the second of most, more than that of many, and more than that of any.
const WORKING_SETS: [usize; 4] = [16, 256, 1_024, 16_384];

// === impl Machine ===

impl Machine {
    /// Takes them.
    pub fn now() -> Self {
        let loads = WORKING_SETS.map(|kib| (kib, nanos_of_a_load(kib)));
        Self { step: step(), loads: loads.to_vec(), lost: lost() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} GHz if a step is five cycles; a load from", 5.0 / self.step)?;
        for (at, (kib, nanos)) in self.loads.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {kib} KiB takes {nanos:.1} ns")?;
        }
        write!(f, "; {:.1} % of an empty loop was lost", 100.0 * self.lost)
    }
}

fn step() -> f64 {
    let began = Instant::now();
    let mut value = black_box(1_u64);
    for _ in 0..STEPS {
        value = (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    black_box(value);
    began.elapsed().as_secs_f64() * 1e9 / f64::from(STEPS)
}

/// A ring through all lines of the working set, in no order.
fn nanos_of_a_load(kib: usize) -> f64 {
    let stride = LINE / size_of::<usize>();
    let mut order: Vec<usize> = (0..kib * 1024 / LINE).map(|line| line * stride).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    let mut ring = vec![0; order.len() * stride];
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        ring[*from] = *to;
    }
    let mut at = 0;
    for _ in 0..order.len() {
        at = ring[at];
    }
    let began = Instant::now();
    for _ in 0..LOADS {
        at = ring[at];
    }
    black_box(at);
    began.elapsed().as_secs_f64() * 1e9 / f64::from(LOADS)
}

fn lost() -> f64 {
    let began = Instant::now();
    let (mut before, mut lost) = (began, Duration::ZERO);
    while before.duration_since(began) < LOOP {
        let now = Instant::now();
        let gap = now.duration_since(before);
        if gap >= GAP {
            lost += gap;
        }
        before = now;
    }
    lost.as_secs_f64() / before.duration_since(began).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_one_line() {
        let machine = Machine { step: 2.0, loads: vec![(16, 1.26), (256, 4.0)], lost: 0.036 };
        let line = "2.5 GHz if a step is five cycles; a load from 16 KiB takes 1.3 ns, 256 KiB takes 4.0 ns; 3.6 % of an empty loop was lost";
        assert_eq!(machine.to_string(), line);
    }
}
