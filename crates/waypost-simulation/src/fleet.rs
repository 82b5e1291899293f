//! Fleets to pick from.

use crate::Dice;
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{
    EndpointState, Gate, LeastRequest, Maglev, Outcome, PeakEwma, PickRequest, Picker, Policy, Random,
    RingHash, Roster, RoundRobin, SlowStart, Started, WeightedRoundRobin, ZoneAware,
};
use waypost_model::{Endpoint, Instance, InstanceKey};

/// One endpoint of a fleet.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// Whether it takes calls.
    pub gate: Gate,
    /// Calls under way.
    pub in_flight: u8,
    /// Whether the call to pick for has tried it.
    pub tried: bool,
    /// As registered.
    pub weight: u32,
    /// As registered.
    pub zone: &'static str,
}

/// It takes calls and has none, and is like any other.
pub const OPEN: Sketch = Sketch { gate: Gate::Open, in_flight: 0, tried: false, weight: 100, zone: "" };

/// What a picker is built for.
pub type Ready = Roster;

/// The endpoints, by port from 1 on, and the calls that are in flight there.
pub fn fleet(sketches: &[Sketch], now: Instant) -> (Ready, Vec<Started>) {
    let mut calls = Vec::new();
    let ready = sketches
        .iter()
        .zip(1..)
        .map(|(sketch, port)| {
            let endpoint = Endpoint::new("127.0.0.1", port).expect("constants are valid");
            let instance = Instance::new("greeter".parse().expect("constants are valid"), endpoint.clone());
            let instance = Arc::new(instance.with_weight(sketch.weight).with_zone(sketch.zone));
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

/// So many endpoints that are alike.
pub fn open(count: usize, now: Instant) -> Ready {
    fleet(&vec![OPEN; count], now).0
}

/// Endpoints with these weights.
pub fn weighted(weights: &[u32], now: Instant) -> Ready {
    let sketches: Vec<_> = weights.iter().map(|&weight| Sketch { weight, ..OPEN }).collect();
    fleet(&sketches, now).0
}

/// Every policy, alone and behind each of those that stand in front of others. Tables are small, since they are built
/// often.
pub fn every_policy() -> Vec<Arc<dyn Policy>> {
    let alone: Vec<Arc<dyn Policy>> = vec![
        Arc::new(RoundRobin::starting_at(7)),
        Arc::new(Random),
        Arc::new(WeightedRoundRobin::starting_at(7)),
        Arc::new(LeastRequest::default()),
        Arc::new(LeastRequest::default().with_choices(5)),
        Arc::new(PeakEwma::default()),
        Arc::new(RingHash::default().with_points(16)),
        Arc::new(RingHash::default().with_ring_size(8, 64)),
        Arc::new(Maglev::default().with_table_size(61)),
    ];
    let zoned = alone.iter().map(|policy| Arc::new(ZoneAware::new(Arc::clone(policy), "a")) as _);
    let slowed = alone.iter().map(|policy| Arc::new(SlowStart::new(Arc::clone(policy))) as _);
    let both = |policy: &Arc<dyn Policy>| {
        Arc::new(ZoneAware::new(SlowStart::new(Arc::clone(policy)), "b")) as Arc<dyn Policy>
    };
    zoned.chain(slowed).chain(alone.iter().map(both)).chain(alone.iter().cloned()).collect()
}

/// How many of `calls` picks each endpoint gets.
pub fn shares(picker: &dyn Picker, count: usize, calls: usize, now: Instant, dice: &Dice) -> Vec<usize> {
    let random = || dice.roll();
    let mut given = vec![0; count];
    for _ in 0..calls {
        let request = PickRequest::new(now, &random);
        given[picker.pick(&request).expect("an endpoint is open")] += 1;
    }
    given
}

/// So many endpoints that are alike and at work: each has answered calls, in 1 to 20 ms, and has up to three under way. Their
/// addresses in memory are in no order, as in a fleet that has come by and by.
pub fn warm(count: usize, now: Instant) -> Ready {
    let dice = Dice::new(count as u64);
    let mut ready: Vec<_> = open(count, now).iter().cloned().collect();
    for last in (1..ready.len()).rev() {
        ready.swap(last, (dice.roll() % (last as u64 + 1)) as usize);
    }
    let ready: Ready = ready.into();
    // A picker that measures, so that what follows is recorded.
    drop(PeakEwma::default().build(ready.clone(), None));
    for endpoint in &*ready {
        let took = Duration::from_micros(1_000 + dice.roll() % 19_000);
        endpoint.started(now).finished(now + took, Outcome::Ok);
        for _ in 0..dice.roll() % 4 {
            // It ends with the process.
            std::mem::forget(endpoint.started(now));
        }
    }
    ready
}
