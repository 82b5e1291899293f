//! One watch stream, from the side of the task that sends what it is told.

use std::sync::Arc;
use std::vec;

use tokio::sync::Notify;
use waypost_proto::etcdserverpb::WatchCreateRequest;

use super::mail::Sleeper;
use super::{Engine, lock, read};
use crate::error::Refusal;
use crate::mvcc::Past;
use crate::watch::{Response, StreamId};

/// A stream of the hub; it ends when this is dropped.
pub(in crate::server) struct Follow {
    engine: Engine,
    stream: StreamId,
    waker: Arc<Notify>,
    taken: vec::IntoIter<Response>,
}

// === impl Follow ===

impl Follow {
    pub(in crate::server) fn open(engine: &Engine) -> Self {
        let waker = Arc::new(Notify::new());
        let stream = {
            let mut watches = lock(&engine.shared.watches);
            let stream = watches.hub.open(engine.shared.now());
            watches.sleepers.insert(stream, Sleeper::here(&waker));
            stream
        };
        engine.shared.opened.notify_one();
        Self { engine: engine.clone(), stream, waker, taken: Vec::new().into_iter() }
    }

    pub(in crate::server) fn create(&self, request: &WatchCreateRequest, permission: Result<(), Refusal>) {
        self.engine.shared.with_hub(|hub| hub.create(self.stream, request, permission));
        // It may be behind, which is no reason for the hub to wake anyone.
        self.waker.notify_one();
    }

    pub(in crate::server) fn cancel(&self, watch: i64) {
        self.engine.shared.with_hub(|hub| hub.cancel(self.stream, watch));
    }

    pub(in crate::server) fn progress(&self) {
        self.engine.shared.with_hub(|hub| hub.progress(self.stream));
    }

    /// Whether requests of the stream have to wait until what it was told is sent.
    pub(in crate::server) fn is_congested(&self) -> bool {
        lock(&self.engine.shared.watches).hub.is_congested(self.stream)
    }

    /// The next answer of those that are [ready](Self::ready).
    pub(in crate::server) fn take(&mut self) -> Option<Response> {
        self.taken.next()
    }

    /// The size of the answers that are ready, in bytes and rounded up, or of as many as have this size.
    pub(in crate::server) fn size(&self, enough: usize) -> usize {
        self.taken
            .as_slice()
            .iter()
            .try_fold(0, |sum, response| match sum + response.size() {
                sum if sum < enough => Ok(sum),
                sum => Err(sum),
            })
            .unwrap_or_else(|size| size)
    }

    /// The next answer. Cancel safe.
    pub(in crate::server) async fn next(&mut self) -> Result<Response, Refusal> {
        loop {
            if let Some(response) = self.take() {
                return Ok(response);
            }
            self.ready().await?;
        }
    }

    /// Waits until there is an answer to [take](Self::take). Cancel safe.
    pub(in crate::server) async fn ready(&mut self) -> Result<(), Refusal> {
        loop {
            if !self.taken.as_slice().is_empty() {
                return Ok(());
            }
            self.taken = self.engine.shared.with_hub(|hub| hub.take(self.stream)).into_iter();
            if !self.taken.as_slice().is_empty() {
                continue;
            }
            let Some(mut step) = self.engine.shared.with_hub(|hub| hub.plan(self.stream)) else {
                self.waker.notified().await;
                continue;
            };
            let step = self
                .engine
                .blocking(move |shared| {
                    let before = |key: &[u8], revision| read(&shared.space).store().before(key, revision);
                    step.read(&Past::new(&shared.backend, before))?;
                    Ok(step)
                })
                .await?;
            self.engine.shared.with_hub(|hub| hub.deliver(step));
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut watches = lock(&self.engine.shared.watches);
        watches.hub.close(self.stream);
        watches.sleepers.remove(&self.stream);
    }
}
