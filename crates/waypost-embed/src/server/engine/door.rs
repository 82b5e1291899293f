//! The queue of what is to be written, and who writes it.
//!
//! To put a request into the queue and to see to it are two steps, so that requests that come together can be written
//! together: the first of them would else be a batch of its own. Two may see to it. The writer thread always may; a thread
//! that serves connections may where a request is alone and the disk is quick, since to wake the one and be
//! woken by it takes about as long as to write. Whoever writes holds the [`Writer`], and takes all that waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{JoinHandle, Thread};
use std::{io, thread};

use super::super::idle;
use super::writer::{Next, Writer};
use super::{Job, Shared, lock, write};

/// The way to the writer.
pub(super) struct Door {
    // First, so that the queue is closed when the thread is woken for the last time.
    queue: mpsc::Sender<Job>,
    bell: Bell,
    /// Taken out by whoever writes. A panic takes it away for good, and the other end of the queue with it: nothing is written
    /// any more, and everybody is told so.
    writer: Arc<Mutex<Option<Writer>>>,
}

/// The thread that writes; woken when this is dropped.
struct Bell(Thread);

/// A request in the queue to which nobody may see yet; the writer thread does when this is dropped.
pub(super) struct Unannounced<'a> {
    door: &'a Door,
    settled: bool,
}

/// How long a connection may wait for the disk without leases being given the time back, in milliseconds.
const STALL_MS: u64 = 50;
/// Requests in the queue at most for the caller to write them.
const ALONE: usize = 1;

// === impl Door ===

impl Door {
    /// Starts the writer thread, which ends when the door is gone.
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, requests) = mpsc::channel();
        let writer = Arc::new(Mutex::new(Some(Writer::new(requests))));
        let (shared, held) = (Arc::clone(shared), Arc::clone(&writer));
        let thread =
            thread::Builder::new().name("waypost-writer".to_owned()).spawn(move || run(&shared, &held))?;
        Ok((Self { queue, bell: Bell(thread.thread().clone()), writer }, thread))
    }

    /// Puts a request into the queue. Somebody has to see to it: by what is returned.
    pub(super) fn put(&self, job: Job) -> Option<Unannounced<'_>> {
        self.queue.send(job).ok().map(|()| Unannounced { door: self, settled: false })
    }
}

// === impl Unannounced ===

impl Unannounced<'_> {
    /// Writes what waits on this thread, if that is little, nobody else does, and it is done quickly.
    pub(super) fn write_here(mut self, shared: &Shared) {
        if shared.waiting.load(Ordering::Relaxed) > ALONE {
            return;
        }
        let Ok(mut place) = self.door.writer.try_lock() else { return };
        let Some(mut writer) = place.take() else { return };
        if writer.is_quick(shared) {
            let began = shared.now();
            if writer.is_swift() {
                idle::awake(|| writer.step(shared));
            } else {
                writer.step(shared);
            }
            let stalled = shared.now().saturating_sub(began);
            if stalled > STALL_MS {
                // Renewals of leases may have come, and were not read.
                write(&shared.space).postpone_leases(stalled);
            }
            self.settled = !writer.is_due_earlier(shared);
        }
        *place = Some(writer);
    }
}

impl Drop for Unannounced<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.door.bell.0.unpark();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// Writes until nobody is left who could ask for it; then writes down what leases have left.
fn run(shared: &Shared, held: &Mutex<Option<Writer>>) {
    loop {
        let mut place = lock(held);
        let Some(mut writer) = place.take() else { return };
        let next = writer.step(shared);
        let length = match next {
            Next::Again => None,
            Next::Sleep { due } => Some(writer.sleep(shared, due)),
            Next::End => return writer.end(shared),
        };
        *place = Some(writer);
        drop(place);
        if let Some(length) = length {
            thread::park_timeout(length);
        }
    }
}
