//! Which group (that is: which lease) an instance goes to, and which keys are taken.

use std::collections::{BTreeMap, HashSet};

/// Names a group for the life of its registry; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(u64);

/// The groups of a registry and the room in each. `H` is whatever reaches the group.
#[derive(Debug)]
pub(crate) struct Placement<H> {
    /// Keys per shared group.
    capacity: usize,
    next: u64,
    groups: BTreeMap<GroupId, Room<H>>,
    taken: HashSet<Vec<u8>>,
}

#[derive(Debug)]
struct Room<H> {
    keys: usize,
    shared: bool,
    handle: H,
}

// === impl Placement ===

impl<H: Clone> Placement<H> {
    /// No groups yet; shared ones will have at most `capacity` keys.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, next: 0, groups: BTreeMap::new(), taken: HashSet::new() }
    }

    /// Takes the name `key` for one registration; false if it is taken.
    pub(crate) fn take(&mut self, key: &[u8]) -> bool {
        self.taken.insert(key.to_vec())
    }

    /// Gives a name back.
    pub(crate) fn give_back(&mut self, key: &[u8]) {
        self.taken.remove(key);
    }

    /// Finds room for an instance of `keys` keys, in a group that it shares with others or in one of its own; `open`
    /// makes a new one.
    pub(crate) fn place(
        &mut self,
        keys: usize,
        shared: bool,
        open: impl FnOnce(GroupId) -> H,
    ) -> (GroupId, H) {
        if shared {
            let has_room = |room: &Room<H>| room.shared && room.keys + keys <= self.capacity;
            let room = self.groups.iter_mut().find(|(_, room)| has_room(room));
            if let Some((id, room)) = room {
                room.keys += keys;
                return (*id, room.handle.clone());
            }
        }
        let id = GroupId(self.next);
        self.next += 1;
        let handle = open(id);
        self.groups.insert(id, Room { keys, shared, handle: handle.clone() });
        (id, handle)
    }

    /// An instance of `keys` keys has left its group.
    pub(crate) fn leave(&mut self, group: GroupId, keys: usize) {
        if let Some(room) = self.groups.get_mut(&group) {
            room.keys = room.keys.saturating_sub(keys);
        }
    }

    /// Ends a group if nothing is placed in it. Asked under the same lock as `place`, so that no instance is ever
    /// placed in a group that has ended.
    pub(crate) fn close(&mut self, group: GroupId) -> bool {
        match self.groups.get(&group) {
            Some(room) if room.keys > 0 => false,
            _ => {
                self.groups.remove(&group);
                true
            }
        }
    }

    /// All groups.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &H> {
        self.groups.values().map(|room| &room.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shared_groups_fill_up_before_another_opens() {
        let mut placement = Placement::new(1000);
        let mut opened = 0;
        for _ in 0..10_000 {
            placement.place(1, true, |_| opened += 1);
        }
        assert_eq!(opened, 10);
    }

    #[test]
    fn a_lease_per_instance_is_a_group_each() {
        let mut placement = Placement::new(1000);
        let (first, ()) = placement.place(4, false, |_| ());
        let (second, ()) = placement.place(4, false, |_| ());
        let (shared, ()) = placement.place(4, true, |_| ());
        assert_ne!(first, second);
        assert_ne!(second, shared);
    }

    #[test]
    fn a_group_with_somebody_on_the_way_does_not_close() {
        let mut placement = Placement::new(1000);
        let (group, ()) = placement.place(1, true, |_| ());
        assert!(!placement.close(group));
        placement.leave(group, 1);
        assert!(placement.close(group));
        let (next, ()) = placement.place(1, true, |_| ());
        assert_ne!(group, next);
    }

    proptest! {
        #[test]
        fn a_group_never_exceeds_its_keys(sizes in proptest::collection::vec(1_usize..5, 0..500)) {
            let mut placement = Placement::new(50);
            let mut groups: BTreeMap<GroupId, usize> = BTreeMap::new();
            for keys in sizes {
                let (group, ()) = placement.place(keys, true, |_| ());
                *groups.entry(group).or_default() += keys;
            }
            prop_assert!(groups.values().all(|&keys| keys <= 50));
        }
    }
}
