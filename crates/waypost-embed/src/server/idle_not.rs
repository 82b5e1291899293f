//! Where there is no `SCHED_IDLE`, processors halt while lanes wait for the disk.

use std::io;
use std::sync::Arc;

use super::vigil::Vigil;

#[derive(Debug)]
pub(super) enum Idler {}

pub(super) fn awake<T>(wait: impl FnOnce() -> T) -> T {
    wait()
}

// === impl Idler ===

impl Idler {
    pub(super) fn start(_number: usize, _vigil: Arc<Vigil>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn idle_here(self: &Arc<Self>) {}
}
