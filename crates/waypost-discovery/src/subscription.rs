//! How snapshots travel from the one who knows (`Publisher`) to any number of readers (`Subscription`).
//!
//! The newest snapshot is held in one atomic pointer, so that reading it never waits; a `tokio::sync::watch` of a
//! counter tells that there is a newer one. Nothing is queued: whoever reads slowly skips the snapshots in between,
//! costs no memory and delays nobody.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use waypost_model::{Existence, Freshness, Scope, Snapshot, SnapshotParts};

/// The writing end: publishes snapshots of one scope.
///
/// [`Discovery`](crate::Discovery) holds one per watched set; a program without etcd, or a test, makes its own with
/// [`channel`]. Clones publish to the same subscribers. When the last publisher is dropped, subscribers keep the last
/// snapshot and [`Subscription::changed`] waits for ever.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// The reading end: the instances of one service, or the whole catalog, as of now.
///
/// Cheap to clone (two reference counts). When the last clone is dropped the watch behind it ends.
///
/// ```
/// use waypost_discovery::subscription;
/// use waypost_model::{Existence, Scope, Snapshot};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (publisher, mut subscription) = subscription::channel(Scope::Service("greeter".parse()?));
/// assert_eq!(subscription.snapshot().existence(), Existence::Unknown);
///
/// publisher.publish(Snapshot::absent(Scope::Service("greeter".parse()?)));
/// assert!(subscription.changed().await.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    shared: Arc<Shared>,
    /// Its only use is to wake; which snapshot was seen is in `seen`.
    wake: watch::Receiver<u64>,
    seen: u64,
}

struct Shared {
    scope: Scope,
    description: Arc<str>,
    current: ArcSwap<Published>,
    last_error: ArcSwapOption<Arc<str>>,
    version: watch::Sender<u64>,
    write: Mutex<Floor>,
}

/// A snapshot and its number in the order of publication (0: nothing was published yet).
struct Published {
    version: u64,
    snapshot: Arc<Snapshot>,
}

/// The lowest revision that may be published.
struct Floor(i64);

/// Makes a publisher and its first subscription.
///
/// Until the first [`Publisher::publish`] readers see an empty snapshot whose existence is
/// [`Existence::Unknown`].
pub fn channel(scope: Scope) -> (Publisher, Subscription) {
    channel_described(scope, "a fixed set, not read from etcd")
}

/// As [`channel`], with the text that [`Subscription::describe`] answers: where the instances are read from.
pub fn channel_described(scope: Scope, description: impl Into<Arc<str>>) -> (Publisher, Subscription) {
    let unread = Snapshot::new(SnapshotParts {
        scope: scope.clone(),
        revision: 0,
        instances: imbl::OrdMap::new(),
        freshness: Freshness::Stale {
            since: SystemTime::now(),
            cause: Arc::from("nothing has been read yet"),
        },
        existence: Existence::Unknown,
        skipped: 0,
    });
    let publisher = Publisher {
        shared: Arc::new(Shared {
            scope,
            description: description.into(),
            current: ArcSwap::from_pointee(Published { version: 0, snapshot: Arc::new(unread) }),
            last_error: ArcSwapOption::empty(),
            version: watch::Sender::new(0),
            write: Mutex::new(Floor(0)),
        }),
    };
    let subscription = publisher.subscribe();
    (publisher, subscription)
}

// === impl Publisher ===

impl Publisher {
    /// Makes `snapshot` the newest and wakes subscribers. Says whether it was taken.
    ///
    /// Readers see revisions that never go back: a snapshot of an older revision than the last is refused, until
    /// [`reset`](Self::reset) says that the store itself went back (it was restored or wiped).
    pub fn publish(&self, snapshot: Snapshot) -> bool {
        let mut floor = self.shared.write.lock().unwrap_or_else(PoisonError::into_inner);
        if snapshot.revision() < floor.0 {
            return false;
        }
        floor.0 = snapshot.revision();
        let version = self.shared.current.load().version + 1;
        self.shared.current.store(Arc::new(Published { version, snapshot: Arc::new(snapshot) }));
        // After the store: whoever is woken by this number finds at least this snapshot.
        self.shared.version.send_replace(version);
        true
    }

    /// Allows the next snapshot to be of any revision: the store that it comes from went back.
    pub fn reset(&self) {
        self.shared.write.lock().unwrap_or_else(PoisonError::into_inner).0 = 0;
    }

    /// Sets what [`Subscription::last_error`] answers; `None` when all is well again. Wakes nobody.
    pub fn report_error(&self, error: Option<Arc<str>>) {
        self.shared.last_error.store(error.map(Arc::new));
    }

    /// One more subscription to what this publishes.
    pub fn subscribe(&self) -> Subscription {
        let wake = self.shared.version.subscribe();
        let seen = self.shared.current.load().version;
        Subscription { shared: Arc::clone(&self.shared), wake, seen }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.current.load().snapshot)
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.shared.version.receiver_count()
    }

    /// Waits until there is no subscription. Cancel safe. [`subscribe`](Self::subscribe) may make one again later.
    pub async fn closed(&self) {
        self.shared.version.closed().await;
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("scope", &self.shared.scope)
            .field("revision", &self.snapshot().revision())
            .field("subscriptions", &self.subscriptions())
            .finish_non_exhaustive()
    }
}

// === impl Subscription ===

impl Subscription {
    /// A subscription to a set that never changes: for tests, and for programs that know their endpoints.
    pub fn fixed(snapshot: Snapshot) -> Self {
        let (publisher, mut subscription) = channel(snapshot.scope().clone());
        publisher.publish(snapshot);
        subscription.mark_seen();
        subscription
    }

    /// The newest snapshot. Wait-free: an atomic load and a reference count, whatever the publisher does.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.current.load().snapshot)
    }

    /// What is subscribed to.
    pub fn scope(&self) -> &Scope {
        &self.shared.scope
    }

    /// Waits until something is known (from etcd, or from the disk cache) and answers the newest snapshot.
    ///
    /// It has no timeout of its own: wrap it in `tokio::time::timeout`, and tell [`last_error`](Self::last_error)
    /// when that passes. Does not count as having seen the snapshot for [`changed`](Self::changed). Cancel safe.
    pub async fn ready(&self) -> Arc<Snapshot> {
        let mut wake = self.wake.clone();
        loop {
            wake.mark_unchanged();
            let snapshot = self.snapshot();
            if snapshot.existence() != Existence::Unknown {
                return snapshot;
            }
            // The sender lives in `shared`, which `self` holds: this never fails.
            let _ = wake.changed().await;
        }
    }

    /// Waits for a snapshot that this subscription has not returned from `changed` yet, and answers the newest.
    ///
    /// Snapshots in between are skipped. The first call answers what was published after the subscription was made.
    /// Waits for ever when nobody publishes any more. Cancel safe: nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Arc<Snapshot> {
        loop {
            self.wake.mark_unchanged();
            let published = self.shared.current.load();
            if published.version > self.seen {
                self.seen = published.version;
                return Arc::clone(&published.snapshot);
            }
            drop(published);
            let _ = self.wake.changed().await;
        }
    }

    /// The newest snapshot as soon as `wanted` holds for it, which may be at once. Cancel safe.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshot = self.mark_seen();
        while !wanted(&snapshot) {
            snapshot = self.changed().await;
        }
        snapshot
    }

    /// Counts the newest snapshot as seen: the next [`changed`](Self::changed) waits for a newer one. Answers it.
    pub fn mark_seen(&mut self) -> Arc<Snapshot> {
        let published = self.shared.current.load();
        self.seen = published.version;
        Arc::clone(&published.snapshot)
    }

    /// Why the set is not live (etcd refused, does not answer, …); `None` while all is well.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.shared.last_error.load().as_deref().cloned()
    }

    /// Where the instances are read from, for error texts: `layout grpc, prefix services`.
    pub fn describe(&self) -> Arc<str> {
        Arc::clone(&self.shared.description)
    }
}

impl Clone for Subscription {
    /// The clone has seen what the original has seen.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), wake: self.wake.clone(), seen: self.seen }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("scope", &self.shared.scope)
            .field("revision", &self.snapshot().revision())
            .field("from", &self.shared.description)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn scope() -> Scope {
        Scope::Service("greeter".parse().unwrap())
    }

    fn at(revision: i64) -> Snapshot {
        Snapshot::new(SnapshotParts {
            scope: scope(),
            revision,
            instances: imbl::OrdMap::new(),
            freshness: Freshness::Live,
            existence: Existence::Absent,
            skipped: 0,
        })
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_older_revision_is_refused_until_reset() {
        let (publisher, subscription) = channel(scope());
        assert!(publisher.publish(at(7)));
        assert!(!publisher.publish(at(6)));
        assert!(publisher.publish(at(7)), "the same revision may change its freshness");
        publisher.reset();
        assert!(publisher.publish(at(3)));
        assert_eq!(subscription.snapshot().revision(), 3);
    }

    #[test]
    fn a_slow_subscriber_gets_only_the_newest() {
        let (publisher, mut subscription) = channel(scope());
        for revision in 1..=1000 {
            publisher.publish(at(revision));
        }
        let Poll::Ready(snapshot) = poll_once(subscription.changed()) else { panic!("a change is there") };
        assert_eq!(snapshot.revision(), 1000);
        assert!(poll_once(subscription.changed()).is_pending());
    }

    #[test]
    fn a_change_is_not_lost_when_the_future_is_dropped() {
        let (publisher, mut subscription) = channel(scope());
        assert!(poll_once(subscription.changed()).is_pending());
        publisher.publish(at(1));
        assert!(poll_once(subscription.changed()).is_ready());
    }

    #[test]
    fn ready_waits_for_knowledge() {
        let (publisher, subscription) = channel(scope());
        assert!(poll_once(subscription.ready()).is_pending());
        publisher.publish(at(1));
        assert!(poll_once(subscription.ready()).is_ready());
    }

    #[test]
    fn the_publisher_sees_the_last_subscription_go() {
        let (publisher, subscription) = channel(scope());
        let second = subscription.clone();
        drop(subscription);
        assert!(poll_once(publisher.closed()).is_pending());
        drop(second);
        assert!(poll_once(publisher.closed()).is_ready());
        let _third = publisher.subscribe();
        assert!(poll_once(publisher.closed()).is_pending());
    }

    #[test]
    fn a_fixed_set_is_ready_and_never_changes() {
        let mut subscription = Subscription::fixed(at(1));
        assert!(poll_once(subscription.ready()).is_ready());
        assert!(poll_once(subscription.changed()).is_pending());
    }
}
