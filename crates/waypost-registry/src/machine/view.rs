//! What is known about the keys of one instance under one lease.

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Attached to our present lease.
    Us,
    /// Attached to a lease that was ours, and has not expired on the server yet.
    Past,
    /// Attached to somebody else's lease, or (0) to none.
    Other(i64),
}

/// A key that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The revision of its last write.
    pub(crate) revision: i64,
    pub(crate) holder: Holder,
    pub(crate) value: Vec<u8>,
}

/// What a key held at revision `at`; `None` if it did not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) at: i64,
    pub(crate) held: Option<Held>,
}

/// The keys of an instance, part by part. Sights only move forward in revision.
#[derive(Debug, Clone)]
pub(crate) struct View(Vec<Sight>);

// === impl Sight ===

impl Sight {
    /// Nothing was seen yet: revision 0, presumed absent.
    const UNSEEN: Self = Self { at: 0, held: None };
}

// === impl View ===

impl View {
    /// Nothing seen of `parts` keys.
    pub(crate) fn unseen(parts: usize) -> Self {
        Self(vec![Sight::UNSEEN; parts])
    }

    /// Takes a sight in if it is newer than what is known; answers whether it was.
    pub(crate) fn take(&mut self, part: usize, sight: Sight) -> bool {
        match self.0.get_mut(part) {
            Some(known) if sight.at > known.at => {
                *known = sight;
                true
            }
            _ => false,
        }
    }

    /// Forgets all revisions: the history they belonged to is not the one that is read now.
    pub(crate) fn forget_revisions(&mut self) {
        for sight in &mut self.0 {
            sight.at = 0;
        }
    }

    /// The revision up to which every key is known; `None` before the first sight.
    pub(crate) fn known_up_to(&self) -> Option<i64> {
        self.0.iter().map(|sight| sight.at).min().filter(|at| *at > 0)
    }

    /// The revision of each key's last write, 0 where there is none: what a guarded write compares.
    pub(crate) fn revisions(&self) -> Vec<i64> {
        self.0.iter().map(|sight| sight.held.as_ref().map_or(0, |held| held.revision)).collect()
    }

    /// The revision of the newest write, if every key exists and is attached to our present lease.
    pub(crate) fn ours(&self) -> Option<i64> {
        let mut newest = None;
        for sight in &self.0 {
            match &sight.held {
                Some(Held { holder: Holder::Us, revision, .. }) => newest = newest.max(Some(*revision)),
                _ => return None,
            }
        }
        newest
    }

    /// A part that belongs to somebody else, and the lease it is attached to.
    pub(crate) fn stranger(&self) -> Option<(usize, i64)> {
        self.0.iter().enumerate().find_map(|(part, sight)| match sight.held {
            Some(Held { holder: Holder::Other(lease), .. }) => Some((part, lease)),
            _ => None,
        })
    }

    /// What a key holds.
    pub(crate) fn held(&self, part: usize) -> Option<&Held> {
        self.0.get(part)?.held.as_ref()
    }

    /// Whether every key holds the given value.
    pub(crate) fn holds<'a>(&self, values: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
        values.len() == self.0.len()
            && self
                .0
                .iter()
                .zip(values)
                .all(|(sight, value)| sight.held.as_ref().is_some_and(|held| held.value == value))
    }
}
