//! The times of picks while a set of 10,000 is updated, beside those of a pool that is left alone.
//!
//! Interrupts and the hypervisor make picks slow whether there are updates or not. So one thread picks from two pools by turns: what the
//! machine does falls on both alike, and what is more in the one that is updated is of the updates. Slow is what is above ten times the
//! median of the one that is left alone.

use crate::clock::{thread_cpu, thread_cpu_since};
use crate::numbered::Numbered;
use crate::places::{Places, Timed};
use crate::registry::{Registry, runtime, settled};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use waypost_balance::Policy;
use waypost_bench::{Figure, Goal, Unit};
use waypost_channel::{Outcome, Pool, Unconnected, Wish};

/// An odd number: the median is that of a round.
const ROUNDS: usize = 9;
/// Picks of each pool that are timed in a round.
const PICKS: usize = 1_000_000;
/// Picks of each before them.
const WARM: usize = 3_000;

/// The picks of one round, and in both when the updated pool had a new table.
struct Round {
    updated: Timed,
    control: Timed,
}

/// The figures of one policy.
pub(crate) fn run(policy: &Arc<dyn Policy>) {
    let name = policy.name();
    let (mut ratios, mut places, mut beside) = (Vec::new(), Places::new(), Places::new());
    for round in 0..ROUNDS {
        let round = picks(policy, round % 2 == 0);
        let (updated, control) = round.slow();
        println!(
            "  {name}: of {PICKS} picks {updated} are slow with {} updates (median {} ns), {control} of the control (median {} ns)",
            round.updated.swaps.len(),
            round.updated.median(),
            round.control.median(),
        );
        ratios.push(updated as f64 / control.max(1) as f64);
        places.add(&round.updated);
        beside.add(&round.control);
    }
    let figure = format!("slow_picks_beside_control_during_updates_of_10k_{name}");
    Figure { name: &figure, unit: Unit::Ratio, goal: Goal::AtMost(1.1) }.report(&ratios);
    for (pool, places) in [("updated", &places), ("control", &beside)] {
        let (last, first) = places.beside_swap();
        println!(
            "  {name}, {pool}: {} slow at the 1,000 places of {} swaps, {} at one place at most; {last} just before the swap, {first} \
             just after",
            places.all(),
            places.swaps(),
            places.worst(),
        );
    }
    let figure = format!("slow_places_after_updates_of_10k_{name}");
    Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(0.0) }.report(&[places.recurring() as f64]);
}

/// One update follows the other while another thread picks, of each pair from the updated pool first or second.
fn picks(policy: &Arc<dyn Policy>, updated_first: bool) -> Round {
    let runtime = runtime();
    let (numbered, number) = Numbered::new(Arc::clone(policy));
    let (mut registry, updated) = Registry::start(&runtime, numbered);
    // As the other in all but that nobody reads its number.
    let (numbered, _) = Numbered::new(Arc::clone(policy));
    let (_still, control) = Registry::start(&runtime, numbered);
    let done = Arc::new(AtomicBool::new(false));
    let picks = std::thread::spawn({
        let (updated, done) = (updated.clone(), Arc::clone(&done));
        move || {
            let round = timed(&updated, &control, &number, updated_first);
            done.store(true, Ordering::Relaxed);
            round
        }
    });
    while !done.load(Ordering::Relaxed) {
        let (snapshot, expected) = registry.next();
        registry.publish(snapshot);
        runtime.block_on(settled(&updated, expected));
    }
    picks.join().expect("picks")
}

/// By the thread's CPU time: to be preempted is not to wait.
fn timed(
    updated: &Pool<Unconnected>,
    control: &Pool<Unconnected>,
    number: &AtomicUsize,
    updated_first: bool,
) -> Round {
    let wish = Wish::new();
    let pick = |pool: &Pool<Unconnected>, time: &mut u32| {
        let before = thread_cpu();
        let lease = pool.try_lease(&wish);
        *time = u32::try_from(thread_cpu_since(before).as_nanos()).unwrap_or(u32::MAX);
        lease.expect("an endpoint").finished(Outcome::Ok);
    };
    let pair = |of_updated: &mut u32, of_control: &mut u32| {
        if updated_first {
            pick(updated, of_updated);
            pick(control, of_control);
        } else {
            pick(control, of_control);
            pick(updated, of_updated);
        }
        number.load(Ordering::Relaxed)
    };
    let (mut table, mut ignored) = (0, (0, 0));
    for _ in 0..WARM {
        table = pair(&mut ignored.0, &mut ignored.1);
    }
    // Memory that is there already: its pages are not fetched between the picks.
    let (mut of_updated, mut of_control) = (vec![u32::MAX; PICKS], vec![u32::MAX; PICKS]);
    let mut swaps = Vec::with_capacity(PICKS / 1_000);
    for (index, (of_updated, of_control)) in of_updated.iter_mut().zip(&mut of_control).enumerate() {
        let now = pair(of_updated, of_control);
        if now != table {
            swaps.push(index);
            table = now;
        }
    }
    Round {
        updated: Timed { times: of_updated, swaps: swaps.clone() },
        control: Timed { times: of_control, swaps },
    }
}

// === impl Round ===

impl Round {
    /// How many of the updated pool, and how many of the control.
    fn slow(&self) -> (usize, usize) {
        let limit = self.control.limit();
        (self.updated.above(limit), self.control.above(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_measured_by_the_control() {
        let timed = |times: &[u32]| Timed { times: times.to_vec(), swaps: Vec::new() };
        let round = Round {
            updated: timed(&[200, 200, 200, 1_001, 1_900]),
            control: timed(&[100, 100, 100, 1_000, 1_001]),
        };
        assert_eq!(round.slow(), (2, 1));
    }
}
