//! Fleets to pick from, and dice to pick with.

use proptest::prelude::*;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{
    EndpointState, Gate, LeastRequest, Maglev, PeakEwma, PickRequest, Picker, Policy, Random, RingHash,
    RoundRobin, SlowStart, Started, WeightedRoundRobin, ZoneAware,
};
use waypost_model::{Endpoint, Instance, InstanceKey};

/// One endpoint of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    pub(crate) gate: Gate,
    pub(crate) in_flight: u8,
    pub(crate) tried: bool,
    pub(crate) weight: u32,
    pub(crate) zone: &'static str,
}

pub(crate) const OPEN: Sketch =
    Sketch { gate: Gate::Open, in_flight: 0, tried: false, weight: 100, zone: "" };

pub(crate) fn sketch() -> impl Strategy<Value = Sketch> {
    let gate = prop_oneof![4 => Just(Gate::Open), 1 => Just(Gate::Ejected), 1 => Just(Gate::Closed)];
    let weight = prop_oneof![4 => Just(0), 12 => 1_u32..200, 1 => any::<u32>()];
    let zone = prop_oneof![Just(""), Just("a"), Just("b"), Just("c")];
    (gate, 0_u8..20, prop::bool::weighted(0.25), weight, zone)
        .prop_map(|(gate, in_flight, tried, weight, zone)| Sketch { gate, in_flight, tried, weight, zone })
}

pub(crate) type Ready = Arc<[Arc<EndpointState>]>;

/// The endpoints, by port from 1 on, and the calls that are in flight there.
pub(crate) fn fleet(sketches: &[Sketch], now: Instant) -> (Ready, Vec<Started>) {
    let mut calls = Vec::new();
    let ready = sketches
        .iter()
        .zip(1..)
        .map(|(sketch, port)| {
            let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
            let instance = Instance::new("greeter".parse().unwrap(), endpoint.clone());
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

pub(crate) fn open(count: usize, now: Instant) -> Ready {
    fleet(&vec![OPEN; count], now).0
}

pub(crate) fn weighted(weights: &[u32], now: Instant) -> Ready {
    let sketches: Vec<_> = weights.iter().map(|&weight| Sketch { weight, ..OPEN }).collect();
    fleet(&sketches, now).0
}

/// Every policy, alone and behind each of those that stand in front of others. Tables are small, since they are built
/// often.
pub(crate) fn every_policy() -> Vec<Arc<dyn Policy>> {
    let alone: Vec<Arc<dyn Policy>> = vec![
        Arc::new(RoundRobin::starting_at(7)),
        Arc::new(Random),
        Arc::new(WeightedRoundRobin::starting_at(7)),
        Arc::new(LeastRequest),
        Arc::new(PeakEwma::default()),
        Arc::new(RingHash::default().with_points(16)),
        Arc::new(Maglev::default().with_table_size(61)),
    ];
    let zoned = alone.iter().map(|policy| Arc::new(ZoneAware::new(Arc::clone(policy), "a")) as _);
    let slowed = alone.iter().map(|policy| Arc::new(SlowStart::new(Arc::clone(policy))) as _);
    let both = |policy: &Arc<dyn Policy>| {
        Arc::new(ZoneAware::new(SlowStart::new(Arc::clone(policy)), "b")) as Arc<dyn Policy>
    };
    zoned.chain(slowed).chain(alone.iter().map(both)).chain(alone.iter().cloned()).collect()
}

/// Random numbers by `SplitMix64`: the same for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(crate) fn roll(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    pub(crate) fn uniform(&self) -> f64 {
        ((self.roll() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// With this mean.
    pub(crate) fn exponential(&self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }
}

/// How many of `calls` picks each endpoint gets.
pub(crate) fn shares(
    picker: &dyn Picker,
    count: usize,
    calls: usize,
    now: Instant,
    dice: &Dice,
) -> Vec<usize> {
    let random = || dice.roll();
    let mut given = vec![0; count];
    for _ in 0..calls {
        let request = PickRequest::new(now, &random);
        given[picker.pick(&request).unwrap()] += 1;
    }
    given
}
