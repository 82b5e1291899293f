//! From a backend into a file of bbolt, and back.

use std::io::{Read, Seek, Write};
use std::ops::ControlFlow;

use super::error::{ReadError, WriteError};
use super::{Reader, Summary, Writer};
use crate::backend::{Backend, BackendError, Bucket, Visit, WriteBatch};

/// Bytes of keys and values that [`import`] commits at once.
const BATCH: usize = 4 << 20;

/// A state of a store that does not change while it is read.
pub trait Source {
    /// Visits the entries of a bucket in the order of their keys.
    fn visit(&self, bucket: Bucket, visit: &mut Visit<'_>) -> Result<(), BackendError>;
}

/// What [`import`] took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Entries of all buckets that are etcd's.
    pub entries: u64,
    /// Names of buckets that are not etcd's; they were left out.
    pub unknown: Vec<Vec<u8>>,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Writes all buckets as a database of bbolt, which is a snapshot of etcd once [`seal::append`](super::seal::append) has
/// put its hash after it. Every bucket is written, the empty ones as well: etcd expects to find them.
pub fn export<W: Write + Seek>(source: &dyn Source, output: W) -> Result<(W, Summary), CopyError> {
    let mut writer = Writer::new(output)?;
    for bucket in Bucket::ALL {
        writer.bucket(bucket.name().as_bytes(), 0, |out| {
            let mut outcome = Ok(());
            source.visit(bucket, &mut |key, value| {
                outcome = out.put(key, value);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome.map_err(CopyError::from)
        })?;
    }
    Ok(writer.finish()?)
}

/// Puts what is in the file into `backend`, in several commits: into one that nothing else uses and that is thrown
/// away if this fails.
pub fn import<R: Read + Seek>(reader: &mut Reader<R>, backend: &dyn Backend) -> Result<Imported, CopyError> {
    let mut imported = Imported::default();
    for info in reader.buckets()? {
        let Some(bucket) = Bucket::from_name(&info.name) else {
            imported.unknown.push(info.name);
            continue;
        };
        let mut batch = WriteBatch::new();
        let mut outcome = Ok(());
        reader.for_each(&info.name, &mut |key, value| {
            batch.put(bucket, key.to_vec(), value.to_vec());
            imported.entries += 1;
            if batch.bytes() >= BATCH {
                outcome = backend.commit(std::mem::take(&mut batch));
            }
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome?;
        backend.commit(batch)?;
    }
    Ok(imported)
}

// === impl Source ===

impl<B: Backend + ?Sized> Source for B {
    /// Consistent within the bucket; over all buckets only as long as nothing is committed.
    fn visit(&self, bucket: Bucket, visit: &mut Visit<'_>) -> Result<(), BackendError> {
        self.scan(bucket, &[], &[], visit)
    }
}
