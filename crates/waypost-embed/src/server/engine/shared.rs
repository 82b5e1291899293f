//! What readers and the writer share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::mail::{self, Sleeper};
use super::{Alarms, Member};
use crate::auth::{Auth, Policy};
use crate::backend::{Backend as _, WriteBatch};
use crate::kv::KeySpace;
use crate::mvcc::StoreError;
use crate::server::metrics::Tallies;
use crate::server::options::Options;
use crate::storage::Store;
use crate::watch::{Hub, HubOptions, StreamId};

/// Everything that the server knows.
pub(in crate::server) struct Shared {
    pub(in crate::server) backend: Store,
    pub(in crate::server) space: RwLock<KeySpace>,
    pub(in crate::server) auth: Mutex<Auth>,
    /// The committed policy, for those who only read it.
    pub(in crate::server) policy: RwLock<Arc<Policy>>,
    pub(in crate::server) alarms: Mutex<Alarms>,
    pub(in crate::server) watches: Mutex<Watches>,
    /// Told when a watch stream opens: its progress is due earlier than that of others perhaps.
    pub(in crate::server) opened: Notify,
    pub(in crate::server) tallies: Arc<Tallies>,
    pub(in crate::server) member: Member,
    pub(in crate::server) options: Options,
    /// Requests that wait to be written, and their bytes.
    pub(in crate::server) waiting: AtomicUsize,
    pub(in crate::server) waiting_bytes: AtomicUsize,
    /// Number of requests that were written, over all time.
    pub(in crate::server) index: AtomicU64,
    started: Instant,
    /// Last, so that it goes when the backend has let go of its folder.
    _free: DropGuard,
}

/// The hub, and whom to wake.
pub(in crate::server) struct Watches {
    pub(in crate::server) hub: Hub,
    pub(in crate::server) sleepers: HashMap<StreamId, Sleeper>,
}

// === impl Shared ===

impl Shared {
    /// Reads everything back.
    pub(in crate::server) fn load(
        backend: Store,
        member: Member,
        index: u64,
        options: Options,
        free: DropGuard,
    ) -> Result<Self, StoreError> {
        let started = Instant::now();
        let space = KeySpace::load(&backend, options.min_lease_ttl, 0)?;
        let mut batch = WriteBatch::new();
        let auth = Auth::load(&backend, &mut batch)?;
        backend.commit(batch)?;
        let alarms = Alarms::load(&backend)?;
        let hub_options = HubOptions {
            fragment_bytes: options.max_request_bytes + super::super::GRPC_OVERHEAD,
            progress_interval_ms: u64::try_from(options.progress_interval.as_millis()).unwrap_or(u64::MAX),
            ..HubOptions::default()
        };
        let hub = Hub::new(hub_options, space.store().revision(), space.store().compacted());
        let policy = Arc::clone(auth.policy());
        Ok(Self {
            backend,
            space: RwLock::new(space),
            auth: Mutex::new(auth),
            policy: RwLock::new(policy),
            alarms: Mutex::new(alarms),
            watches: Mutex::new(Watches { hub, sleepers: HashMap::new() }),
            opened: Notify::new(),
            tallies: Arc::default(),
            member,
            options,
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            index: AtomicU64::new(index),
            started,
            _free: free,
        })
    }

    /// Milliseconds since the start.
    pub(in crate::server) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Number of requests written so far.
    pub(in crate::server) fn index(&self) -> u64 {
        self.index.load(Ordering::Relaxed)
    }

    /// Does something to the hub, and wakes whom that concerns.
    pub(in crate::server) fn with_hub<A>(&self, act: impl FnOnce(&mut Hub) -> A) -> A {
        let mut watches = lock(&self.watches);
        let outcome = act(&mut watches.hub);
        let woken = watches.hub.wakeups();
        let sleepers: Vec<Sleeper> =
            woken.iter().filter_map(|stream| watches.sleepers.get(stream)).cloned().collect();
        drop(watches);
        mail::wake(sleepers);
        outcome
    }
}

// What a lock guards is consistent between any two steps of the core; a panic elsewhere is no reason to stop.

pub(in crate::server) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(in crate::server) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(in crate::server) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
