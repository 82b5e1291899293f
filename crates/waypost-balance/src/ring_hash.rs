//! `ring_hash`: calls with the same hash stay together, by a ring of points.

use crate::affinity::{Members, hash_key};
use crate::choose::is_fresh;
use crate::{PickRequest, Picker, Policy, Roster};
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
///
/// [`with_ring_size`](Self::with_ring_size) makes gRPC's ring instead: the same points, so that a key goes to the same server from
/// clients here and there, while they see the same endpoints with the same weights. (Where weights differ, so may a point of each
/// endpoint, since shares are rounded in the order of the endpoints.)
#[derive(Debug, Clone)]
pub struct RingHash {
    size: Size,
}

/// How many points there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// For the highest weight, if that is a power of two.
    OfEach(u32),
    /// Of all endpoints together, as gRFC A42 says.
    OfRing { least: u32, most: u32 },
}

struct RingHashPicker {
    ready: Roster,
    ring: Arc<Ring>,
}

/// A hash belongs to the first point at or after it, or to the first of all.
struct Ring {
    members: Members,
    size: Size,
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
        Self { size: Size::OfEach(DEFAULT_POINTS) }
    }
}

impl RingHash {
    /// Points for the highest weight, if that is a power of two: 256 by default, at least 1. The share of an endpoint
    /// deviates by the square root of its points; a point takes 12 bytes. A ring has at most 1,048,576, or one for
    /// each endpoint.
    pub fn with_points(mut self, points: u32) -> Self {
        self.size = Size::OfEach(points.max(1));
        self
    }

    /// A ring of gRFC A42: of so many points that the endpoint with the lowest weight has a whole number of them, that there are at
    /// least `least`, and that there are not more than `most` (which counts more, and leaves endpoints without a point where they are
    /// more than that). In gRPC, 1,024 and 4,096 by default. At most 1,048,576 either way.
    pub fn with_ring_size(mut self, least: u32, most: u32) -> Self {
        let bound = |size: u32| size.clamp(1, u32::try_from(MOST_POINTS).unwrap_or(u32::MAX));
        self.size = Size::OfRing { least: bound(least), most: bound(most) };
        self
    }
}

impl Policy for RingHash {
    fn name(&self) -> &'static str {
        "ring_hash"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let members = Members::of(&ready);
        let ring = previous
            .and_then(|previous| (previous as &dyn Any).downcast_ref::<RingHashPicker>())
            .map(|previous| &previous.ring)
            .filter(|ring| ring.size == self.size && ring.members == members)
            .map_or_else(|| Arc::new(Ring::new(members, self.size)), Arc::clone);
        Arc::new(RingHashPicker { ready, ring })
    }
}

// === impl Ring ===

impl Ring {
    fn new(members: Members, size: Size) -> Self {
        let weights = members.weights.as_slice();
        let counts = match size {
            Size::OfEach(points) => counts(weights, points),
            Size::OfRing { least, most } => counts_of_ring(weights, least, most),
        };
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
        Self { members, size, hashes: hashes.into(), owners: owners.into() }
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

/// How many points each endpoint has in a ring of A42: shares are rounded up so that their sum is right after each endpoint.
fn counts_of_ring(weights: &[u32], least: u32, most: u32) -> Vec<u64> {
    let sum: f64 = weights.iter().copied().map(f64::from).sum();
    let lowest = weights.iter().copied().filter(|&weight| weight > 0).min().unwrap_or(1);
    let lowest = f64::from(lowest) / sum;
    let scale = ((lowest * f64::from(least)).ceil() / lowest).min(f64::from(most));
    let (mut due, mut placed) = (0.0, 0_u64);
    let count = |&weight: &u32| {
        due += scale * (f64::from(weight) / sum);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than `most`")]
        let count = (due.ceil() as u64).saturating_sub(placed);
        placed += count;
        count
    };
    weights.iter().map(count).collect()
}

// === impl RingHashPicker ===

impl Picker for RingHashPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let hash = request.hash.unwrap_or_else(request.random);
        let owner = self.ring.owner(hash)?;
        if is_fresh(&self.ready, owner, request) {
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
    fn a_ring_of_a_size_is_that_of_a42() {
        assert_eq!(counts_of_ring(&[100; 3], 1_024, 4_096), [342; 3], "1,024 is no multiple of three");
        assert_eq!(counts_of_ring(&[1, 2, 3], 1_024, 4_096), [171, 342, 513]);
        assert_eq!(counts_of_ring(&[1, 2, 3], 1, 10), [1, 2, 3]);
        // The lowest weight would have a point of its own in a ring of a million.
        let counts = counts_of_ring(&[1, 999_999], 1_024, 4_096);
        assert_eq!((counts[0], counts.iter().sum::<u64>()), (1, 4_096));
        assert_eq!(counts_of_ring(&[100; 10], 1, 5), [1, 0, 1, 0, 1, 0, 1, 0, 1, 0], "less than one each");
        assert_eq!(counts_of_ring(&[0, 5, 0], 8, 8), [0, 8, 0]);
        assert_eq!(counts_of_ring(&[], 8, 8), Vec::<u64>::new());
        assert_eq!(counts_of_ring(&[u32::MAX, 1], u32::MAX, 16).iter().sum::<u64>(), 16);
    }

    #[test]
    fn a_hash_belongs_to_the_next_point() {
        let ring = Ring {
            members: Members::of(&[]),
            size: Size::OfEach(1),
            hashes: [10, 20].into(),
            owners: [1, 0].into(),
        };
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
        let first = policy.build(Roster::from(fleet.clone()), None);
        let second = policy.build(Roster::from(fleet.clone()), Some(&*first));
        assert!(Arc::ptr_eq(&ring(&first), &ring(&second)));
        let third = policy.build(Roster::from(&fleet[..3]), Some(&*second));
        assert!(!Arc::ptr_eq(&ring(&second), &ring(&third)));
        crate::fixture::reweigh(&fleet[0], 7);
        let fourth = policy.build(Roster::from(&fleet[..3]), Some(&*third));
        assert!(!Arc::ptr_eq(&ring(&third), &ring(&fourth)));
        let sized = policy.with_ring_size(1_024, 4_096).build(Roster::from(&fleet[..3]), Some(&*fourth));
        assert!(!Arc::ptr_eq(&ring(&fourth), &ring(&sized)));
    }
}
