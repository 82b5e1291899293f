//! The versions of one key.
//!
//! A key's life from creation to deletion is a *generation*; a deletion closes it, the next put starts another. Most reads
//! ask for the newest version, and most keys have no other: it is kept in place, and older ones in a vector, 24 bytes each.

use super::index::Found;
use super::revision::Revision;

/// One change of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    main: i64,
    /// Number within its generation, from 1; 0 for a deletion.
    number: i64,
    sub: u32,
}

/// The versions of a key, of which there is always one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    newest: Version,
    /// Revision that created the generation of `newest`; 0 if that is a deletion.
    created: i64,
    older: Option<Box<Older>>,
}

/// Versions in ascending order of revision; never empty.
///
/// Within a generation numbers ascend by one. Only the oldest generation may have lost its beginning (to a compaction), so
/// `created` is kept for that one, and found by counting back in all others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Older {
    created: i64,
    versions: Vec<Version>,
}

// === impl Version ===

impl Version {
    fn is_tombstone(self) -> bool {
        self.number == 0
    }

    fn revision(self) -> Revision {
        Revision::new(self.main, self.sub)
    }

    /// As a reader sees it.
    fn found(self, created: i64) -> Option<Found> {
        (!self.is_tombstone()).then(|| Found { revision: self.revision(), created, version: self.number })
    }
}

// === impl History ===

impl History {
    /// A key that is put for the first time.
    pub(super) fn first_put(at: Revision) -> Self {
        Self::restored(at, at.main, 1)
    }

    /// The oldest put that is stored of a key, created at `created`, with this number.
    pub(super) fn restored(at: Revision, created: i64, number: i64) -> Self {
        Self { newest: Version { main: at.main, number, sub: at.sub }, created, older: None }
    }

    /// A deletion of which nothing older is stored.
    pub(super) fn lone_tombstone(at: Revision) -> Self {
        Self::restored(at, 0, 0)
    }

    /// Appends a put; gives back what the key then is.
    pub(super) fn put(&mut self, at: Revision) -> Found {
        let (created, number) =
            if self.newest.is_tombstone() { (at.main, 1) } else { (self.created, self.newest.number + 1) };
        self.push(Version { main: at.main, number, sub: at.sub }, created);
        Found { revision: at, created, version: number }
    }

    /// Appends a deletion.
    pub(super) fn tombstone(&mut self, at: Revision) {
        self.push(Version { main: at.main, number: 0, sub: at.sub }, 0);
    }

    /// The newest version, if the key is live.
    pub(super) fn latest(&self) -> Option<Found> {
        self.newest.found(self.created)
    }

    /// What the key is at revision `at`, if it is live then.
    pub(super) fn at(&self, at: i64) -> Option<Found> {
        if self.newest.main <= at {
            return self.latest();
        }
        let older = self.older.as_deref()?;
        older.found(older.count_up_to(at).checked_sub(1)?)
    }

    /// Revision of the newest change.
    pub(super) fn modified(&self) -> Revision {
        self.newest.revision()
    }

    /// Removes every version above revision `kept`; true if none is left, and the key has to go.
    #[must_use]
    pub(super) fn roll_back(&mut self, kept: i64) -> bool {
        if self.newest.main <= kept {
            return false;
        }
        let Some(older) = self.older.as_deref_mut() else { return true };
        let Some(place) = older.count_up_to(kept).checked_sub(1) else { return true };
        self.created = older.found(place).map_or(0, |found| found.created);
        self.newest = older.versions[place];
        older.versions.truncate(place);
        if older.versions.is_empty() {
            self.older = None;
        }
        false
    }

    /// The versions that nobody can ask for once everything below revision `at` is compacted, deletions marked. The newest
    /// at or below `at` stays if it is live, or if it is a deletion at exactly `at`, which a watch from `at` still tells.
    pub(super) fn obsolete(&self, at: i64) -> impl Iterator<Item = (Revision, bool)> {
        (0..self.keep_from(at))
            .filter_map(|place| self.version(place))
            .map(|version| (version.revision(), version.is_tombstone()))
    }

    /// Drops what [`obsolete`](Self::obsolete) lists; true if nothing is left, and the key has to go.
    #[must_use]
    pub(super) fn compact(&mut self, at: i64) -> bool {
        let keep = self.keep_from(at);
        if keep == 0 {
            return false;
        }
        let Some(older) = self.older.as_deref_mut() else { return true };
        if keep > older.versions.len() {
            return true;
        }
        if keep == older.versions.len() {
            self.older = None;
        } else {
            older.created = older.found(keep).map_or(0, |found| found.created);
            older.versions.drain(..keep);
            older.versions.shrink_to_fit();
        }
        false
    }

    /// By age, the oldest first.
    fn version(&self, place: usize) -> Option<Version> {
        let older = self.older.as_deref().map_or(&[][..], |older| &older.versions);
        match older.get(place) {
            Some(version) => Some(*version),
            None => (place == older.len()).then_some(self.newest),
        }
    }

    fn keep_from(&self, at: i64) -> usize {
        let older = self.older.as_deref();
        let count = if self.newest.main <= at {
            older.map_or(0, |older| older.versions.len()) + 1
        } else {
            older.map_or(0, |older| older.count_up_to(at))
        };
        let mut keep = count;
        for place in (0..count).rev() {
            match self.version(place) {
                Some(version) if version.main == at && version.is_tombstone() => keep = place,
                Some(version) if place + 1 == count && !version.is_tombstone() => keep = place,
                Some(version) if version.main == at => {}
                _ => break,
            }
        }
        keep
    }

    fn push(&mut self, version: Version, created: i64) {
        let versions = match &mut self.older {
            Some(older) => &mut older.versions,
            older @ None => {
                let first = Older { created: self.created, versions: Vec::new() };
                &mut older.insert(Box::new(first)).versions
            }
        };
        // Grows by a quarter: a key that changes often would otherwise hold up to twice its versions.
        if versions.len() == versions.capacity() {
            versions.reserve_exact((versions.len() / 4).max(1));
        }
        versions.push(self.newest);
        self.newest = version;
        self.created = created;
    }
}

// === impl Older ===

impl Older {
    /// Number of versions at or below revision `at`.
    fn count_up_to(&self, at: i64) -> usize {
        self.versions.partition_point(|version| version.main <= at)
    }

    fn found(&self, place: usize) -> Option<Found> {
        let version = *self.versions.get(place)?;
        let back = usize::try_from(version.number.checked_sub(1)?).unwrap_or(usize::MAX);
        let created = match place.checked_sub(back).and_then(|first| self.versions.get(first)) {
            Some(first) => first.main,
            None => self.created,
        };
        version.found(created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(history: &mut Option<History>, main: i64) {
        match history {
            Some(history) => {
                history.put(Revision::new(main, 0));
            }
            None => *history = Some(History::first_put(Revision::new(main, 0))),
        }
    }

    /// Puts at 2, 4; deleted at 6; puts at 8, 10; deleted at 12.
    fn lived_twice() -> History {
        let mut history = None;
        put(&mut history, 2);
        put(&mut history, 4);
        let mut history = history.unwrap();
        history.tombstone(Revision::new(6, 0));
        history.put(Revision::new(8, 0));
        history.put(Revision::new(10, 0));
        history.tombstone(Revision::new(12, 0));
        history
    }

    fn seen(history: &History, at: i64) -> Option<(i64, i64, i64)> {
        history.at(at).map(|found| (found.revision.main, found.created, found.version))
    }

    #[test]
    fn a_version_costs_24_bytes_and_a_key_40() {
        assert_eq!(size_of::<Version>(), 24);
        assert!(size_of::<History>() <= 40);
    }

    #[test]
    fn reads_at_any_revision_see_version_and_creation() {
        let history = lived_twice();
        let expected = [
            (1, None),
            (2, Some((2, 2, 1))),
            (3, Some((2, 2, 1))),
            (5, Some((4, 2, 2))),
            (6, None),
            (7, None),
            (8, Some((8, 8, 1))),
            (11, Some((10, 8, 2))),
            (12, None),
            (99, None),
        ];
        for (at, found) in expected {
            assert_eq!(seen(&history, at), found, "at {at}");
        }
    }

    #[test]
    fn compaction_keeps_what_reads_at_or_above_it_can_see() {
        for at in 1..=13 {
            let mut history = lived_twice();
            let gone = history.compact(at);
            for read in at..=13 {
                let left = if gone { None } else { seen(&history, read) };
                assert_eq!(left, seen(&lived_twice(), read), "compacted at {at}, read at {read}");
            }
        }
    }

    #[test]
    fn compaction_drops_generations_that_have_ended() {
        let dropped = |at| lived_twice().obsolete(at).map(|(revision, _)| revision.main).collect::<Vec<_>>();
        assert!(dropped(1).is_empty());
        assert!(dropped(2).is_empty());
        assert_eq!(dropped(5), [2]);
        assert_eq!(dropped(6), [2, 4], "a deletion at the compacted revision stays");
        assert_eq!(dropped(7), [2, 4, 6]);
        assert_eq!(dropped(8), [2, 4, 6]);
        assert_eq!(dropped(10), [2, 4, 6, 8]);
        assert_eq!(dropped(12), [2, 4, 6, 8, 10]);
        assert_eq!(dropped(13), [2, 4, 6, 8, 10, 12]);
        assert!(lived_twice().compact(13));
    }

    #[test]
    fn deleted_and_put_in_one_revision() {
        let mut history = History::first_put(Revision::new(2, 0));
        history.tombstone(Revision::new(3, 0));
        history.put(Revision::new(3, 1));
        assert_eq!(seen(&history, 3), Some((3, 3, 1)));
        assert_eq!(seen(&history, 2), Some((2, 2, 1)));
        let dropped: Vec<_> = history.obsolete(3).collect();
        assert_eq!(dropped, [(Revision::new(2, 0), false)]);
        assert!(!history.compact(3));
        assert_eq!(seen(&history, 3), Some((3, 3, 1)));
        assert_eq!(history.obsolete(4).count(), 1);
    }

    #[test]
    fn rolling_back_forgets_what_is_above() {
        let mut history = lived_twice();
        assert!(!history.roll_back(9));
        assert_eq!(seen(&history, 99), Some((8, 8, 1)));
        assert!(!history.roll_back(6));
        assert_eq!(seen(&history, 99), None);
        assert!(history.roll_back(1));
    }

    #[test]
    fn after_compaction_numbers_go_on() {
        let mut history = History::first_put(Revision::new(2, 0));
        for main in 3..8 {
            history.put(Revision::new(main, 0));
        }
        assert!(!history.compact(7));
        assert_eq!(seen(&history, 7), Some((7, 2, 6)));
        history.put(Revision::new(9, 0));
        assert_eq!(seen(&history, 9), Some((9, 2, 7)));
    }
}
