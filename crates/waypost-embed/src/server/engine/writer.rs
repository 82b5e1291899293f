//! The thread that writes: batches of requests, leases that end, compaction.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use waypost_proto::mvccpb::event::EventType;
use waypost_proto::mvccpb::{Event, KeyValue};

use super::desk::Settles;
use super::{Desk, Job, Shared, lock, write};
use crate::backend::{Backend, BackendError, Bucket, WriteBatch};
use crate::error::Refusal;
use crate::mvcc::{Change, Revision, StoreError, previous};
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
/// How long the writer leaves the disk alone after a failure, in milliseconds, where nobody waits.
const PAUSE_MS: u64 = 500;

/// One revision that has just been written, for the hub to ask what keys held before.
struct JustWritten<'a> {
    backend: &'a dyn Backend,
    changes: &'a [Change],
    before: OnceCell<HashMap<&'a [u8], Option<Revision>>>,
}

struct Writer<'a> {
    shared: &'a Shared,
    /// Requests that wait for the end of a compaction.
    compacting: Vec<super::Settle>,
    /// Nothing is done on the writer's own account before this time.
    pause_until: u64,
}

/// Writes until nobody is left who could ask for it; then writes down what leases have left.
pub(in crate::server) fn run(shared: &Shared, queue: &Receiver<Job>) {
    let mut writer = Writer { shared, compacting: Vec::new(), pause_until: 0 };
    let mut jobs = Vec::new();
    while writer.wait(queue, &mut jobs).is_continue() {
        writer.batch(&mut jobs);
    }
    writer.end();
}

// === impl Writer ===

impl Writer<'_> {
    /// Waits for something to do, and takes what waits.
    fn wait(&self, queue: &Receiver<Job>, jobs: &mut Vec<Job>) -> ControlFlow<()> {
        match queue.recv_timeout(self.sleep()) {
            Ok(job) => jobs.push(job),
            Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        let mut bytes = jobs.iter().map(|job| job.bytes).sum::<usize>();
        while jobs.len() < BATCH_REQUESTS
            && bytes < BATCH_BYTES
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.bytes;
            jobs.push(job);
        }
        self.shared.waiting.fetch_sub(jobs.len(), Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    }

    /// Until a lease ends or obsolete versions can be removed.
    fn sleep(&self) -> Duration {
        let now = self.shared.now();
        let space = super::read(&self.shared.space);
        let due = if space.store().is_compacting() { Some(now) } else { space.next_lease_due() };
        match due {
            Some(due) => {
                let wait = due.max(self.pause_until).saturating_sub(now);
                Duration::from_millis(wait).min(LONGEST_SLEEP)
            }
            None => LONGEST_SLEEP,
        }
    }

    /// Applies, commits, publishes, answers.
    fn batch(&mut self, jobs: &mut Vec<Job>) {
        let shared = self.shared;
        let mut settles = Settles::default();
        let (batch, published) = self.apply(jobs, &mut settles);
        let requests = settles.now.len() + settles.later.len();
        let (empty, started) = (batch.is_empty(), Instant::now());
        let outcome = shared.backend.commit(batch);
        if !empty {
            shared.tallies.sync.observe(started.elapsed().as_secs_f64());
            shared.tallies.batch.observe(f64::from(u32::try_from(requests).unwrap_or(u32::MAX)));
        }
        match outcome {
            Ok(()) => {
                self.committed(&published);
                for settle in settles.now {
                    settle(Ok(()));
                }
                self.compacting.extend(settles.later);
                if !self.compacting.is_empty() && !super::read(&shared.space).store().is_compacting() {
                    for settle in self.compacting.drain(..) {
                        settle(Ok(()));
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "a batch of writes failed, and is undone");
                let refusal = self.roll_back(error);
                shared.tallies.failed.inc_by(requests as u64);
                for settle in settles.now.into_iter().chain(settles.later) {
                    settle(Err(refusal.clone()));
                }
            }
        }
    }

    fn apply(&self, jobs: &mut Vec<Job>, settles: &mut Settles) -> (WriteBatch, Vec<(i64, Vec<Change>)>) {
        let shared = self.shared;
        // Asked once for a batch: what the batch adds is counted on top of it.
        let size = match shared.options.quota {
            Some(_) if !jobs.is_empty() => shared.backend.allocated().unwrap_or(0),
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
            for revoked in desk.space.lease_tick(now, LEASES) {
                desk.applied(revoked);
                shared.tallies.leases_expired.inc();
            }
            if desk.space.store().is_compacting() {
                desk.space.compaction_step(COMPACTION_KEYS);
            }
        }
        let applied = jobs.len() as u64;
        for job in jobs.drain(..) {
            desk.physical = false;
            let settle = (job.apply)(&mut desk);
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

    /// Makes visible what is on disk, and tells those who watch.
    fn committed(&self, published: &[(i64, Vec<Change>)]) {
        let shared = self.shared;
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

    /// Undoes a batch; gives what its requests are told.
    fn roll_back(&mut self, error: BackendError) -> Refusal {
        let shared = self.shared;
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

    fn end(self) {
        let batch = {
            let mut space = write(&self.shared.space);
            space.save_leases(self.shared.now());
            space.take_batch()
        };
        if let Err(error) = self.shared.backend.commit(batch) {
            tracing::warn!(%error, "what leases have left was not written down");
        }
        for settle in self.compacting {
            settle(Err(Refusal::Stopped));
        }
    }
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
