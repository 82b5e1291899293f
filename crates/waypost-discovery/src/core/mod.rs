//! The rules of discovery, without clock, network or runtime: what was read and what happened goes in, together with
//! the time; what to publish and what to ask comes out.
//!
//! - A range replaces what is known as a whole, and what it changes is the difference.
//! - Events are applied in order. What is older than what is known changes nothing, so that an event that is told
//!   twice, or that a range already covers, does no harm.
//! - Nothing is published until [`Core::settle`], once per batch.

mod fold;
mod grace;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use imbl::OrdMap;
use waypost_model::{Existence, Freshness, Instance, InstanceKey, Snapshot, SnapshotParts};

pub(crate) use self::grace::Answer;
use self::grace::{Burst, Grace, Hold};
pub(crate) use self::table::{Failure, Kv, Table};
use crate::core::fold::Fold;
use crate::reader::Reader;

/// The state of one watched set.
pub(crate) struct Core {
    reader: Arc<Reader>,
    /// How long a set that expired at once is held; `None`: not at all.
    grace: Option<Duration>,
    table: Table,
    fold: Fold,
    burst: Burst,
    hold: Grace,
    link: Link,
    /// What the disk cache said, until etcd speaks.
    cached: HashMap<InstanceKey, (Arc<Instance>, i64)>,
    /// Whether etcd was read at least once.
    read: bool,
    /// The revision of the last snapshot, and whether the next may be older.
    revision: i64,
    rewind: bool,
    shown: Shown,
    next_probe: u64,
    /// A probe that was not handed out yet.
    ask: Option<Probe>,
    dirty: bool,
    changes: u64,
}

/// One instant, on the clock that intervals are measured by and on the one that people read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) monotonic: Instant,
    pub(crate) wall: SystemTime,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    Put(Kv<'a>),
    Delete { key: &'a [u8], mod_revision: i64 },
}

/// What a batch led to.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) publish: Option<Publication>,
    pub(crate) probe: Option<Probe>,
    /// Values that did not decode, each told once.
    pub(crate) failures: Vec<Failure>,
}

pub(crate) struct Publication {
    pub(crate) snapshot: Snapshot,
    /// The store went back: the revision may be lower than that of the last snapshot.
    pub(crate) rewind: bool,
}

/// A question: which of these leases are still there? To be answered by [`Core::probed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) id: u64,
    pub(crate) leases: Vec<i64>,
}

enum Link {
    Up,
    Down { since: SystemTime, cause: Arc<str> },
}

/// What was published last.
struct Shown {
    instances: OrdMap<InstanceKey, Arc<Instance>>,
    existence: Existence,
}

// === impl Core ===

impl Core {
    pub(crate) fn new(reader: Arc<Reader>, grace: Option<Duration>) -> Self {
        Self {
            grace,
            table: Table::new(Arc::clone(&reader)),
            fold: Fold::new(reader.layouts.len()),
            burst: Burst::new(),
            hold: Grace::Idle,
            link: Link::Up,
            cached: HashMap::new(),
            read: false,
            revision: 0,
            rewind: false,
            shown: Shown { instances: OrdMap::new(), existence: Existence::Unknown },
            next_probe: 0,
            ask: None,
            dirty: false,
            changes: 0,
            reader,
        }
    }

    /// What etcd holds, as it was told.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// An empty table, to be filled by a range and handed to [`ranged`](Self::ranged).
    pub(crate) fn blank_table(&self) -> Table {
        Table::new(Arc::clone(&self.reader))
    }

    /// Instances that were added, changed or removed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// When [`tick`](Self::tick) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (&self.hold, &self.link) {
            (Grace::Holding(hold), Link::Up) => Some(hold.until),
            _ => None,
        }
    }

    /// Takes what the disk cache kept. Counts for nothing once etcd was read.
    pub(crate) fn cached(&mut self, instances: Vec<(InstanceKey, Arc<Instance>, i64)>, revision: i64) {
        if self.read || instances.is_empty() {
            return;
        }
        self.cached = instances.into_iter().map(|(key, instance, lease)| (key, (instance, lease))).collect();
        self.revision = revision;
        self.dirty = true;
    }

    /// A complete range of all spans: the set is now what the table says.
    pub(crate) fn ranged(&mut self, mut table: Table, now: Moment) {
        let blank = self.blank_table();
        let older = std::mem::replace(&mut self.table, blank);
        let changes = table.succeed(older);
        self.table = table;
        let revision = self.table.revision();
        self.rewind |= revision < self.revision;
        self.revision = revision;
        self.read = true;
        self.dirty = true;
        for change in changes {
            self.change(change, now);
        }
        for (key, (instance, lease)) in std::mem::take(&mut self.cached) {
            if !self.fold.shown().contains_key(&key) {
                self.burst.removed(key, instance, lease, now.monotonic);
            }
        }
        self.up(now);
    }

    /// Events of one span in order, the last of them of `revision`.
    pub(crate) fn apply<'a>(
        &mut self,
        span: usize,
        revision: i64,
        events: impl IntoIterator<Item = Event<'a>>,
        now: Moment,
    ) {
        for event in events {
            let change = match event {
                Event::Put(kv) => self.table.put(span, kv),
                Event::Delete { key, mod_revision } => self.table.delete(span, key, mod_revision),
            };
            if let Some(change) = change {
                self.change(change, now);
            }
        }
        self.table.told(span, revision);
        self.revision = self.revision.max(revision);
        self.dirty = true;
        self.up(now);
    }

    /// etcd is in sync with us and nothing happened up to `revision`.
    pub(crate) fn quiet(&mut self, revision: i64, now: Moment) {
        self.table.quiet_until(revision);
        self.up(now);
    }

    /// The link to etcd works.
    pub(crate) fn up(&mut self, now: Moment) {
        if matches!(self.link, Link::Up) {
            return;
        }
        self.link = Link::Up;
        self.dirty = true;
        // Registrants were cut off as well: they get the whole grace to come back.
        if let (Grace::Holding(hold), Some(grace)) = (&mut self.hold, self.grace) {
            hold.until = hold.until.max(now.monotonic + grace);
        }
    }

    /// The link to etcd does not work. The set stays; it is stale since the first of several calls.
    pub(crate) fn down(&mut self, cause: Arc<str>, now: Moment) {
        let since = match &self.link {
            Link::Down { cause: known, .. } if *known == cause => return,
            Link::Down { since, .. } => *since,
            Link::Up => now.wall,
        };
        self.link = Link::Down { since, cause };
        self.dirty = true;
    }

    /// The answer to a [`Probe`]. One that is no longer waited for counts for nothing.
    pub(crate) fn probed(&mut self, id: u64, answer: &Answer, now: Moment) {
        match &mut self.hold {
            Grace::Probing { probe, suspects } if *probe == id => {
                let suspects = std::mem::take(suspects);
                let layouts = self.reader.layouts.len();
                let hold = self
                    .grace
                    .and_then(|grace| Hold::new(suspects, answer, &self.reader.scope, layouts, grace, now));
                self.hold = match hold {
                    Some(hold) => Grace::Holding(hold),
                    None => Grace::Idle,
                };
                self.dirty = true;
                if matches!(self.hold, Grace::Idle) {
                    self.empty();
                }
            }
            _ => {}
        }
    }

    /// Time has passed: ends a hold that is over. While etcd is away it is not: nobody could have come back.
    pub(crate) fn tick(&mut self, now: Moment) {
        if self.deadline().is_some_and(|until| until <= now.monotonic) {
            self.hold = Grace::Idle;
            self.empty();
        }
    }

    /// The end of a batch: what there is to publish and to ask.
    pub(crate) fn settle(&mut self, now: Moment) -> Effects {
        let mut effects = Effects { failures: self.table.take_failures(), ..Effects::default() };
        if self.dirty {
            self.dirty = false;
            self.judge(now);
            effects.publish = self.publication();
        }
        effects.probe = self.ask.take();
        effects
    }

    /// Decides what is shown: what is live, or, when that is empty, what was.
    fn judge(&mut self, now: Moment) {
        if !self.read {
            return;
        }
        let live = self.fold.shown();
        if !live.is_empty() {
            self.hold = Grace::Idle;
            self.ask = None;
            self.shown = Shown { instances: live.clone(), existence: Existence::Present };
            return;
        }
        if !matches!(self.hold, Grace::Idle) {
            return;
        }
        match self.shown.existence {
            Existence::Unknown => self.shown.existence = Existence::Absent,
            Existence::Absent | Existence::Emptied => {}
            Existence::Present => {
                let suspects = self.burst.suspects(now.monotonic);
                if self.grace.is_none() || suspects.is_empty() {
                    self.empty();
                    return;
                }
                let probe = self.next_probe;
                self.next_probe += 1;
                self.ask = Some(Probe { id: probe, leases: grace::leases(&suspects) });
                self.hold = Grace::Probing { probe, suspects };
            }
        }
    }

    fn empty(&mut self) {
        self.shown = Shown { instances: OrdMap::new(), existence: Existence::Emptied };
        self.dirty = true;
    }

    fn publication(&mut self) -> Option<Publication> {
        if !self.read {
            return self.cached_publication();
        }
        let down = match &self.link {
            Link::Up => None,
            Link::Down { since, cause } => Some((*since, cause)),
        };
        let (instances, freshness) = match (&self.hold, down) {
            // What is shown is no longer so, and whether that is believed is being asked.
            (Grace::Probing { .. }, None) => return None,
            (Grace::Probing { .. } | Grace::Idle, Some((since, cause))) => {
                (&self.shown.instances, Freshness::Stale { since, cause: Arc::clone(cause) })
            }
            (Grace::Idle, None) => (&self.shown.instances, Freshness::Live),
            (Grace::Holding(hold), None) => {
                (&hold.held, Freshness::Stale { since: hold.since, cause: Arc::clone(&hold.cause) })
            }
            (Grace::Holding(hold), Some((since, cause))) => {
                let since = since.min(hold.since);
                (&hold.held, Freshness::Stale { since, cause: format!("{cause}; {}", hold.cause).into() })
            }
        };
        Some(Publication {
            snapshot: Snapshot::new(SnapshotParts {
                scope: self.reader.scope.clone(),
                revision: self.revision,
                instances: instances.clone(),
                freshness,
                existence: self.shown.existence,
                skipped: self.table.skipped(),
            }),
            rewind: std::mem::take(&mut self.rewind),
        })
    }

    /// Before the first range only the disk cache has anything to say, and only as stale.
    fn cached_publication(&mut self) -> Option<Publication> {
        let Link::Down { since, cause } = &self.link else { return None };
        if self.cached.is_empty() {
            return None;
        }
        let instances =
            self.cached.iter().map(|(key, (instance, _))| (key.clone(), Arc::clone(instance))).collect();
        self.shown = Shown { instances, existence: Existence::Present };
        Some(Publication {
            snapshot: Snapshot::new(SnapshotParts {
                scope: self.reader.scope.clone(),
                revision: self.revision,
                instances: self.shown.instances.clone(),
                freshness: Freshness::Stale { since: *since, cause: Arc::clone(cause) },
                existence: Existence::Present,
                skipped: 0,
            }),
            rewind: false,
        })
    }

    fn change(&mut self, change: table::Change, now: Moment) {
        let table::Change { key, before, after, lease } = change;
        if before != after {
            self.changes += 1;
        }
        self.fold.change(&key, before.as_ref(), after.as_ref());
        match (before, after) {
            (Some(before), None) => self.burst.removed(key, before, lease, now.monotonic),
            (_, Some(_)) => self.burst.came(&key),
            (None, None) => {}
        }
    }
}

// === impl Moment ===

impl Moment {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// The time of day, for people: `14:03:07 UTC`.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() % 86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
