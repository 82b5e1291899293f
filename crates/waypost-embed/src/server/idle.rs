//! Keeps the processor of a lane from halting while the lane waits for the disk.
//!
//! A processor with nothing to do halts. To bring it back takes the disk's interrupt tens of microseconds in a virtual machine,
//! twice for each sync (the data, then the flush), which can be half of what a sync takes. So where a lane
//! [would be awake](super::vigil) for its clients, a thread on the same processor does nothing until the lane comes back. It does so under
//! `SCHED_IDLE`: whatever else there is to do goes first. It sleeps at all other times.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, Thread};
use std::time::Instant;
use std::{hint, io};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::vigil::{LONGEST, Vigil};

/// The thread that idles for a lane. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Idler {
    vigil: Arc<Vigil>,
    orders: Arc<Orders>,
    thread: Thread,
    id: Pid,
    /// Where it runs.
    processor: AtomicUsize,
}

/// What the lane tells its idler.
#[derive(Debug, Default)]
struct Orders {
    idle: AtomicBool,
    end: AtomicBool,
}

/// The idler idles until this is dropped.
struct Idling<'a>(&'a Orders);

/// No processor has this number.
const NOWHERE: usize = usize::MAX;

thread_local! {
    /// Of the lane whose thread this is.
    static HERE: RefCell<Option<Arc<Idler>>> = const { RefCell::new(None) };
}

/// Does what waits for the disk, on a processor that does not halt where this is a lane's thread and its clients are waiting.
pub(super) fn awake<T>(wait: impl FnOnce() -> T) -> T {
    let Some(idler) = HERE.with_borrow(Clone::clone) else { return wait() };
    let Some(_leave) = idler.vigil.stand_in() else { return wait() };
    let _idling = idler.idle();
    wait()
}

// === impl Idler ===

impl Idler {
    /// Starts the thread. An error, if the system does not let it run behind all others.
    pub(super) fn start(number: usize, vigil: Arc<Vigil>) -> io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let (sender, ready) = mpsc::sync_channel(1);
        let obey = {
            let orders = Arc::clone(&orders);
            move || {
                // Where nobody asks any more, there is nobody to idle for.
                let behind = run_behind_all_others();
                if sender.send(behind.map(|()| gettid())).is_ok() {
                    orders.obey();
                }
            }
        };
        let thread = thread::Builder::new().name(format!("waypost-idle-{number}")).spawn(obey)?;
        let id = ready.recv().map_err(io::Error::other)??;
        Ok(Self { vigil, orders, thread: thread.thread().clone(), id, processor: AtomicUsize::new(NOWHERE) })
    }

    /// Has it idle for the thread that this is.
    pub(super) fn idle_here(self: &Arc<Self>) {
        HERE.set(Some(Arc::clone(self)));
    }

    /// Begins to idle on the processor where this thread is. `None`: that cannot be had.
    fn idle(&self) -> Option<Idling<'_>> {
        self.follow().ok()?;
        self.orders.idle.store(true, Ordering::Relaxed);
        let idling = Idling(&self.orders);
        self.thread.unpark();
        Some(idling)
    }

    fn follow(&self) -> Result<(), Errno> {
        let processor = sched_getcpu()?;
        if self.processor.load(Ordering::Relaxed) != processor {
            let mut here = CpuSet::new();
            here.set(processor)?;
            sched_setaffinity(self.id, &here)?;
            self.processor.store(processor, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        self.orders.end.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

fn run_behind_all_others() -> io::Result<()> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, policy)
        .map_err(|error| io::Error::other(format!("a thread cannot have the policy SCHED_IDLE: {error:?}")))
}

// === impl Orders ===

impl Orders {
    fn obey(&self) {
        while !self.end.load(Ordering::Relaxed) {
            let since = Instant::now();
            while self.idle.load(Ordering::Relaxed) && since.elapsed() < LONGEST {
                hint::spin_loop();
            }
            thread::park();
        }
    }
}

// === impl Idling ===

impl Drop for Idling<'_> {
    fn drop(&mut self) {
        self.0.idle.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::vigil::Watchmen;
    use super::*;

    /// The scheduling state of a thread (`R` runs or would, `S` sleeps) and its policy, see `proc_pid_stat(5)`.
    fn stat(id: Pid) -> (char, u32) {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[0].parse().unwrap(), fields[38].parse().unwrap())
    }

    fn until(id: Pid, state: char) {
        while stat(id).0 != state {
            thread::yield_now();
        }
    }

    fn idler() -> Arc<Idler> {
        let vigil = Arc::new(Vigil::new(&Watchmen::of(2)));
        let idler = Arc::new(Idler::start(0, vigil).unwrap());
        idler.idle_here();
        idler
    }

    #[test]
    fn it_runs_behind_all_others_and_sleeps_when_it_is_not_needed() {
        const SCHED_IDLE: u32 = 5;
        let idler = idler();
        assert_eq!(stat(idler.id).1, SCHED_IDLE);
        until(idler.id, 'S');
        awake(|| assert!(!idler.orders.idle.load(Ordering::Relaxed), "nobody is waiting"));
        idler.vigil.be_patient();
        awake(|| {
            assert!(idler.orders.idle.load(Ordering::Relaxed));
            assert_ne!(idler.processor.load(Ordering::Relaxed), NOWHERE);
            // Even if the disk never answers.
            until(idler.id, 'S');
        });
        assert!(!idler.orders.idle.load(Ordering::Relaxed));
        until(idler.id, 'S');
    }

    #[test]
    fn it_ends_with_its_lane() {
        let idler = idler();
        let id = idler.id;
        HERE.take();
        drop(idler);
        while fs::exists(format!("/proc/self/task/{id}")).unwrap() {
            thread::yield_now();
        }
    }
}
