//! What a pick costs, by policy, size of the fleet and number of threads; and beside `tower::balance`.
//!
//! The fleet is at work (latencies known, calls under way) and in no order in memory; every round draws other endpoints. Times are of the
//! thread's CPU, so that a machine with other work to do does not count; what two threads do to each other's caches does.

use crate::clock::{thread_cpu, thread_cpu_since};
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma as TowersEwma, PendingRequests};
use waypost_balance::{LeastRequest, Maglev, Outcome, PeakEwma, PickRequest, Picker, Policy, RoundRobin};
use waypost_bench::{Figure, Goal, Unit, median};
use waypost_simulation::{Dice, Ready as Fleet, warm};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: u64 = 9;
const PICKS: u32 = 200_000;
/// Tower's balance of 10,000 services takes its time.
const CALLS: u32 = 20_000;

/// A service that does nothing.
#[derive(Clone)]
struct Nothing;

/// Every figure of picks.
pub(crate) fn run() {
    for size in SIZES {
        // As its documentation says for more than 655 endpoints.
        let maglev = if size > 655 { Maglev::default().with_table_size(655_373) } else { Maglev::default() };
        let policies: [(&dyn Policy, f64); 4] = [
            (&RoundRobin::default(), 15.0),
            (&LeastRequest::default(), 60.0),
            (&PeakEwma::default(), 60.0),
            (&maglev, 40.0),
        ];
        let fleet = warm(size, Instant::now());
        for threads in [1, 2] {
            let mut rounds = [const { Vec::new() }; 4];
            for round in 0..ROUNDS {
                for ((policy, _), times) in policies.iter().zip(&mut rounds) {
                    let picker = policy.build(fleet.clone(), None);
                    times.push(nanos_of_a_pick(&*picker, threads, round));
                }
            }
            for ((policy, goal), times) in policies.iter().zip(&rounds) {
                let name = format!("pick_ns_{}_{size}_endpoints_{threads}_threads", policy.name());
                Figure { name: &name, unit: Unit::Count, goal: Goal::AtMost(*goal) }.report(times);
            }
        }
        beside_tower(size, &fleet);
    }
}

/// The mean over all threads.
fn nanos_of_a_pick(picker: &dyn Picker, threads: usize, round: u64) -> f64 {
    let start = Barrier::new(threads);
    let used: f64 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64)
            .map(|thread| {
                scope.spawn({
                    let start = &start;
                    move || {
                        let dice = Dice::new(round << 8 | thread);
                        let (now, random) = (Instant::now(), || dice.roll());
                        start.wait();
                        let before = thread_cpu();
                        for _ in 0..PICKS {
                            let request = PickRequest::new(now, &random).with_hash(Some(dice.roll()));
                            black_box(picker.pick(&request));
                        }
                        thread_cpu_since(before).as_nanos() as f64
                    }
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("picks")).sum()
    });
    used / f64::from(PICKS) / threads as f64
}

/// A whole call that does nothing, from the pick to its end, with what is counted and recorded for it. Under `least_request` nobody reads the
/// clock, neither tower's nor ours; under `peak_ewma` both do.
fn beside_tower(size: usize, fleet: &Fleet) {
    let (mut least, mut ewma) = (Vec::new(), Vec::new());
    let mut pending = Balance::new(ServiceList::new(
        (0..size).map(|_| PendingRequests::new(Nothing, CompleteOnResponse::default())),
    ));
    let mut measured = Balance::new(ServiceList::new((0..size).map(|_| {
        TowersEwma::new(Nothing, Duration::from_millis(5), 10_000_000_000.0, CompleteOnResponse::default())
    })));
    for round in 0..ROUNDS {
        let ours = nanos_of_a_call(&LeastRequest::default(), fleet, round, {
            let now = Instant::now();
            move || now
        });
        least.push((ours, nanos_of_towers_call(&mut pending)));
        let ours = nanos_of_a_call(&PeakEwma::default(), fleet, round, Instant::now);
        ewma.push((ours, nanos_of_towers_call(&mut measured)));
    }
    for (policy, rounds) in [("least_request", least), ("peak_ewma", ewma)] {
        let (ours, towers): (Vec<_>, Vec<_>) = rounds.iter().copied().unzip();
        println!("  {policy}: ours {:.0} ns a call, tower's {:.0}", median(&ours), median(&towers));
        let ratios: Vec<_> = rounds.iter().map(|(ours, towers)| ours / towers).collect();
        let name = format!("call_{policy}_{size}_endpoints_beside_towers_p2c");
        Figure { name: &name, unit: Unit::Ratio, goal: Goal::AtMost(0.5) }.report(&ratios);
    }
}

fn nanos_of_a_call(policy: &dyn Policy, fleet: &Fleet, round: u64, clock: impl Fn() -> Instant) -> f64 {
    let picker = policy.build(fleet.clone(), None);
    let dice = Dice::new(round);
    let random = || dice.roll();
    let before = thread_cpu();
    for _ in 0..CALLS {
        let now = clock();
        let index = picker.pick(&PickRequest::new(now, &random)).expect("all are open");
        let started = fleet[index].started(now);
        started.finished(clock(), Outcome::Ok);
    }
    thread_cpu_since(before).as_nanos() as f64 / f64::from(CALLS)
}

fn nanos_of_towers_call(balance: &mut impl Service<()>) -> f64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(matches!(balance.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        drop(balance.call(()));
    };
    call();
    let before = thread_cpu();
    for _ in 0..CALLS {
        call();
    }
    thread_cpu_since(before).as_nanos() as f64 / f64::from(CALLS)
}

// === impl Nothing ===

impl Service<()> for Nothing {
    type Response = ();
    type Error = std::convert::Infallible;
    type Future = Ready<Result<(), Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}
