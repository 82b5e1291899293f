//! Lanes: the threads that serve connections.
//!
//! A connection belongs to one lane from its beginning to its end, with all the calls on it. So a call that does not wait for
//! the disk goes from the socket to the answer without another thread being woken, which costs more than the call itself.
//! A new connection goes to the lane that has the fewest, by pairs: of a client with one connection for calls and one for
//! watches, the one waits for what the other does.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::engine::Mail;
use super::idle::Idler;
use super::vigil::{Vigil, Watchmen};

/// The threads that serve connections. They end when this is dropped, and with them what they have not finished.
#[derive(Debug)]
pub(super) struct Lanes {
    first: Lane,
    others: Vec<Lane>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    vigil: Arc<Vigil>,
    connections: Arc<AtomicUsize>,
}

/// A connection's seat in a lane; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) runtime: Handle,
    pub(super) vigil: Arc<Vigil>,
    connections: Arc<AtomicUsize>,
}

/// Connections that go to the same lane before the next has its turn.
const PAIR: usize = 2;
/// Threads of a lane that read what may take long.
const BLOCKING: usize = 64;
/// Lanes at most: all writes go through one thread, so that more would have little to do.
const MOST: usize = 16;

// === impl Lanes ===

impl Lanes {
    /// Starts a lane for each processor.
    pub(super) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let end = CancellationToken::new();
        // Should one not start, the others end.
        let guard = end.clone().drop_guard();
        let watchmen = Watchmen::of(processors);
        let start = |number| Lane::start(number, &watchmen, end.clone());
        let first = start(0)?;
        let others = (1..processors.min(MOST)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { first, others, _end: guard })
    }

    /// A seat for a connection.
    pub(super) fn seat(&self) -> Seat {
        let taken = |lane: &Lane| lane.connections.load(Ordering::Relaxed) / PAIR;
        let least = |best, lane| if taken(lane) < taken(best) { lane } else { best };
        let Lane { runtime, vigil, connections } = self.others.iter().fold(&self.first, least);
        connections.fetch_add(1, Ordering::Relaxed);
        Seat { runtime: runtime.clone(), vigil: Arc::clone(vigil), connections: Arc::clone(connections) }
    }
}

// === impl Lane ===

impl Lane {
    fn start(number: usize, watchmen: &Watchmen, end: CancellationToken) -> io::Result<Self> {
        let vigil = Arc::new(Vigil::new(watchmen));
        let before_sleep = Arc::clone(&vigil);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name(format!("waypost-read-{number}"))
            .max_blocking_threads(BLOCKING)
            .on_thread_park(move || before_sleep.before_sleep())
            .build()?;
        let lane = Self {
            runtime: runtime.handle().clone(),
            vigil: Arc::clone(&vigil),
            connections: Arc::default(),
        };
        let idler = idler(number, &vigil);
        let serve = move || {
            if let Some(idler) = idler {
                idler.idle_here();
            }
            let mail = Arc::new(Mail::default());
            mail.settle_here();
            runtime.block_on(async {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = vigil.keep() => {}
                    () = mail.deliver() => {}
                }
            });
            // Reads that wait for the disk go on to their end.
            runtime.shutdown_background();
        };
        let _detached: JoinHandle<()> =
            thread::Builder::new().name(format!("waypost-lane-{number}")).spawn(serve)?;
        Ok(lane)
    }
}

/// The thread that idles for a lane, where there may be one.
fn idler(number: usize, vigil: &Arc<Vigil>) -> Option<Arc<Idler>> {
    let idler = vigil.is_allowed().then(|| Idler::start(number, Arc::clone(vigil)))?;
    let without =
        |error: &io::Error| tracing::debug!(%error, "processors halt while lanes wait for the disk");
    idler.inspect_err(without).ok().map(Arc::new)
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
