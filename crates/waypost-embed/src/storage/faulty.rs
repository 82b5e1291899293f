//! A backend whose disk fails when it is told to.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, Bucket, Size, Visit, WriteBatch};

/// Wraps a backend for tests of what is above one: single commits fail, or the disk is full. Nothing of a batch that
/// fails is seen.
///
/// ```
/// use waypost_embed::backend::{Backend, BackendError, Bucket, MemoryBackend, WriteBatch};
/// use waypost_embed::storage::FaultyBackend;
///
/// let backend = FaultyBackend::new(MemoryBackend::new());
/// backend.fail_commit(2);
/// let batch = |key: &'static str| {
///     let mut batch = WriteBatch::new();
///     batch.put(Bucket::Meta, key, "");
///     batch
/// };
/// backend.commit(batch("first"))?;
/// assert!(matches!(backend.commit(batch("second")), Err(BackendError::Io { .. })));
/// assert_eq!(backend.get(Bucket::Meta, b"second")?, None);
/// backend.commit(batch("third"))?;
/// # Ok::<(), BackendError>(())
/// ```
#[derive(Debug)]
pub struct FaultyBackend<B> {
    inner: B,
    commits: AtomicU64,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// Numbers of commits that fail, the first being 1.
    commits: Vec<u64>,
    reads: bool,
    /// Bytes of batches that are still taken.
    space: Option<u64>,
}

// === impl FaultyBackend ===

impl<B> FaultyBackend<B> {
    /// A backend without faults yet.
    pub fn new(inner: B) -> Self {
        Self { inner, commits: AtomicU64::new(0), faults: Mutex::default() }
    }

    /// Makes the `nth` commit of all fail with [`BackendError::Io`]; the first is 1. May be told several times.
    pub fn fail_commit(&self, nth: u64) {
        self.with_faults(|faults| faults.commits.push(nth));
    }

    /// Makes the next commit fail with [`BackendError::Io`].
    pub fn fail_next_commit(&self) {
        self.fail_commit(self.commits() + 1);
    }

    /// Lets all reads fail with [`BackendError::Io`], or no longer.
    pub fn fail_reads(&self, fail: bool) {
        self.with_faults(|faults| faults.reads = fail);
    }

    /// Leaves space for batches of `bytes` in all ([`WriteBatch::bytes`]). One that does not fit fails with
    /// [`BackendError::NoSpace`] and takes nothing. `None`: there is always space.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.with_faults(|faults| faults.space = bytes);
    }

    /// Commits that were attempted.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// What is wrapped.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// What is wrapped, as after a restart.
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn with_faults<T>(&self, with: impl FnOnce(&mut Faults) -> T) -> T {
        with(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn readable(&self) -> Result<&B, BackendError> {
        if self.with_faults(|faults| faults.reads) { Err(io_error("read")) } else { Ok(&self.inner) }
    }
}

fn io_error(action: &'static str) -> BackendError {
    let source = Arc::new(io::Error::other("a fault of the test"));
    BackendError::Io { action, path: PathBuf::from("faulty"), source }
}

impl<B: Backend> Backend for FaultyBackend<B> {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.readable()?.get(bucket, key)
    }

    fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        self.readable()?.scan(bucket, from, to, visit)
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), BackendError> {
        let number = self.commits.fetch_add(1, Ordering::AcqRel) + 1;
        self.with_faults(|faults| {
            if faults.commits.contains(&number) {
                return Err(io_error("write"));
            }
            if let Some(space) = &mut faults.space {
                let left = space.checked_sub(batch.bytes() as u64);
                *space = left.ok_or_else(|| BackendError::NoSpace {
                    path: PathBuf::from("faulty"),
                    source: Arc::new(io::ErrorKind::StorageFull.into()),
                })?;
            }
            Ok(())
        })?;
        self.inner.commit(batch)
    }

    fn size(&self) -> Result<Size, BackendError> {
        self.readable()?.size()
    }
}
