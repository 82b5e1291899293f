//! The signals that ask a server to end.

use std::io;

use futures::future::BoxFuture;

/// The two signals that a server heeds: the first asks it to end, the second to end at once.
pub(crate) struct Termination {
    pub(crate) first: BoxFuture<'static, ()>,
    /// To be awaited after the first.
    pub(crate) second: BoxFuture<'static, ()>,
}

// === impl Termination ===

impl Termination {
    /// SIGTERM and SIGINT, caught from now on (elsewhere than on Unix: Ctrl-C).
    pub(crate) fn catch() -> io::Result<Self> {
        let (sender, mut receiver) = tokio::sync::watch::channel(0_u32);
        let mut again = receiver.clone();
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = signals.next() => sender.send_modify(|count| *count += 1),
                    () = sender.closed() => return,
                }
            }
        });
        // The task above ends only when both of these are dropped.
        Ok(Self {
            first: Box::pin(async move {
                let _ = receiver.wait_for(|count| *count >= 1).await;
            }),
            second: Box::pin(async move {
                let _ = again.wait_for(|count| *count >= 2).await;
            }),
        })
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C cannot be caught");
            std::future::pending::<()>().await;
        }
    }
}
