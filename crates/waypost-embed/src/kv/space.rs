//! Keys and leases together, and the writes of single requests.

use bytes::Bytes;
use waypost_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    ResponseHeader,
};

use crate::backend::{Backend, WriteBatch};
use crate::error::Refusal;
use crate::lease::{Lessor, Mark};
use crate::mvcc::{Change, CompactionProgress, Key, Savepoint, Span, Store, StoreError, Write};

/// All keys and leases.
#[derive(Debug)]
pub struct KeySpace {
    store: Store,
    pub(super) leases: Lessor,
}

/// What an applied request gives. None of it may be told before the batch is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied<A> {
    /// The answer. Of its header only the revision is set, and nested answers are complete.
    pub answer: A,
    /// The store's revision after the request.
    pub revision: i64,
    /// What changed, all of it in `revision`; empty if nothing did.
    pub changes: Vec<Change>,
}

// === impl KeySpace ===

impl KeySpace {
    /// Reads everything back. `min_ttl`: what shorter leases are raised to, in seconds; `now` in milliseconds.
    pub fn load(backend: &dyn Backend, min_ttl: i64, now: u64) -> Result<Self, StoreError> {
        let (store, attached) = Store::load(backend)?;
        let leases = Lessor::load(backend, min_ttl, now, attached)?;
        Ok(Self { store, leases })
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The leases.
    pub fn lessor(&self) -> &Lessor {
        &self.leases
    }

    /// The records to commit, for those who have more to write along (users, roles, alarms).
    pub fn batch(&mut self) -> &mut WriteBatch {
        self.store.batch()
    }

    // --- committing ---

    /// Takes the records of all requests applied since the last commit. Nothing may be applied until
    /// [`committed`](Self::committed) or [`roll_back`](Self::roll_back).
    pub fn take_batch(&mut self) -> WriteBatch {
        self.store.take_batch()
    }

    /// The batch is on disk: readers see it.
    pub fn committed(&mut self) {
        self.store.committed();
        self.leases.committed();
    }

    /// The batch could not be written: every request since the last commit is undone, and has to be told so.
    pub fn roll_back(&mut self) {
        self.store.roll_back();
        self.leases.roll_back();
    }

    // --- requests ---

    /// Writes a key.
    pub fn put(
        &mut self,
        backend: &dyn Backend,
        request: PutRequest,
    ) -> Result<Applied<PutResponse>, StoreError> {
        if request.lease != 0 && !self.leases.contains(request.lease) {
            return Err(Refusal::LeaseNotFound.into());
        }
        self.atomically(|space, write| space.put_in(backend, write, request))
    }

    /// Deletes keys.
    pub fn delete_range(
        &mut self,
        backend: &dyn Backend,
        request: &DeleteRangeRequest,
    ) -> Result<Applied<DeleteRangeResponse>, StoreError> {
        self.atomically(|space, write| space.delete_in(backend, write, request))
    }

    /// Gives up history below a revision. With `physical` in the request, the answer is due when
    /// [`compaction_step`](Self::compaction_step) has said [`CompactionProgress::Done`] for that revision or a later one
    /// and that batch is committed.
    pub fn compact(
        &mut self,
        request: &CompactionRequest,
    ) -> Result<Applied<CompactionResponse>, StoreError> {
        self.store.compact(request.revision)?;
        let revision = self.store.current();
        Ok(Applied { answer: CompactionResponse { header: header(revision) }, revision, changes: Vec::new() })
    }

    /// Adds to the batch the removal of the obsolete versions of up to `keys` keys; at most once per batch.
    pub fn compaction_step(&mut self, keys: usize) -> CompactionProgress {
        self.store.compaction_step(keys)
    }

    // --- operations within one revision ---

    pub(super) fn batch_and_leases(&mut self) -> (&mut WriteBatch, &mut Lessor) {
        (self.store.batch(), &mut self.leases)
    }

    /// Runs one request: what it wrote is undone if it fails.
    pub(super) fn atomically<A>(
        &mut self,
        request: impl FnOnce(&mut Self, &mut Write) -> Result<A, StoreError>,
    ) -> Result<Applied<A>, StoreError> {
        let (savepoint, mark): (Savepoint, Mark) = (self.store.savepoint(), self.leases.mark());
        let mut write = self.store.begin();
        match request(self, &mut write) {
            Ok(answer) => {
                let changes = self.store.end(write);
                Ok(Applied { answer, revision: self.store.current(), changes })
            }
            Err(error) => {
                self.store.roll_back_to(savepoint);
                self.leases.roll_back_to(mark);
                Err(error)
            }
        }
    }

    /// A put whose lease is known to exist.
    pub(super) fn put_in(
        &mut self,
        backend: &dyn Backend,
        write: &mut Write,
        request: PutRequest,
    ) -> Result<PutResponse, StoreError> {
        let PutRequest { key, mut value, mut lease, prev_kv, ignore_value, ignore_lease } = request;
        let mut previous = None;
        if (prev_kv || ignore_value || ignore_lease)
            && let Some(found) = self.store.get(&key, write.revision())
        {
            previous = Some(self.store.value(backend, found.revision)?);
        }
        if ignore_value || ignore_lease {
            let Some(previous) = &previous else { return Err(Refusal::KeyNotFound.into()) };
            if ignore_value {
                value = previous.value.clone();
            }
            if ignore_lease {
                lease = previous.lease;
            }
        }
        let (name, _) = self.store.put(write, key, value, lease)?;
        self.leases.attach(&name, lease);
        Ok(PutResponse { header: header(write.revision()), prev_kv: previous.filter(|_| prev_kv) })
    }

    pub(super) fn delete_in(
        &mut self,
        backend: &dyn Backend,
        write: &mut Write,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StoreError> {
        let span = Span::new(&request.key, &request.range_end);
        let mut names = Vec::new();
        let mut prev_kvs = Vec::new();
        for (name, found) in self.store.range(span, write.revision()) {
            names.push(Key::clone(name));
            if request.prev_kv {
                prev_kvs.push(self.store.value(backend, found.revision)?);
            }
        }
        let deleted = self.delete_keys(write, &names)?;
        Ok(DeleteRangeResponse { header: header(write.revision()), deleted, prev_kvs })
    }

    /// Deletes these keys and detaches them; gives how many there were.
    pub(super) fn delete_keys(&mut self, write: &mut Write, names: &[Key]) -> Result<i64, StoreError> {
        let mut deleted = 0;
        for name in names {
            if self.store.delete(write, name)?.is_some() {
                deleted += 1;
            }
            self.leases.attach(name, 0);
        }
        Ok(deleted)
    }
}

/// A header that carries a revision; the rest of it is not the core's to know.
#[expect(clippy::unnecessary_wraps, reason = "that is what the header of every answer is")]
pub(super) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Keys of leases as a response carries them.
pub(super) fn to_bytes(keys: Vec<Key>) -> Vec<Bytes> {
    keys.into_iter().map(|key| Bytes::copy_from_slice(&key)).collect()
}
