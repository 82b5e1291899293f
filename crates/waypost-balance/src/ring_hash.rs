//! `ring_hash`: calls with the same hash stay together, by a ring of points.

use crate::affinity::{Members, hash_key};
use crate::choose::is_fresh;
use crate::{EndpointState, PickRequest, Picker, Policy};
use std::any::Any;
use std::sync::Arc;

/// Gives calls with the same [hash](PickRequest::hash) to the same endpoint: each endpoint has points on a ring, and
/// a hash belongs to the next point. A call without a hash goes to any of them.
///
/// When an endpoint leaves, only its hashes move, to all others alike; when one comes, it takes its share from all
/// others and no other hash moves. When one cannot take a call (ejected, or tried before), the call goes where all
/// calls with that hash then go; only when the set changes is a ring built, and not even then if it is the same set.
///
/// Points are placed as gRPC (gRFC A42) and Envoy (`ring_hash`, after ketama) place them: the nth at XXH64 of
/// `address_n`. They differ in how many there are. There, an endpoint has as many points as fill a ring of at least
/// 1,024 together with the others, so that everyone's number of points changes with the size of the fleet, and hashes
/// move between endpoints that neither came nor left. Here it depends on weight alone: weight `w` has `256 * w / r`
/// points, where `r` is the highest weight rounded up to a power of two. Between 128 and 256 for equal weights, so
/// that shares differ by 6 to 9 % (standard deviation). All move only when the highest weight passes a power of two.
///
/// Weight 0 means no points: the endpoint is used when no other can be. If all weights are 0, all are equal.
#[derive(Debug, Clone)]
pub struct RingHash {
    points: u32,
}

struct RingHashPicker {
    ready: Arc<[Arc<EndpointState>]>,
    ring: Arc<Ring>,
}

/// A hash belongs to the first point at or after it, or to the first of all.
struct Ring {
    members: Members,
    points: u32,
    hashes: Box<[u64]>,
    /// To whom the point belongs: an index into `members`.
    owners: Box<[u32]>,
}

const DEFAULT_POINTS: u32 = 256;
/// 12 MB. Beyond, everyone has half the points, or a quarter, and so on.
const MOST_POINTS: u64 = 1 << 20;

// === impl RingHash ===

impl Default for RingHash {
    fn default() -> Self {
        Self { points: DEFAULT_POINTS }
    }
}

impl RingHash {
    /// Points for the highest weight, if that is a power of two: 256 by default, at least 1. The share of an endpoint
    /// deviates by the square root of its points; a point takes 12 bytes. A ring has at most 1,048,576, or one for
    /// each endpoint.
    pub fn with_points(mut self, points: u32) -> Self {
        self.points = points.max(1);
        self
    }
}

impl Policy for RingHash {
    fn name(&self) -> &'static str {
        "ring_hash"
    }

    fn build(&self, ready: Arc<[Arc<EndpointState>]>, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let members = Members::of(&ready);
        let ring = previous
            .and_then(|previous| (previous as &dyn Any).downcast_ref::<RingHashPicker>())
            .map(|previous| &previous.ring)
            .filter(|ring| ring.points == self.points && ring.members == members)
            .map_or_else(|| Arc::new(Ring::new(members, self.points)), Arc::clone);
        Arc::new(RingHashPicker { ready, ring })
    }
}

// === impl Ring ===

impl Ring {
    fn new(members: Members, points: u32) -> Self {
        let counts = counts(members.weights.as_slice(), points);
        let mut placed = Vec::new();
        let mut text = String::new();
        for ((index, address), count) in (0_u32..).zip(&members.addresses).zip(counts) {
            for n in 0..count {
                text.clear();
                text.push_str(address);
                text.push('_');
                text.push_str(&n.to_string());
                placed.push((hash_key(text.as_bytes()), index));
            }
        }
        placed.sort_unstable();
        let (hashes, owners): (Vec<_>, Vec<_>) = placed.into_iter().unzip();
        Self { members, points, hashes: hashes.into(), owners: owners.into() }
    }

    fn owner(&self, hash: u64) -> Option<usize> {
        let next = self.hashes.partition_point(|&point| point < hash);
        self.owners.get(next).or_else(|| self.owners.first()).map(|&owner| owner as usize)
    }
}

/// How many points each endpoint has.
fn counts(weights: &[u32], points: u32) -> Vec<u64> {
    let highest = weights.iter().copied().max().unwrap_or(1);
    let reference = u64::from(highest).next_power_of_two();
    let count = |weight: u32, points: u64| match u64::from(weight) * points / reference {
        0 if weight > 0 => 1,
        count => count,
    };
    let mut points = u64::from(points);
    while points > 1 && weights.iter().map(|&weight| count(weight, points)).sum::<u64>() > MOST_POINTS {
        points /= 2;
    }
    weights.iter().map(|&weight| count(weight, points)).collect()
}

// === impl RingHashPicker ===

impl Picker for RingHashPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let hash = request.hash.unwrap_or_else(request.random);
        let owner = self.ring.owner(hash)?;
        if is_fresh(self.ready.get(owner)?, request) {
            return Some(owner);
        }
        self.ring.members.stand_in(&self.ready, hash, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_depend_on_weight_alone() {
        assert_eq!(counts(&[100; 3], 256), [200; 3]);
        assert_eq!(counts(&[100; 300], 256), vec![200; 300]);
        assert_eq!(counts(&[1, 1], 256), [256, 256]);
        assert_eq!(counts(&[200, 100, 0, 1], 256), [200, 100, 0, 1]);
        assert_eq!(counts(&[u32::MAX, 1], 256), [255, 1]);
        assert_eq!(counts(&[], 256), Vec::<u64>::new());
    }

    #[test]
    fn a_ring_is_bounded() {
        assert_eq!(counts(&vec![100; 10_000], 256).iter().sum::<u64>(), 10_000 * 100);
        assert_eq!(counts(&[1; 10], u32::MAX).iter().max(), Some(&65_535));
    }

    #[test]
    fn a_hash_belongs_to_the_next_point() {
        let ring =
            Ring { members: Members::of(&[]), points: 1, hashes: [10, 20].into(), owners: [1, 0].into() };
        let owners = [0, 10, 11, 20, 21, u64::MAX].map(|hash| ring.owner(hash));
        assert_eq!(owners, [1, 1, 0, 0, 1, 1].map(Some));
    }

    #[test]
    fn the_ring_is_shared_while_the_set_is_the_same() {
        let now = std::time::Instant::now();
        let fleet = crate::fixture::fleet(4, now);
        let ring = |picker: &Arc<dyn Picker>| {
            let picker: &dyn Any = &**picker;
            Arc::clone(&picker.downcast_ref::<RingHashPicker>().unwrap().ring)
        };
        let policy = RingHash::default();
        let first = policy.build(Arc::from(fleet.clone()), None);
        let second = policy.build(Arc::from(fleet.clone()), Some(&*first));
        assert!(Arc::ptr_eq(&ring(&first), &ring(&second)));
        let third = policy.build(Arc::from(&fleet[..3]), Some(&*second));
        assert!(!Arc::ptr_eq(&ring(&second), &ring(&third)));
        crate::fixture::reweigh(&fleet[0], 7);
        let fourth = policy.build(Arc::from(&fleet[..3]), Some(&*third));
        assert!(!Arc::ptr_eq(&ring(&third), &ring(&fourth)));
    }
}
