//! A pick allocates nothing, whatever state the fleet is in.

use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{Gate, Outcome, PickRequest};
use waypost_simulation::{Dice, OPEN, Sketch, every_policy, fleet};

#[test]
fn a_pick_allocates_nothing() {
    let now = Instant::now();
    let sketches: Vec<_> = (0..30)
        .map(|n| Sketch {
            gate: [Gate::Open, Gate::Open, Gate::Ejected, Gate::Closed][n % 4],
            zone: ["a", "b", ""][n % 3],
            weight: [0, 1, 100][n % 3],
            ..OPEN
        })
        .collect();
    let (ready, _) = fleet(&sketches, now);
    let tried = [Arc::clone(&ready[0]), Arc::clone(&ready[1])];
    for policy in every_policy() {
        let building = allocation_counter::measure(|| drop(policy.build(ready.clone(), None)));
        assert!(building.count_total > 0, "the counter counts");
        let picker = policy.build(ready.clone(), None);
        let dice = Dice::new(1);
        let random = || dice.roll();
        let counted = allocation_counter::measure(|| {
            for call in 0..300 {
                let now = now + Duration::from_millis(call);
                let exclude = if call % 3 == 0 { &tried[..] } else { &[] };
                let request = PickRequest::new(now, &random).with_hash((call % 2 == 0).then_some(call));
                let index = picker.pick(&request.with_exclude(exclude)).unwrap();
                ready[index].started(now).finished(now + Duration::from_millis(3), Outcome::Ok);
            }
        });
        assert_eq!(counted.count_total, 0, "{policy:?}");
    }
}
