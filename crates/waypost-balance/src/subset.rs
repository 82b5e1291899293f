//! Subsets: in a large fleet each client connects to some endpoints, not to all.

use crate::ClientNumber;
use crate::affinity::{hash_key, mix};
use std::num::NonZeroUsize;
use waypost_model::Endpoint;

/// Which endpoints a client connects to: `size` of them that follow each other in an order.
///
/// With a thousand clients and a thousand servers, connections from all to all are a million, and every server spends
/// its time on health checks and keepalives. Twenty to a hundred for each client are enough to balance over.
///
/// Either way a client has the same subset after a restart, all clients may choose at the same time without knowing of each
/// other, and nothing but the set of endpoints counts, not how it came to be. There are two kinds of clients.
///
/// **[Named](Self::new)** ones have an order of their own, by a hash of the client's name and the endpoint's address (rendezvous hashing),
/// and take the first. When an endpoint leaves, only the clients that had it replace it, each by one other: nothing moves that need
/// not. But loads are as even as chance: of `m` connections for each endpoint on average, the standard deviation is
/// the square root of `m`.
///
/// **[Numbered](Self::numbered)** ones, from 0 without gaps, have one order for the whole group, by a hash of the group's name and the
/// endpoint's address, and begin at different places of it, going round. Client `i` begins at the part `x(i)` of the order, the
/// binary van der Corput sequence: `i` with its bits in reverse, as a fraction, so 0, 1/2, 1/4, 3/4, 1/8, … Loads are even
/// whatever the number of clients, endpoints and connections, and also while clients are added:
///
/// *The loads of two endpoints differ by at most as many as the number of clients has ones in binary.* For the endpoint in place `j` of
/// `n` has the clients whose `x` is in a piece of the circle that ends with `(j + 1) / n` and is `size / n` long. Cut the clients,
/// of which there are `m`, into blocks by the ones of `m`, as 13 = 8 + 4 + 1: each block of `b` has places that are
/// exactly `1 / b` apart, so that pieces of the same length have the same number of them, or one more.
///
/// What it costs: places are parts of the whole, so one endpoint that leaves or joins moves the beginning of about every
/// third client to the next place. That client drops one connection and makes one; *no client ever moves more than one, beside
/// one to the endpoint that has left*. And the clients of one endpoint are those of its neighbours too: calls that an endpoint no longer
/// takes go to the `size` places on either side, a part of `1 / size` at most to each, rather than to the whole fleet.
///
/// Numbers are worth it where an endpoint has few of the connections (up to some hundred), names where it has many, where
/// endpoints are replaced all the time, and where clients have no numbers: numbers drawn at random are no more even than names.
/// The figures are in `docs/balancing.md`.
///
/// Others do it as follows. Google's deterministic subsetting ("Site Reliability Engineering", chapter 20) has numbered clients and shuffles the
/// servers anew whenever their number changes: exactly even, and nearly every connection of the fleet moves with one server. What Google designed
/// since ("Reinventing Backend Subsetting at Google", ACM Queue 20(5), 2022) puts the *servers*, too, on the circle by the same sequence and
/// moves fewer; that needs servers that are numbered without gaps, and ours have addresses. By hashes on the circle, gaps between
/// servers are as uneven as chance again, however many clients there are. Twitter's deterministic aperture knows the number of
/// clients, and all move when it changes.
///
/// ```
/// use std::num::NonZeroUsize;
/// use waypost_balance::{ClientNumber, Subset};
/// use waypost_model::Endpoint;
///
/// let fleet: Vec<Endpoint> =
///     (1..=100).map(|n| Endpoint::new(format!("10.0.0.{n}"), 50051)).collect::<Result<_, _>>()?;
/// let size = NonZeroUsize::new(20).expect("20 is not 0");
/// let chosen = Subset::new("10.0.7.1:4711", size).choose(&fleet);
/// assert_eq!(chosen.len(), 20);
///
/// // Fifty numbered clients: 1,000 connections, ten for each server, or one more or less.
/// let mut loads = [0_usize; 100];
/// for number in 0..50 {
///     let client = ClientNumber::new("frontend", number);
///     Subset::numbered(&client, size).choose(&fleet).into_iter().for_each(|server| loads[server] += 1);
/// }
/// assert!(loads.iter().all(|load| (9..=11).contains(load)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// By which the endpoints are ordered.
    order: u64,
    /// Where the chosen ones begin, as a part of the order: 2^64 is the whole.
    place: u64,
    size: NonZeroUsize,
}

// === impl Subset ===

impl Subset {
    /// For the client of this name: its pod, host or instance id. It is to differ from client to client, and to
    /// survive a restart.
    pub fn new(client: impl AsRef<[u8]>, size: NonZeroUsize) -> Self {
        Self { order: hash_key(client.as_ref()), place: 0, size }
    }

    /// For the client of this number. Loads are even if all clients of the group have subsets of one size, and each has a number
    /// of its own. A number that is missing is a client that is missing.
    pub fn numbered(client: &ClientNumber, size: NonZeroUsize) -> Self {
        Self { order: hash_key(client.group().as_bytes()), place: client.number().reverse_bits(), size }
    }

    /// How many endpoints are chosen.
    pub fn size(&self) -> NonZeroUsize {
        self.size
    }

    /// By what endpoints are ordered; those with the same rank by themselves. For whoever keeps the order as endpoints come and go,
    /// rather than working it out anew each time: chosen are [`size`](Self::size) from [`start`](Self::start) on.
    pub fn rank(&self, endpoint: &Endpoint) -> u64 {
        mix(self.order, hash_key(endpoint.authority().as_bytes()))
    }

    /// Where the chosen ones begin in the order of so many endpoints, from which they go on, round the end if need be. Less than
    /// `endpoints`, or 0. With one endpoint more or less it is the same or the next.
    pub fn start(&self, endpoints: usize) -> usize {
        let start = (u128::from(self.place) * endpoints as u128) >> 64;
        // Less than `endpoints`, so it fits.
        usize::try_from(start).unwrap_or_default()
    }

    /// The chosen ones: indices into `fleet`, rising. All, if there are no more than [`size`](Self::size). Sorts the fleet.
    pub fn choose<'a>(&self, fleet: impl IntoIterator<Item = &'a Endpoint>) -> Vec<usize> {
        let ranked = fleet.into_iter().enumerate();
        let mut order: Vec<(u64, &Endpoint, usize)> =
            ranked.map(|(index, endpoint)| (self.rank(endpoint), endpoint, index)).collect();
        order.sort_unstable();
        let from_start = order.iter().cycle().skip(self.start(order.len()));
        let chosen = from_start.take(self.size.get().min(order.len()));
        let mut chosen: Vec<usize> = chosen.map(|(_, _, index)| *index).collect();
        chosen.sort_unstable();
        chosen
    }
}
