//! The calls on a connection: who has a place on it, and who waits for one because the server takes no more at a time.
//!
//! h2 has a queue too, but keeps there the whole request of a call that was given up, and sends it when its turn comes. So calls
//! wait here, before they are requests: one that is given up leaves nothing.
//!
//! A place is free when the server has ended the response, read or not. Otherwise a caller that keeps what it has not read could wait
//! for ever for its next call. Only where the request is still being made the caller has to read the response to its end, or to drop it:
//! h2 counts that call for as long as its request goes on.
//!
//! h2 frees a place a little later than this: when it reads what [`Wire`](crate::wire::Wire) has passed on, and when it has
//! written the reset of a call that was cancelled. Calls that come in between wait for that in h2's queue.

use crate::dial::{Abort, Hold};
use crate::exchange::Severed;
use crate::streams::Streams;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the calls on a connection, the task that drives it, and the one that looks after it tell each other.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Traffic {
    // First what every call needs, with the near streams and the counts of the `Arc`: two or three lines of the cache.
    /// Places that are taken.
    in_flight: AtomicUsize,
    /// How many there are, as the server has said last.
    limit: AtomicUsize,
    /// The length of the queue.
    waiting: AtomicUsize,
    /// When the server was last heard, in nanoseconds after `began`.
    heard: AtomicU64,
    began: Instant,
    /// The newest stream whose headers have left; they leave in the order of their numbers.
    posted: AtomicU32,
    /// Somebody waits for the next call.
    dormant: AtomicBool,
    /// Those on which the end of the response gives a place back.
    streams: Streams,
    queue: Mutex<Queue>,
    busy: Notify,
    /// The connection takes no more requests.
    pub(crate) left: CancellationToken,
    /// Of the endpoint, whose gate closes with the connection. A strong one here would keep that from being over.
    hold: Weak<Hold>,
    /// Set when the server has not answered a ping for so long.
    pub(crate) silent: OnceLock<Duration>,
}

/// A place on the connection, from before the request is sent to the end of its response.
#[derive(Debug)]
pub(crate) struct InFlight {
    traffic: Arc<Traffic>,
    /// Of the request, if the server gives the place back too; otherwise 0.
    stream: u32,
    /// In which of its slots the stream is.
    slot: u8,
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

// === impl Traffic ===

impl Traffic {
    /// On a connection that nothing else is to know of.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::with(Weak::new())
    }

    /// On the connection that is to end with this.
    pub(crate) fn of(abort: &Abort) -> Self {
        Self::with(Arc::downgrade(&abort.hold))
    }

    fn with(hold: Weak<Hold>) -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            streams: Streams::new(),
            posted: AtomicU32::new(0),
            dormant: AtomicBool::new(false),
            busy: Notify::new(),
            left: CancellationToken::new(),
            hold,
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

    /// The headers of the request on this stream have left.
    pub(crate) fn post(&self, stream: u32) {
        self.posted.fetch_max(stream, Ordering::Relaxed);
    }

    /// Whether they have: if not, and nothing more is sent, the server never learns of it.
    pub(crate) fn has_posted(&self, stream: u32) -> bool {
        stream <= self.posted.load(Ordering::Relaxed)
    }

    /// The server has ended the response on this stream.
    pub(crate) fn ended(self: &Arc<Self>, stream: u32) {
        // Without a limit none is remembered.
        if self.limit() != usize::MAX && self.streams.remove(stream) {
            self.give_back();
        }
    }

    /// The connection takes no more requests: those that wait go elsewhere.
    pub(crate) fn leave(&self) {
        self.close();
        self.left.cancel();
    }

    /// The connection has ended: those that wait go elsewhere. Where that is learnt, before calls learn what it means for them: whoever
    /// goes elsewhere must not come back here.
    pub(crate) fn close(&self) {
        if let Some(hold) = self.hold.upgrade() {
            hold.lost();
        }
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
            // In this order. A call whose turn comes is added to those in flight before it is taken from those that wait, and stirs
            // nobody then: whoever looked the other way round could see it in neither place.
            if self.waiting.load(Ordering::SeqCst) > 0 || self.in_flight.load(Ordering::SeqCst) > 0 {
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
        // Of a waiter that has gone in the instant in which it was given this.
        let mut left_over = None;
        while self.waiting.load(Ordering::SeqCst) > 0 {
            let Some((first, place)) = self.take_first(left_over.take()) else { return };
            left_over = first.send(place).err();
        }
    }

    /// Takes the first out of the queue, and a place for it unless there is one left over, if there are both. What is left over is
    /// given back if not: as an argument it is dropped when the queue is no longer locked.
    fn take_first(
        self: &Arc<Self>,
        left_over: Option<InFlight>,
    ) -> Option<(oneshot::Sender<InFlight>, InFlight)> {
        let mut queue = self.queue();
        let first = queue.waiters.first_entry()?;
        let limit = self.limit.load(Ordering::SeqCst);
        if left_over.is_none() {
            let more = |taken: usize| (taken < limit).then_some(taken + 1);
            self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        } else if self.in_flight.load(Ordering::SeqCst) > limit {
            return None;
        }
        let first = first.remove();
        self.waiting.store(queue.waiters.len(), Ordering::SeqCst);
        Some((first, left_over.unwrap_or_else(|| InFlight::new(self))))
    }

    /// A place is free.
    fn give_back(self: &Arc<Self>) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.hand_out();
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
        Self { traffic: Arc::clone(traffic), stream: 0, slot: 0 }
    }

    /// All of the request has gone out on this stream, so that the server gives the place back when it ends the response; if it has by
    /// now, or there is no room to remember the stream, only the caller does. The stream is asked for only if the server has a limit.
    pub(crate) fn is_on(&mut self, stream: impl FnOnce() -> u32) {
        if self.stream != 0 || self.traffic.limit() == usize::MAX {
            return;
        }
        let stream = stream();
        if let Some(slot) = self.traffic.streams.add(stream) {
            (self.stream, self.slot) = (stream, slot);
        }
    }

    /// Whether the server can know of the request on this stream.
    pub(crate) fn has_posted(&self, stream: u32) -> bool {
        self.traffic.has_posted(stream)
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
        if self.stream == 0 || self.traffic.streams.remove_from(self.slot, self.stream) {
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
mod tests;
