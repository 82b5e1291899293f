//! Calls at a steady rate, made by several callers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Request, Response, Status};
use waypost::channel::{Channel, EndpointInfo, HashKey, Idempotent};

use super::Plan;
use super::bytes_codec::BytesCodec;
use super::method::Target;
use super::tally::Tally;

/// What goes with each call besides the message.
#[derive(Clone, Debug)]
pub(crate) struct Extras {
    pub(crate) deadline: Duration,
    pub(crate) headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    pub(crate) hash_key: Option<String>,
    /// It may be made twice.
    pub(crate) idempotent: bool,
}

/// Callers at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: TaskTracker,
}

struct Shared {
    target: Target,
    extras: Extras,
    rate: f64,
    started: Instant,
    tally: Mutex<Tally>,
    /// The number of the next call; each has its time.
    next: AtomicU64,
    stop: CancellationToken,
}

// === impl Load ===

impl Load {
    pub(super) fn start(plan: &Plan, channel: &Channel) -> Self {
        let shared = Arc::new(Shared {
            target: plan.target.clone(),
            extras: plan.extras.clone(),
            rate: plan.rate,
            started: Instant::now(),
            tally: Mutex::new(Tally::new()),
            next: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let callers = TaskTracker::new();
        for _ in 0..plan.callers {
            let (shared, client) = (Arc::clone(&shared), Grpc::new(channel.clone()));
            callers.spawn(async move { shared.call(client).await });
        }
        callers.close();
        Self { shared, callers }
    }

    pub(super) fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Starts no more calls, waits for those under way, and answers what came of all.
    pub(super) async fn stop(&self) -> Tally {
        self.shared.stop.cancel();
        self.callers.wait().await;
        self.tally()
    }
}

// === impl Shared ===

impl Shared {
    async fn call(&self, mut client: Grpc<Channel>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
            let after = Duration::try_from_secs_f64(number as f64 / self.rate).unwrap_or(Duration::MAX);
            let due = self.started.checked_add(after);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = until(due) => {}
            }
            let begun = Instant::now();
            let answer = self.once(&mut client).await;
            let took = begun.elapsed();
            let mut tally = self.tally();
            match answer {
                Ok(answer) => {
                    let info = answer.extensions().get::<EndpointInfo>().cloned();
                    tally.answered(info.as_ref(), took, answer.into_inner());
                }
                Err(status) => tally.failed(&status),
            }
        }
    }

    async fn once(&self, client: &mut Grpc<Channel>) -> Result<Response<Bytes>, Status> {
        let mut request = Request::new(self.target.message.clone());
        request.set_timeout(self.extras.deadline);
        for (name, value) in &self.extras.headers {
            request.metadata_mut().append(name.clone(), value.clone());
        }
        if let Some(key) = &self.extras.hash_key {
            request.extensions_mut().insert(HashKey::of(key));
        }
        if self.extras.idempotent {
            request.extensions_mut().insert(Idempotent);
        }
        // A channel is always ready, and says so with an error that cannot be.
        client.ready().await.unwrap_or_else(|never| match never {});
        client.unary(request, self.target.path.clone(), BytesCodec).await
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` is beyond what a clock can tell.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
