//! All leases, their keys and when they end.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use prost::Message as _;

use super::record::Record;
use crate::backend::{Backend, Bucket, WriteBatch};
use crate::error::Refusal;
use crate::mvcc::{Key, StoreError};

/// Longest TTL that is granted, in seconds.
pub const MAX_TTL: i64 = 9_000_000_000;

/// The leases of a store.
///
/// Like the store it tells committed from uncommitted: [`renew`](Self::renew), [`time_to_live`](Self::time_to_live) and
/// [`list`](Self::list) speak of what is committed, everything else of what the requests of the present batch have made.
#[derive(Debug)]
pub struct Lessor {
    min_ttl: i64,
    leases: HashMap<i64, Lease>,
    /// Committed leases that an uncommitted request revoked.
    revoked: HashMap<i64, Lease>,
    /// The lease of each key that has one.
    keys: HashMap<Key, i64>,
    /// When each lease has to be looked at: one entry for each of `leases`.
    timers: BTreeSet<(u64, i64)>,
    undo: Vec<Undo>,
}

/// A point among the uncommitted requests to which [`Lessor::roll_back_to`] can return.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

/// What has to be done with a lease now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It has ended: revoke it.
    Expired(i64),
    /// Its record is old: write a [checkpoint](Lessor::checkpoint).
    Checkpoint(i64),
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// There is no such lease, or it has ended.
    Gone,
    /// It has its full time again.
    Renewed {
        /// Seconds from now on.
        ttl: i64,
    },
    /// Its record has to be written first: see [`Lessor::renew_with_record`].
    NeedsRecord,
}

/// What a lease has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// Seconds left, rounded towards 0. Below 0: it has ended, and its end is held back.
    pub ttl: i64,
    /// Seconds granted.
    pub granted: i64,
    /// Its keys, ascending; empty unless asked for.
    pub keys: Vec<Key>,
}

#[derive(Debug)]
struct Lease {
    /// Seconds granted.
    ttl: i64,
    /// When it ends, in the caller's milliseconds.
    expiry: u64,
    /// Seconds left that the record promises; 0 for all.
    saved: i64,
    /// When its record is too old; past the expiry if it will never be.
    checkpoint: u64,
    committed: bool,
    keys: BTreeSet<Key>,
}

#[derive(Debug)]
enum Undo {
    Granted(i64),
    /// A committed lease went to `revoked`.
    Revoked(i64),
    /// A lease of this very batch was revoked.
    Dropped(i64, Box<Lease>),
    Moved(Key, Option<i64>),
    Saved(i64, i64),
}

// === impl Lessor ===

impl Lessor {
    /// No leases; `min_ttl` in seconds is what shorter ones are raised to.
    pub fn new(min_ttl: i64) -> Self {
        Self {
            min_ttl: min_ttl.clamp(1, MAX_TTL),
            leases: HashMap::new(),
            revoked: HashMap::new(),
            keys: HashMap::new(),
            timers: BTreeSet::new(),
            undo: Vec::new(),
        }
    }

    /// Reads the leases back; `attached` is the lease of each live key. A key whose lease does not exist stays, and no
    /// lease will ever end it.
    pub fn load(
        backend: &dyn Backend,
        min_ttl: i64,
        now: u64,
        attached: HashMap<Key, i64>,
    ) -> Result<Self, StoreError> {
        let mut lessor = Self::new(min_ttl);
        let mut malformed = None;
        backend.scan(Bucket::Lease, &[], &[], &mut |key, value| match Record::read(key, value) {
            Ok(record) => {
                let ttl = record.ttl.clamp(lessor.min_ttl, MAX_TTL);
                let mut lease = Lease::new(ttl, now);
                lease.committed = true;
                if record.remaining_ttl > 0 {
                    lease.saved = record.remaining_ttl.min(ttl);
                    lease.run(lease.saved, now);
                }
                lessor.timers.insert((lease.timer(), record.id));
                lessor.leases.insert(record.id, lease);
                ControlFlow::Continue(())
            }
            Err(error) => {
                malformed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = malformed {
            return Err(error.into());
        }
        for (key, id) in attached {
            if let Some(lease) = lessor.leases.get_mut(&id) {
                lease.keys.insert(key.clone());
                lessor.keys.insert(key, id);
            }
        }
        Ok(lessor)
    }

    // --- committed state ---

    /// Gives a lease its full time again, from now.
    pub fn renew(&mut self, id: i64, now: u64) -> Renewal {
        if let Some(lease) = self.revoked.get_mut(&id) {
            // Should the revocation fail, the lease comes back with this.
            if lease.expiry <= now {
                return Renewal::Gone;
            }
            if lease.saved > 0 {
                return Renewal::NeedsRecord;
            }
            lease.run(lease.ttl, now);
            return Renewal::Renewed { ttl: lease.ttl };
        }
        match self.leases.get(&id) {
            Some(lease) if lease.committed && lease.expiry > now => {
                if lease.saved > 0 {
                    return Renewal::NeedsRecord;
                }
                let ttl = lease.ttl;
                self.run(id, ttl, now);
                Renewal::Renewed { ttl }
            }
            _ => Renewal::Gone,
        }
    }

    /// Gives every lease so many milliseconds more, for time in which no renewal could be heard. Only between two batches.
    pub fn postpone(&mut self, by: u64) {
        for lease in self.leases.values_mut().chain(self.revoked.values_mut()) {
            lease.expiry = lease.expiry.saturating_add(by);
            lease.checkpoint = lease.checkpoint.saturating_add(by);
        }
        self.timers = self.leases.iter().map(|(id, lease)| (lease.timer(), *id)).collect();
    }

    /// What a lease has left; `None` if there is none of this id.
    pub fn time_to_live(&self, id: i64, with_keys: bool, now: u64) -> Option<Remaining> {
        let lease = self.committed_lease(id)?;
        let keys = if with_keys { self.committed_keys(id, lease) } else { Vec::new() };
        let seconds = |from: u64, to: u64| i64::try_from(to.saturating_sub(from) / 1000).unwrap_or(i64::MAX);
        let ttl = seconds(now, lease.expiry) - seconds(lease.expiry, now);
        Some(Remaining { ttl, granted: lease.ttl, keys })
    }

    /// Ids of all leases, the one that ends first first.
    pub fn list(&self) -> Vec<i64> {
        let ids = self.leases.iter().filter(|(id, lease)| lease.committed && !self.revoked.contains_key(id));
        let mut list: Vec<_> = ids.chain(&self.revoked).map(|(id, lease)| (lease.expiry, *id)).collect();
        list.sort_unstable();
        list.into_iter().map(|(_, id)| id).collect()
    }

    // --- time ---

    /// When [`due`](Self::due) has something to say, if ever.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Up to `limit` leases that need something done by now, in order of time. They are told again until it is done.
    pub fn due(&self, now: u64, limit: usize) -> Vec<Due> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).take(limit);
        due.map(|(_, id)| match self.leases.get(id) {
            Some(lease) if lease.expiry > now => Due::Checkpoint(*id),
            _ => Due::Expired(*id),
        })
        .collect()
    }

    // --- uncommitted state ---

    /// Whether there is such a lease.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Number of leases.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// The keys of a lease, ascending.
    pub fn keys(&self, id: i64) -> Vec<Key> {
        self.leases.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The lease that a key is attached to.
    pub fn lease_of(&self, key: &[u8]) -> Option<i64> {
        self.keys.get(key).copied()
    }

    /// Makes a lease; gives the TTL granted, in seconds.
    pub fn grant(&mut self, batch: &mut WriteBatch, id: i64, ttl: i64, now: u64) -> Result<i64, Refusal> {
        if ttl > MAX_TTL {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(self.min_ttl);
        let lease = Lease::new(ttl, now);
        write(batch, id, ttl, 0);
        self.timers.insert((lease.timer(), id));
        self.leases.insert(id, lease);
        self.undo.push(Undo::Granted(id));
        Ok(ttl)
    }

    /// Removes a lease, which must have no keys left: detach them by deleting them first.
    pub fn revoke(&mut self, batch: &mut WriteBatch, id: i64) -> Result<(), Refusal> {
        let Some(lease) = self.leases.remove(&id) else { return Err(Refusal::LeaseNotFound) };
        self.timers.remove(&(lease.timer(), id));
        batch.delete(Bucket::Lease, Record::key(id));
        if lease.committed {
            self.revoked.insert(id, lease);
            self.undo.push(Undo::Revoked(id));
        } else {
            self.undo.push(Undo::Dropped(id, Box::new(lease)));
        }
        Ok(())
    }

    /// Attaches a key to a lease (0: to none), and detaches it from the one it had.
    pub fn attach(&mut self, key: &Key, id: i64) {
        let id = (id != 0 && self.leases.contains_key(&id)).then_some(id);
        let before = self.keys.get(key).copied();
        if before != id {
            self.shift(key, id);
            self.undo.push(Undo::Moved(key.clone(), before));
        }
    }

    /// Renews a lease whose record promises less than the full time; gives its TTL.
    pub fn renew_with_record(&mut self, batch: &mut WriteBatch, id: i64, now: u64) -> Result<i64, Refusal> {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.expiry > now) else {
            return Err(Refusal::LeaseNotFound);
        };
        let ttl = lease.ttl;
        if lease.saved != 0 {
            self.undo.push(Undo::Saved(id, lease.saved));
            lease.saved = 0;
            write(batch, id, ttl, 0);
        }
        self.run(id, ttl, now);
        Ok(ttl)
    }

    /// Writes down what a lease has left.
    pub fn checkpoint(&mut self, batch: &mut WriteBatch, id: i64, now: u64) {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.expiry > now) else { return };
        let before = lease.timer();
        // Rounded up: a record never promises less than there is.
        let left = i64::try_from((lease.expiry - now).div_ceil(1000)).unwrap_or(MAX_TTL).min(lease.ttl);
        self.undo.push(Undo::Saved(id, lease.saved));
        lease.saved = left;
        lease.schedule_checkpoint(now);
        write(batch, id, lease.ttl, left);
        let after = lease.timer();
        self.timers.remove(&(before, id));
        self.timers.insert((after, id));
    }

    /// Writes down what every lease has left, for an orderly end.
    pub fn save_all(&mut self, batch: &mut WriteBatch, now: u64) {
        let mut ids: Vec<_> = self.leases.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.checkpoint(batch, id, now);
        }
    }

    // --- committing ---

    /// The point to return to if the next request fails halfway.
    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Undoes everything since the mark, which must be of the present batch.
    pub fn roll_back_to(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            match self.undo.pop() {
                Some(Undo::Granted(id)) => {
                    if let Some(lease) = self.leases.remove(&id) {
                        self.timers.remove(&(lease.timer(), id));
                    }
                }
                Some(Undo::Revoked(id)) => {
                    if let Some(lease) = self.revoked.remove(&id) {
                        self.restore(id, lease);
                    }
                }
                Some(Undo::Dropped(id, lease)) => self.restore(id, *lease),
                Some(Undo::Moved(key, before)) => self.shift(&key, before),
                Some(Undo::Saved(id, saved)) => {
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.saved = saved;
                    }
                }
                None => return,
            }
        }
    }

    /// Undoes everything since the last commit.
    pub fn roll_back(&mut self) {
        self.roll_back_to(Mark(0));
    }

    /// The batch is on disk.
    pub fn committed(&mut self) {
        for undo in self.undo.drain(..) {
            if let Undo::Granted(id) = undo
                && let Some(lease) = self.leases.get_mut(&id)
            {
                lease.committed = true;
            }
        }
        self.revoked.clear();
    }

    fn committed_lease(&self, id: i64) -> Option<&Lease> {
        self.revoked.get(&id).or_else(|| self.leases.get(&id).filter(|lease| lease.committed))
    }

    /// The keys that the lease has when everything uncommitted is thought away.
    fn committed_keys(&self, id: i64, lease: &Lease) -> Vec<Key> {
        let mut keys = lease.keys.clone();
        for undo in self.undo.iter().rev() {
            if let Undo::Moved(key, before) = undo {
                if *before == Some(id) {
                    keys.insert(key.clone());
                } else {
                    keys.remove(key);
                }
            }
        }
        keys.into_iter().collect()
    }

    fn run(&mut self, id: i64, seconds: i64, now: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            self.timers.remove(&(lease.timer(), id));
            lease.run(seconds, now);
            self.timers.insert((lease.timer(), id));
        }
    }

    fn restore(&mut self, id: i64, lease: Lease) {
        self.timers.insert((lease.timer(), id));
        self.leases.insert(id, lease);
    }

    fn shift(&mut self, key: &Key, to: Option<i64>) {
        let from = match to {
            Some(id) => self.keys.insert(key.clone(), id),
            None => self.keys.remove(key),
        };
        if let Some(lease) = from.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = to.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }
}

fn write(batch: &mut WriteBatch, id: i64, ttl: i64, remaining_ttl: i64) {
    batch.put(Bucket::Lease, Record::key(id), Record { id, ttl, remaining_ttl }.encode_to_vec());
}

// === impl Lease ===

impl Lease {
    fn new(ttl: i64, now: u64) -> Self {
        let mut lease =
            Self { ttl, expiry: 0, saved: 0, checkpoint: 0, committed: false, keys: BTreeSet::new() };
        lease.run(ttl, now);
        lease
    }

    /// Starts to run for this many seconds.
    fn run(&mut self, seconds: i64, now: u64) {
        self.expiry = now.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        self.schedule_checkpoint(now);
    }

    /// At half of what is left, unless that is less than a second.
    fn schedule_checkpoint(&mut self, now: u64) {
        let half = self.expiry.saturating_sub(now) / 2;
        self.checkpoint = if half < 1000 { u64::MAX } else { self.expiry - half };
    }

    fn timer(&self) -> u64 {
        self.checkpoint.min(self.expiry)
    }
}
