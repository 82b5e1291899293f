//! Dialers that panic: an endpoint is never left alone for it. Policies that panic: nor is a call.

use crate::support::{Fleet, builder, instance, within};
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use waypost_channel::balance::{self, Picker, Roster, RoundRobin};
use waypost_channel::{Abort, Dial, DialError, Dialed, Policy, Wish};
use waypost_model::Endpoint;

/// Panics where it is told to: at the first two attempts, before there is a future or in it; or once the first connection ends.
struct Panics {
    at: Stage,
    attempts: Arc<AtomicUsize>,
    /// The connection may end.
    end: Arc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Call,
    Connecting,
    Connected,
}

impl Dial for Panics {
    type Connection = usize;

    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn dial(
        &self,
        _endpoint: Endpoint,
        _abort: Abort,
    ) -> BoxFuture<'static, Result<Dialed<usize>, DialError>> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        let panics = move || assert!(attempt >= 2, "as it is told to");
        if self.at == Stage::Call {
            panics();
        }
        let (at, end) = (self.at, Arc::clone(&self.end));
        Box::pin(async move {
            if at == Stage::Connecting {
                panics();
            }
            let closed = async move {
                if at == Stage::Connected && attempt == 0 {
                    end.notified().await;
                    panics();
                }
                pending::<&str>().await
            };
            Ok(Dialed::new(attempt, closed))
        })
    }
}

/// In turn, but for sets of so many.
#[derive(Debug)]
struct Clumsy {
    most: usize,
    panics: Arc<AtomicUsize>,
}

impl balance::Policy for Clumsy {
    fn name(&self) -> &'static str {
        "clumsy"
    }

    fn build(&self, ready: Roster, previous: Option<&dyn Picker>) -> Arc<dyn Picker> {
        if ready.len() > self.most {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("as it is told to");
        }
        RoundRobin::default().build(ready, previous)
    }
}

/// Pickers of large sets are built on another thread than those of small ones.
#[tokio::test]
async fn while_a_policy_panics_calls_go_anywhere() {
    for size in [3, 2_100] {
        let instances = (0..size).map(|n| {
            let address = Endpoint::new(format!("10.0.{}.{}", n / 250, n % 250), 1).unwrap();
            instance(n, address)
        });
        let (fleet, subscription) = Fleet::with(instances);
        let dialer = Panics { at: Stage::Call, attempts: Arc::new(AtomicUsize::new(2)), end: Arc::default() };
        let panics = Arc::new(AtomicUsize::new(0));
        let policy = Policy::custom(Clumsy { most: 2, panics: Arc::clone(&panics) });
        let pool = builder(subscription).policy(policy).pool(dialer);
        within(pool.wait_for(|stats| stats.ready() == size)).await;
        within(async {
            let mut seen = BTreeSet::new();
            while seen.len() < 3 {
                seen.insert(*pool.lease(Wish::new()).await.unwrap().connection());
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(panics.load(Ordering::SeqCst) > 0);

        // It is asked again with every set. By chance two would not take turns for so long.
        fleet.change([], 2..size);
        within(async {
            let (mut last, mut turns) = (usize::MAX, 0);
            while turns < 30 {
                let connection = *pool.lease(Wish::new()).await.unwrap().connection();
                turns = if connection == last { 0 } else { turns + 1 };
                last = connection;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_attempt_that_panics_has_failed_and_is_made_again() {
    for at in [Stage::Call, Stage::Connecting] {
        let (_fleet, subscription) = Fleet::with([instance(0, "10.0.0.1:1".parse().unwrap())]);
        let attempts = Arc::new(AtomicUsize::new(0));
        let dialer = Panics { at, attempts: Arc::clone(&attempts), end: Arc::default() };
        let pool = builder(subscription).pool(dialer);
        let lease = within(pool.lease(Wish::new().wait_for_ready(true))).await.unwrap();
        assert_eq!((*lease.connection(), attempts.load(Ordering::SeqCst)), (2, 3));
    }
}

#[tokio::test]
async fn a_connection_whose_task_panics_is_closed_and_made_again() {
    let (_fleet, subscription) = Fleet::with([instance(0, "10.0.0.1:1".parse().unwrap())]);
    let end = Arc::new(Notify::new());
    let dialer = Panics { at: Stage::Connected, attempts: Arc::default(), end: Arc::clone(&end) };
    let pool = builder(subscription).drain_timeout(Duration::MAX).pool(dialer);
    assert_eq!(*within(pool.lease(Wish::new())).await.unwrap().connection(), 0);
    end.notify_one();
    within(pool.wait_for(|stats| {
        stats.endpoints[0].last_error.as_deref().is_some_and(|error| error.contains("panicked"))
    }))
    .await;
    let lease = within(pool.lease(Wish::new().wait_for_ready(true))).await.unwrap();
    assert_eq!(*lease.connection(), 1);
}
