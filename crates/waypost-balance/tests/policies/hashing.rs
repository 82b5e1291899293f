//! The hashing policies: the same hash goes to the same endpoint, and little moves when the set changes.

use std::sync::Arc;
use std::time::Instant;
use waypost_balance::{Maglev, PickRequest, Picker, Policy, RingHash};
use waypost_simulation::{Dice, Ready, open, weighted};

const HASHES: usize = 100_000;

fn both() -> [Arc<dyn Policy>; 2] {
    [Arc::new(RingHash::default()), Arc::new(Maglev::default())]
}

/// To whom each of many hashes goes, by port.
fn owners(picker: &dyn Picker, ready: &Ready, seed: u64) -> Vec<u16> {
    let (now, dice) = (Instant::now(), Dice::new(seed));
    (0..HASHES)
        .map(|_| {
            let request = PickRequest::new(now, &|| 0).with_hash(Some(dice.roll()));
            ready[picker.pick(&request).unwrap()].endpoint().port
        })
        .collect()
}

fn moved<'a>(before: &'a [u16], after: &'a [u16]) -> impl Iterator<Item = (u16, u16)> + 'a {
    before.iter().copied().zip(after.iter().copied()).filter(|(before, after)| before != after)
}

fn share(owners: &[u16], port: u16) -> f64 {
    owners.iter().filter(|&&owner| owner == port).count() as f64 / HASHES as f64
}

#[test]
fn when_one_of_ten_leaves_its_hashes_move_and_few_others() {
    let now = Instant::now();
    let all = open(10, now);
    let nine: Ready = all.iter().filter(|endpoint| endpoint.endpoint().port != 4).cloned().collect();
    for (policy, others_at_most) in both().into_iter().zip([0.0, 0.05]) {
        let with = policy.build(all.clone(), None);
        let without = policy.build(nine.clone(), Some(&*with));
        let (before, after) = (owners(&*with, &all, 1), owners(&*without, &nine, 1));
        let others = moved(&before, &after).filter(|&(before, _)| before != 4).count() as f64 / HASHES as f64;
        println!("{}: {:.4} were its own, {others:.4} of others moved", policy.name(), share(&before, 4));
        assert!(others <= others_at_most, "{}: {others}", policy.name());
        // Its hashes go to all others, to none more than twice what would be even.
        for port in (1..=10).filter(|&port| port != 4) {
            let heir =
                moved(&before, &after).filter(|&pair| pair == (4, port)).count() as f64 / HASHES as f64;
            assert!(
                heir > 0.0 && heir < 2.0 * share(&before, 4) / 9.0,
                "{}: {port} got {heir}",
                policy.name()
            );
        }
        // And they come back with it.
        let again = policy.build(all.clone(), Some(&*without));
        assert_eq!(owners(&*again, &all, 1), before);
    }
}

#[test]
fn when_one_of_a_hundred_leaves_few_hashes_move() {
    let now = Instant::now();
    let all = open(100, now);
    let fewer: Ready = all.iter().skip(1).cloned().collect();
    for (policy, others_at_most) in both().into_iter().zip([0.0, 0.05]) {
        let before = owners(&*policy.build(all.clone(), None), &all, 2);
        let after = owners(&*policy.build(fewer.clone(), None), &fewer, 2);
        let others = moved(&before, &after).filter(|&(before, _)| before != 1).count() as f64 / HASHES as f64;
        println!("{}: {others:.4} of others moved", policy.name());
        assert!(others <= others_at_most, "{}: {others}", policy.name());
    }
}

#[test]
fn an_ejected_endpoint_moves_only_its_own_hashes_and_keeps_them_together() {
    let now = Instant::now();
    let all = weighted(&[100, 100, 100, 200, 0], now);
    for policy in both() {
        let picker = policy.build(all.clone(), None);
        let before = owners(&*picker, &all, 3);
        assert!(all[0].eject());
        let during = owners(&*picker, &all, 3);
        assert_eq!(during, owners(&*picker, &all, 3));
        assert!(moved(&before, &during).all(|(before, _)| before == 1));
        // By weight: half to the fourth, none to the one without weight.
        let heirs = |port| moved(&before, &during).filter(|&(_, after)| after == port).count() as f64;
        let all_heirs = moved(&before, &during).count() as f64;
        for (port, due) in [(2, 0.25), (3, 0.25), (4, 0.5), (5, 0.0)] {
            assert!((heirs(port) / all_heirs - due).abs() < 0.02, "{}: {}", policy.name(), heirs(port));
        }
        assert!(all[0].readmit());
        assert_eq!(owners(&*picker, &all, 3), before);
    }
}

#[test]
fn shares_follow_weights() {
    let now = Instant::now();
    let weights = [100, 100, 200, 50, 0, 150];
    let all = weighted(&weights, now);
    let total: u32 = weights.iter().sum();
    let ring: Arc<dyn Policy> = Arc::new(RingHash::default().with_points(4_096));
    let maglev: Arc<dyn Policy> = Arc::new(Maglev::default());
    for (policy, tolerance) in [(ring, 0.08), (maglev, 0.02)] {
        let owners = owners(&*policy.build(all.clone(), None), &all, 4);
        for (port, weight) in (1..).zip(weights) {
            let due = f64::from(weight) / f64::from(total);
            let share = share(&owners, port);
            assert!((share - due).abs() <= due * tolerance, "{}: {share} of {due}", policy.name());
        }
    }
}

#[test]
fn maglev_is_even_to_a_percent_and_the_ring_to_nine() {
    let now = Instant::now();
    let all = open(100, now);
    for (policy, deviation) in both().into_iter().zip([0.09, 0.01]) {
        // What the table says rather than a sample of it: hashes spread evenly over all of u64, and over all remainders.
        let picker = policy.build(all.clone(), None);
        let mut shares = vec![0.0_f64; 100];
        let count = 655_370_u64;
        for n in 0..count {
            let hash = n * (u64::MAX / count);
            shares[picker.pick(&PickRequest::new(now, &|| 0).with_hash(Some(hash))).unwrap()] +=
                100.0 / count as f64;
        }
        let variance = shares.iter().map(|share| (share - 1.0).powi(2)).sum::<f64>() / 100.0;
        println!("{}: standard deviation {:.4}", policy.name(), variance.sqrt());
        assert!(variance.sqrt() < deviation, "{}: {}", policy.name(), variance.sqrt());
    }
}

#[test]
fn a_call_without_a_hash_goes_anywhere() {
    let now = Instant::now();
    let all = open(5, now);
    for policy in both() {
        let given =
            waypost_simulation::shares(&*policy.build(all.clone(), None), 5, 10_000, now, &Dice::new(5));
        assert!(given.iter().all(|&calls| calls > 1_400), "{given:?}");
    }
}

#[test]
fn a_second_attempt_goes_to_another_endpoint_and_always_to_the_same() {
    let now = Instant::now();
    let all = open(5, now);
    for policy in both() {
        let picker = policy.build(all.clone(), None);
        for hash in 0..100 {
            let request = PickRequest::new(now, &|| 0).with_hash(Some(waypost_balance::hash_key(&[hash])));
            let first = picker.pick(&request).unwrap();
            let tried = [Arc::clone(&all[first])];
            let second = picker.pick(&request.with_exclude(&tried)).unwrap();
            assert_ne!(first, second);
            assert_eq!(picker.pick(&request.with_exclude(&tried)), Some(second));
        }
    }
}
