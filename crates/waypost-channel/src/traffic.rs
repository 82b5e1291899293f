//! The calls on a connection: who has a place on it, and who waits for one because the server takes no more at a time.
//!
//! h2 has a queue too, but keeps there the whole request of a call that was given up, and sends it when its turn comes. So calls
//! wait here, before they are requests: one that is given up leaves nothing. h2 frees a place later than this does when a call was
//! cancelled (when its reset is written) or answered while its request still goes (when that ends), and learns of all else later (when it
//! reads what [`Greeted`](crate::greeting::Greeted) has passed on); calls that come in between wait for that in h2's queue.
//!
//! A place is free when the server has ended the response, whether or not the caller has read that: or a caller that keeps what it
//! has not read could wait for ever for a place of its own.

use crate::exchange::Severed;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the calls on a connection, the task that drives it, and the one that looks after it tell each other.
#[derive(Debug)]
pub(crate) struct Traffic {
    began: Instant,
    /// When the server was last heard, in nanoseconds after `began`.
    heard: AtomicU64,
    /// Places that are taken.
    in_flight: AtomicUsize,
    /// How many there are, as the server has said last.
    limit: AtomicUsize,
    /// The length of the queue.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// The streams of calls whose responses have not ended, each where its number says; 0 where there is none. One that finds another
    /// there has its place until the caller gives it back.
    open: [AtomicU32; TRACKED],
    /// Somebody waits for the next call.
    dormant: AtomicBool,
    busy: Notify,
    /// The connection takes no more requests.
    pub(crate) left: CancellationToken,
    /// Set when the server has not answered a ping for so long.
    pub(crate) silent: OnceLock<Duration>,
}

/// A place on the connection, from before the request is sent to the end of its response.
#[derive(Debug)]
pub(crate) struct InFlight {
    traffic: Arc<Traffic>,
    /// Of the request, if the place is free when the server has ended the response; otherwise 0.
    stream: u32,
}

/// The calls that wait, in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    waiters: BTreeMap<u64, oneshot::Sender<InFlight>>,
    tickets: u64,
    /// Nobody gets a place any more.
    closed: bool,
}

/// One of them. Dropped, it has left the queue; a place that it was given in that instant goes to the next.
struct Waiter {
    traffic: Arc<Traffic>,
    ticket: u64,
    place: oneshot::Receiver<InFlight>,
}

/// A kibibyte for each connection.
const TRACKED: usize = 256;

// === impl Traffic ===

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            open: [const { AtomicU32::new(0) }; TRACKED],
            dormant: AtomicBool::new(false),
            busy: Notify::new(),
            left: CancellationToken::new(),
            silent: OnceLock::new(),
        }
    }

    /// Something has come from the server.
    pub(crate) fn hear(&self) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.store(nanos, Ordering::Relaxed);
    }

    /// When something last came.
    pub(crate) fn heard(&self) -> Instant {
        self.began + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// The server takes so many requests at a time from now on; those under way go on.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.hand_out();
    }

    /// The server has ended the response on this stream.
    pub(crate) fn ended(self: &Arc<Self>, stream: u32) {
        if self.close_stream(stream) {
            self.give_back();
        }
    }

    /// The connection takes no more requests: those that wait go elsewhere.
    pub(crate) fn leave(&self) {
        self.left.cancel();
        self.close();
    }

    /// The connection has ended: those that wait go elsewhere.
    pub(crate) fn close(&self) {
        let waiters = {
            let mut queue = self.queue();
            queue.closed = true;
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut queue.waiters)
        };
        drop(waiters);
    }

    /// A place, if there is one and nobody waits. Takes no lock then.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<InFlight> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let others = self.in_flight.fetch_add(1, Ordering::SeqCst);
        let place = InFlight::new(self);
        if others >= self.limit.load(Ordering::SeqCst) {
            // Whoever was kept from this place by that gets it.
            drop(place);
            return None;
        }
        self.stir();
        Some(place)
    }

    /// A place, in the order of asking. Fails when the connection takes no more requests. Cancel safe: whoever no longer asks has left
    /// nothing behind.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<InFlight, Severed> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let Some(mut waiter) = self.queue_up() else { return Err(self.gone()) };
        (&mut waiter.place).await.map_err(|_| self.gone())
    }

    /// How many requests the server takes at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst)
    }

    /// Waits until there is a call. One waits at a time.
    pub(crate) async fn busy(&self) {
        loop {
            self.dormant.store(true, Ordering::SeqCst);
            if self.in_flight.load(Ordering::SeqCst) > 0 || self.waiting.load(Ordering::SeqCst) > 0 {
                self.dormant.store(false, Ordering::SeqCst);
                return;
            }
            self.busy.notified().await;
        }
    }

    /// There is a call.
    fn stir(&self) {
        if self.dormant.load(Ordering::SeqCst) && self.dormant.swap(false, Ordering::SeqCst) {
            self.busy.notify_one();
        }
    }

    fn queue_up(self: &Arc<Self>) -> Option<Waiter> {
        let waiter = {
            let mut queue = self.queue();
            if queue.closed {
                return None;
            }
            let (sender, place) = oneshot::channel();
            queue.tickets += 1;
            let ticket = queue.tickets;
            queue.waiters.insert(ticket, sender);
            self.waiting.store(queue.waiters.len(), Ordering::SeqCst);
            Waiter { traffic: Arc::clone(self), ticket, place }
        };
        self.stir();
        // Whoever gave a place back before this did not see the waiter.
        self.hand_out();
        Some(waiter)
    }

    /// Gives free places to those who wait: after a place has become free, somebody has begun to wait, or the limit has changed. Each of
    /// these is written before the others are read here, so whoever comes last sees them all.
    fn hand_out(self: &Arc<Self>) {
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let Some(first) = self.take_first() else { return };
            // The waiter may have gone in this instant. Then this drops the place, which goes to the next.
            drop(first.send(InFlight::new(self)));
        }
    }

    /// Takes the first out of the queue, and a place for it, if there are both.
    fn take_first(&self) -> Option<oneshot::Sender<InFlight>> {
        let mut queue = self.queue();
        let first = queue.waiters.first_entry()?;
        let limit = self.limit.load(Ordering::SeqCst);
        let more = |taken: usize| (taken < limit).then_some(taken + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        let first = first.remove();
        self.waiting.store(queue.waiters.len(), Ordering::SeqCst);
        Some(first)
    }

    /// A place is free.
    fn give_back(self: &Arc<Self>) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.hand_out();
    }

    /// Whether it was open: of several who close it, this is told to one.
    fn close_stream(&self, stream: u32) -> bool {
        let slot = self.slot(stream);
        slot.load(Ordering::SeqCst) == stream
            && slot.compare_exchange(stream, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn slot(&self, stream: u32) -> &AtomicU32 {
        // Those of requests are odd.
        &self.open[(stream / 2) as usize % TRACKED]
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nobody gets a place.
    fn gone(&self) -> Severed {
        self.silent.get().map_or(Severed::Left, |silence| Severed::Silent(*silence))
    }
}

// === impl InFlight ===

impl InFlight {
    fn new(traffic: &Arc<Traffic>) -> Self {
        Self { traffic: Arc::clone(traffic), stream: 0 }
    }

    /// The request has gone out on this stream. What the server has ended by now has its place until the caller gives it back.
    pub(crate) fn is_on(&mut self, stream: u32) {
        if self.stream != 0 || self.traffic.limit() == usize::MAX {
            return;
        }
        let slot = self.traffic.slot(stream);
        if slot.compare_exchange(0, stream, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.stream = stream;
        }
    }

    /// Why it has ended: h2 knows only that nobody drives the connection any more when it was given up.
    pub(crate) fn severed(&self, error: h2::Error) -> Severed {
        match self.traffic.silent.get() {
            Some(silence) if error.is_io() => Severed::Silent(*silence),
            _ => error.into(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.stream == 0 || self.traffic.close_stream(self.stream) {
            self.traffic.give_back();
        }
    }
}

// === impl Waiter ===

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queue = self.traffic.queue();
        if queue.waiters.remove(&self.ticket).is_some() {
            self.traffic.waiting.store(queue.waiters.len(), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;

    type Entering = BoxFuture<'static, Result<InFlight, Severed>>;

    fn traffic(limit: usize) -> Arc<Traffic> {
        let traffic = Arc::new(Traffic::new());
        traffic.set_limit(limit);
        traffic
    }

    /// Has asked, and waits.
    fn waiting(traffic: &Arc<Traffic>) -> Entering {
        let traffic = Arc::clone(traffic);
        let mut entering = async move { traffic.enter().await }.boxed();
        assert!((&mut entering).now_or_never().is_none());
        entering
    }

    fn enters(entering: &mut Entering) -> Option<InFlight> {
        entering.now_or_never().map(Result::unwrap)
    }

    #[track_caller]
    fn is(traffic: &Traffic, in_flight: usize, waiting: usize) {
        let counted = (traffic.in_flight.load(Ordering::SeqCst), traffic.waiting.load(Ordering::SeqCst));
        assert_eq!(counted, (in_flight, waiting));
        assert_eq!(traffic.queue().waiters.len(), waiting);
    }

    #[test]
    fn places_are_given_in_the_order_of_asking() {
        let traffic = traffic(2);
        let mut places = vec![traffic.try_enter().unwrap(), traffic.try_enter().unwrap()];
        let mut waiters: Vec<_> = (0..3).map(|_| waiting(&traffic)).collect();
        is(&traffic, 2, 3);
        for _ in 0..3 {
            places.remove(0);
            // It is the first one's, though it has not taken it yet.
            assert!(traffic.try_enter().is_none());
            let later = waiters.split_off(1);
            places.push(enters(&mut waiters[0]).unwrap());
            waiters = later;
            assert!(waiters.iter_mut().all(|waiter| enters(waiter).is_none()));
        }
        places.clear();
        is(&traffic, 0, 0);
    }

    #[test]
    fn whoever_no_longer_waits_leaves_nothing_and_passes_on_what_it_was_given() {
        let traffic = traffic(1);
        let place = traffic.try_enter().unwrap();
        let (first, second, mut third) = (waiting(&traffic), waiting(&traffic), waiting(&traffic));
        drop(second);
        is(&traffic, 1, 2);
        drop(place);
        // It is given to the first, which has not looked.
        is(&traffic, 1, 1);
        drop(first);
        is(&traffic, 1, 0);
        assert!(enters(&mut third).is_some());
        is(&traffic, 0, 0);
        assert_eq!(Arc::strong_count(&traffic), 1);
    }

    #[test]
    fn another_limit_holds_at_once_for_those_who_wait_and_those_who_come() {
        let traffic = traffic(0);
        let mut waiters: Vec<_> = (0..3).map(|_| waiting(&traffic)).collect();
        is(&traffic, 0, 3);
        traffic.set_limit(2);
        let mut places: Vec<_> = waiters.iter_mut().filter_map(enters).collect();
        assert_eq!(places.len(), 2);
        traffic.set_limit(1);
        places.pop();
        assert!(enters(&mut waiters[2]).is_none());
        places.pop();
        let last = enters(&mut waiters[2]).unwrap();
        traffic.set_limit(usize::MAX);
        assert!(traffic.try_enter().is_some());
        drop(last);
        is(&traffic, 0, 0);
    }

    #[test]
    fn a_place_is_free_once_when_the_server_has_ended_and_when_the_caller_has() {
        const SAME_SLOT: u32 = 1 + 2 * 256;
        let traffic = traffic(2);
        let (mut first, mut second) = (traffic.try_enter().unwrap(), traffic.try_enter().unwrap());
        first.is_on(1);
        second.is_on(SAME_SLOT);
        let mut third = waiting(&traffic);
        traffic.ended(SAME_SLOT);
        traffic.ended(3);
        assert!(enters(&mut third).is_none());
        traffic.ended(1);
        let third = enters(&mut third).unwrap();
        drop(first);
        is(&traffic, 2, 0);
        drop((second, third));
        traffic.ended(1);
        is(&traffic, 0, 0);
        let mut again = traffic.try_enter().unwrap();
        again.is_on(SAME_SLOT);
        drop(again);
        traffic.ended(SAME_SLOT);
        is(&traffic, 0, 0);
    }

    #[test]
    fn nobody_waits_on_a_connection_that_has_left() {
        let traffic = traffic(1);
        let place = traffic.try_enter().unwrap();
        let waiter = waiting(&traffic);
        traffic.leave();
        assert!(matches!(waiter.now_or_never(), Some(Err(Severed::Left))));
        assert!(matches!(traffic.enter().now_or_never(), Some(Err(Severed::Left))));
        drop(place);
        is(&traffic, 0, 0);
        traffic.silent.set(Duration::from_secs(5)).unwrap();
        traffic.set_limit(0);
        assert!(matches!(traffic.enter().now_or_never(), Some(Err(Severed::Silent(_)))));
    }

    /// Where nothing but the limit keeps the calls from the server: whether that lives is to be asked.
    #[tokio::test]
    async fn a_call_that_waits_is_one() {
        let traffic = traffic(0);
        assert!(traffic.busy().now_or_never().is_none());
        let busy = tokio::spawn({
            let traffic = Arc::clone(&traffic);
            async move { traffic.busy().await }
        });
        tokio::task::yield_now().await;
        let _waiter = waiting(&traffic);
        busy.await.unwrap();
    }

    /// On real threads, with callers that give up at any point; the limit goes up and down.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_and_none_is_given_twice() {
        const CALLERS: usize = 16;
        const CALLS: usize = 400;
        const MOST: usize = 3;
        let traffic = traffic(MOST);
        let inside = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (traffic, inside) = (Arc::clone(&traffic), Arc::clone(&inside));
                tokio::spawn(async move {
                    for _ in 0..CALLS {
                        let patience = fastrand::usize(0..8);
                        let gives_up = async {
                            for _ in 0..patience {
                                tokio::task::yield_now().await;
                            }
                        };
                        let place = tokio::select! {
                            place = traffic.enter() => place.unwrap(),
                            () = gives_up, if patience < 6 => continue,
                        };
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                })
            })
            .collect();
        let moving = tokio::spawn({
            let traffic = Arc::clone(&traffic);
            async move {
                for turn in 0..CALLS {
                    traffic.set_limit(turn % (MOST + 1));
                    tokio::task::yield_now().await;
                }
                traffic.set_limit(MOST);
            }
        });
        let all = async {
            moving.await.unwrap();
            for caller in callers {
                caller.await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        is(&traffic, 0, 0);
    }
}
