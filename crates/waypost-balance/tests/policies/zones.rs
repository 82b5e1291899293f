//! Zone-awareness: the own zone while it can, the others by what they can spare.

use std::time::Instant;
use waypost_balance::{PickRequest, Policy, Random, RingHash, RoundRobin, ZoneAware};
use waypost_simulation::{Dice, OPEN, Ready, Sketch, fleet, shares};

fn zoned(zones: &[(&'static str, usize)], now: Instant) -> Ready {
    let sketches: Vec<_> =
        zones.iter().flat_map(|&(zone, count)| vec![Sketch { zone, ..OPEN }; count]).collect();
    fleet(&sketches, now).0
}

/// The share of the calls that each zone gets.
fn by_zone(policy: &dyn Policy, ready: &Ready, zones: &[&str], now: Instant) -> Vec<f64> {
    let picker = policy.build(ready.clone(), None);
    let given = shares(&*picker, ready.len(), 60_000, now, &Dice::new(9));
    let calls = |name: &&str| {
        let here = ready.iter().zip(&given).filter(|(e, _)| e.instance().zone.as_deref() == Some(*name));
        here.map(|(_, &calls)| calls).sum::<usize>() as f64 / 60_000.0
    };
    zones.iter().map(calls).collect()
}

fn near(shares: &[f64], due: &[f64]) {
    assert!(shares.iter().zip(due).all(|(share, due)| (share - due).abs() < 0.01), "{shares:?} of {due:?}");
}

#[test]
fn a_zone_with_its_fair_part_keeps_its_calls() {
    let now = Instant::now();
    let policy = ZoneAware::new(RoundRobin::default(), "a");
    for own in [3, 4, 10] {
        let ready = zoned(&[("a", own), ("b", 4), ("c", 4)], now);
        near(&by_zone(&policy, &ready, &["a", "b", "c"], now), &[1.0, 0.0, 0.0]);
    }
}

#[test]
fn a_zone_that_lacks_capacity_spills_to_what_the_others_can_spare() {
    let now = Instant::now();
    // All: 10, fair: 10/3. The own zone keeps 1.4 * 1 / (10/3) = 0.42; b can spare 2/3, c 5/3: 2 to 5.
    let ready = zoned(&[("a", 1), ("b", 4), ("c", 5)], now);
    let shares = by_zone(&ZoneAware::new(Random, "a"), &ready, &["a", "b", "c"], now);
    near(&shares, &[0.42, 0.58 * 2.0 / 7.0, 0.58 * 5.0 / 7.0]);
    let shares = by_zone(&ZoneAware::new(Random, "a").with_headroom(1.0), &ready, &["a", "b", "c"], now);
    near(&shares, &[0.3, 0.7 * 2.0 / 7.0, 0.7 * 5.0 / 7.0]);
}

#[test]
fn ejected_endpoints_are_no_capacity() {
    let now = Instant::now();
    let ready = zoned(&[("a", 4), ("b", 4), ("c", 4)], now);
    let policy = ZoneAware::new(Random, "a");
    for endpoint in &ready[..3] {
        endpoint.eject();
    }
    // Fair: 9/3 = 3; own: 1.4 * 1/3.
    let own = 1.4 / 3.0;
    near(&by_zone(&policy, &ready, &["a", "b", "c"], now), &[own, (1.0 - own) / 2.0, (1.0 - own) / 2.0]);
    ready[3].eject();
    near(&by_zone(&policy, &ready, &["a", "b", "c"], now), &[0.0, 0.5, 0.5]);
}

#[test]
fn a_picker_notices_what_is_ejected_after_it_was_built() {
    let now = Instant::now();
    let ready = zoned(&[("a", 2), ("b", 4)], now);
    let picker = ZoneAware::new(Random, "a").build(ready.clone(), None);
    let dice = Dice::new(1);
    shares(&*picker, 6, 64, now, &dice);
    ready[0].eject();
    let given = shares(&*picker, 6, 10_000, now, &dice);
    // Fair: 5/2; own: 1.4 * 2/5 = 0.56.
    assert!(given[0] == 0 && given[1].abs_diff(5_600) < 200, "{given:?}");
    ready[0].readmit();
    let given = shares(&*picker, 6, 10_000, now, &dice);
    assert!(given[0] + given[1] > 9_000, "{given:?}");
}

#[test]
fn a_client_in_a_zone_without_endpoints_uses_all_others_by_capacity() {
    let now = Instant::now();
    let ready = zoned(&[("b", 2), ("c", 2)], now);
    near(&by_zone(&ZoneAware::new(Random, "a"), &ready, &["b", "c"], now), &[0.5, 0.5]);
    near(&by_zone(&ZoneAware::new(Random, ""), &ready, &["b", "c"], now), &[0.5, 0.5]);
}

#[test]
fn a_second_attempt_leaves_the_zone_rather_than_try_the_same_again() {
    let now = Instant::now();
    let ready = zoned(&[("a", 1), ("b", 1)], now);
    let picker = ZoneAware::new(RoundRobin::default(), "a").build(ready.clone(), None);
    let request = PickRequest::new(now, &|| 0);
    assert_eq!(picker.pick(&request), Some(0));
    assert_eq!(picker.pick(&request.with_exclude(&ready[..1])), Some(1));
    assert_eq!(picker.pick(&request.with_exclude(&ready)), Some(0));
}

#[test]
fn the_same_hash_stays_together_across_zones() {
    let now = Instant::now();
    let ready = zoned(&[("a", 1), ("b", 4), ("c", 4)], now);
    let picker = ZoneAware::new(RingHash::default(), "a").build(ready.clone(), None);
    let dice = Dice::new(11);
    let rolls = || dice.roll();
    let mut endpoints = std::collections::HashSet::new();
    for hash in (0_u64..2_000).map(|n| waypost_balance::hash_key(&n.to_le_bytes())) {
        let request = PickRequest::new(now, &rolls).with_hash(Some(hash));
        let index = picker.pick(&request);
        assert!((0..3).all(|_| picker.pick(&request) == index));
        endpoints.insert(index);
    }
    assert_eq!(endpoints.len(), ready.len());
}
