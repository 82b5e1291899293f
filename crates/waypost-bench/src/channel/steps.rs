//! How many instructions a thread of another process needs, by ptrace's single steps.
//!
//! The thread says what is counted by a signal to itself before and after it, which the tracer keeps from it. Between the two it goes one
//! instruction at a time. An interrupt, another program or the hypervisor adds no instruction, so the count is the same on any machine.
//! Its other threads go on at full speed.

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Ends the process, if nobody traces the thread.
const MARK: Signal = Signal::SIGUSR1;

/// What a thread did between two marks, in user space. What the kernel does for it is not counted, and page faults are not seen at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) instructions: u32,
    /// Those of them that enter the kernel.
    pub(crate) syscalls: u32,
}

/// In the traced thread: what is counted, and the two marks with it.
pub(crate) fn marked<T>(counted: impl FnOnce() -> T) -> T {
    raise(MARK).expect("a signal to this thread");
    let done = counted();
    raise(MARK).expect("a signal to this thread");
    done
}

/// What the thread did between each two marks, from `begin` to its end. The thread is of a child process, and is killed with this one.
/// Fails where ptrace is not permitted, and where the processor is another than x86-64.
pub(crate) fn count(thread: Pid, begin: impl FnOnce()) -> nix::Result<Vec<Steps>> {
    ptrace::seize(thread, Options::PTRACE_O_EXITKILL)?;
    begin();
    let (mut all, mut counting) = (Vec::new(), None);
    loop {
        // Of this thread alone, which need not be the first of its process.
        let signal = match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(all),
            WaitStatus::Stopped(_, MARK) => {
                match counting.take() {
                    Some(steps) => all.push(steps),
                    None => counting = Some(Steps::default()),
                }
                None
            }
            WaitStatus::Stopped(_, other) if other != Signal::SIGTRAP => Some(other),
            _ => None,
        };
        if let Some(steps) = &mut counting {
            steps.instructions += 1;
            steps.syscalls += u32::from(enters_kernel(thread)?);
            ptrace::step(thread, signal)?;
        } else {
            ptrace::cont(thread, signal)?;
        }
    }
}

/// Whether the next instruction of a stopped thread is `syscall`.
#[cfg(target_arch = "x86_64")]
fn enters_kernel(thread: Pid) -> nix::Result<bool> {
    let next = ptrace::getregs(thread)?.rip;
    Ok(ptrace::read(thread, next as ptrace::AddressType)? & 0xffff == 0x050f)
}

/// Not known here.
#[cfg(not(target_arch = "x86_64"))]
fn enters_kernel(_thread: Pid) -> nix::Result<bool> {
    Err(nix::errno::Errno::ENOTSUP)
}
