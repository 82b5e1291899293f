//! Watches: the events of ranges of keys, from a revision on, for as long as it takes.
//!
//! A [`Watcher`] is one gRPC stream that carries any number of watches. When the stream breaks, goes silent or its
//! member loses the leader, the watcher opens another one, at another endpoint if need be, and every watch goes on
//! after the last event that it delivered. What cannot be resumed is said: [`WatchEvent::Reset`].
//!
//! [`core`] decides, without a clock or a network; [`driver`] carries it out.

mod core;
mod driver;

use std::fmt;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::Error;
use crate::key_range::KeyRange;
use crate::proto::mvccpb;

use self::driver::Command;

/// Events that wait for a slow consumer before the stream is no longer read. What is beyond them waits in etcd.
const QUEUE: usize = 64;

/// What is watched, from when on, and how.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    pub(crate) range: KeyRange,
    pub(crate) start_revision: i64,
    pub(crate) prev_kv: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

/// A watch of a [`Watcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) i64);

/// One resumable stream that carries any number of watches.
///
/// ```no_run
/// # async fn example(client: waypost_etcd::Client) {
/// use waypost_etcd::{KeyRange, WatchEvent, WatchSpec};
/// let mut watcher = client.watch();
/// watcher.add(WatchSpec::new(KeyRange::prefix("services/greeter/")));
/// loop {
///     match watcher.next().await {
///         WatchEvent::Events { events, .. } => println!("{} changes", events.len()),
///         WatchEvent::Reset { reason, .. } => { println!("read the range again: {reason}"); break }
///         WatchEvent::Refused { error, .. } => { println!("{error}"); break }
///         _ => {}
///     }
/// }
/// # }
/// ```
///
/// Dropping it cancels all of its watches.
#[derive(Debug)]
pub struct Watcher {
    next_id: std::sync::atomic::AtomicI64,
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::Receiver<WatchEvent>,
}

/// What a [`Watcher`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The watch stands on the server: when it is new, and again after each interruption.
    Started {
        /// Which watch.
        watch: WatchId,
        /// The revision of the store at that moment.
        revision: i64,
    },
    /// Changes, in order, each once. Those of one revision come together.
    Events {
        /// Which watch.
        watch: WatchId,
        /// The revision of the last of them.
        revision: i64,
        /// The changes.
        events: Vec<Event>,
    },
    /// Nothing has happened, and the server is there to say so.
    Progress {
        /// The revision of the store.
        revision: i64,
    },
    /// The stream is lost. It is resumed, and nothing is missed; told once for each outage.
    Interrupted {
        /// What happened.
        cause: Error,
    },
    /// The watch cannot go on where it was, and has ended: read the range again and add a new watch.
    Reset {
        /// Which watch.
        watch: WatchId,
        /// Why.
        reason: ResetReason,
    },
    /// etcd refuses the watch, which has ended: the user may not read the range, or it is malformed.
    Refused {
        /// Which watch.
        watch: WatchId,
        /// What etcd said.
        error: Error,
    },
}

/// Why the history that a watch needs is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetReason {
    /// What happened since was compacted away.
    Compacted {
        /// The oldest revision that is left.
        compact_revision: i64,
    },
    /// The store is at an earlier revision than we have seen: it was restored or wiped. (A member that lags behind
    /// looks the same, and is treated the same: reading again is always right.)
    RevisionWentBack {
        /// The latest revision that was seen.
        seen: i64,
        /// The revision of the store now.
        now: i64,
    },
    /// Another cluster answers at the same address.
    ClusterChanged {
        /// The id of the cluster that was there.
        before: u64,
        /// The id of the one that is there now.
        now: u64,
    },
}

/// Whether a key was written or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted, by someone or with its lease; etcd does not say which.
    Delete,
}

/// A change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// Written or deleted.
    pub kind: EventKind,
    /// The key as it is now; of a deleted one only `key` and `mod_revision` are set.
    pub kv: mvccpb::KeyValue,
    /// The key as it was before, if that was asked for, and it was there and is not compacted.
    pub prev_kv: Option<mvccpb::KeyValue>,
}

// === impl WatchSpec ===

impl WatchSpec {
    /// Watch a range from now on.
    pub fn new(range: KeyRange) -> Self {
        Self { range, start_revision: 0, prev_kv: false, no_put: false, no_delete: false }
    }

    /// From this revision on, inclusive. Zero: from now.
    pub fn from(mut self, revision: i64) -> Self {
        self.start_revision = revision;
        self
    }

    /// With what was there before.
    pub fn prev_kv(mut self) -> Self {
        self.prev_kv = true;
        self
    }

    /// Only deletes.
    pub fn only_deletes(mut self) -> Self {
        self.no_put = true;
        self
    }

    /// Only writes.
    pub fn only_puts(mut self) -> Self {
        self.no_delete = true;
        self
    }
}

// === impl Client ===

impl Client {
    /// A watcher without watches. A stream is opened when the first one is added. Must be called inside a tokio
    /// runtime.
    pub fn watch(&self) -> Watcher {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbox, events) = mpsc::channel(QUEUE);
        tokio::spawn(driver::run(self.cluster.clone(), inbox, outbox));
        Watcher { next_id: 1.into(), commands, events }
    }
}

// === impl Watcher ===

impl Watcher {
    /// Add a watch. Its first event is [`WatchEvent::Started`] or [`WatchEvent::Refused`].
    pub fn add(&self, spec: WatchSpec) -> WatchId {
        let id = WatchId(self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        // The task lives as long as this watcher does.
        let _ = self.commands.send(Command::Add(id, spec));
        id
    }

    /// End a watch. Events of it that are on their way may still come.
    pub fn remove(&self, watch: WatchId) {
        let _ = self.commands.send(Command::Remove(watch));
    }

    /// The next event, however long it takes. Cancel safe.
    pub async fn next(&mut self) -> WatchEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with its runtime.
            None => futures::future::pending().await,
        }
    }

    /// What is there now, without waiting.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        self.events.try_recv().ok()
    }
}

// === impl ResetReason ===

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { compact_revision } => {
                write!(f, "history before revision {compact_revision} was compacted")
            }
            Self::RevisionWentBack { seen, now } => {
                write!(f, "the store went back from revision {seen} to {now}")
            }
            Self::ClusterChanged { before, now } => {
                write!(f, "cluster {now:x} answers where cluster {before:x} was")
            }
        }
    }
}

// === impl Event ===

impl Event {
    fn from_wire(event: mvccpb::Event) -> Option<Self> {
        let kind = match event.r#type() {
            mvccpb::event::EventType::Put => EventKind::Put,
            mvccpb::event::EventType::Delete => EventKind::Delete,
        };
        Some(Self { kind, kv: event.kv?, prev_kv: event.prev_kv })
    }

    /// The key.
    pub fn key(&self) -> &Bytes {
        &self.kv.key
    }
}
