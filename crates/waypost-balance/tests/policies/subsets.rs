//! Subsets by simulation: how even the load is, and how many connections move, beside Google's deterministic subsetting.

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use waypost_balance::{ClientNumber, Subset};
use waypost_model::Endpoint;
use waypost_simulation::{Dice, google, moved, numbered, servers, subset, unevenness};

const SIZE: usize = 10;

/// How many of so many clients each server has, for numbers from 0.
fn loads(clients: usize, size: usize, fleet: &[Endpoint]) -> Vec<usize> {
    let mut loads = vec![0; fleet.len()];
    (0..clients).flat_map(|client| numbered(client, size, fleet)).for_each(|server| loads[server] += 1);
    loads
}

fn differ_by(loads: &[usize]) -> usize {
    loads.iter().max().unwrap() - loads.iter().min().unwrap()
}

#[test]
fn names_numbers_and_googles_subsetting() {
    let fleet = servers(300);
    let ours = |choose: fn(usize, usize, &[Endpoint]) -> Vec<usize>, fleet: &[Endpoint]| -> Vec<_> {
        (0..300).map(|client| choose(client, SIZE, fleet)).collect()
    };
    let dense = |count| -> Vec<_> { (0..300).map(|client| google(client, SIZE, count)).collect() };
    let loose = |count| -> Vec<_> {
        let dice = Dice::new(77);
        (0..300).map(|_| google((dice.roll() >> 40) as usize, SIZE, count)).collect()
    };
    let names = (ours(subset, &fleet), ours(subset, &fleet[1..]));
    let numbers = (ours(numbered, &fleet), ours(numbered, &fleet[1..]));
    let figures = [names, numbers, (dense(300), dense(299)), (loose(300), loose(299))]
        .map(|(before, after)| (unevenness(&before, 300), moved(&before, &after, 0)));
    println!("of the mean (most, deviation), connections moved of 3000: {figures:?}");
    let [names, numbers, dense, loose] = figures;
    // Google's are all even where clients are numbered, but nearly everything moves; no more even than names where they are not.
    assert!(dense.0.1 < 1e-9 && dense.1 > 2700);
    assert!(loose.0.1 > 0.8 * names.0.1 && loose.1 > 2700);
    assert_eq!(names.1, 0);
    assert!(numbers.0.1 < 0.3 * names.0.1 && numbers.1 < 200);
}

proptest! {
    #[test]
    fn loads_of_numbered_clients_differ_by_no_more_than_the_ones_of_their_number(
        clients in 1_usize..400, count in 1_u16..80, size in 1_usize..40,
    ) {
        let fleet = servers(count);
        let loads = loads(clients, size, &fleet);
        prop_assert_eq!(loads.iter().sum::<usize>(), clients * size.min(fleet.len()));
        prop_assert!(differ_by(&loads) <= clients.count_ones() as usize, "{clients} clients: {loads:?}");
    }

    #[test]
    fn a_numbered_client_moves_one_connection_at_most_beside_that_to_who_left(
        client in any::<u32>(), count in 2_u16..120, size in 1_usize..40, left in any::<prop::sample::Index>(),
    ) {
        let all = servers(count);
        let mut fewer = all.clone();
        let left = fewer.remove(left.index(fewer.len()));
        let chosen = |fleet: &[Endpoint]| -> BTreeSet<Endpoint> {
            let chosen: BTreeSet<_> = numbered(client as usize, size, fleet).into_iter().map(|at| fleet[at].clone()).collect();
            assert_eq!(chosen.len(), size.min(fleet.len()));
            chosen
        };
        let (before, after) = (chosen(&all), chosen(&fewer));
        prop_assert!(before.difference(&after).filter(|server| **server != left).count() <= 1, "it leaves");
        prop_assert!(after.difference(&before).count() <= 1 + usize::from(before.contains(&left)), "it leaves");
    }
}

/// However the number of clients grows, whatever the number of servers.
#[test]
fn loads_are_even_while_clients_are_added() {
    for (count, size) in [(300, 10), (100, 20), (97, 13), (1_000, 100)] {
        let fleet = servers(count);
        let mut loads = vec![0_usize; fleet.len()];
        let mut widest = 0;
        for client in 0..1_000_usize {
            for server in numbered(client, size, &fleet) {
                loads[server] += 1;
            }
            let ones = (client + 1).count_ones() as usize;
            let by = differ_by(&loads);
            assert!(by <= ones, "{} clients of {count} servers: {by}", client + 1);
            widest = widest.max(by);
        }
        println!("{count} servers, {size} each, up to 1,000 clients: loads differ by {widest} at most");
    }
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
fn groups_of_numbered_clients_begin_at_different_servers() {
    let fleet = servers(100);
    let first = |group: usize| {
        let client = ClientNumber::new(format!("group-{group}"), 0);
        Subset::numbered(&client, NonZeroUsize::MIN).choose(&fleet)[0]
    };
    let firsts: BTreeSet<_> = (0..50).map(first).collect();
    // Fifty of a hundred at random are 39 different ones.
    assert!(firsts.len() > 30, "{firsts:?}");
}

#[test]
fn a_small_fleet_is_taken_whole() {
    let fleet = servers(5);
    for size in [5, 6] {
        assert_eq!(numbered(3, size, &fleet), [0, 1, 2, 3, 4]);
    }
    assert!(numbered(3, 6, &[]).is_empty());
    assert_eq!(subset(1, 5, &fleet), [0, 1, 2, 3, 4]);
    assert_eq!(subset(1, 6, &fleet), [0, 1, 2, 3, 4]);
    assert!(subset(1, 6, &[]).is_empty());
}

#[test]
fn the_order_in_which_servers_come_does_not_matter() {
    for choose in [subset, numbered] {
        let mut fleet = servers(50);
        let chosen: BTreeSet<_> = choose(3, 7, &fleet).into_iter().map(|at| fleet[at].clone()).collect();
        fleet.reverse();
        assert_eq!(chosen, choose(3, 7, &fleet).into_iter().map(|at| fleet[at].clone()).collect());
    }
}
