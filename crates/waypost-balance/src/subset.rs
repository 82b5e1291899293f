//! Subsets: in a large fleet each client connects to some endpoints, not to all.

use crate::affinity::{hash_key, mix};
use std::num::NonZeroUsize;
use waypost_model::Endpoint;

/// Which endpoints a client connects to: the `size` that come first in an order of the client's own.
///
/// With a thousand clients and a thousand servers, connections from all to all are a million, and every server spends
/// its time on health checks and keepalives. Twenty to a hundred for each client are enough to balance over.
///
/// The order is by rendezvous hashing: of the client's name and the endpoint's address. So a client with the same
/// name has the same subset after a restart; clients need to know nothing of each other; and when an endpoint leaves,
/// only the clients that had it replace it, each by one other, while one that comes takes the place of one endpoint
/// in the subsets of a `size / n` of the clients.
///
/// Google's deterministic subsetting ("Site Reliability Engineering", chapter 20) was simulated beside it
/// (`tests/policies/subsets.rs`), with 300 clients, 300 servers and 10 connections for each client. Where clients are numbered
/// without gaps, its loads are all the same, which rendezvous cannot do (the number of clients of a server is
/// binomial: a mean of `m` clients deviates by its square root). But it shuffles the servers anew whenever their
/// number changes, so that one server that leaves moves nearly every connection of the fleet, where rendezvous moves
/// one in 300. And Waypost's clients are not numbered: with numbers drawn at random, as each client would have to,
/// its loads deviate as much as those of rendezvous. It would cost all of the stability and gain nothing.
///
/// ```
/// use std::num::NonZeroUsize;
/// use waypost_balance::Subset;
/// use waypost_model::Endpoint;
///
/// let fleet: Vec<Endpoint> =
///     (1..=100).map(|n| Endpoint::new(format!("10.0.0.{n}"), 50051)).collect::<Result<_, _>>()?;
/// let subset = Subset::new("frontend-7", NonZeroUsize::new(20).expect("20 is not 0"));
/// let chosen = subset.choose(&fleet);
/// assert_eq!(chosen.len(), 20);
/// assert_eq!(chosen, subset.choose(&fleet));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    client: u64,
    size: NonZeroUsize,
}

// === impl Subset ===

impl Subset {
    /// For the client of this name: its pod, host or instance id. It is to differ from client to client, and to
    /// survive a restart.
    pub fn new(client: impl AsRef<[u8]>, size: NonZeroUsize) -> Self {
        Self { client: hash_key(client.as_ref()), size }
    }

    /// How many endpoints are chosen.
    pub fn size(&self) -> NonZeroUsize {
        self.size
    }

    /// Where an endpoint stands in the client's order: the [`size`](Self::size) lowest are chosen. For whoever keeps the order
    /// as endpoints come and go, rather than working it out anew each time.
    pub fn rank(&self, endpoint: &Endpoint) -> u64 {
        mix(self.client, hash_key(endpoint.authority().as_bytes()))
    }

    /// The chosen ones: indices into `fleet`, rising. All, if there are no more than [`size`](Self::size). Takes time
    /// in the size of the fleet.
    pub fn choose<'a>(&self, fleet: impl IntoIterator<Item = &'a Endpoint>) -> Vec<usize> {
        let mut order: Vec<(u64, usize)> =
            fleet.into_iter().enumerate().map(|(index, endpoint)| (self.rank(endpoint), index)).collect();
        if order.len() > self.size.get() {
            order.select_nth_unstable(self.size.get() - 1);
            order.truncate(self.size.get());
        }
        let mut chosen: Vec<usize> = order.into_iter().map(|(_, index)| index).collect();
        chosen.sort_unstable();
        chosen
    }
}
