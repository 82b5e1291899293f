//! What is written: batches of requests, leases that end, compaction.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use waypost_proto::mvccpb::event::EventType;
use waypost_proto::mvccpb::{Event, KeyValue};

use super::desk::Settles;
use super::mail::{self, Settle};
use super::{Desk, Job, Shared, lock, write};
use crate::backend::{Backend, BackendError, Bucket, WriteBatch};
use crate::error::{Refusal, described};
use crate::mvcc::{Change, Revision, StoreError, previous};
use crate::server::vigil::LONGEST as LONGEST_VIGIL;
use crate::watch::History;

/// Requests in one batch at most.
const BATCH_REQUESTS: usize = 4096;
/// Bytes of requests in one batch, after which no more are taken.
const BATCH_BYTES: usize = 16 << 20;
/// Keys whose obsolete versions are removed with one batch.
const COMPACTION_KEYS: usize = 2000;
/// Leases that are ended with one batch.
const LEASES: usize = 1000;
/// The longest sleep; time of leases is looked at that often even if nothing is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// What a batch takes at least where connections cannot wait for it.
const SLOW: Duration = Duration::from_millis(1);
/// How long the writer leaves the disk alone after a failure, in milliseconds, where nobody waits.
const PAUSE_MS: u64 = 500;

/// One revision that has just been written, for the hub to ask what keys held before.
struct JustWritten<'a> {
    backend: &'a dyn Backend,
    changes: &'a [Change],
    before: OnceCell<HashMap<&'a [u8], Option<Revision>>>,
}

/// What waits to be written, and what is known between two batches.
pub(super) struct Writer {
    queue: Receiver<Job>,
    /// Taken from the queue; empty between batches.
    jobs: Vec<Job>,
    /// Requests that wait for the end of a compaction.
    compacting: Vec<Settle>,
    /// Nothing is done on the writer's own account before this time.
    pause_until: u64,
    /// When the writer thread wakes by itself.
    wakes_at: u64,
    /// What a batch with something to write took of late: an average that forgets.
    took: Duration,
}

/// What whoever writes does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    /// Nothing until then, in milliseconds, unless woken.
    Sleep {
        due: u64,
    },
    End,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(queue: Receiver<Job>) -> Self {
        Self { queue, jobs: Vec::new(), compacting: Vec::new(), pause_until: 0, wakes_at: 0, took: SLOW }
    }

    /// One batch, if there is anything to do.
    pub(super) fn step(&mut self, shared: &Shared) -> Next {
        let open = self.take(shared);
        if self.jobs.is_empty() {
            if !open {
                return Next::End;
            }
            let due = self.due(shared).unwrap_or(u64::MAX);
            if due > shared.now() {
                return Next::Sleep { due };
            }
        }
        self.batch(shared);
        Next::Again
    }

    /// Takes what waits. `false`: nobody is left who could ask for anything.
    fn take(&mut self, shared: &Shared) -> bool {
        let mut open = true;
        let mut bytes = 0;
        while self.jobs.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            match self.queue.try_recv() {
                Ok(job) => {
                    bytes += job.bytes;
                    self.jobs.push(job);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        shared.waiting.fetch_sub(self.jobs.len(), Ordering::Relaxed);
        shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        open
    }

    /// When there is something to do without being asked: a lease ends, or obsolete versions can be removed.
    fn due(&self, shared: &Shared) -> Option<u64> {
        let space = super::read(&shared.space);
        let held = lock(&shared.alarms).corrupt();
        let due =
            if space.store().is_compacting() { Some(0) } else { space.next_lease_due().filter(|_| !held) };
        due.map(|due| due.max(self.pause_until))
    }

    /// Whether a step takes so little time that connections may wait for it.
    pub(super) fn is_quick(&self, shared: &Shared) -> bool {
        self.took < SLOW && self.due(shared).is_none_or(|due| due > shared.now())
    }

    /// Whether a step is over before a processor that is kept awake for it would halt after all.
    pub(super) fn is_swift(&self) -> bool {
        self.took < LONGEST_VIGIL
    }

    /// The writer thread sleeps; gives how long.
    pub(super) fn sleep(&mut self, shared: &Shared, due: u64) -> Duration {
        self.wakes_at = due;
        Duration::from_millis(due.saturating_sub(shared.now())).min(LONGEST_SLEEP)
    }

    /// Whether there is something to do before the writer thread wakes by itself.
    pub(super) fn is_due_earlier(&self, shared: &Shared) -> bool {
        self.due(shared).is_some_and(|due| due < self.wakes_at)
    }

    /// Applies, commits, publishes, answers.
    fn batch(&mut self, shared: &Shared) {
        let began = Instant::now();
        let mut settles = Settles::default();
        let (batch, published) = self.apply(shared, &mut settles);
        let requests = settles.now.len() + settles.later.len();
        let (empty, started) = (batch.is_empty(), Instant::now());
        let outcome = shared.backend.commit(batch);
        if !empty {
            shared.tallies.sync.observe(started.elapsed().as_secs_f64());
            shared.tallies.batch.observe(f64::from(u32::try_from(requests).unwrap_or(u32::MAX)));
        }
        match outcome {
            Ok(()) => {
                committed(shared, &published);
                mail::answer(settles.now, &Ok(()));
                self.compacting.extend(settles.later);
                if !self.compacting.is_empty() && !super::read(&shared.space).store().is_compacting() {
                    mail::answer(self.compacting.drain(..), &Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(error = described(&error), "a batch of writes failed, and is undone");
                let refusal = self.roll_back(shared, error);
                shared.tallies.failed.inc_by(requests as u64);
                mail::answer(settles.now.into_iter().chain(settles.later), &Err(refusal));
            }
        }
        if !empty {
            self.took = (self.took * 7 + began.elapsed()) / 8;
        }
    }

    fn apply(&mut self, shared: &Shared, settles: &mut Settles) -> (WriteBatch, Vec<(i64, Vec<Change>)>) {
        // Asked once for a batch: what the batch adds is counted on top of it.
        let size = match shared.options.quota {
            Some(_) if !self.jobs.is_empty() => shared.backend.allocated().unwrap_or(0),
            _ => 0,
        };
        let now = shared.now();
        let mut space = write(&shared.space);
        let mut auth = lock(&shared.auth);
        let mut alarms = lock(&shared.alarms);
        let mut desk = Desk {
            space: &mut space,
            auth: &mut auth,
            alarms: &mut alarms,
            backend: &shared.backend,
            member: &shared.member,
            now,
            quota: shared.options.quota,
            size,
            published: Vec::new(),
            physical: false,
        };
        if now >= self.pause_until {
            // As in etcd: a lease ends by a write, which a corrupt store refuses. It ends when the alarm does.
            let leases = if desk.alarms.corrupt() { 0 } else { LEASES };
            for revoked in desk.space.lease_tick(now, leases) {
                desk.applied(revoked);
                shared.tallies.leases_expired.inc();
            }
            if desk.space.store().is_compacting() {
                desk.space.compaction_step(COMPACTION_KEYS);
            }
        }
        let applied = self.jobs.len() as u64;
        for job in self.jobs.drain(..) {
            desk.physical = false;
            let settle = Settle { tell: (job.apply)(&mut desk), mail: job.mail };
            if desk.physical {
                settles.later.push(settle);
            } else {
                settles.now.push(settle);
            }
        }
        let published = std::mem::take(&mut desk.published);
        if applied > 0 {
            let index = shared.index.fetch_add(applied, Ordering::Relaxed) + applied;
            if !space.batch().is_empty() {
                space.batch().put(Bucket::Meta, &b"consistent_index"[..], index.to_be_bytes().to_vec());
            }
        }
        (space.take_batch(), published)
    }

    /// Undoes a batch; gives what its requests are told.
    fn roll_back(&mut self, shared: &Shared, error: BackendError) -> Refusal {
        let mut space = write(&shared.space);
        space.roll_back();
        lock(&shared.auth).roll_back();
        let mut alarms = lock(&shared.alarms);
        alarms.roll_back();
        if matches!(error, BackendError::NoSpace { .. }) {
            alarms.remember_no_space(shared.member.id);
        }
        self.pause_until = shared.now().saturating_add(PAUSE_MS);
        StoreError::from(error).refusal()
    }

    /// Writes down what leases have left.
    pub(super) fn end(&mut self, shared: &Shared) {
        let batch = {
            let mut space = write(&shared.space);
            space.save_leases(shared.now());
            space.take_batch()
        };
        if let Err(error) = shared.backend.commit(batch) {
            tracing::warn!(error = described(&error), "what leases have left was not written down");
        }
        mail::answer(self.compacting.drain(..), &Err(Refusal::Stopped));
    }
}

/// Makes visible what is on disk, and tells those who watch.
fn committed(shared: &Shared, published: &[(i64, Vec<Change>)]) {
    let compacted = {
        let mut space = write(&shared.space);
        let mut auth = lock(&shared.auth);
        space.committed();
        auth.committed();
        lock(&shared.alarms).committed();
        let current = auth.policy();
        if !Arc::ptr_eq(current, &super::read(&shared.policy)) {
            *write(&shared.policy) = Arc::clone(current);
        }
        space.store().compacted()
    };
    for change in published.iter().flat_map(|(_, changes)| changes) {
        match change.event.r#type() {
            EventType::Put => shared.tallies.puts.inc(),
            EventType::Delete => shared.tallies.deletes.inc(),
        };
    }
    shared.with_hub(|hub| {
        for (revision, changes) in published {
            let events: Vec<Event> = changes.iter().map(|change| change.event.clone()).collect();
            let past = JustWritten { backend: &shared.backend, changes, before: OnceCell::new() };
            hub.publish(*revision, &events, &past);
        }
        hub.compact(compacted);
    });
}

// === impl JustWritten ===

impl History for JustWritten<'_> {
    type Error = StoreError;

    fn changes(
        &self,
        _from: i64,
        _to: i64,
        _visit: &mut dyn FnMut(i64, Event) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // Publication does not read history.
        Ok(())
    }

    fn before(&self, key: &[u8], _revision: i64) -> Result<Option<KeyValue>, StoreError> {
        let before = self.before.get_or_init(|| {
            let named =
                self.changes.iter().filter_map(|change| Some((change.event.kv.as_ref()?, change.previous)));
            named.map(|(kv, previous)| (&kv.key[..], previous)).collect()
        });
        previous(self.backend, before.get(key).copied().flatten())
    }
}
