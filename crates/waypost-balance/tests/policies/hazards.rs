//! The hazards of balancing, in virtual time: ten servers with four workers each and 10 ms a call, at half of what
//! they can do.

use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{
    Gate, LeastRequest, Maglev, OutlierEvent, OutlierSettings, PeakEwma, Policy, RingHash, RoundRobin,
    SlowStart, WeightedRoundRobin, ZoneAware,
};
use waypost_simulation::{Conduct, Simulation, percentile};
use waypost_simulation::{Dice, Ready, open, shares, weighted};

const SEEDS: [u64; 3] = [44, 4_711, 20_261_120];
/// Calls a second: half of 10 servers * 4 workers / 10 ms.
const RATE: f64 = 2_000.0;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The first server behaves otherwise while `odd` says so; the others work.
fn first_is(odd: Conduct, when: std::ops::Range<u64>) -> impl FnMut(usize, Duration) -> Conduct {
    move |server, at| {
        if server == 0 && when.contains(&at.as_secs()) { odd } else { Conduct::Works(1.0) }
    }
}

fn ejections(simulation: &Simulation) -> Vec<u64> {
    let ejected = |event: &OutlierEvent| matches!(event, OutlierEvent::Ejected { .. });
    simulation.events.iter().filter(|(_, event)| ejected(event)).map(|(at, _)| at.as_secs()).collect()
}

/// It fails for 35 s, is ejected for 30 s, found to fail still, ejected for 60 s more, and back to its share.
#[test]
fn h44_a_failed_endpoint_is_probed_and_back_after_its_ejection() {
    for seed in SEEDS {
        let start = Instant::now();
        let ready = open(10, start);
        let policy = SlowStart::new(RoundRobin::default());
        let mut simulation =
            Simulation::new(seed, &policy, &ready, start).with_detector(&OutlierSettings::default());
        simulation.run(seconds(160), RATE / 4.0, first_is(Conduct::Fails, 5..40));
        let ejected = ejections(&simulation);
        assert_eq!(ejected.len(), 2, "{ejected:?}");
        assert!(ejected[0] == 5 && (35..40).contains(&ejected[1]), "{ejected:?}");
        assert_eq!(ready[0].gate(), Gate::Open);
        // Away for twice the base time, then back by and by.
        assert!(simulation.share(0, 41, 95) < 1e-9);
        let (returns, full) = (simulation.share(0, 100, 106), simulation.share(0, 140, 160));
        println!("h44: share {returns:.3} after its return, {full:.3} then; ejected at {ejected:?} s");
        assert!(returns < 0.05 && (full - 0.1).abs() < 0.01, "{returns}, {full}");
        let failed = simulation.ended.iter().filter(|call| call.failed).count();
        assert!(failed < 30, "{failed}");
    }
}

/// Without a detector too: the estimate of an endpoint that is shunned falls until it is tried again.
#[test]
fn h44_peak_ewma_tries_a_failed_endpoint_again() {
    for seed in SEEDS {
        let start = Instant::now();
        let ready = open(10, start);
        let mut simulation = Simulation::new(seed, &PeakEwma::default(), &ready, start);
        simulation.run(seconds(160), RATE / 4.0, first_is(Conduct::Fails, 5..40));
        let (during, after) = (simulation.share(0, 10, 40), simulation.share(0, 130, 160));
        println!("h44: share {during:.4} while it fails, {after:.3} then");
        assert!(during < 0.002 && after > 0.07, "{during}, {after}");
    }
}

#[test]
fn h46_one_slow_endpoint_of_ten_does_not_set_the_tail() {
    for seed in SEEDS {
        let start = Instant::now();
        let p99 = |policy: &dyn Policy, count: usize| {
            let mut simulation = Simulation::new(seed, policy, &open(count, start), start);
            let slow = if count == 10 { Conduct::Works(10.0) } else { Conduct::Works(1.0) };
            simulation.run(seconds(30), RATE, first_is(slow, 0..30));
            percentile(simulation.ended.iter(), 99)
        };
        let ratio = |policy: &dyn Policy| {
            let (with, without) = (p99(policy, 10), p99(policy, 9));
            println!("h46: p99 {with:?} with the slow endpoint, {without:?} without it");
            with.as_secs_f64() / without.as_secs_f64()
        };
        assert!(ratio(&PeakEwma::default()) < 1.5);
        // The hazard is there: turns go on filling the slow one's queue.
        assert!(ratio(&RoundRobin::default()) > 10.0);
    }
}

#[test]
fn h47_an_endpoint_that_fails_fast_is_ejected_and_not_preferred() {
    for seed in SEEDS {
        let start = Instant::now();
        let run = |policy: &dyn Policy, settings: Option<&OutlierSettings>| {
            let ready = open(10, start);
            let mut simulation = Simulation::new(seed, policy, &ready, start);
            if let Some(settings) = settings {
                simulation = simulation.with_detector(settings);
            }
            simulation.run(seconds(30), RATE, first_is(Conduct::Fails, 0..30));
            let failed = simulation.ended.iter().filter(|call| call.failed).count();
            println!("h47: {failed} of {} calls failed", simulation.ended.len());
            (failed as f64 / simulation.ended.len() as f64, ready[0].gate())
        };
        // The hazard is there: a queue that is always empty attracts calls.
        assert!(run(&LeastRequest::default(), None).0 > 0.12);
        assert!(run(&PeakEwma::default(), None).0 < 0.001);
        // Five in a row, and those under way by then. Ejected for the 30 s of the run.
        let settings = OutlierSettings::default();
        for policy in [&LeastRequest::default() as &dyn Policy, &RoundRobin::default()] {
            let (failed, gate) = run(policy, Some(&settings));
            assert!(failed < 0.0005, "{failed}");
            assert_eq!(gate, Gate::Ejected);
        }
        // Peak EWMA hardly gives it the five calls that it takes.
        assert!(run(&PeakEwma::default(), Some(&settings)).0 < 0.0005);
    }
}

/// All fail from the fifth second to the tenth. The detector ejects until less than half are left, then uses all.
#[test]
fn h48_when_too_many_are_ejected_all_are_used() {
    for seed in SEEDS {
        let start = Instant::now();
        let ready = open(10, start);
        let mut settings = OutlierSettings::default();
        settings.max_ejection_percent = 100;
        let mut simulation =
            Simulation::new(seed, &RoundRobin::default(), &ready, start).with_detector(&settings);
        let all_fail = |_, at: Duration| {
            if (5..10).contains(&at.as_secs()) { Conduct::Fails } else { Conduct::Works(1.0) }
        };
        simulation.run(seconds(8), RATE, all_fail);
        assert!(simulation.detector().in_panic());
        assert_eq!(simulation.detector().ejected(), 10);
        assert!((0..10).all(|server| (simulation.share(server, 6, 8) - 0.1).abs() < 0.01));
        simulation.run(seconds(30), RATE, all_fail);
        assert!((0..10).all(|server| (simulation.share(server, 11, 30) - 0.1).abs() < 0.01));
        assert!(simulation.between(11, 30).all(|call| !call.failed));
        simulation.run(seconds(60), RATE, all_fail);
        assert!(!simulation.detector().in_panic());
        assert_eq!(simulation.detector().ejected(), 0);
        assert!(ready.iter().all(|endpoint| endpoint.gate() == Gate::Open));
        let panics =
            simulation.events.iter().filter(|(_, event)| matches!(event, OutlierEvent::PanicBegan { .. }));
        assert_eq!(panics.count(), 1);
    }
}

/// Even without the panic threshold: a fleet that is all ejected is used rather than none.
#[test]
fn h48_when_all_are_ejected_all_are_used() {
    let now = Instant::now();
    for policy in waypost_simulation::every_policy() {
        let ready = open(10, now);
        for endpoint in &*ready {
            endpoint.eject();
        }
        let given = shares(&*policy.build(ready.clone(), None), 10, 2_000, now, &Dice::new(48));
        assert!(given.iter().all(|&calls| calls > 0), "{policy:?}: {given:?}");
    }
}

#[test]
fn h50_weights_that_are_all_zero_count_as_equal() {
    let now = Instant::now();
    let policies: [(Arc<dyn Policy>, usize); 5] = [
        (Arc::new(WeightedRoundRobin::default()), 0),
        (Arc::new(RingHash::default()), 250),
        (Arc::new(Maglev::default()), 150),
        (Arc::new(ZoneAware::new(WeightedRoundRobin::default(), "a")), 0),
        (Arc::new(SlowStart::new(WeightedRoundRobin::default())), 150),
    ];
    for (policy, tolerance) in policies {
        for count in [1, 2, 10] {
            let none: Ready = weighted(&vec![0; count], now);
            let given = shares(&*policy.build(none, None), count, 1_000 * count, now, &Dice::new(50));
            assert!(given.iter().all(|&calls| calls.abs_diff(1_000) <= tolerance), "{policy:?}: {given:?}");
        }
    }
}

/// Fairness of the policies that look at load: over servers that are all alike, all get the same in the long run.
#[test]
fn servers_that_are_alike_get_the_same() {
    let start = Instant::now();
    for policy in [&PeakEwma::default() as &dyn Policy, &LeastRequest::default()] {
        let ready = open(10, start);
        let mut simulation = Simulation::new(SEEDS[0], policy, &ready, start);
        simulation.run(seconds(30), RATE, |_, _| Conduct::Works(1.0));
        let all: Vec<_> = (0..10).map(|server| simulation.share(server, 0, 30)).collect();
        assert!(all.iter().all(|share| (share - 0.1).abs() < 0.015), "{policy:?}: {all:?}");
    }
}
