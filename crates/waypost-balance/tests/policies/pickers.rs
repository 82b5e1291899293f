//! The rules that every picker keeps, over random fleets.

use proptest::prelude::*;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{
    EndpointState, Gate, LeastRequest, Outcome, PeakEwma, PickRequest, Picker, Policy, Random, Roster,
    RoundRobin,
};
use waypost_simulation::{Dice, OPEN, Sketch, every_policy, fleet, open, shares};

fn sketch() -> impl Strategy<Value = Sketch> {
    let gate = prop_oneof![4 => Just(Gate::Open), 1 => Just(Gate::Ejected), 1 => Just(Gate::Closed)];
    let weight = prop_oneof![4 => Just(0), 12 => 1_u32..200, 1 => any::<u32>()];
    let zone = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
    (gate, 0_u8..20, prop::bool::weighted(0.25), weight, zone)
        .prop_map(|(gate, in_flight, tried, weight, zone)| Sketch { gate, in_flight, tried, weight, zone })
}

fn rank(sketch: &Sketch) -> Option<u8> {
    match (sketch.gate, sketch.tried) {
        (Gate::Closed, _) => None,
        (Gate::Open, false) => Some(0),
        (Gate::Ejected, false) => Some(1),
        (Gate::Open, true) => Some(2),
        (Gate::Ejected, true) => Some(3),
    }
}

proptest! {
    // Each case is of 36 policies.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_pick_is_of_the_best_rank_there_is(
        sketches in prop::collection::vec(sketch(), 0..40),
        seed in any::<u64>(),
        hashed in any::<bool>(),
    ) {
        let now = Instant::now();
        let (ready, _calls) = fleet(&sketches, now);
        let tried: Vec<_> = ready.iter().zip(&sketches).filter(|(_, s)| s.tried).map(|(e, _)| e.clone()).collect();
        let best = sketches.iter().filter_map(rank).min();
        let dice = Dice::new(seed);
        let random = || dice.roll();
        for policy in every_policy() {
            let picker = policy.build(ready.clone(), None);
            for _ in 0..8 {
                let hash = hashed.then(&random);
                let request = PickRequest::new(now, &random).with_hash(hash).with_exclude(&tried);
                let picked = picker.pick(&request);
                prop_assert_eq!(picked.and_then(|index| rank(&sketches[index])), best, "{:?}", policy);
            }
        }
    }

    /// Sets that change under a policy: what is carried over from the last picker fits the next.
    #[test]
    fn pickers_follow_the_set(
        sets in prop::collection::vec(prop::collection::vec(any::<bool>(), 12), 1..6),
        seed in any::<u64>(),
    ) {
        let now = Instant::now();
        let all = fleet(&(0..12).map(|n| Sketch { zone: ["a", "b", ""][n % 3], ..OPEN }).collect::<Vec<_>>(), now).0;
        let dice = Dice::new(seed);
        let random = || dice.roll();
        for policy in every_policy() {
            let mut last: Option<Arc<dyn Picker>> = None;
            for set in &sets {
                let ready: Roster = all.iter().zip(set).filter(|(_, here)| **here).map(|(e, _)| Arc::clone(e)).collect();
                let picker = policy.build(ready.clone(), last.as_deref());
                for _ in 0..8 {
                    let picked = picker.pick(&PickRequest::new(now, &random));
                    prop_assert_eq!(picked.is_some(), !ready.is_empty());
                    prop_assert!(picked.is_none_or(|index| index < ready.len()));
                }
                last = Some(picker);
            }
        }
    }
}

proptest! {
    #[test]
    fn round_robin_is_fair_to_one_call(count in 1_usize..30, start in any::<usize>(), calls in 0_usize..300) {
        let now = Instant::now();
        let ready = open(count, now);
        let picker = RoundRobin::starting_at(start).build(ready, None);
        let mut given = vec![0_usize; count];
        for _ in 0..calls {
            given[picker.pick(&PickRequest::new(now, &|| 0)).unwrap()] += 1;
        }
        prop_assert!(given.iter().max().unwrap() - given.iter().min().unwrap() <= 1, "{given:?}");
    }

    #[test]
    fn least_request_never_takes_the_more_loaded_of_its_two(
        loads in prop::collection::vec(0_u8..50, 2..30),
        first in any::<u64>(),
        second in any::<u64>(),
    ) {
        let now = Instant::now();
        let sketches: Vec<_> =
            loads.iter().map(|&in_flight| Sketch { in_flight, ..OPEN }).collect();
        let (ready, _calls) = fleet(&sketches, now);
        let count = ready.len() as u128;
        let drawn = usize::try_from((u128::from(first) * count) >> 64).unwrap();
        let other = (drawn + 1 + usize::try_from((u128::from(second) * (count - 1)) >> 64).unwrap()) % ready.len();
        prop_assert_ne!(drawn, other);

        let draws = Cell::new([second, first].to_vec());
        let random = || {
            let mut left = draws.take();
            let next = left.pop().unwrap_or(0);
            draws.set(left);
            next
        };
        let picker = LeastRequest::default().build(ready.clone(), None);
        let picked = picker.pick(&PickRequest::new(now, &random)).unwrap();
        prop_assert!(picked == drawn || picked == other);
        prop_assert_eq!(loads[picked], loads[drawn].min(loads[other]));
    }
}

#[test]
fn of_more_choices_the_least_loaded_is_taken_and_equals_share() {
    let now = Instant::now();
    let dice = Dice::new(44);
    let random = || dice.roll();
    // As many choices as endpoints are all of them.
    let loads = [3, 1, 4, 1, 5, 9, 2, 6, 0, 5];
    let (ready, _calls) = fleet(&loads.map(|in_flight| Sketch { in_flight, ..OPEN }), now);
    for choices in [10, 99] {
        let picker = LeastRequest::default().with_choices(choices).build(ready.clone(), None);
        for _ in 0..100 {
            assert_eq!(picker.pick(&PickRequest::new(now, &random)), Some(8));
        }
    }
    let picker = LeastRequest::default().with_choices(4).build(ready.clone(), None);
    let given = shares(&*picker, 10, 100_000, now, &dice);
    let due = |better: f64| (0..4).fold(1.0, |due, n| due * (better - f64::from(n)) / (10.0 - f64::from(n)));
    for (load, index) in [(9, 5), (6, 7)] {
        assert_eq!(given[index], 0, "three of the others are always better than load {load}");
    }
    // The best is in four of ten sets; the two next share those where it is not.
    let close = |given: usize, due: f64| (given as f64 / 100_000.0 - due).abs() < 0.01;
    assert!(close(given[8], 0.4) && close(given[1] + given[3], due(9.0) - due(7.0)), "{given:?}");
    assert!(close(given[1], (due(9.0) - due(7.0)) / 2.0), "{given:?}");
    for choices in [3, 7, 10] {
        let all_alike = open(12, now);
        let picker = LeastRequest::default().with_choices(choices).build(all_alike, None);
        let given = shares(&*picker, 12, 120_000, now, &dice);
        assert!(given.iter().all(|&calls| calls.abs_diff(10_000) < 500), "{choices}: {given:?}");
    }
}

#[test]
fn the_turn_is_kept_when_the_set_changes() {
    let now = Instant::now();
    let ready = open(4, now);
    let first = RoundRobin::default().build(ready.clone(), None);
    let request = PickRequest::new(now, &|| 0);
    assert_eq!((first.pick(&request), first.pick(&request)), (Some(0), Some(1)));
    let second = RoundRobin::default().build(ready, Some(&*first));
    assert_eq!(second.pick(&request), Some(2));
}

#[test]
fn a_second_attempt_takes_no_turn() {
    let now = Instant::now();
    let ready = open(2, now);
    let picker = RoundRobin::default().build(ready.clone(), None);
    let mut first_attempts = [0; 2];
    for _ in 0..10 {
        let request = PickRequest::new(now, &|| 1 << 40);
        let first = picker.pick(&request).unwrap();
        first_attempts[first] += 1;
        if first == 0 {
            // The first endpoint fails every call.
            assert_eq!(picker.pick(&request.with_exclude(&ready[..1])), Some(1));
        }
    }
    assert_eq!(first_attempts, [5, 5]);
}

#[test]
fn calls_of_an_ejected_endpoint_are_spread_over_all_others() {
    let now = Instant::now();
    let ready = open(4, now);
    ready[1].eject();
    let picker = RoundRobin::default().build(ready, None);
    let mut given = [0; 4];
    for _ in 0..300 {
        given[picker.pick(&PickRequest::new(now, &|| 0)).unwrap()] += 1;
    }
    assert_eq!(given, [100, 0, 100, 100]);
}

#[test]
fn an_endpoint_that_closes_is_not_picked_from_a_picker_that_still_has_it() {
    let now = Instant::now();
    let ready = open(2, now);
    for policy in every_policy() {
        let picker = policy.build(ready.clone(), None);
        ready[0].close();
        for random in [0, 1 << 63, u64::MAX] {
            assert_eq!(picker.pick(&PickRequest::new(now, &|| random)), Some(1), "{policy:?}");
        }
        ready[0].open();
    }
}

#[test]
fn random_is_fair_in_the_long_run() {
    let now = Instant::now();
    let picker = Random.build(open(10, now), None);
    let given = shares(&*picker, 10, 100_000, now, &Dice::new(1));
    // Four standard deviations of a binomial of 100,000 and a tenth are 380.
    assert!(given.iter().all(|&calls| calls.abs_diff(10_000) < 380), "{given:?}");
}

#[test]
fn random_spreads_the_calls_of_an_ejected_endpoint_over_all_others() {
    let now = Instant::now();
    let ready = open(5, now);
    ready[2].eject();
    let given = shares(&*Random.build(ready, None), 5, 40_000, now, &Dice::new(2));
    assert_eq!(given[2], 0);
    assert!(
        given.iter().enumerate().all(|(at, &calls)| at == 2 || calls.abs_diff(10_000) < 350),
        "{given:?}"
    );
}

#[test]
fn peak_ewma_takes_the_one_that_will_answer_sooner() {
    let now = Instant::now();
    let ready = open(2, now);
    let picker = PeakEwma::default().build(ready.clone(), None);
    let pick = |now| picker.pick(&PickRequest::new(now, &|| 0)).unwrap();
    let ms = std::time::Duration::from_millis;
    assert_eq!(ready[0].latency(now), None);
    ready[0].started(now).finished(now + ms(100), Outcome::Ok);
    ready[1].started(now).finished(now + ms(30), Outcome::Ok);
    let later = now + ms(100);
    assert_eq!(pick(later), 1);
    // 30 ms by three calls is less than 100 ms by one; by five it is more.
    let calls: Vec<_> = (0..2).map(|_| ready[1].started(later)).collect();
    assert_eq!(pick(later), 1);
    let more: Vec<_> = (0..2).map(|_| ready[1].started(later)).collect();
    assert_eq!(pick(later), 0);
    drop((calls, more));
    // A stream that ends after an hour has not taken an hour to answer.
    let mut stream = ready[1].started(later);
    stream.answered(later + ms(30));
    stream.finished(later + ms(3_600_000), Outcome::Ok);
    assert!(ready[1].latency(later).unwrap() < ms(31));
}

#[test]
fn the_ends_of_calls_are_told_apart() {
    let now = Instant::now();
    let ready = open(1, now);
    let endpoint = &ready[0];
    for outcome in [Outcome::Failed, Outcome::Lost, Outcome::Cancelled, Outcome::NotSent] {
        endpoint.started(now).finished(now, outcome);
    }
    drop(endpoint.started(now));
    assert_eq!((endpoint.in_flight(), endpoint.calls()), (0, 4));
    assert_eq!((endpoint.successes(), endpoint.failures()), (0, 2));
    assert_eq!(endpoint.consecutive_failures(), 2);
    endpoint.started(now).finished(now, Outcome::Ok);
    assert_eq!(endpoint.consecutive_failures(), 0);
}

#[test]
fn pickers_are_shared_between_threads() {
    fn shared<T: Send + Sync + ?Sized>() {}
    shared::<dyn Picker>();
    shared::<EndpointState>();
}

#[test]
fn picks_and_calls_from_many_threads_are_all_counted() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 2_000;
    let now = Instant::now();
    for policy in every_policy() {
        let ready =
            fleet(&[Sketch { zone: "a", ..OPEN }, Sketch { zone: "b", weight: 7, ..OPEN }, OPEN], now).0;
        let picker = policy.build(ready.clone(), None);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (ready, picker) = (&ready, &picker);
                scope.spawn(move || {
                    let dice = Dice::new(thread);
                    let random = || dice.roll();
                    for call in 0..CALLS {
                        let now = now + std::time::Duration::from_micros(call * 50);
                        let index = picker.pick(&PickRequest::new(now, &random)).unwrap();
                        let outcome = if call % 10 == 0 { Outcome::Failed } else { Outcome::Ok };
                        ready[index]
                            .started(now)
                            .finished(now + std::time::Duration::from_millis(1), outcome);
                    }
                });
            }
        });
        assert!(ready.iter().all(|endpoint| endpoint.in_flight() == 0));
        assert_eq!(ready.iter().map(|endpoint| endpoint.calls()).sum::<u64>(), THREADS * CALLS);
        assert_eq!(ready.iter().map(|endpoint| endpoint.failures()).sum::<u64>(), THREADS * CALLS / 10);
    }
}
