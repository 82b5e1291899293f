//! How even subsets are, and what they move: ours, and Google's beside them.

use crate::Dice;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use waypost_balance::{ClientNumber, Subset};
use waypost_model::Endpoint;

/// So many addresses.
pub fn servers(count: u16) -> Vec<Endpoint> {
    (1..=count)
        .map(|n| Endpoint::new(format!("10.0.{}.{}", n / 256, n % 256), 50051).expect("an address"))
        .collect()
}

/// What a client of this number chooses: indices into `servers`.
pub fn numbered(client: usize, size: usize, servers: &[Endpoint]) -> Vec<usize> {
    let size = NonZeroUsize::new(size).expect("a size");
    Subset::numbered(&ClientNumber::new("clients", client as u64), size).choose(servers)
}

/// What a client chooses by "Site Reliability Engineering", chapter 20: clients in rounds of `servers / size`; each round shuffles
/// the servers in its own way, and each of its clients takes a piece. Indices below `servers`.
pub fn google(client: usize, size: usize, servers: usize) -> Vec<usize> {
    let pieces = servers / size;
    let dice = Dice::new((client / pieces) as u64);
    let mut order: Vec<usize> = (0..servers).collect();
    for last in (1..servers).rev() {
        order.swap(last, (dice.roll() % (last as u64 + 1)) as usize);
    }
    let start = client % pieces * size;
    order[start..start + size].to_vec()
}

/// How many connections are to other servers after one has left, beside those that it had. Indices of `after` are those without it.
pub fn moved(before: &[Vec<usize>], after: &[Vec<usize>], left: usize) -> usize {
    let pairs = before.iter().zip(after);
    let moved = pairs.map(|(before, after)| {
        let after: HashSet<usize> =
            after.iter().map(|server| server + usize::from(*server >= left)).collect();
        before.iter().filter(|server| **server != left && !after.contains(server)).count()
    });
    moved.sum()
}

/// What a client of this name chooses: indices into `servers`.
pub fn subset(client: usize, size: usize, servers: &[Endpoint]) -> Vec<usize> {
    let size = NonZeroUsize::new(size).expect("a size");
    Subset::new(format!("client-{client}"), size).choose(servers)
}

/// How many clients each server has: the most, and the standard deviation, both as parts of the mean.
pub fn unevenness(subsets: &[Vec<usize>], servers: usize) -> (f64, f64) {
    let mut clients = vec![0_usize; servers];
    for &server in subsets.iter().flatten() {
        clients[server] += 1;
    }
    let mean = clients.iter().sum::<usize>() as f64 / servers as f64;
    let variance = clients.iter().map(|&n| (n as f64 - mean).powi(2)).sum::<f64>() / servers as f64;
    (clients.iter().max().copied().unwrap_or_default() as f64 / mean, variance.sqrt() / mean)
}
