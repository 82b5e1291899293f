//! A child process that is signalled and ended by its pid, and never after the pid is free again.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::eventually;

/// A running child. Dropped: SIGKILL, and the drop returns when the process is gone.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    pid: Pid,
    /// Set under the lock in which the kernel's entry is reaped: while it is false, `pid` is ours.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    reaper: Option<JoinHandle<()>>,
}

// === impl Child ===

impl Child {
    /// Takes over a process that [`Command::spawn`] started, whose pipes have been taken.
    pub(crate) fn adopt(name: impl Into<String>, mut process: std::process::Child) -> Self {
        let name = name.into();
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid fits pid_t"));
        let reaped = Arc::new(Mutex::new(false));
        let (sender, exit) = watch::channel(None);
        let flag = Arc::clone(&reaped);
        let thread = std::thread::Builder::new()
            .name(format!("reap {pid}"))
            .spawn(move || {
                // WNOWAIT leaves the zombie, and with it the pid, until the lock is held.
                while let Err(nix::Error::EINTR) =
                    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                {}
                let mut reaped = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let status = process.wait().expect("a child that has ended can be waited for");
                *reaped = true;
                drop(reaped);
                sender.send_replace(Some(status));
            })
            .expect("a thread to wait for the child");
        Self { name, pid, reaped, exit, reaper: Some(thread) }
    }

    pub(crate) fn spawn(name: impl Into<String>, command: &mut Command) -> io::Result<Self> {
        Ok(Self::adopt(name, command.spawn()?))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; false when the process has already ended.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        !*reaped && kill(self.pid, signal).is_ok()
    }

    /// SIGSTOP, and returns when the kernel shows the process as stopped.
    pub(crate) async fn pause(&self) {
        assert!(self.signal(Signal::SIGSTOP), "{} has ended and cannot be paused", self.name);
        let stat = format!("/proc/{}/stat", self.pid);
        eventually(&format!("{} is stopped", self.name), Duration::from_secs(60), async || {
            let text = std::fs::read_to_string(&stat).ok()?;
            // The state follows the command's name, which is in parentheses and may hold any character.
            let (_, after) = text.rsplit_once(')')?;
            after.trim_start().starts_with(['T', 't']).then_some(())
        })
        .await;
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        assert!(self.signal(Signal::SIGCONT), "{} has ended and cannot be resumed", self.name);
    }

    /// The exit status, when the process has ended.
    pub(crate) fn try_exit(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until the process has ended. Cancel safe.
    pub(crate) async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.expect("the reaper reports before it ends");
        status.expect("waited for Some")
    }

    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(&self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.exited().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(reaper) = self.reaper.take() {
            // A reaper that panicked has nothing to say to a test that ends.
            drop(reaper.join());
        }
    }
}
