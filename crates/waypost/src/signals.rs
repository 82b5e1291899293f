//! The signals that ask a server to end.

use std::io;

/// Resolves at the first SIGTERM or SIGINT after this was called (elsewhere than on Unix: at Ctrl-C).
#[cfg(unix)]
pub(crate) fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
    })
}

/// Resolves at the first Ctrl-C after this was called.
#[cfg(not(unix))]
pub(crate) fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C cannot be caught");
            std::future::pending::<()>().await;
        }
    })
}
