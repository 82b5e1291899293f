//! The CPU time of a thread: what a pick costs, without what the machine does meanwhile.

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The CPU time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock");
    Duration::from_nanos(used.num_nanoseconds().unsigned_abs())
}

/// What it has used since then.
pub(crate) fn thread_cpu_since(before: Duration) -> Duration {
    thread_cpu().saturating_sub(before)
}
