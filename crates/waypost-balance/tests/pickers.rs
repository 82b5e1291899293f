//! The rules that every picker keeps, over random fleets.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{
    EndpointState, Gate, LeastRequest, Outcome, PickRequest, Picker, Policy, RoundRobin, Started,
};
use waypost_model::{Endpoint, Instance, InstanceKey};

/// One endpoint of a random fleet.
#[derive(Debug, Clone)]
struct Sketch {
    gate: Gate,
    in_flight: u8,
    tried: bool,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let gate = prop_oneof![4 => Just(Gate::Open), 1 => Just(Gate::Ejected), 1 => Just(Gate::Closed)];
    (gate, 0_u8..20, prop::bool::weighted(0.25)).prop_map(|(gate, in_flight, tried)| Sketch {
        gate,
        in_flight,
        tried,
    })
}

fn fleet(sketches: &[Sketch], now: Instant) -> (Arc<[Arc<EndpointState>]>, Vec<Started>) {
    let mut calls = Vec::new();
    let ready = sketches
        .iter()
        .zip(1..)
        .map(|(sketch, port)| {
            let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
            let instance = Arc::new(Instance::new("greeter".parse().unwrap(), endpoint.clone()));
            let state = Arc::new(EndpointState::new(InstanceKey::of(&instance, 0), endpoint, instance, now));
            match sketch.gate {
                Gate::Open => state.open(),
                Gate::Ejected => {
                    state.open();
                    assert!(state.eject());
                }
                Gate::Closed => {}
            }
            calls.extend((0..sketch.in_flight).map(|_| state.started(now)));
            state
        })
        .collect();
    (ready, calls)
}

fn open(count: usize) -> Vec<Sketch> {
    vec![Sketch { gate: Gate::Open, in_flight: 0, tried: false }; count]
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
    #[test]
    fn a_pick_is_of_the_best_rank_there_is(
        sketches in prop::collection::vec(sketch(), 0..40),
        least in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let now = Instant::now();
        let (ready, _calls) = fleet(&sketches, now);
        let tried: Vec<_> = ready.iter().zip(&sketches).filter(|(_, s)| s.tried).map(|(e, _)| e.clone()).collect();
        let policy: &dyn Policy = if least { &LeastRequest } else { &RoundRobin::starting_at(7) };
        let picker = policy.build(Arc::clone(&ready), None);
        let state = Cell::new(seed);
        let random = || {
            state.set(state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
            state.get()
        };
        for _ in 0..20 {
            let picked = picker.pick(&PickRequest::new(now, &random).with_exclude(&tried));
            let best = sketches.iter().filter_map(rank).min();
            prop_assert_eq!(picked.and_then(|index| rank(&sketches[index])), best);
        }
    }

    #[test]
    fn round_robin_is_fair_to_one_call(count in 1_usize..30, start in any::<usize>(), calls in 0_usize..300) {
        let now = Instant::now();
        let (ready, _) = fleet(&open(count), now);
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
            loads.iter().map(|&in_flight| Sketch { gate: Gate::Open, in_flight, tried: false }).collect();
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
        let picker = LeastRequest.build(Arc::clone(&ready), None);
        let picked = picker.pick(&PickRequest::new(now, &random)).unwrap();
        prop_assert!(picked == drawn || picked == other);
        prop_assert_eq!(loads[picked], loads[drawn].min(loads[other]));
    }
}

#[test]
fn the_turn_is_kept_when_the_set_changes() {
    let now = Instant::now();
    let (ready, _) = fleet(&open(4), now);
    let first = RoundRobin::default().build(Arc::clone(&ready), None);
    let request = PickRequest::new(now, &|| 0);
    assert_eq!((first.pick(&request), first.pick(&request)), (Some(0), Some(1)));
    let second = RoundRobin::default().build(ready, Some(&*first));
    assert_eq!(second.pick(&request), Some(2));
}

#[test]
fn a_second_attempt_takes_no_turn() {
    let now = Instant::now();
    let (ready, _) = fleet(&open(2), now);
    let picker = RoundRobin::default().build(Arc::clone(&ready), None);
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
    let (ready, _) = fleet(&open(4), now);
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
    let (ready, _) = fleet(&open(2), now);
    for policy in [&LeastRequest as &dyn Policy, &RoundRobin::default()] {
        let picker = policy.build(Arc::clone(&ready), None);
        ready[0].close();
        for random in [0, 1 << 63, u64::MAX] {
            assert_eq!(picker.pick(&PickRequest::new(now, &|| random)), Some(1));
        }
        ready[0].open();
    }
}

#[test]
fn the_ends_of_calls_are_told_apart() {
    let now = Instant::now();
    let (ready, _) = fleet(&open(1), now);
    let endpoint = &ready[0];
    for outcome in [Outcome::Failed, Outcome::Lost, Outcome::Cancelled, Outcome::NotSent] {
        endpoint.started(now).finished(now, outcome);
    }
    drop(endpoint.started(now));
    assert_eq!((endpoint.in_flight(), endpoint.calls(), endpoint.failures()), (0, 4, 2));
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
