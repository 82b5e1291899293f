//! Subsets by simulation: how even the load is, and how many connections move, beside Google's deterministic subsetting.

use std::collections::{BTreeSet, HashSet};
use waypost_model::Endpoint;
use waypost_simulation::{Dice, servers, subset, unevenness};

const SIZE: usize = 10;

/// "Site Reliability Engineering", chapter 20: clients in rounds of `n / size`; each round shuffles the servers in
/// its own way, and each of its clients takes a piece.
fn google(client: u64, size: usize, servers: usize) -> Vec<usize> {
    let pieces = (servers / size) as u64;
    let dice = Dice::new(client / pieces);
    let mut order: Vec<usize> = (0..servers).collect();
    for last in (1..servers).rev() {
        order.swap(last, (dice.roll() % (last as u64 + 1)) as usize);
    }
    let start = (client % pieces) as usize * size;
    order[start..start + size].to_vec()
}

/// The part of the connections that are to other servers after server 0 has left. Indices are those without it.
fn churn(before: &[Vec<usize>], after: &[Vec<usize>]) -> f64 {
    let kept: usize = before
        .iter()
        .zip(after)
        .map(|(before, after)| {
            let after: HashSet<usize> = after.iter().map(|server| server + 1).collect();
            before.iter().filter(|server| after.contains(server)).count()
        })
        .sum();
    1.0 - kept as f64 / before.iter().map(Vec::len).sum::<usize>() as f64
}

#[test]
fn rendezvous_beside_googles_subsetting() {
    let fleet = servers(300);
    let rendezvous =
        |fleet: &[Endpoint]| -> Vec<_> { (0..300).map(|client| subset(client, SIZE, fleet)).collect() };
    let numbered = |count| -> Vec<_> { (0..300).map(|client| google(client, SIZE, count)).collect() };
    let unnumbered = |count| -> Vec<_> {
        let dice = Dice::new(77);
        (0..300).map(|_| google(dice.roll() >> 40, SIZE, count)).collect()
    };
    let ours = (unevenness(&rendezvous(&fleet), 300), churn(&rendezvous(&fleet), &rendezvous(&fleet[1..])));
    let dense = (unevenness(&numbered(300), 300), churn(&numbered(300), &numbered(299)));
    let loose = (unevenness(&unnumbered(300), 300), churn(&unnumbered(300), &unnumbered(299)));
    for (name, ((most, deviation), churn)) in
        [("rendezvous", ours), ("numbered", dense), ("unnumbered", loose)]
    {
        println!("{name}: most {most:.2}, deviation {deviation:.3} of the mean; churn {churn:.4}");
    }
    // Even where clients are numbered, but nearly everything moves; no more even than rendezvous where they are not.
    assert!(dense.0.1 < 1e-9 && dense.1 > 0.9);
    assert!(loose.0.1 > 0.8 * ours.0.1 && loose.1 > 0.9);
    assert!(ours.1 < 1.5 / 300.0);
}

#[test]
fn load_deviates_by_no_more_than_chance() {
    // Clients, servers, connections of each client.
    for (clients, count, size) in [(300, 300, 10), (1_000, 100, 20), (3_000, 300, 20), (50, 1_000, 100)] {
        let fleet = servers(count);
        let subsets: Vec<_> = (0..clients).map(|client| subset(client, size, &fleet)).collect();
        let (most, deviation) = unevenness(&subsets, fleet.len());
        let (mean, chosen) = ((clients * size) as f64 / f64::from(count), size as f64 / f64::from(count));
        let binomial = ((1.0 - chosen) / mean).sqrt();
        println!(
            "{clients} clients, {count} servers, {size} each: most {most:.2}, deviation {deviation:.3} (chance: {binomial:.3})"
        );
        assert!((deviation / binomial - 1.0).abs() < 0.25, "{deviation} of {binomial}");
        // Of up to a thousand normal deviations, hardly any is above 4.5.
        assert!(most < 1.0 + 4.5 * binomial, "{most}");
    }
}

#[test]
fn a_server_that_leaves_is_replaced_by_one_other() {
    let fleet = servers(100);
    for client in 0..200 {
        let all: BTreeSet<_> = subset(client, 20, &fleet).into_iter().map(|at| &fleet[at]).collect();
        let fewer: BTreeSet<_> =
            subset(client, 20, &fleet[1..]).into_iter().map(|at| &fleet[at + 1]).collect();
        assert_eq!(fewer.len(), 20);
        assert_eq!(all.difference(&fewer).count(), usize::from(all.contains(&fleet[0])));
    }
}

#[test]
fn a_small_fleet_is_taken_whole() {
    let fleet = servers(5);
    assert_eq!(subset(1, 5, &fleet), [0, 1, 2, 3, 4]);
    assert_eq!(subset(1, 6, &fleet), [0, 1, 2, 3, 4]);
    assert!(subset(1, 6, &[]).is_empty());
}

#[test]
fn the_order_in_which_servers_come_does_not_matter() {
    let mut fleet = servers(50);
    let chosen: BTreeSet<_> = subset(3, 7, &fleet).into_iter().map(|at| fleet[at].clone()).collect();
    fleet.reverse();
    assert_eq!(chosen, subset(3, 7, &fleet).into_iter().map(|at| fleet[at].clone()).collect());
}
