//! Calls at a steady rate, made by several callers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use greeter::{GreeterClient, HelloRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use waypost::channel::{Channel, EndpointInfo, Idempotent};

use super::Plan;
use super::tally::Tally;

/// A call that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Callers at work.
pub(super) struct Load {
    pub(super) started: Instant,
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

struct Shared {
    tally: Mutex<Tally>,
    /// The number of the next call; each has its time.
    next: AtomicU64,
    stop: CancellationToken,
}

// === impl Load ===

impl Load {
    pub(super) fn start(plan: &Plan, channel: &Channel) -> Self {
        let started = Instant::now();
        let shared = Arc::new(Shared {
            tally: Mutex::default(),
            next: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let mut callers = JoinSet::new();
        for _ in 0..plan.callers {
            let (shared, client) = (Arc::clone(&shared), GreeterClient::new(channel.clone()));
            let rate = f64::from(plan.rate);
            callers.spawn(async move { shared.call(client, started, rate).await });
        }
        Self { started, shared, callers }
    }

    pub(super) fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Starts no more calls, waits for those under way, and answers what came of all.
    pub(super) async fn stop(mut self) -> Tally {
        self.shared.stop.cancel();
        while self.callers.join_next().await.is_some() {}
        self.tally()
    }
}

// === impl Shared ===

impl Shared {
    async fn call(&self, mut client: GreeterClient<Channel>, started: Instant, rate: f64) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
            let due = started + Duration::from_secs_f64(number as f64 / rate);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            let mut request = Request::new(HelloRequest { name: format!("caller {number}") });
            request.set_timeout(DEADLINE);
            request.extensions_mut().insert(Idempotent);
            let answer = client.say_hello(request).await;
            let at = started.elapsed();
            let mut tally = self.tally();
            match answer {
                Ok(reply) => {
                    let info = reply.extensions().get::<EndpointInfo>();
                    tally.served(info.map_or_else(String::new, |info| info.endpoint().authority()), at);
                }
                Err(status) => tally.failed(format!("{:?}: {}", status.code(), status.message())),
            }
        }
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
