//! What the hashing policies have in common: hashes of keys and endpoints, and where a call goes when the endpoint of
//! its hash cannot take it.

use crate::choose::rank;
use crate::weights::Weights;
use crate::{EndpointState, PickRequest, Roster};
use std::cmp::Ordering;
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

/// The hash of a key, for [`PickRequest::with_hash`]: XXH64 with seed 0, as gRPC and Envoy hash the header that a
/// ring is looked up by.
///
/// ```
/// assert_eq!(waypost_balance::hash_key(b""), 0xef46_db37_51d8_e999);
/// ```
pub fn hash_key(key: &[u8]) -> u64 {
    xxh64(key, 0)
}

/// The endpoints of a ring or table: what it is made of, and by what it is known to be the same. In the order of the
/// picker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) addresses: Box<[Arc<str>]>,
    pub(crate) weights: Weights,
    /// Of the addresses.
    pub(crate) hashes: Box<[u64]>,
}

// === impl Members ===

impl Members {
    pub(crate) fn of(ready: &[Arc<EndpointState>]) -> Self {
        let addresses = ready.iter().map(|endpoint| Arc::clone(endpoint.authority())).collect();
        let hashes = ready.iter().map(|endpoint| endpoint.authority_hash()).collect();
        Self { addresses, weights: Weights::of(ready), hashes }
    }

    /// Where calls with this hash go among the endpoints of the best rank: the one with the highest score for it
    /// (weighted rendezvous hashing: Thaler and Ravishankar 1998; the score `-w / ln u` is from Schindelhauer and
    /// Schomaker, "Weighted distributed hash tables", 2005). So the calls of an endpoint that cannot take them are
    /// spread over all others by weight, each hash stays together, and no other hash moves. Looks at all endpoints.
    pub(crate) fn stand_in(&self, ready: &Roster, hash: u64, request: &PickRequest<'_>) -> Option<usize> {
        let candidates = self.hashes.iter().enumerate().filter_map(|(index, own)| {
            let weight = self.weights.get(index);
            Some((rank(ready, index, request)?, weight == 0, score(mix(hash, *own), weight.max(1)), index))
        });
        candidates
            .min_by(|a, b| {
                let by_place = (a.0, a.1).cmp(&(b.0, b.1));
                by_place.then(b.2.partial_cmp(&a.2).unwrap_or(Ordering::Equal))
            })
            .map(|(_, _, _, index)| index)
    }
}

/// Two hashes as one: the finalizer of `SplitMix64` over both, so that each bit of either changes half of the result.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Exponential with the rate of the weight, turned round so that the highest wins.
#[expect(clippy::cast_precision_loss, reason = "53 bits of the hash are enough")]
fn score(hash: u64, weight: u32) -> f64 {
    // In (0, 1): never 0, whose logarithm is not finite, and never 1, whose logarithm is 0.
    let uniform = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -f64::from(weight) / uniform.ln()
}
