//! What the core needs of a disk: buckets of ordered keys, and a commit that is all or nothing.
//!
//! Buckets and encodings are etcd's own, so that a snapshot is a copy. The engine is behind [`Backend`];
//! [`MemoryBackend`] keeps everything in memory, for tests of the core.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

/// A bucket of etcd's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Every revision of every key.
    Key,
    /// Leases.
    Lease,
    /// Whether auth is on, and its revision.
    Auth,
    /// Users by name.
    AuthUsers,
    /// Roles by name.
    AuthRoles,
    /// Bookkeeping: index, term, compaction, storage version.
    Meta,
    /// Alarms.
    Alarm,
    /// Members by id.
    Members,
    /// Ids of removed members.
    MembersRemoved,
    /// The cluster's version.
    Cluster,
}

/// Changes that are committed together, in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    operations: Vec<Operation>,
    bytes: usize,
}

/// One change of a [`WriteBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a value, replacing what was there.
    Put {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: Bytes,
        /// What.
        value: Bytes,
    },
    /// Removes a key; one that is absent is no error.
    Delete {
        /// Where.
        bucket: Bucket,
        /// Which.
        key: Bytes,
    },
    /// Removes every key in `from..to`.
    DeleteRange {
        /// Where.
        bucket: Bucket,
        /// First key.
        from: Bytes,
        /// First key that stays; empty: none stays.
        to: Bytes,
    },
}

/// Space that a backend takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// What is taken from the disk.
    pub allocated: u64,
    /// What of it holds data; the rest can be had back by defragmentation.
    pub in_use: u64,
}

/// Why a backend could not read or write. Cheap to clone: one failed commit answers many requests.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The disk is full. Nothing of the batch was written.
    #[error("no space left on the disk of {}", path.display())]
    NoSpace {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as in "cannot {action} {path}".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a newer program, or is not ours.
    #[error("{} has {found}, which this program does not read (it reads {supported})", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// The format that was found.
        found: String,
        /// The format that is read.
        supported: String,
    },
    /// The engine reports an error that is not one of the system's.
    #[error("storage engine failed to {action} {}", path.display())]
    Engine {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the engine said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// What [`Backend::scan`] calls with each key and value; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered store of buckets. All methods may block on the disk.
pub trait Backend: Send + Sync {
    /// The value of a key.
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Visits the keys in `from..to` in ascending order, from one consistent state; an empty `to` means up to the end.
    fn scan(&self, bucket: Bucket, from: &[u8], to: &[u8], visit: &mut Visit<'_>)
    -> Result<(), BackendError>;

    /// Writes a batch: all of it or nothing, and on disk (fsync) when this returns `Ok`. After an error, nothing of the
    /// batch may be seen, now or after a restart.
    fn commit(&self, batch: WriteBatch) -> Result<(), BackendError>;

    /// Space taken.
    fn size(&self) -> Result<Size, BackendError>;

    /// [`Size::allocated`] alone, which is asked for often.
    fn allocated(&self) -> Result<u64, BackendError> {
        self.size().map(|size| size.allocated)
    }
}

/// A backend without a disk: what is committed is gone with it.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    buckets: RwLock<BTreeMap<Bucket, BTreeMap<Bytes, Bytes>>>,
}

// === impl Bucket ===

impl Bucket {
    /// Every bucket, ordered by name as they are in a database of etcd.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    /// The name in a database of etcd.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Auth => "auth",
            Self::AuthUsers => "authUsers",
            Self::AuthRoles => "authRoles",
            Self::Meta => "meta",
            Self::Alarm => "alarm",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Cluster => "cluster",
        }
    }

    /// The bucket of this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.name().as_bytes() == name)
    }
}

// === impl Operation ===

impl Operation {
    /// Bytes of its keys and value.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
            Self::DeleteRange { from, to, .. } => from.len() + to.len(),
        }
    }
}

// === impl WriteBatch ===

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value.
    pub fn put(&mut self, bucket: Bucket, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.operations.push(Operation::Put { bucket, key, value });
    }

    /// Removes a key.
    pub fn delete(&mut self, bucket: Bucket, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.operations.push(Operation::Delete { bucket, key });
    }

    /// Removes the keys in `from..to`; an empty `to` means up to the end.
    pub fn delete_range(&mut self, bucket: Bucket, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        self.bytes += from.len() + to.len();
        self.operations.push(Operation::DeleteRange { bucket, from, to });
    }

    /// Appends all of another batch.
    pub fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.operations.append(&mut other.operations);
    }

    /// Forgets all changes but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        for operation in self.operations.drain(len.min(self.operations.len())..) {
            self.bytes -= operation.bytes();
        }
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes in the order in which they apply.
    pub fn iter(&self) -> std::slice::Iter<'_, Operation> {
        self.operations.iter()
    }
}

impl IntoIterator for WriteBatch {
    type Item = Operation;
    type IntoIter = std::vec::IntoIter<Operation>;

    fn into_iter(self) -> Self::IntoIter {
        self.operations.into_iter()
    }
}

impl<'a> IntoIterator for &'a WriteBatch {
    type Item = &'a Operation;
    type IntoIter = std::slice::Iter<'a, Operation>;

    fn into_iter(self) -> Self::IntoIter {
        self.operations.iter()
    }
}

// === impl MemoryBackend ===

impl MemoryBackend {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for MemoryBackend {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        Ok(buckets.get(&bucket).and_then(|entries| entries.get(key)).cloned())
    }

    fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = buckets.get(&bucket) else { return Ok(()) };
        for (key, value) in entries.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if (!to.is_empty() && &key[..] >= to) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), BackendError> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        for operation in batch {
            match operation {
                Operation::Put { bucket, key, value } => {
                    buckets.entry(bucket).or_default().insert(key, value);
                }
                Operation::Delete { bucket, key } => {
                    buckets.entry(bucket).or_default().remove(&key);
                }
                Operation::DeleteRange { bucket, from, to } => {
                    buckets
                        .entry(bucket)
                        .or_default()
                        .retain(|key, _| *key < from || (!to.is_empty() && *key >= to));
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<Size, BackendError> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = buckets.values().flatten().map(|(key, value)| key.len() + value.len()).sum();
        Ok(Size { allocated: bytes as u64, in_use: bytes as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(backend: &dyn Backend, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        backend
            .scan(Bucket::Meta, from, to, &mut |key, _| {
                seen.push(key.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        seen
    }

    #[test]
    fn a_batch_applies_in_order() {
        let backend = MemoryBackend::new();
        let mut batch = WriteBatch::new();
        for key in ["a", "b", "c", "d"] {
            batch.put(Bucket::Meta, key, "1");
        }
        batch.delete_range(Bucket::Meta, "b", "d");
        batch.put(Bucket::Meta, "c", "2");
        batch.delete(Bucket::Meta, "a");
        assert_eq!((batch.len(), batch.bytes()), (7, 13));
        backend.commit(batch).unwrap();
        assert_eq!(keys(&backend, b"", b""), [b"c".to_vec(), b"d".to_vec()]);
        assert_eq!(keys(&backend, b"c", b"d"), [b"c".to_vec()]);
        assert_eq!(backend.get(Bucket::Meta, b"c").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(backend.get(Bucket::Key, b"c").unwrap(), None);
        assert_eq!(backend.size().unwrap().in_use, 4);
    }

    #[test]
    fn an_open_delete_range_reaches_the_end_and_a_scan_stops_when_told() {
        let backend = MemoryBackend::new();
        let mut batch = WriteBatch::new();
        for key in ["a", "b", "c"] {
            batch.put(Bucket::Meta, key, "");
        }
        backend.commit(batch).unwrap();
        let mut first = None;
        backend
            .scan(Bucket::Meta, b"", b"", &mut |key, _| {
                first = Some(key.to_vec());
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(first.as_deref(), Some(&b"a"[..]));
        let mut batch = WriteBatch::new();
        batch.delete_range(Bucket::Meta, "b", "");
        backend.commit(batch).unwrap();
        assert_eq!(keys(&backend, b"", b""), [b"a".to_vec()]);
    }

    #[test]
    fn buckets_are_found_by_name_and_ordered_by_it() {
        assert!(Bucket::ALL.is_sorted_by_key(|bucket| bucket.name()));
        for bucket in Bucket::ALL {
            assert_eq!(Bucket::from_name(bucket.name().as_bytes()), Some(bucket));
        }
        assert_eq!(Bucket::from_name(b"keys"), None);
    }
}
