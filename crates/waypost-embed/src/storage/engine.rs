//! redb as a store of etcd's buckets: one table a bucket, one transaction a batch.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;

use bytes::Bytes;
use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};

use crate::backend::{BackendError, Bucket, Operation, Visit, WriteBatch};
use crate::storage::error::engine_error;
use crate::storage::medium::{Disk, Fence};

/// What [`RECORD`] says of the tables' content. A program reads its own format and no other.
const FORMAT: u64 = 1;
/// About the store itself: [`FORMAT`], and bytes of all keys and values.
const RECORD: TableDefinition<'static, &str, u64> = TableDefinition::new("waypost");
const RECORD_FORMAT: &str = "format";
const RECORD_BYTES: &str = "bytes";
/// The first bytes of every file of redb.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);
type Entries<'a> = Table<'a, &'static [u8], &'static [u8]>;

/// An open database.
#[derive(Debug)]
pub(crate) struct Engine {
    database: Database,
    fence: Fence,
    path: PathBuf,
}

/// A state of the database that later commits do not change.
pub(crate) struct State {
    transaction: ReadTransaction,
    pub(crate) path: PathBuf,
}

/// The tables of a write transaction, opened when they are first written.
struct Tables<'a> {
    transaction: &'a WriteTransaction,
    open: BTreeMap<Bucket, Entries<'a>>,
    added: u64,
    removed: u64,
}

fn table(bucket: Bucket) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(bucket.name())
}

/// `from..to`, where an empty `to` is the end; `None` when that is nothing.
fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Range<'a>> {
    match to {
        [] => Some((Bound::Included(from), Bound::Unbounded)),
        _ if from < to => Some((Bound::Included(from), Bound::Excluded(to))),
        _ => None,
    }
}

// === impl Engine ===

impl Engine {
    /// Makes an empty database with all tables. It is durable when this returns.
    pub(crate) fn create(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let engine = Self::start(disk, path, cache)?;
        let error = |error: redb::Error| engine_error("create", &engine.path)(error);
        let create = || -> Result<(), redb::Error> {
            let transaction = engine.database.begin_write()?;
            for bucket in Bucket::ALL {
                transaction.open_table(table(bucket))?;
            }
            transaction.open_table(RECORD)?.insert(RECORD_FORMAT, FORMAT)?;
            transaction.open_table(RECORD)?.insert(RECORD_BYTES, 0)?;
            Ok(transaction.commit()?)
        };
        create().map_err(error)?;
        Ok(engine)
    }

    /// Opens a database that [`create`](Self::create) has made. One that was not closed is repaired first, which reads all
    /// of it.
    pub(crate) fn open(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let mut magic = [0; MAGIC.len()];
        let found = redb::StorageBackend::read(&disk, 0, &mut magic);
        if found.is_err() || magic != MAGIC {
            let (found, supported) = ("no database of redb".to_owned(), "one".to_owned());
            return Err(BackendError::Format { path, found, supported });
        }
        let engine = Self::start(disk, path, cache)?;
        let read = || -> Result<Option<u64>, redb::Error> {
            match engine.database.begin_read()?.open_table(RECORD) {
                Ok(record) => Ok(record.get(RECORD_FORMAT)?.map(|format| format.value())),
                Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let found = match read().map_err(engine_error("read", &engine.path))? {
            Some(FORMAT) => return Ok(engine),
            Some(format) => format!("format {format}"),
            None => "the database of another program".to_owned(),
        };
        Err(BackendError::Format { path: engine.path, found, supported: format!("format {FORMAT}") })
    }

    fn start(disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let fence = disk.fence();
        let database = Builder::new().set_cache_size(cache).create_with_backend(disk);
        let database = database.map_err(engine_error("open", &path))?;
        Ok(Self { database, fence, path })
    }

    /// Ends reading and writing for good, also of the states that were taken of it.
    pub(crate) fn fence(&self) {
        self.fence.close();
    }

    pub(crate) fn state(&self) -> Result<State, BackendError> {
        let transaction = self.database.begin_read().map_err(engine_error("read", &self.path))?;
        Ok(State { transaction, path: self.path.clone() })
    }

    /// Writes a batch with one sync of the file.
    pub(crate) fn commit(&self, batch: &WriteBatch) -> Result<(), BackendError> {
        self.try_commit(batch).map_err(engine_error("write", &self.path))
    }

    fn try_commit(&self, batch: &WriteBatch) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut tables = Tables { transaction: &transaction, open: BTreeMap::new(), added: 0, removed: 0 };
        for operation in batch {
            tables.apply(operation)?;
        }
        let (added, removed) = (tables.added, tables.removed);
        drop(tables);
        if added != removed {
            let mut record = transaction.open_table(RECORD)?;
            let bytes = record.get(RECORD_BYTES)?.map_or(0, |bytes| bytes.value());
            record.insert(RECORD_BYTES, bytes.saturating_add(added).saturating_sub(removed))?;
        }
        Ok(transaction.commit()?)
    }

    /// Copies everything into a new database on `disk`, leaf by leaf in order.
    pub(crate) fn copy_to(&self, disk: Disk, path: PathBuf, cache: usize) -> Result<Self, BackendError> {
        let copy = Self::create(disk, path, cache)?;
        let state = self.state()?;
        let error = |error: redb::Error| engine_error("write", &copy.path)(error);
        let transaction = copy.database.begin_write().map_err(|source| error(source.into()))?;
        for bucket in Bucket::ALL {
            let mut to = transaction.open_table(table(bucket)).map_err(|source| error(source.into()))?;
            let mut outcome = Ok(());
            state.scan(bucket, &[], &[], &mut |key, value| {
                outcome = to.insert(key, value).map(drop);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome.map_err(|source| error(source.into()))?;
        }
        let finish = || -> Result<(), redb::Error> {
            transaction.open_table(RECORD)?.insert(RECORD_BYTES, state.try_bytes()?)?;
            Ok(transaction.commit()?)
        };
        finish().map_err(error)?;
        Ok(copy)
    }
}

// === impl State ===

impl State {
    pub(crate) fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let get = || -> Result<Option<Bytes>, redb::Error> {
            let table = self.transaction.open_table(table(bucket))?;
            Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
        };
        get().map_err(engine_error("read", &self.path))
    }

    pub(crate) fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let Some(range) = bounds(from, to) else { return Ok(()) };
        let mut scan = || -> Result<(), redb::Error> {
            let table = self.transaction.open_table(table(bucket))?;
            for entry in table.range::<&[u8]>(range)? {
                let (key, value) = entry?;
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(())
        };
        scan().map_err(engine_error("read", &self.path))
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> Result<u64, BackendError> {
        self.try_bytes().map_err(engine_error("read", &self.path))
    }

    fn try_bytes(&self) -> Result<u64, redb::Error> {
        let record = self.transaction.open_table(RECORD)?;
        Ok(record.get(RECORD_BYTES)?.map_or(0, |bytes| bytes.value()))
    }

    /// Whether everything is as it is after `batch`: it was committed, or it changes nothing.
    pub(crate) fn holds(&self, batch: &WriteBatch) -> Result<bool, BackendError> {
        let mut after: BTreeMap<(Bucket, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for operation in batch {
            match operation {
                Operation::Put { bucket, key, value } => {
                    after.insert((*bucket, key), Some(value));
                }
                Operation::Delete { bucket, key } => {
                    after.insert((*bucket, key), None);
                }
                Operation::DeleteRange { bucket, from, to } => {
                    for ((of, key), value) in &mut after {
                        if of == bucket && *key >= &from[..] && (to.is_empty() || *key < &to[..]) {
                            *value = None;
                        }
                    }
                }
            }
        }
        for ((bucket, key), value) in &after {
            if self.get(*bucket, key)?.as_deref() != *value {
                return Ok(false);
            }
        }
        // What a range held before the batch must be gone, but for what the batch put there later.
        for operation in batch {
            let Operation::DeleteRange { bucket, from, to } = operation else { continue };
            let mut gone = true;
            self.scan(*bucket, from, to, &mut |key, _| {
                gone = after.get(&(*bucket, key)).is_some_and(Option::is_some);
                if gone { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if !gone {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

// === impl Tables ===

impl<'a> Tables<'a> {
    fn apply(&mut self, operation: &Operation) -> Result<(), redb::Error> {
        match operation {
            Operation::Put { bucket, key, value } => {
                let old = self.table(*bucket)?.insert(&key[..], &value[..])?;
                let old = old.map(|old| old.value().len());
                self.added += value.len() as u64 + if old.is_none() { key.len() as u64 } else { 0 };
                self.removed += old.unwrap_or(0) as u64;
            }
            Operation::Delete { bucket, key } => {
                let old = self.table(*bucket)?.remove(&key[..])?;
                let old = old.map(|old| key.len() + old.value().len());
                self.removed += old.unwrap_or(0) as u64;
            }
            Operation::DeleteRange { bucket, from, to } => {
                let Some(range) = bounds(from, to) else { return Ok(()) };
                let mut removed = 0;
                self.table(*bucket)?.retain_in::<&[u8], _>(range, |key, value| {
                    removed += (key.len() + value.len()) as u64;
                    false
                })?;
                self.removed += removed;
            }
        }
        Ok(())
    }

    fn table(&mut self, bucket: Bucket) -> Result<&mut Entries<'a>, redb::Error> {
        use std::collections::btree_map::Entry;
        match self.open.entry(bucket) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(closed) => Ok(closed.insert(self.transaction.open_table(table(bucket))?)),
        }
    }
}
