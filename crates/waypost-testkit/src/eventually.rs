//! Waiting for a condition in a system that cannot tell us about it.

use std::time::Duration;

use tokio::time::Instant;

/// Asks `probe` until it answers `Some`, with a backoff from 1 ms to 50 ms, and returns the answer.
///
/// For foreign systems only (another process, a file); what is in this process has a channel to await.
/// Panics, naming `what`, when `timeout` has passed. A probe that hangs is cut off by the timeout.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
///
/// let path = std::env::temp_dir();
/// let metadata = waypost_testkit::eventually("the directory exists", Duration::from_secs(5), async || {
///     std::fs::metadata(&path).ok()
/// })
/// .await;
/// assert!(metadata.is_dir());
/// # });
/// ```
pub async fn eventually<T>(what: &str, timeout: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    const SLOWEST: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Some(answer)) => return answer,
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) | Err(_) => panic!("not within {timeout:?}: {what}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(SLOWEST);
    }
}
