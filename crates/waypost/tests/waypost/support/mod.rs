//! Greeters that can be started and stopped, and callers that count.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greeter::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Request, Response, Status};
use waypost::channel::{Channel, EndpointInfo};
use waypost::{Error, Waypost};

/// For whatever takes as long as it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Greets at once, but a caller named `slow` when it is released.
#[derive(Clone, Default)]
pub(crate) struct English {
    pub(crate) asked: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
}

#[tonic::async_trait]
impl Greeter for English {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        if name == "slow" {
            self.asked.notify_one();
            self.release.notified().await;
        }
        Ok(Response::new(HelloReply { message: format!("Hello, {name}!") }))
    }
}

/// A greeter that runs in this process.
pub(crate) struct Running {
    pub(crate) address: String,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), waypost::ServeError>>,
}

impl Running {
    /// Starts one and waits until it is registered.
    pub(crate) async fn start(waypost: &Waypost, listen: &str) -> Self {
        let (shutdown, asked) = oneshot::channel();
        let serving = waypost
            .serve("greeter", listen, GreeterServer::new(English::default()))
            .shutdown(async move {
                let _ = asked.await;
            })
            .start()
            .await
            .unwrap();
        serving.registration().registered().await.unwrap();
        let address = serving.local_addr().to_string();
        Self { address, shutdown, ended: tokio::spawn(serving.run()) }
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.shutdown.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap().unwrap();
    }
}

/// Callers that call as fast as they are answered, and count.
pub(crate) struct Callers {
    tally: watch::Receiver<Tally>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) failures: Vec<String>,
    pub(crate) calls: u64,
    pub(crate) by_address: BTreeMap<String, u64>,
}

impl Callers {
    pub(crate) fn start(channel: &Channel, callers: usize) -> Self {
        let sender = Arc::new(watch::Sender::new(Tally::default()));
        let tally = sender.subscribe();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (sender, stop, mut client) =
                (sender.clone(), stop.clone(), GreeterClient::new(channel.clone()));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut request = Request::new(HelloRequest { name: "World".into() });
                    request.set_timeout(Duration::from_secs(30));
                    let answer = client.say_hello(request).await;
                    sender.send_modify(|tally| {
                        tally.calls += 1;
                        match &answer {
                            Ok(reply) => {
                                let info = reply.extensions().get::<EndpointInfo>().unwrap();
                                *tally.by_address.entry(info.endpoint().authority()).or_default() += 1;
                            }
                            Err(status) => tally.failures.push(status.to_string()),
                        }
                    });
                    // Hundreds of calls a second prove as much as thousands.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self { tally, stop, tasks }
    }

    /// Waits until the server at that address has answered so many calls more.
    pub(crate) async fn served_by(&mut self, address: &str, more: u64) {
        let so_far = |tally: &Tally| tally.by_address.get(address).copied().unwrap_or(0);
        let goal = so_far(&self.tally.borrow()) + more;
        let reached = self.tally.wait_for(|tally| so_far(tally) >= goal || !tally.failures.is_empty());
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
    }

    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.tally.borrow().clone()
    }
}

/// Everything with the defaults, at this etcd.
pub(crate) fn connect(url: &str) -> Result<Waypost, Error> {
    Waypost::connect(url)
}
