//! The store: index, revision, compaction, and what is not committed yet.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use waypost_proto::mvccpb::event::EventType;
use waypost_proto::mvccpb::{Event, KeyValue};

use super::changes::{Change, decode};
use super::error::StoreError;
use super::index::{Found, Index, Key, Put};
use super::revision::Revision;
use super::span::Span;
use crate::backend::{Backend, BackendError, Bucket, WriteBatch};
use crate::error::Refusal;

/// All keys and their history.
///
/// Methods that take `&self` and a revision up to [`revision`](Self::revision) see only what is committed. Requests that
/// write are applied one after another between two commits; each sees what those before it did.
#[derive(Debug)]
pub struct Store {
    pub(super) index: Index,
    /// Newest revision that readers see.
    pub(super) revision: i64,
    /// Newest revision, uncommitted ones included.
    pub(super) current: i64,
    /// Compacted revision that readers see; -1: never compacted.
    pub(super) compacted: i64,
    /// Compacted revision, an uncommitted one included.
    pub(super) current_compacted: i64,
    /// Removal of what the last compaction made obsolete.
    pub(super) walk: Option<Walk>,
    /// Records of everything uncommitted.
    batch: WriteBatch,
    /// Values of uncommitted revisions.
    fresh: HashMap<Revision, KeyValue>,
    /// Keys with uncommitted versions.
    touched: Vec<Key>,
    /// Where the walk will be once the batch is committed.
    step: Option<Step>,
}

/// How far the removal of obsolete versions has come.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    pub(super) at: i64,
    /// Last key that is done.
    pub(super) cursor: Option<Key>,
}

#[derive(Debug)]
struct Step {
    /// `None`: to the end.
    upto: Option<Key>,
}

/// One revision being written. Ended by [`Store::end`]; dropped without, what it wrote has to be undone by
/// [`Store::roll_back_to`].
#[derive(Debug)]
#[must_use]
pub struct Write {
    main: i64,
    changes: Vec<Change>,
}

/// A point among the uncommitted requests to which [`Store::roll_back_to`] can return.
#[derive(Debug, Clone, Copy)]
pub struct Savepoint {
    current: i64,
    compacted: i64,
    batch: usize,
    touched: usize,
}

/// What a compaction step did; see [`Store::compaction_step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionProgress {
    /// There is nothing to remove.
    Idle,
    /// There is more to remove: call again after the commit.
    More,
    /// With the next commit everything below this revision is gone from the disk.
    Done {
        /// The compacted revision.
        revision: i64,
    },
}

/// Record of the compaction that readers hold to.
pub(super) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
/// Record of the compaction after which nothing obsolete is left.
pub(super) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";

// === impl Store ===

impl Store {
    /// An empty store, at revision 1.
    pub fn new() -> Self {
        Self::at(Index::default(), 1, -1)
    }

    pub(super) fn at(index: Index, revision: i64, compacted: i64) -> Self {
        Self {
            index,
            revision,
            current: revision,
            compacted,
            current_compacted: compacted,
            walk: None,
            batch: WriteBatch::new(),
            fresh: HashMap::new(),
            touched: Vec::new(),
            step: None,
        }
    }

    // --- reading ---

    /// The newest committed revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The newest revision, uncommitted ones included.
    pub fn current(&self) -> i64 {
        self.current
    }

    /// The revision below which history is gone; -1 if it was never compacted.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// As [`compacted`](Self::compacted), with a compaction that is not committed yet.
    pub fn current_compacted(&self) -> i64 {
        self.current_compacted
    }

    /// Number of keys that have any version left, live or not.
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// The key as of revision `at`.
    pub fn get(&self, key: &[u8], at: i64) -> Option<Found> {
        self.index.get(key, at)
    }

    /// The version that a key had when the revision before `revision` ended; `None` if it was not there, or if that is
    /// compacted.
    pub fn before(&self, key: &[u8], revision: i64) -> Option<Revision> {
        let at = revision.checked_sub(1).filter(|at| *at >= self.compacted)?;
        self.index.get(key, at).map(|found| found.revision)
    }

    /// The live keys of a span as of revision `at`, ascending.
    pub fn range<'a>(&'a self, span: Span<'a>, at: i64) -> impl DoubleEndedIterator<Item = (&'a Key, Found)> {
        self.index.range(span, at)
    }

    /// The value of a version, committed or not.
    pub fn value(&self, backend: &dyn Backend, revision: Revision) -> Result<KeyValue, StoreError> {
        match self.fresh.get(&revision) {
            Some(kv) => Ok(kv.clone()),
            None => fetch(backend, revision),
        }
    }

    // --- writing ---

    /// Starts a revision. It comes to be only if something changes.
    pub fn begin(&self) -> Write {
        Write { main: self.current.saturating_add(1), changes: Vec::new() }
    }

    /// Writes a key; gives its shared name and what it now is.
    pub fn put(
        &mut self,
        write: &mut Write,
        key: Bytes,
        value: Bytes,
        lease: i64,
    ) -> Result<(Key, Found), Refusal> {
        let at = write.next()?;
        let Put { name, found, previous } = self.index.put(&key, at);
        let kv = KeyValue {
            key,
            create_revision: found.created,
            mod_revision: at.main,
            version: found.version,
            value,
            lease,
        };
        self.batch.put(Bucket::Key, at.encode(false), kv.encode_to_vec());
        self.fresh.insert(at, kv.clone());
        self.touched.push(name.clone());
        write.changes.push(Change::of(EventType::Put, kv, previous));
        Ok((name, found))
    }

    /// Deletes a key; gives its shared name, or `None` if there was no such key.
    pub fn delete(&mut self, write: &mut Write, key: &[u8]) -> Result<Option<Key>, Refusal> {
        if self.index.get(key, write.main).is_none() {
            return Ok(None);
        }
        let Some(name) = self.index.name(key) else { return Ok(None) };
        let at = write.next()?;
        let previous = self.index.get(key, at.main - 1).map(|found| found.revision);
        self.index.tombstone(key, at);
        let key = Bytes::copy_from_slice(key);
        let record = KeyValue { key: key.clone(), ..KeyValue::default() };
        self.batch.put(Bucket::Key, at.encode(true), record.encode_to_vec());
        self.touched.push(name.clone());
        let kv = KeyValue { key, mod_revision: at.main, ..KeyValue::default() };
        write.changes.push(Change::of(EventType::Delete, kv, previous));
        Ok(Some(name))
    }

    /// Ends a revision: the store moves to it if anything changed. Gives the changes, in order.
    pub fn end(&mut self, write: Write) -> Vec<Change> {
        if !write.changes.is_empty() {
            self.current = write.main;
        }
        write.changes
    }

    /// The records to commit, for those who have more to write along with the keys.
    pub fn batch(&mut self) -> &mut WriteBatch {
        &mut self.batch
    }

    // --- committing ---

    /// The point to return to if the next request fails halfway.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            current: self.current,
            compacted: self.current_compacted,
            batch: self.batch.len(),
            touched: self.touched.len(),
        }
    }

    /// Undoes everything since the savepoint, which must be of the present batch.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) {
        let Savepoint { current, compacted, batch, touched } = savepoint;
        if self.touched.len() > touched {
            for key in self.touched.drain(touched..) {
                self.index.roll_back(&key, current);
            }
            // A request that failed before it wrote, of which a batch may have thousands, is not worth a look at all others.
            self.fresh.retain(|revision, _| revision.main <= current);
        }
        self.batch.truncate(batch);
        self.current = current;
        self.current_compacted = compacted;
    }

    /// Takes the records to commit. Until [`committed`](Self::committed) or [`roll_back`](Self::roll_back), nothing may
    /// be written.
    pub fn take_batch(&mut self) -> WriteBatch {
        std::mem::take(&mut self.batch)
    }

    /// The batch is on disk: readers see it.
    pub fn committed(&mut self) {
        self.fresh.clear();
        self.touched.clear();
        self.revision = self.current;
        if let (Some(walk), Some(step)) = (&mut self.walk, self.step.take()) {
            self.index.compact(walk.cursor.as_deref(), step.upto.as_deref(), walk.at);
            match step.upto {
                Some(key) => walk.cursor = Some(key),
                None => self.walk = None,
            }
        }
        if self.current_compacted != self.compacted {
            self.compacted = self.current_compacted;
            self.walk = Some(Walk { at: self.current_compacted, cursor: None });
        }
    }

    /// The batch could not be written: everything since the last commit is undone.
    pub fn roll_back(&mut self) {
        for key in self.touched.drain(..) {
            self.index.roll_back(&key, self.revision);
        }
        self.fresh.clear();
        self.batch = WriteBatch::new();
        self.current = self.revision;
        self.current_compacted = self.compacted;
        self.step = None;
    }

    // --- compaction ---

    /// Gives up history below `revision`. Reads below it are refused from the next commit on; the space is freed by
    /// [`compaction_step`](Self::compaction_step).
    pub fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.current_compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.current {
            return Err(Refusal::FutureRevision);
        }
        self.current_compacted = revision;
        self.batch.put(Bucket::Meta, SCHEDULED_COMPACTION, Revision::new(revision, 0).encode(false));
        Ok(())
    }

    /// Adds to the batch the removal of the obsolete versions of up to `keys` keys. At most once per batch; later calls
    /// do nothing.
    pub fn compaction_step(&mut self, keys: usize) -> CompactionProgress {
        let Some(walk) = &self.walk else { return CompactionProgress::Idle };
        if self.step.is_some() {
            return CompactionProgress::More;
        }
        let at = walk.at;
        let batch = &mut self.batch;
        let upto = self.index.obsolete(walk.cursor.as_deref(), at, keys.max(1), |revision, tombstone| {
            batch.delete(Bucket::Key, revision.encode(tombstone));
        });
        let progress = if upto.is_some() {
            CompactionProgress::More
        } else {
            batch.put(Bucket::Meta, FINISHED_COMPACTION, Revision::new(at, 0).encode(false));
            CompactionProgress::Done { revision: at }
        };
        self.step = Some(Step { upto });
        progress
    }

    /// Whether obsolete versions are still to be removed.
    pub fn is_compacting(&self) -> bool {
        self.walk.is_some()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of a committed version.
pub(crate) fn fetch(backend: &dyn Backend, revision: Revision) -> Result<KeyValue, StoreError> {
    fetch_with(|key| backend.get(Bucket::Key, key), revision)
}

/// The same, from the records of the bucket of keys.
pub(crate) fn fetch_with(
    get: impl Fn(&[u8]) -> Result<Option<Bytes>, BackendError>,
    revision: Revision,
) -> Result<KeyValue, StoreError> {
    let key = revision.encode(false);
    match get(&key)? {
        Some(value) => Ok(decode(&key, &value, revision)?),
        None => Err(StoreError::Moved { revision: revision.main }),
    }
}

// === impl Write ===

impl Write {
    /// The revision at which reads within this write see everything that it has done so far.
    pub fn revision(&self) -> i64 {
        if self.changes.is_empty() { self.main - 1 } else { self.main }
    }

    /// The revision that this write makes if it changes anything.
    pub fn target(&self) -> i64 {
        self.main
    }

    /// Whether anything has changed.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    fn next(&self) -> Result<Revision, Refusal> {
        // 2^32 changes in one revision, or 2^63 revisions: out of reach, but no reason to wrap around.
        match u32::try_from(self.changes.len()) {
            Ok(sub) if self.main < i64::MAX => Ok(Revision::new(self.main, sub)),
            _ => Err(Refusal::TooManyOps),
        }
    }
}

// === impl Change ===

impl Change {
    fn of(kind: EventType, kv: KeyValue, previous: Option<Revision>) -> Self {
        Self { event: Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }, previous }
    }
}
