//! How even subsets are, and what they move.

use std::num::NonZeroUsize;
use waypost_balance::Subset;
use waypost_model::Endpoint;

/// So many addresses.
pub fn servers(count: u16) -> Vec<Endpoint> {
    (1..=count)
        .map(|n| Endpoint::new(format!("10.0.{}.{}", n / 256, n % 256), 50051).expect("an address"))
        .collect()
}

/// What a client chooses: indices into `servers`.
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
