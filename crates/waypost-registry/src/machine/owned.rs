//! The leases that this registry was granted, to tell its own keys from those of others.

use std::collections::{BTreeSet, VecDeque};

use crate::machine::Holder;

/// The last [`REMEMBERED`] leases that were granted to one registry.
#[derive(Debug, Default)]
pub(crate) struct OwnedLeases {
    known: BTreeSet<i64>,
    order: VecDeque<i64>,
}

/// A forgotten lease is taken for a stranger's, which is the safe side; with 65,536 of them (1 MiB) that takes a key
/// which outlived its lease by so many losses.
pub(crate) const REMEMBERED: usize = 1 << 16;

// === impl OwnedLeases ===

impl OwnedLeases {
    /// Remembers a lease that was granted.
    pub(crate) fn add(&mut self, lease: i64) {
        if self.known.insert(lease) {
            self.order.push_back(lease);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whose key it is that is attached to `lease`, for somebody whose present lease is `current`.
    pub(crate) fn holder(&self, lease: i64, current: Option<i64>) -> Holder {
        if lease == 0 {
            Holder::Other(0)
        } else if current == Some(lease) {
            Holder::Us
        } else if self.known.contains(&lease) {
            Holder::Past
        } else {
            Holder::Other(lease)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_told_apart() {
        let mut owned = OwnedLeases::default();
        owned.add(7);
        owned.add(8);
        assert_eq!(owned.holder(8, Some(8)), Holder::Us);
        assert_eq!(owned.holder(7, Some(8)), Holder::Past);
        assert_eq!(owned.holder(9, Some(8)), Holder::Other(9));
        assert_eq!(owned.holder(0, None), Holder::Other(0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut owned = OwnedLeases::default();
        for lease in 1..=70_000 {
            owned.add(lease);
        }
        assert_eq!(owned.known.len(), REMEMBERED);
        assert_eq!(owned.holder(1, None), Holder::Other(1));
        assert_eq!(owned.holder(70_000, None), Holder::Past);
    }
}
