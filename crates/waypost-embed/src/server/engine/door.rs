//! The queue of what is to be written, and the thread that writes it.
//!
//! To put a request into the queue and to wake the thread are two steps, so that requests that come together can be written
//! together: the first of them would else be a batch of its own.

use std::sync::{Arc, mpsc};
use std::thread::{JoinHandle, Thread};
use std::{io, thread};

use super::writer::{Next, Writer};
use super::{Job, Shared};

/// The way to the writer.
pub(super) struct Door {
    // First, so that the queue is closed when the thread is woken for the last time.
    queue: mpsc::Sender<Job>,
    bell: Bell,
}

/// The thread that writes; woken when this is dropped.
struct Bell(Thread);

/// A request in the queue that nobody may have been told of; the writer thread is when this is dropped.
pub(super) struct Unannounced<'a>(&'a Door);

// === impl Door ===

impl Door {
    /// Starts the writer thread, which ends when the door is gone.
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, requests) = mpsc::channel();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("waypost-writer".to_owned())
            .spawn(move || run(&shared, Writer::new(requests)))?;
        Ok((Self { queue, bell: Bell(thread.thread().clone()) }, thread))
    }

    /// Puts a request into the queue. Somebody has to be told: by what is returned.
    pub(super) fn put(&self, job: Job) -> Option<Unannounced<'_>> {
        self.queue.send(job).ok().map(|()| Unannounced(self))
    }
}

// === impl Unannounced ===

impl Drop for Unannounced<'_> {
    fn drop(&mut self) {
        self.0.bell.0.unpark();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// Writes until nobody is left who could ask for it; then writes down what leases have left.
fn run(shared: &Shared, mut writer: Writer) {
    loop {
        match writer.step(shared) {
            Next::Again => {}
            Next::Sleep(length) => thread::park_timeout(length),
            Next::End => return writer.end(shared),
        }
    }
}
