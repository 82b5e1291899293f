//! Whether a thread that has nothing to do stays awake for a moment.
//!
//! To sleep and be woken takes a thread tens of microseconds, of a virtual machine more so, which is most of what a short
//! call takes. Where the next request is likely to come within that time, the thread looks for it instead of sleeping. Whether
//! it is likely is learnt from the pauses that there were, by the rule of Linux's `haltpoll` governor: a pause that was
//! shorter than the longest vigil makes the next vigil longer, one that was longer makes it shorter, down to none. So a server
//! that has little to do sleeps; and one that is busy is as busy as before, for it has no pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a thread stays awake, learnt from pauses. Knows no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Patience(Duration);

/// How many threads may stay awake at the same time: others need processors, too.
#[derive(Clone, Debug)]
pub(super) struct Watchmen {
    awake: Arc<AtomicUsize>,
    most: usize,
}

/// A place among those who stay awake.
#[derive(Debug)]
struct Place<'a>(&'a Watchmen);

/// Leave to keep a processor awake while the thread that is at work there waits.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct StandIn<'a> {
    _place: Option<Place<'a>>,
}

/// The vigil of one thread. All but the thread itself only look at it.
#[derive(Debug)]
pub(super) struct Vigil {
    watchmen: Watchmen,
    epoch: Instant,
    /// Nanoseconds since the epoch, plus one, at which the thread ran out of work; 0: it works.
    idle_since: AtomicU64,
    /// Nanoseconds.
    patience: AtomicU64,
    /// Whether it has been found for this pause already that there is no vigil, or it is over.
    resigned: AtomicBool,
    /// Whether the thread has a place among those who stay awake.
    awake: AtomicBool,
    wake: Notify,
}

/// The longest vigil, as KVM's for a processor that halts.
pub(super) const LONGEST: Duration = Duration::from_micros(200);
/// The shortest one that is worth it.
const SHORTEST: Duration = Duration::from_micros(10);

// === impl Patience ===

impl Patience {
    /// After a pause of this length.
    fn after(self, pause: Duration) -> Self {
        let Self(patience) = self;
        if pause <= LONGEST {
            Self((patience * 2).clamp(SHORTEST, LONGEST))
        } else if patience <= SHORTEST {
            Self(Duration::ZERO)
        } else {
            Self(patience / 2)
        }
    }
}

// === impl Watchmen ===

impl Watchmen {
    /// With so many processors. With one there is no vigil: whoever is waited for needs it.
    pub(super) fn of(processors: usize) -> Self {
        Self { awake: Arc::default(), most: processors / 2 }
    }

    fn enter(&self) -> Option<Place<'_>> {
        let one_more = |awake| (awake < self.most).then_some(awake + 1);
        let entered = self.awake.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.is_ok().then(|| Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Vigil ===

impl Vigil {
    pub(super) fn new(watchmen: &Watchmen) -> Self {
        Self {
            watchmen: watchmen.clone(),
            epoch: Instant::now(),
            idle_since: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            resigned: AtomicBool::new(false),
            awake: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn be_patient(&self) {
        self.patience.store(u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether there is ever a vigil.
    pub(super) fn is_allowed(&self) -> bool {
        self.watchmen.most > 0
    }

    /// The thread has got something from a client.
    pub(super) fn work(&self) {
        let since = self.idle_since.load(Ordering::Relaxed);
        if since == 0 {
            return;
        }
        self.idle_since.store(0, Ordering::Relaxed);
        let pause = Duration::from_nanos(self.now().saturating_sub(since));
        let patience = Patience(Duration::from_nanos(self.patience.load(Ordering::Relaxed))).after(pause);
        self.patience.store(u64::try_from(patience.0.as_nanos()).unwrap_or(0), Ordering::Relaxed);
    }

    /// The thread is about to sleep. If it should not yet, [`keep`](Self::keep) is woken.
    pub(super) fn before_sleep(&self) {
        if self.idle_since.load(Ordering::Relaxed) == 0 {
            self.idle_since.store(self.now(), Ordering::Relaxed);
            self.resigned.store(false, Ordering::Relaxed);
        }
        let may = self.is_allowed() && self.patience.load(Ordering::Relaxed) > 0;
        if may && !self.resigned.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// The thread is about to wait for something that is not a client, and for a short time. Says, if its clients are such that it
    /// would be awake, that its processor is to be; until this is dropped.
    #[cfg(target_os = "linux")]
    pub(super) fn stand_in(&self) -> Option<StandIn<'_>> {
        if self.patience.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // Its own place, if it has not been left yet, will do.
        let place = if self.awake.load(Ordering::Relaxed) { None } else { Some(self.watchmen.enter()?) };
        Some(StandIn { _place: place })
    }

    /// Keeps the thread awake whenever it should be.
    pub(super) async fn keep(&self) {
        loop {
            self.wake.notified().await;
            let Some(_place) = self.watchmen.enter() else { continue };
            self.awake.store(true, Ordering::Relaxed);
            loop {
                let since = self.idle_since.load(Ordering::Relaxed);
                let over = since.saturating_add(self.patience.load(Ordering::Relaxed));
                if since == 0 || self.now() >= over {
                    break;
                }
                // The runtime looks for what has come, without waiting for it.
                tokio::task::yield_now().await;
            }
            self.awake.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pauses_make_it_patient_and_long_ones_make_it_sleep() {
        let mut patience = Patience::default();
        for _ in 0..10 {
            patience = patience.after(Duration::from_micros(80));
        }
        assert_eq!(patience, Patience(LONGEST));
        for _ in 0..10 {
            patience = patience.after(Duration::from_millis(1));
        }
        assert_eq!(patience, Patience(Duration::ZERO));
    }

    #[test]
    fn no_more_than_half_of_the_processors_are_kept_awake() {
        let watchmen = Watchmen::of(4);
        let first = watchmen.enter();
        let second = watchmen.enter();
        assert!(first.is_some() && second.is_some() && watchmen.enter().is_none());
        drop(first);
        assert!(watchmen.enter().is_some());
        assert!(Watchmen::of(1).enter().is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_who_is_patient_has_a_stand_in_and_only_where_there_is_a_place() {
        let watchmen = Watchmen::of(2);
        let vigil = Vigil::new(&watchmen);
        assert!(vigil.stand_in().is_none());
        vigil.be_patient();
        let place = watchmen.enter();
        assert!(vigil.stand_in().is_none());
        drop(place);
        let stand_in = vigil.stand_in();
        assert!(stand_in.is_some() && watchmen.enter().is_none());
        drop(stand_in);
        assert!(watchmen.enter().is_some());
    }
}
