//! The task behind one watched set: it carries the rules of [`core`](crate::core) out.
//!
//! Range all spans, watch each from the next revision on, hand what comes to the core and publish what it says, once
//! per batch of events. When history is gone, range again.
//!
//! # Is it the same store?
//!
//! A watch that was interrupted resumes after the last event it delivered. Where the store was wiped or restored
//! meanwhile, the watcher sees another cluster id or a revision that went back. But a store that was wiped under the
//! same id, and whose revision has moved past ours since, looks fine: the watch resumes and what changed before is
//! missed for ever. So before the first event after an outage is applied:
//!
//! - A set that fits in one page is read again; that costs etcd no more than any other question would.
//! - Of a larger one each span is looked at as of the revision at which it was last known: the number of keys, and
//!   the key that was changed last with its revision and lease, must be what we hold. Since the events after that
//!   revision have not been applied yet, the two are comparable; where the revision has been compacted meanwhile, or
//!   lies in the future, the answer is no. Any difference: read again. It costs etcd one range with a limit of one
//!   key per span and outage. (Leases are random numbers. A store that was refilled without leases, key by key in the
//!   same order at the same revisions, passes.)

mod range;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use waypost_etcd::{
    Backoff, Client, Error, ErrorKind, Event as EtcdEvent, EventKind, WatchEvent, WatchId, WatchSpec, Watcher,
};
use waypost_model::{Existence, Scope};

use crate::cache::Cache;
use crate::core::{Answer, Core, Effects, Event, Moment, Probe, Publication, Table};
use crate::discovery::Sets;
use crate::metrics::Counters;
use crate::options::DiscoveryOptions;
use crate::reader::Reader;
use crate::subscription::Publisher;

/// At a cold start the disk cache is served when etcd has not answered in this time.
const COLD_PATIENCE: Duration = Duration::from_secs(1);

/// Messages of the watch that are taken together before their outcome is published.
const BATCH: usize = 256;

/// One watched set.
pub(crate) struct Driver {
    client: Client,
    reader: Arc<Reader>,
    core: Core,
    publisher: Publisher,
    chores: Chores,
    counters: Counters,
    changes_counted: u64,
    backoff: Backoff,
    page_size: i64,
    /// The disk cache was not looked into yet, and etcd has never answered.
    cold: bool,
    /// The disk cache that is being served.
    served: Option<String>,
}

/// What goes on beside reading and watching.
struct Chores {
    client: Client,
    cache: Option<Cache>,
    /// At most one at a time, whatever the set does.
    probing: Option<BoxFuture<'static, (u64, Answer)>>,
    /// The newest question, asked when the one before is answered.
    next_probe: Option<Probe>,
}

/// Watches of all spans on one stream.
struct Watch {
    watcher: Watcher,
    /// By span.
    ids: Vec<WatchId>,
    /// How many times each has started.
    starts: Vec<u32>,
    /// How often the stream was opened and the store recognised. A watch that has started more often was resumed.
    trusted: u32,
    /// The stream was lost since the store was last recognised.
    lost: bool,
}

/// What a message of the watch asks for.
enum Turn {
    GoOn,
    /// Read again at once: the stream is back, after waits of its own.
    ReadAgain,
    /// Read again, with backoff: etcd ended the watch.
    ReadAgainLater,
}

/// Before etcd is asked again. The first time at once.
fn backoff() -> Backoff {
    Backoff::eager(Duration::from_millis(100), Duration::from_secs(5))
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(sets: &Sets, publisher: Publisher, reader: Arc<Reader>) -> Self {
        let DiscoveryOptions { cache_dir, empty_grace, page_size, .. } = &sets.options;
        let cache = cache_dir.as_ref().map(|directory| Cache::new(directory, Arc::clone(&reader)));
        Self {
            client: sets.client.clone(),
            core: Core::new(Arc::clone(&reader), *empty_grace),
            publisher,
            cold: cache.is_some(),
            chores: Chores { client: sets.client.clone(), cache, probing: None, next_probe: None },
            counters: sets.counters.clone(),
            changes_counted: 0,
            backoff: backoff(),
            page_size: *page_size,
            served: None,
            reader,
        }
    }

    /// Follows the set until the future is dropped.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            if let Err(error) = self.range().await {
                self.failed(&error).await;
                self.pause().await;
                continue;
            }
            let watch = self.watch();
            if let Turn::ReadAgainLater = self.follow(watch).await {
                self.pause().await;
            }
        }
    }

    /// Ends the work: what the disk cache was to keep is written.
    pub(crate) async fn finish(self) {
        let Self { core, chores, .. } = self;
        if let Some(mut cache) = chores.cache {
            cache.finish(|key| core.table().lease(key)).await;
        }
    }

    /// Reads all spans and makes that the set.
    async fn range(&mut self) -> Result<(), Error> {
        let blank = self.core.blank_table();
        let (client, reader) = (self.client.clone(), Arc::clone(&self.reader));
        let mut reading = pin!(range::read(client, reader, blank, self.page_size));
        let early =
            if self.cold { tokio::time::timeout(COLD_PATIENCE, &mut reading).await.ok() } else { None };
        let table = if let Some(read) = early {
            read?
        } else {
            if self.cold {
                self.serve_cache("it has not answered yet").await;
            }
            self.meanwhile(reading).await?
        };
        self.ranged(table);
        Ok(())
    }

    fn ranged(&mut self, table: Table) {
        (self.cold, self.served) = (false, None);
        self.core.ranged(table, Moment::now());
        self.publisher.report_error(None);
        self.settle();
        let snapshot = self.publisher.snapshot();
        tracing::debug!(revision = snapshot.revision(), instances = snapshot.len(), "range read");
    }

    async fn failed(&mut self, error: &Error) {
        match error.kind() {
            // A page may be as small as one key.
            ErrorKind::TooLarge if self.page_size > 1 => {
                self.page_size /= 2;
                tracing::info!(page_size = self.page_size, %error, "asking for smaller pages");
            }
            // The first page's revision was compacted before the last page was read.
            ErrorKind::Compacted => {}
            _ => {
                tracing::warn!(%error, "etcd cannot be read");
                if self.cold {
                    self.serve_cache(&error.to_string()).await;
                }
                self.down(error);
            }
        }
    }

    fn down(&mut self, error: &Error) {
        let error: Arc<str> = error.to_string().into();
        self.publisher.report_error(Some(Arc::clone(&error)));
        let cause = match &self.served {
            Some(cache) => format!("served from {cache}, since etcd cannot be read: {error}").into(),
            None => error,
        };
        self.core.down(cause, Moment::now());
        self.settle();
    }

    async fn serve_cache(&mut self, why: &str) {
        self.cold = false;
        let Some(cache) = &self.chores.cache else { return };
        let Some(cached) = cache.load().await else { return };
        let now = Moment::now();
        let described = cached.describe(now.wall);
        tracing::warn!(instances = cached.instances.len(), why, "serving from {described}");
        self.core.cached(cached.instances, cached.revision);
        self.core.down(format!("served from {described}, since etcd cannot be read: {why}").into(), now);
        self.served = Some(described);
        self.settle();
    }

    fn watch(&self) -> Watch {
        let watcher = self.client.watch();
        let spans = self.reader.spans.iter().enumerate();
        let ids: Vec<WatchId> = spans
            .map(|(index, span)| {
                let from = self.core.table().known_at(index) + 1;
                watcher.add(WatchSpec::new(range::key_range(&span.keys)).from(from))
            })
            .collect();
        Watch { watcher, starts: vec![0; ids.len()], ids, trusted: 1, lost: false }
    }

    /// Follows the watch for as long as it can be trusted.
    async fn follow(&mut self, mut watch: Watch) -> Turn {
        loop {
            let mut event = self.meanwhile(watch.watcher.next()).await;
            for taken in 1_usize.. {
                match self.take(event, &mut watch).await {
                    Turn::GoOn => {}
                    over => {
                        self.settle();
                        return over;
                    }
                }
                let Some(next) = watch.watcher.try_next() else { break };
                if taken.is_multiple_of(BATCH) {
                    self.settle();
                }
                event = next;
            }
            self.settle();
        }
    }

    async fn take(&mut self, event: WatchEvent, watch: &mut Watch) -> Turn {
        match event {
            WatchEvent::Events { watch: id, revision, events } => {
                self.backoff.succeed();
                if let Some(span) = watch.span(id) {
                    self.core.apply(span, revision, events.iter().map(told), Moment::now());
                }
                Turn::GoOn
            }
            WatchEvent::Progress { revision } => {
                self.backoff.succeed();
                self.core.quiet(revision, Moment::now());
                Turn::GoOn
            }
            WatchEvent::Started { watch: id, .. } => {
                if watch.started(id) {
                    if self.core.table().keys() <= self.page_size.unsigned_abs() {
                        return Turn::ReadAgain;
                    }
                    if !self.same_store().await {
                        self.counters.resets.inc();
                        tracing::warn!("etcd is not the store it was before the interruption: reading again");
                        return Turn::ReadAgainLater;
                    }
                }
                self.publisher.report_error(None);
                self.core.up(Moment::now());
                Turn::GoOn
            }
            WatchEvent::Interrupted { cause } => {
                tracing::warn!(%cause, "watch interrupted");
                watch.lost = true;
                self.down(&cause);
                Turn::GoOn
            }
            WatchEvent::Reset { reason, .. } => {
                self.counters.resets.inc();
                tracing::info!(%reason, "history is gone: reading again");
                Turn::ReadAgainLater
            }
            WatchEvent::Refused { error, .. } => {
                tracing::warn!(%error, "watch refused");
                self.down(&error);
                Turn::ReadAgainLater
            }
            _ => Turn::GoOn,
        }
    }

    /// Whether etcd is the store that was watched before the stream was lost; see the head of this file.
    async fn same_store(&mut self) -> bool {
        // What came before the outage is shown while this is asked.
        self.settle();
        let mut backoff = backoff();
        loop {
            let spans = self.reader.spans.iter().enumerate();
            let spans = spans
                .map(|(index, span)| (range::key_range(&span.keys), self.core.table().known_at(index)))
                .collect();
            let sights = range::look(self.client.clone(), spans);
            match self.meanwhile(sights).await {
                Ok(sights) => return range::recognises(self.core.table(), &sights),
                Err(error) if error.is_transient() => {
                    self.down(&error);
                    self.meanwhile(tokio::time::sleep(backoff.fail(fastrand::f64()))).await;
                }
                // Compacted, a future revision, or not for us to read: the range will tell.
                Err(error) => {
                    tracing::debug!(%error, "the store cannot be recognised");
                    return false;
                }
            }
        }
    }

    async fn pause(&mut self) {
        let wait = self.backoff.fail(fastrand::f64());
        if !wait.is_zero() {
            self.meanwhile(tokio::time::sleep(wait)).await;
        }
    }

    /// Awaits `work` while the chores go on.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let Self { core, chores, .. } = self;
            let Chores { cache, probing, .. } = chores;
            let deadline = core.deadline();
            let table = core.table();
            tokio::select! {
                biased;
                done = &mut work => return done,
                (id, answer) = some_or_never(probing.as_mut()) => {
                    self.chores.probing = None;
                    self.core.probed(id, &answer, Moment::now());
                    self.chores.ask_next();
                }
                () = until(deadline) => self.core.tick(Moment::now()),
                () = written(cache.as_mut(), table) => {}
            }
            self.settle();
        }
    }

    /// Carries out what the core decided.
    fn settle(&mut self) {
        let Effects { publish, probe, failures } = self.core.settle(Moment::now());
        for failure in failures {
            let error = &failure.error;
            tracing::warn!(id = %failure.instance.id, revision = failure.mod_revision, %error, "value skipped");
        }
        self.counters.changes.inc_by(self.core.changes() - self.changes_counted);
        self.changes_counted = self.core.changes();
        if let Some(Publication { snapshot, rewind }) = publish {
            if rewind {
                self.publisher.reset();
            }
            let lasting = snapshot.freshness().is_live() && snapshot.existence() != Existence::Unknown;
            if !self.publisher.publish(snapshot) {
                tracing::error!("a snapshot of an older revision was withheld");
            }
            if let (true, Some(cache)) = (lasting, &mut self.chores.cache) {
                cache.offer(self.publisher.snapshot());
            }
        }
        if let Some(probe) = probe {
            let scope: &Scope = &self.reader.scope;
            tracing::info!(%scope, leases = probe.leases.len(), "the set is empty: asking whether its leases expired");
            self.chores.next_probe = Some(probe);
            self.chores.ask_next();
        }
    }
}

// === impl Chores ===

impl Chores {
    fn ask_next(&mut self) {
        if self.probing.is_some() {
            return;
        }
        let Some(Probe { id, leases }) = self.next_probe.take() else { return };
        let client = self.client.clone();
        self.probing = Some(async move { (id, range::probe(client, leases).await) }.boxed());
    }
}

// === impl Watch ===

impl Watch {
    fn span(&self, id: WatchId) -> Option<usize> {
        self.ids.iter().position(|known| *known == id)
    }

    /// A watch stands. Whether the stream was lost or opened anew since the store was last recognised; that is said
    /// once. (A stream may be opened anew without having been lost, for a new token.)
    fn started(&mut self, id: WatchId) -> bool {
        let Some(starts) = self.span(id).and_then(|span| self.starts.get_mut(span)) else { return false };
        *starts = starts.saturating_add(1);
        let resumed = *starts > self.trusted;
        self.trusted = self.trusted.max(*starts);
        std::mem::take(&mut self.lost) || resumed
    }
}

fn told(event: &EtcdEvent) -> Event<'_> {
    match event.kind {
        EventKind::Put => Event::Put(range::kv(&event.kv)),
        EventKind::Delete => Event::Delete { key: &event.kv.key, mod_revision: event.kv.mod_revision },
    }
}

async fn some_or_never<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn written(cache: Option<&mut Cache>, table: &Table) {
    match cache {
        Some(cache) => cache.write(|key| table.lease(key)).await,
        None => std::future::pending().await,
    }
}
