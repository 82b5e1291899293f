//! Any program as a child process whose output can be awaited.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::child::Child;

/// A running program. Killed by its pid when dropped.
///
/// ```
/// # waypost_testkit::run(async {
/// use std::process::Command;
/// use std::time::Duration;
/// use waypost_testkit::Process;
///
/// let cat = Process::spawn(Command::new("sh").args(["-c", "echo ready; exec sleep 600"]));
/// cat.wait_for_line(|line| line == "ready", Duration::from_secs(30)).await;
/// cat.terminate();
/// assert!(!cat.exited(Duration::from_secs(30)).await.success());
/// # });
/// ```
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: Lines,
    stderr: Lines,
}

/// What has come through a pipe so far; the sender is gone when the pipe is closed.
type Lines = watch::Receiver<Vec<String>>;

// === impl Process ===

impl Process {
    /// Starts a program with no standard input; panics, naming it, when it cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = spawned.unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = read(process.stdout.take().expect("standard output is piped"));
        let stderr = read(process.stderr.take().expect("standard error is piped"));
        Self { child: Child::adopt(name.clone(), process), name, stdout, stderr }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.child.pid().as_raw()).expect("a pid is positive")
    }

    /// Waits for a line of standard output, among those that are there already too, and returns the first that fits.
    ///
    /// Panics with all that was written when `timeout` passes or the output ends without it.
    pub async fn wait_for_line(&self, fits: impl Fn(&str) -> bool, timeout: Duration) -> String {
        self.wait_for_line_after(0, fits, timeout).await
    }

    /// As [`wait_for_line`](Self::wait_for_line), leaving out the first `skip` lines: those seen before.
    pub async fn wait_for_line_after(
        &self,
        skip: usize,
        fits: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> String {
        self.wait_for("standard output", &self.stdout, skip, fits, timeout).await
    }

    /// As [`wait_for_line`](Self::wait_for_line), of standard error.
    pub async fn wait_for_error_line(&self, fits: impl Fn(&str) -> bool, timeout: Duration) -> String {
        self.wait_for("standard error", &self.stderr, 0, fits, timeout).await
    }

    /// The lines of standard output so far, without their ends.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    /// The lines of standard error so far, without their ends.
    pub fn error_lines(&self) -> Vec<String> {
        self.stderr.borrow().clone()
    }

    /// SIGTERM. Nothing happens when the process has ended; so with the other signals.
    pub fn terminate(&self) {
        self.child.signal(Signal::SIGTERM);
    }

    /// SIGINT.
    pub fn interrupt(&self) {
        self.child.signal(Signal::SIGINT);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.child.signal(Signal::SIGHUP);
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(&self) {
        self.child.kill().await;
    }

    /// SIGSTOP; returns when the process is stopped.
    pub async fn pause(&self) {
        self.child.pause().await;
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.child.resume();
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.child.try_exit().is_none()
    }

    /// Waits for its end and for that of its output; panics with all that was written when `timeout` passes.
    ///
    /// A child of its own that keeps the output open keeps this waiting.
    pub async fn exited(&self, timeout: Duration) -> ExitStatus {
        let end = async {
            let status = self.child.exited().await;
            for lines in [&self.stdout, &self.stderr] {
                // Never true: this returns when the sender is gone.
                drop(lines.clone().wait_for(|_| false).await);
            }
            status
        };
        let ended = tokio::time::timeout(timeout, end).await;
        ended
            .unwrap_or_else(|_| panic!("{} has not ended within {timeout:?}{}", self.name, self.transcript()))
    }

    async fn wait_for(
        &self,
        stream: &str,
        lines: &Lines,
        skip: usize,
        fits: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> String {
        let mut lines = lines.clone();
        let find = |lines: &Vec<String>| lines.iter().skip(skip).find(|line| fits(line)).cloned();
        let seen = tokio::time::timeout(timeout, lines.wait_for(|lines| find(lines).is_some())).await;
        let why = match seen {
            Ok(Ok(lines)) => return find(&lines).expect("it was there under the same lock"),
            Ok(Err(_)) => "before it was closed".to_owned(),
            Err(_) => format!("within {timeout:?}"),
        };
        panic!("{}: no such line on {stream} {why}{}", self.name, self.transcript())
    }

    fn transcript(&self) -> String {
        let (output, errors) = (self.lines().join("\n  "), self.error_lines().join("\n  "));
        format!("\nstandard output:\n  {output}\nstandard error:\n  {errors}")
    }
}

/// Collects lines on a thread, which ends with the pipe.
fn read(pipe: impl Read + Send + 'static) -> Lines {
    let (sender, lines) = watch::channel(Vec::new());
    let thread = std::thread::Builder::new().name("read a pipe".to_owned()).spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            sender.send_modify(|lines| lines.push(text));
            line.clear();
        }
    });
    drop(thread.expect("a thread to read a pipe"));
    lines
}
