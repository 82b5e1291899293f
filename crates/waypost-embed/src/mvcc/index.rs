//! Which revisions every key has.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::history::History;
use super::revision::Revision;
use super::span::Span;

/// A key, shared between the index and the leases.
pub type Key = Arc<[u8]>;

/// A live key at some revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The change that made it what it is; its value is stored under this.
    pub revision: Revision,
    /// Revision at which it came into being.
    pub created: i64,
    /// 1 on creation, one more with each put.
    pub version: i64,
}

/// What a put made of a key.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) name: Key,
    pub(super) found: Found,
    /// What the key was when the revision before this one ended.
    pub(super) previous: Option<Revision>,
}

/// An ordered map from each key to its versions.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Key, History>,
}

// === impl Index ===

impl Index {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key at revision `at`.
    pub(super) fn get(&self, key: &[u8], at: i64) -> Option<Found> {
        self.keys.get(key)?.at(at)
    }

    /// The shared name of a key that has a version.
    pub(super) fn name(&self, key: &[u8]) -> Option<Key> {
        self.keys.get_key_value(key).map(|(name, _)| Arc::clone(name))
    }

    /// Live keys at revision `at`, ascending.
    pub(super) fn range<'a>(
        &'a self,
        span: Span<'a>,
        at: i64,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, Found)> {
        span.bounds()
            .map(|bounds| self.keys.range::<[u8], _>(bounds))
            .into_iter()
            .flatten()
            .filter_map(move |(key, history)| Some((key, history.at(at)?)))
    }

    /// Writes a put.
    pub(super) fn put(&mut self, key: &[u8], at: Revision) -> Put {
        if let Some((name, history)) = self.keys.get_key_value(key) {
            let (name, previous) = (Arc::clone(name), history.at(at.main - 1));
            if let Some(history) = self.keys.get_mut(key) {
                return Put { name, found: history.put(at), previous: previous.map(|found| found.revision) };
            }
        }
        let name = Key::from(key);
        self.keys.insert(Arc::clone(&name), History::first_put(at));
        Put { name, found: Found { revision: at, created: at.main, version: 1 }, previous: None }
    }

    /// Writes a deletion of a key that is live.
    pub(super) fn tombstone(&mut self, key: &[u8], at: Revision) {
        if let Some(history) = self.keys.get_mut(key) {
            history.tombstone(at);
        }
    }

    /// Forgets every version of the key above revision `kept`.
    pub(super) fn roll_back(&mut self, key: &[u8], kept: i64) {
        if self.keys.get_mut(key).is_some_and(|history| history.roll_back(kept)) {
            self.keys.remove(key);
        }
    }

    /// Visits up to `limit` keys after `cursor` (all from the start without one) with their obsolete versions. Gives the
    /// last key visited, or `None` when there are no more.
    pub(super) fn obsolete(
        &self,
        cursor: Option<&[u8]>,
        at: i64,
        limit: usize,
        mut visit: impl FnMut(Revision, bool),
    ) -> Option<Key> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.keys.range::<[u8], _>((from, Bound::Unbounded));
        let mut last = None;
        for (key, history) in rest.by_ref().take(limit) {
            for (revision, tombstone) in history.obsolete(at) {
                visit(revision, tombstone);
            }
            last = Some(key);
        }
        match (last, rest.next()) {
            (Some(last), Some(_)) => Some(Arc::clone(last)),
            _ => None,
        }
    }

    /// Drops the obsolete versions of the keys after `cursor` up to and with `upto` (to the end without one).
    pub(super) fn compact(&mut self, cursor: Option<&[u8]>, upto: Option<&[u8]>, at: i64) {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let to = upto.map_or(Bound::Unbounded, Bound::Included);
        let mut gone = Vec::new();
        for (key, history) in self.keys.range_mut::<[u8], _>((from, to)) {
            if history.compact(at) {
                gone.push(Arc::clone(key));
            }
        }
        for key in gone {
            self.keys.remove(&key);
        }
    }

    /// Takes up a put read from the disk: `None` if it does not follow from what was read before.
    pub(super) fn restore_put(
        &mut self,
        key: &[u8],
        at: Revision,
        created: i64,
        number: i64,
        compacted: i64,
    ) -> Option<Key> {
        if number < 1 || created < 1 || created > at.main {
            return None;
        }
        let starts = number == 1 && created == at.main;
        let Some(name) = self.name(key) else {
            let name = Key::from(key);
            // What came before may have been compacted, but only if this is the version that compaction keeps.
            return (starts || at.main <= compacted).then(|| {
                self.keys.insert(Arc::clone(&name), History::restored(at, created, number));
                name
            });
        };
        let history = self.keys.get_mut(key)?;
        let follows = history.modified() < at
            && match history.latest() {
                Some(live) => live.created == created && live.version + 1 == number,
                None => starts,
            };
        follows.then(|| {
            history.put(at);
            name
        })
    }

    /// Takes up a deletion read from the disk: false if it does not follow from what was read before.
    pub(super) fn restore_tombstone(&mut self, key: &[u8], at: Revision, compacted: i64) -> bool {
        match self.keys.get_mut(key) {
            Some(history) => {
                let follows = history.modified() < at && history.latest().is_some();
                if follows {
                    history.tombstone(at);
                }
                follows
            }
            None if at.main <= compacted => {
                self.keys.insert(Key::from(key), History::lone_tombstone(at));
                true
            }
            None => false,
        }
    }
}
