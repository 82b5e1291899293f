//! `weighted_round_robin`: shares by weight, at every time and with weights that change.

use proptest::prelude::*;
use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{PickRequest, Policy, WeightedRoundRobin};
use waypost_simulation::{Dice, open, shares, weighted};

proptest! {
    #[test]
    fn nobody_is_two_calls_ahead_or_behind(
        weights in prop::collection::vec(0_u32..50, 1..16),
        start in any::<usize>(),
        calls in 0_u32..400,
    ) {
        let now = Instant::now();
        let picker = WeightedRoundRobin::starting_at(start).build(weighted(&weights, now), None);
        let weights = if weights.iter().all(|&weight| weight == 0) { vec![1; weights.len()] } else { weights };
        let total: u32 = weights.iter().sum();
        let mut given = vec![0_u32; weights.len()];
        for call in 1..=calls {
            given[picker.pick(&PickRequest::new(now, &|| 0)).unwrap()] += 1;
            for (&given, &weight) in given.iter().zip(&weights) {
                // Less than one from the start of a round, so less than two from anywhere.
                let due = f64::from(call) * f64::from(weight) / f64::from(total);
                prop_assert!((f64::from(given) - due).abs() < 2.0, "{given} of {due} after {call}");
            }
        }
    }

    #[test]
    fn weights_may_change_between_any_two_calls(
        changes in prop::collection::vec((0_usize..5, 0_u32..300, 1_usize..40), 1..30),
    ) {
        let now = Instant::now();
        let ready = open(5, now);
        let policy = WeightedRoundRobin::default();
        let mut picker = policy.build(ready.clone(), None);
        let (mut due, mut given, mut rounds) = ([0.0; 5], [0.0; 5], 0.0);
        for (which, weight, calls) in changes {
            let instance = (*ready[which].instance()).clone().with_weight(weight);
            ready[which].set_instance(ready[which].key(), Arc::new(instance));
            picker = policy.build(ready.clone(), Some(&*picker));
            rounds += 1.0;
            let mut weights: Vec<_> = ready.iter().map(|endpoint| endpoint.instance().weight).collect();
            if weights.iter().all(|&weight| weight == 0) {
                weights.fill(1);
            }
            for _ in 0..calls {
                given[picker.pick(&PickRequest::new(now, &|| 0)).unwrap()] += 1.0;
                for (due, &weight) in due.iter_mut().zip(&weights) {
                    *due += f64::from(weight) / f64::from(weights.iter().sum::<u32>());
                }
            }
        }
        for (given, due) in given.iter().zip(due) {
            let given: f64 = *given;
            // Each stretch between two changes is part of a round.
            prop_assert!((given - due).abs() < 2.0 * rounds, "{given} of {due}");
        }
    }
}

#[test]
fn the_share_of_an_ejected_endpoint_goes_to_the_others_by_weight() {
    let now = Instant::now();
    // Of eight turns in a row, nearly all are those of the first.
    let ready = weighted(&[900, 60, 30, 10, 0], now);
    ready[0].eject();
    let picker = WeightedRoundRobin::default().build(ready, None);
    let given = shares(&*picker, 5, 50_000, now, &Dice::new(3));
    assert_eq!((given[0], given[4]), (0, 0), "{given:?}");
    for (&given, due) in given[1..4].iter().zip([30_000, 15_000, 5_000]) {
        assert!(given.abs_diff(due) < due / 10, "{given} of {due}");
    }
}

#[test]
fn weight_zero_is_the_last_resort() {
    let now = Instant::now();
    let ready = weighted(&[0, 100, 0], now);
    let picker = WeightedRoundRobin::default().build(ready.clone(), None);
    assert_eq!(shares(&*picker, 3, 100, now, &Dice::new(4)), [0, 100, 0]);
    ready[1].close();
    let given = shares(&*picker, 3, 1_000, now, &Dice::new(5));
    assert!(given[0].abs_diff(500) < 70 && given[1] == 0, "{given:?}");
}

#[test]
fn the_turn_is_kept_when_the_set_changes() {
    let now = Instant::now();
    let ready = weighted(&[100; 4], now);
    let policy = WeightedRoundRobin::default();
    let first = policy.build(ready.clone(), None);
    let request = PickRequest::new(now, &|| 0);
    assert_eq!((first.pick(&request), first.pick(&request)), (Some(0), Some(1)));
    let second = policy.build(ready, Some(&*first));
    assert_eq!(second.pick(&request), Some(2));
}
