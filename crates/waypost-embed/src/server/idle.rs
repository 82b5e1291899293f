//! Keeps the processor of a lane from halting while the lane waits for the disk.
//!
//! A processor with nothing to do halts. To bring it back takes the disk's interrupt tens of microseconds in a virtual machine,
//! twice for each sync (the data, then the flush), which can be half of what a sync takes. So where a lane
//! [would be awake](super::vigil) for its clients, a thread on the same processor does nothing until the lane comes back. It does so under
//! `SCHED_IDLE`: whatever else there is to do in its control group goes first. It sleeps at all other times.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
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
    /// Where it runs.
    processor: AtomicUsize,
}

/// What a lane and its idler tell each other.
#[derive(Debug, Default)]
struct Orders {
    /// The thread, once everything else goes before it. Without that it is never told to idle.
    behind: OnceLock<Pid>,
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
    /// Starts the thread, which ends by itself if the system does not let it run behind all others.
    pub(super) fn start(number: usize, vigil: Arc<Vigil>) -> io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let obey = {
            let orders = Arc::clone(&orders);
            move || match run_behind_all_others() {
                Ok(()) if orders.behind.set(gettid()).is_ok() => orders.obey(),
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(%error, "the processor halts while its lane waits for the disk");
                }
            }
        };
        let thread = thread::Builder::new().name(format!("waypost-idle-{number}")).spawn(obey)?;
        Ok(Self { vigil, orders, thread: thread.thread().clone(), processor: AtomicUsize::new(NOWHERE) })
    }

    /// Has it idle for the thread that this is.
    pub(super) fn idle_here(self: &Arc<Self>) {
        HERE.set(Some(Arc::clone(self)));
    }

    /// Begins to idle on the processor where this thread is. `None`: that cannot be had.
    fn idle(&self) -> Option<Idling<'_>> {
        self.follow(*self.orders.behind.get()?).ok()?;
        self.orders.idle.store(true, Ordering::Relaxed);
        let idling = Idling(&self.orders);
        self.thread.unpark();
        Some(idling)
    }

    fn follow(&self, thread: Pid) -> Result<(), Errno> {
        let processor = sched_getcpu()?;
        if self.processor.load(Ordering::Relaxed) != processor {
            let mut here = CpuSet::new();
            here.set(processor)?;
            sched_setaffinity(thread, &here)?;
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

fn run_behind_all_others() -> Result<(), thread_priority::Error> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    let outcome = thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle);
    // The nice value is set after the policy, which a nice process may not do, and which does not matter then.
    if thread_priority::thread_schedule_policy()? == idle { Ok(()) } else { outcome }
}

// === impl Orders ===

impl Orders {
    fn obey(&self) {
        while !self.end.load(Ordering::Relaxed) {
            let since = Instant::now();
            self.turn(|| since.elapsed());
            thread::park();
        }
    }

    /// Idles for as long as it is told to, and not for long; gives how often it looked.
    fn turn(&self, elapsed: impl Fn() -> Duration) -> u64 {
        let mut looked = 0;
        while self.idle.load(Ordering::Relaxed) && elapsed() < LONGEST {
            hint::spin_loop();
            looked += 1;
        }
        looked
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
    use std::cell::Cell;
    use std::fs;

    use super::super::vigil::Watchmen;
    use super::*;

    fn until(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(60), "it did not happen");
            thread::yield_now();
        }
    }

    /// Whether a thread sleeps, and its policy: see `proc_pid_stat(5)`.
    fn stat(id: Pid) -> (bool, u32) {
        let stat = fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[0] == "S", fields[38].parse().unwrap())
    }

    fn idler() -> (Arc<Idler>, Pid) {
        let vigil = Arc::new(Vigil::new(&Watchmen::of(2)));
        let idler = Arc::new(Idler::start(0, vigil).unwrap());
        idler.idle_here();
        until(|| idler.orders.behind.get().is_some());
        let id = *idler.orders.behind.get().unwrap();
        (idler, id)
    }

    #[test]
    fn it_runs_behind_all_others_and_sleeps_when_it_is_not_needed() {
        const SCHED_IDLE: u32 = 5;
        let (idler, id) = idler();
        assert_eq!(stat(id).1, SCHED_IDLE);
        until(|| stat(id).0);
        awake(|| assert!(!idler.orders.idle.load(Ordering::Relaxed), "nobody is waiting"));
        idler.vigil.be_patient();
        awake(|| {
            assert!(idler.orders.idle.load(Ordering::Relaxed));
            assert_ne!(idler.processor.load(Ordering::Relaxed), NOWHERE);
            // Even if the disk never answers.
            until(|| stat(id).0);
        });
        assert!(!idler.orders.idle.load(Ordering::Relaxed));
    }

    #[test]
    fn it_idles_as_told_and_no_longer_than_the_longest_vigil() {
        let orders = Orders::default();
        let elapsed = Cell::new(Duration::ZERO);
        let step = || elapsed.replace(elapsed.get() + LONGEST / 10);
        assert_eq!(orders.turn(step), 0);
        orders.idle.store(true, Ordering::Relaxed);
        elapsed.set(Duration::ZERO);
        assert_eq!(orders.turn(step), 10);
        elapsed.set(Duration::ZERO);
        let told = || {
            orders.idle.store(elapsed.get() < LONGEST / 2, Ordering::Relaxed);
            step()
        };
        assert_eq!(orders.turn(told), 6);
    }

    #[test]
    fn it_ends_with_its_lane() {
        let (idler, id) = idler();
        HERE.take();
        drop(idler);
        until(|| !fs::exists(format!("/proc/self/task/{id}")).unwrap());
    }
}
