//! Slow start: the share of an endpoint that has come, or come back, grows.

use std::time::{Duration, Instant};
use waypost_balance::{LeastRequest, Picker, Policy, RoundRobin, SlowStart};
use waypost_simulation::{Dice, Ready, open, shares};

const SECOND: Duration = Duration::from_secs(1);

/// The last endpoint's share of its fair share.
fn last_share(picker: &dyn Picker, ready: &Ready, now: Instant) -> f64 {
    let given = shares(picker, ready.len(), 20_000, now, &Dice::new(1));
    let others = given[..ready.len() - 1].iter();
    assert!(others.clone().max().unwrap() - others.min().unwrap() < 500, "{given:?}");
    given[ready.len() - 1] as f64 * ready.len() as f64 / 20_000.0
}

#[test]
fn an_endpoint_that_joins_gets_its_share_by_and_by() {
    let start = Instant::now();
    let all = open(10, start);
    let nine: Ready = all[..9].into();
    for policy in
        [&SlowStart::new(RoundRobin::default()) as &dyn Policy, &SlowStart::new(LeastRequest::default())]
    {
        let alone = policy.build(nine.clone(), None);
        shares(&*alone, 9, 100, start, &Dice::new(2));
        let joined = start + 60 * SECOND;
        let picker = policy.build(all.clone(), Some(&*alone));
        let mut last = 0.0;
        for (seconds, due) in [(0, 0.11), (3, 0.11), (6, 0.22), (15, 0.53), (24, 0.82), (30, 1.0), (90, 1.0)]
        {
            let share = last_share(&*picker, &all, joined + SECOND * seconds);
            assert!((share - due).abs() < 0.06, "{share} of {due} after {seconds} s under {policy:?}");
            assert!(share > last - 0.05);
            last = share;
        }
        // One that has reconnected starts anew: it was away from one set at least.
        let away = policy.build(nine.clone(), Some(&*picker));
        let back = policy.build(all.clone(), Some(&*away));
        let share = last_share(&*back, &all, joined + 200 * SECOND);
        assert!(share < 0.2, "{share}");
    }
}

#[test]
fn an_endpoint_that_is_readmitted_starts_slowly() {
    let start = Instant::now();
    let all = open(10, start);
    let picker = SlowStart::new(RoundRobin::default()).build(all.clone(), None);
    shares(&*picker, 10, 100, start, &Dice::new(3));
    let later = start + 60 * SECOND;
    assert!((last_share(&*picker, &all, later) - 1.0).abs() < 0.05);
    all[9].eject();
    assert!(last_share(&*picker, &all, later).abs() < f64::EPSILON);
    all[9].readmit();
    assert!(last_share(&*picker, &all, later + SECOND) < 0.2);
    assert!((last_share(&*picker, &all, later + 31 * SECOND) - 1.0).abs() < 0.05);
}

#[test]
fn a_fleet_that_is_all_new_is_used_evenly() {
    let now = Instant::now();
    for count in [1, 2, 5, 10] {
        let ready = open(count, now);
        for policy in
            [&SlowStart::new(RoundRobin::default()) as &dyn Policy, &SlowStart::new(LeastRequest::default())]
        {
            let picker = policy.build(ready.clone(), None);
            let given = shares(&*picker, count, 10_000, now, &Dice::new(4));
            let even = 10_000 / count;
            assert!(given.iter().all(|&calls| calls.abs_diff(even) <= even / 5), "{given:?}");
        }
    }
}

#[test]
fn a_window_of_zero_is_no_slow_start() {
    let now = Instant::now();
    let policy = SlowStart::new(RoundRobin::default()).with_window(Duration::ZERO);
    let given = shares(&*policy.build(open(4, now), None), 4, 400, now, &Dice::new(5));
    assert_eq!(given, [100; 4]);
}

#[test]
fn a_fleet_that_is_all_new_gets_no_bursts() {
    let now = Instant::now();
    let ready = open(5, now);
    // Five picks for nearly every call: over five endpoints in turn, the first of the five would always be the same.
    let policy = SlowStart::new(RoundRobin::default()).with_least_share(0.01);
    let picker = policy.build(ready, None);
    let dice = Dice::new(6);
    for _ in 0..50 {
        let given = shares(&*picker, 5, 20, now, &dice);
        assert!(given.iter().all(|&calls| calls < 14), "{given:?}");
    }
}
