//! `cargo bench -p waypost-balance`: one pick, by policy, size of the fleet, and threads that share the picker.
//!
//! The time of a pick alone: `now` is given, randomness costs an xorshift, and nothing is counted as started. The same
//! with its goals and beside tower's is `just bench-channel picks`.
#![allow(clippy::expect_used, reason = "a benchmark of a fleet that is open")]

use divan::Bencher;
use divan::counter::ItemsCount;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use waypost_balance::{
    LeastRequest, Maglev, PeakEwma, PickRequest, Policy, Random, RingHash, RoundRobin, WeightedRoundRobin,
};
use waypost_simulation::{Dice, warm};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const THREADS: [usize; 2] = [1, 2];
/// Per measurement, so that reading the clock costs nothing.
const PICKS: usize = 1_000;
/// Each measurement draws other endpoints than the last, so that large fleets are not measured from the cache.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() {
    divan::main();
}

fn picks(bencher: Bencher<'_, '_>, policy: &dyn Policy, size: usize) {
    let now = Instant::now();
    let ready = warm(size, now);
    let picker = policy.build(ready.clone(), None);
    bencher
        .counter(ItemsCount::new(PICKS))
        .with_inputs(|| Dice::new(SEED.fetch_add(1, Ordering::Relaxed)))
        .bench_refs(|dice| {
            let random = || dice.roll();
            let mut sum = 0;
            for _ in 0..PICKS {
                let request = PickRequest::new(now, &random).with_hash(Some(dice.roll()));
                sum += picker.pick(&request).expect("all are open");
            }
            sum
        });
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn round_robin(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &RoundRobin::default(), size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn random(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &Random, size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn weighted_round_robin(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &WeightedRoundRobin::default(), size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn least_request(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &LeastRequest::default(), size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn peak_ewma(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &PeakEwma::default(), size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn ring_hash(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &RingHash::default(), size);
}

#[divan::bench(args = SIZES, threads = THREADS)]
fn maglev(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, &Maglev::default().with_table_size(655_373), size);
}
