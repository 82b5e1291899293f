//! `maglev`: calls with the same hash stay together, by a table.

use crate::affinity::{Members, mix};
use crate::choose::is_fresh;
use crate::{PickRequest, Picker, Policy, Roster};
use std::any::Any;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Gives calls with the same [hash](PickRequest::hash) to the same endpoint: the hash is looked up in a table whose
/// slots are shared out among the endpoints. A call without a hash goes to any of them.
///
/// Compared with [`RingHash`](crate::RingHash): shares are even (to 1 % where there are 100 slots for each endpoint,
/// rather than to 6 to 9 %), a look-up is one memory access rather than a search, and a change of the set moves a few
/// more hashes than it must. When an endpoint cannot take a call (ejected, or tried before), the call goes where all
/// calls with that hash then go, to the owner of another slot that follows from the hash; only when the set changes is a table
/// built, and not even then if it is the same set.
///
/// The table is that of "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et al., NSDI 2016,
/// section 3.4): every endpoint has an order of preference over all slots, and they take turns to take the slot that
/// they prefer among those that are left. As in Envoy, an endpoint of lower weight has fewer turns: in round `r`, one
/// of weight `w` has had `r * w / highest` turns.
///
/// The size is the same for sets of any size, since another size would move all hashes. For more than 655 endpoints
/// shares are less even than 1 %: take [655,373](Self::with_table_size) slots. Weight 0 means no slots: the endpoint
/// is used when no other can be. If all weights are 0, all are equal.
#[derive(Debug, Clone)]
pub struct Maglev {
    size: usize,
}

struct MaglevPicker {
    ready: Roster,
    table: Arc<Table>,
}

struct Table {
    members: Members,
    size: usize,
    slots: Slots,
}

/// To whom each slot belongs: an index into the members. Empty if there are none.
enum Slots {
    /// Of up to 65,536 endpoints. Of a table that is too large for a cache, twice as many slots are in it.
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

/// An index into the members.
trait Owner: Copy + Default {
    /// From 0 on.
    fn all() -> impl Iterator<Item = Self>;

    fn index(self) -> usize;
}

/// As many endpoints as 16 bits tell apart.
const NARROW: usize = 1 << 16;
const DEFAULT_SIZE: usize = 65_537;
/// 20 MB at most, and Envoy's limit; a prime.
const LARGEST_SIZE: usize = 5_000_011;
/// Other slots that are looked at for a call whose endpoint cannot take it, one after the other. With half of the fleet set aside, one
/// call in 65,536 finds none there that can.
const TRIES: u64 = 16;

// === impl Maglev ===

impl Default for Maglev {
    fn default() -> Self {
        Self { size: DEFAULT_SIZE }
    }
}

impl Maglev {
    /// The number of slots: 65,537 by default. Rounded up to a prime, between 2 and 5,000,011. A slot takes 2 bytes; 4 for
    /// more than 65,536 endpoints.
    pub fn with_table_size(mut self, size: usize) -> Self {
        self.size = (size.max(2)..LARGEST_SIZE).find(|&size| is_prime(size)).unwrap_or(LARGEST_SIZE);
        self
    }
}

impl Policy for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        let members = Members::of(&ready);
        let table = previous
            .and_then(|previous| (previous as &dyn Any).downcast_ref::<MaglevPicker>())
            .map(|previous| &previous.table)
            .filter(|table| table.size == self.size && table.members == members)
            .map_or_else(|| Arc::new(Table::new(members, self.size)), Arc::clone);
        Arc::new(MaglevPicker { ready, table })
    }
}

fn is_prime(number: usize) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

// === impl Table ===

/// One endpoint while the table is filled.
struct Preference<O> {
    member: O,
    weight: u64,
    /// The turns that it has had: as many as there are slots at most.
    had: u64,
    next: usize,
    skip: usize,
}

/// Slots while they are shared out.
struct Filling<O> {
    owners: Vec<O>,
    /// A bit for each slot that is somebody's: most of the work is to find one that is not, and these are in a nearer cache.
    taken: Vec<u64>,
}

impl Table {
    fn new(members: Members, size: usize) -> Self {
        let slots = if members.hashes.len() <= NARROW {
            Slots::Narrow(Self::slots(&members, size))
        } else {
            Slots::Wide(Self::slots(&members, size))
        };
        Self { members, size, slots }
    }

    fn slots<O: Owner>(members: &Members, size: usize) -> Box<[O]> {
        let mut preferences: Vec<Preference<O>> = O::all()
            .zip(&members.hashes)
            .zip(members.weights.as_slice())
            .filter(|&(_, &weight)| weight > 0)
            .map(|((member, &hash), &weight)| Preference::new(member, hash, weight, size))
            .collect();
        // By address rather than by place, so that the same set makes the same table on every client, in whatever
        // order it comes.
        preferences.sort_by_key(|preference| &members.addresses[preference.member.index()]);
        fill(&mut preferences, size).into()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the table's size, a usize")]
    fn owner(&self, hash: u64) -> Option<usize> {
        let slot = (hash % self.size as u64) as usize;
        self.slots.get(slot)
    }
}

// === impl Slots ===

impl Slots {
    fn get(&self, slot: usize) -> Option<usize> {
        match self {
            Self::Narrow(slots) => slots.get(slot).map(|owner| owner.index()),
            Self::Wide(slots) => slots.get(slot).map(|owner| owner.index()),
        }
    }
}

impl Owner for u16 {
    fn all() -> impl Iterator<Item = Self> {
        0..=Self::MAX
    }

    fn index(self) -> usize {
        self.into()
    }
}

impl Owner for u32 {
    fn all() -> impl Iterator<Item = Self> {
        0..=Self::MAX
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// To whom each slot belongs. By turns: the kth turn of one of weight `w` is in round `k * highest / w`, rounded up, and within a round
/// turns are in the order of the endpoints.
fn fill<O: Owner>(preferences: &mut [Preference<O>], size: usize) -> Vec<O> {
    let Some(highest) = preferences.iter().map(|preference| preference.weight).max() else {
        return Vec::new();
    };
    let mut slots = Filling { owners: vec![O::default(); size], taken: vec![0; size.div_ceil(64)] };
    if preferences.iter().all(|preference| preference.weight == highest) {
        for turn in 0..size {
            let at = turn % preferences.len();
            preferences[at].take(&mut slots);
        }
        return slots.owners;
    }
    // By rounds rather than round by round: where one weight is far above the others, almost all rounds are of one turn.
    let first = preferences.iter().enumerate().map(|(at, preference)| Reverse((preference.due(highest), at)));
    let mut turns: BinaryHeap<_> = first.collect();
    for _ in 0..size {
        let Some(Reverse((_, at))) = turns.pop() else { break };
        preferences[at].take(&mut slots);
        turns.push(Reverse((preferences[at].due(highest), at)));
    }
    slots.owners
}

// === impl Preference ===

impl<O: Owner> Preference<O> {
    /// `hash` is that of the address.
    #[expect(clippy::cast_possible_truncation, reason = "the remainders are below the table's size, a usize")]
    fn new(member: O, hash: u64, weight: u32, size: usize) -> Self {
        let next = (hash % size as u64) as usize;
        // Any number but 0, so that, the size being a prime, every slot has its turn.
        let skip = (mix(hash, 1) % (size as u64 - 1)) as usize + 1;
        Self { member, weight: u64::from(weight), had: 0, next, skip }
    }

    /// The round of its next turn. Weights are below 2^32 and turns below 2^23.
    fn due(&self, highest: u64) -> u64 {
        ((self.had + 1) * highest).div_ceil(self.weight)
    }

    /// Takes a turn: the slot that it prefers among those that are free, of which there must be one.
    fn take(&mut self, slots: &mut Filling<O>) {
        while !slots.take(self.next, self.member) {
            self.advance(slots.owners.len());
        }
        self.had += 1;
    }

    /// Both are below `size`, so this is the remainder, without a division.
    fn advance(&mut self, size: usize) {
        let next = self.next + self.skip;
        self.next = if next < size { next } else { next - size };
    }
}

// === impl Filling ===

impl<O: Owner> Filling<O> {
    /// `false` if it is somebody's.
    fn take(&mut self, slot: usize, owner: O) -> bool {
        let bit = 1 << (slot % 64);
        let word = &mut self.taken[slot / 64];
        let free = *word & bit == 0;
        if free {
            *word |= bit;
            self.owners[slot] = owner;
        }
        free
    }
}

// === impl MaglevPicker ===

impl Picker for MaglevPicker {
    fn pick(&self, request: &PickRequest<'_>) -> Option<usize> {
        let hash = request.hash.unwrap_or_else(request.random);
        let fresh = |index: &usize| is_fresh(&self.ready, *index, request);
        let owner = self.table.owner(hash)?;
        if fresh(&owner) {
            return Some(owner);
        }
        // As even, and as little moved, as the table is; to look at all endpoints takes a fifth of a millisecond for 10,000.
        let next = (1..=TRIES).find_map(|number| self.table.owner(mix(hash, number)).filter(fresh));
        next.or_else(|| self.table.members.stand_in(&self.ready, hash, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key;
    use crate::weights::Weights;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Round by round, as the paper has it and as tables were filled once: no table that is in use anywhere is to change.
    fn round_by_round(preferences: &mut [Preference<u32>], size: usize) -> Vec<u32> {
        let highest = preferences.iter().map(|preference| preference.weight).max().unwrap_or(1);
        let size = if preferences.is_empty() { 0 } else { size };
        let mut slots = vec![None; size];
        let (mut left, mut round) = (size, 0);
        while left > 0 {
            round += 1;
            for preference in &mut *preferences {
                if left > 0 && round * preference.weight >= (preference.had + 1) * highest {
                    while slots[preference.next].is_some() {
                        preference.advance(size);
                    }
                    slots[preference.next] = Some(preference.member);
                    preference.had += 1;
                    left -= 1;
                }
            }
        }
        slots.into_iter().flatten().collect()
    }

    fn preferences<O: Owner>(weights: &[u32], size: usize) -> Vec<Preference<O>> {
        let weights = O::all().zip(weights).filter(|(_, weight)| **weight > 0);
        let hash = |n: O| hash_key(&n.index().to_be_bytes());
        weights.map(|(n, &weight)| Preference::new(n, hash(n), weight, size)).collect()
    }

    proptest! {
        #[test]
        fn the_table_is_that_of_turns_round_by_round(
            weights in prop::collection::vec(prop_oneof![0_u32..4, 0_u32..200], 0..20), size in 0_usize..4,
        ) {
            let size = [2, 7, 251, 1_021][size];
            let (mut one, mut other) = (preferences::<u32>(&weights, size), preferences(&weights, size));
            let table = round_by_round(&mut other, size);
            prop_assert_eq!(&fill(&mut one, size), &table);
            let narrow = fill(&mut preferences::<u16>(&weights, size), size);
            prop_assert!(narrow.into_iter().map(u32::from).eq(table));
        }
    }

    /// Round by round these would be four billion rounds.
    #[test]
    fn a_weight_that_is_far_above_the_others_costs_no_more() {
        let mut weights = vec![1; 100];
        weights[7] = u32::MAX;
        let slots = fill(&mut preferences::<u16>(&weights, 65_537), 65_537);
        assert!(slots.iter().all(|&member| member == 7));
        weights[8] = u32::MAX / 2;
        let slots = fill(&mut preferences::<u16>(&weights, 65_537), 65_537);
        assert_eq!(slots.iter().filter(|&&member| member == 8).count(), 65_537 / 3);
    }

    #[test]
    fn sizes_are_primes() {
        let size = |asked| Maglev::default().with_table_size(asked).size;
        assert_eq!([0, 2, 4, 65_537, 65_538].map(size), [2, 2, 5, 65_537, 65_539]);
        assert_eq!(size(usize::MAX), LARGEST_SIZE);
        assert!(is_prime(LARGEST_SIZE) && is_prime(655_373));
    }

    #[test]
    fn the_order_of_the_set_does_not_matter() {
        let now = std::time::Instant::now();
        let mut fleet = crate::fixture::fleet(9, now);
        let owner = |table: &Table, hash| table.members.addresses[table.owner(hash).unwrap()].clone();
        let one = Table::new(Members::of(&fleet), 251);
        fleet.reverse();
        let other = Table::new(Members::of(&fleet), 251);
        assert!((0..251).all(|hash| owner(&one, hash) == owner(&other, hash)));
    }

    #[test]
    fn more_endpoints_than_slots_is_no_error() {
        let fleet = crate::fixture::fleet(20, std::time::Instant::now());
        let table = Table::new(Members::of(&fleet), 7);
        assert!((0..7).all(|slot| table.slots.get(slot).is_some()) && table.slots.get(7).is_none());
        assert!(Table::new(Members::of(&[]), 7).owner(3).is_none());
    }

    #[test]
    fn as_many_endpoints_as_two_bytes_count_have_slots_and_more() {
        for count in [65_536, 65_537] {
            let members = Members {
                addresses: (0..count).map(|n| n.to_string().into()).collect(),
                weights: Weights::from_slice(&vec![1; count]),
                hashes: (0..count as u64).map(|n| hash_key(&n.to_be_bytes())).collect(),
            };
            let table = Table::new(members, 65_537);
            assert_eq!(matches!(table.slots, Slots::Narrow(_)), count == 65_536);
            let owners: BTreeSet<_> = (0..65_537).map(|slot| table.slots.get(slot).unwrap()).collect();
            assert!(owners.into_iter().eq(0..count));
        }
    }

    #[test]
    fn the_table_is_shared_while_the_set_is_the_same() {
        let fleet = crate::fixture::fleet(4, std::time::Instant::now());
        let table = |picker: &Arc<dyn Picker>| {
            let picker: &dyn Any = &**picker;
            Arc::clone(&picker.downcast_ref::<MaglevPicker>().unwrap().table)
        };
        let policy = Maglev::default().with_table_size(251);
        let first = policy.build(Roster::from(fleet.clone()), None);
        let second = policy.build(Roster::from(fleet.clone()), Some(&*first));
        assert!(Arc::ptr_eq(&table(&first), &table(&second)));
        let third = policy.build(Roster::from(&fleet[..3]), Some(&*second));
        assert!(!Arc::ptr_eq(&table(&second), &table(&third)));
    }
}
