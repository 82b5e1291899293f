//! A server that takes one request at a time, and what becomes of those that wait for their turn.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;
use support::{Fleet, Server, builder, check, instance, ready, served_by, within};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tonic::Code;
use waypost_model::Endpoint;

/// Takes one request at a time. Tells how many it has seen; answers each when it is told to, or closes all when it is dropped.
struct OneByOne {
    endpoint: Endpoint,
    seen: watch::Receiver<usize>,
    answer: Arc<Notify>,
    close: Arc<Notify>,
}

impl OneByOne {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let (seen, requests) = watch::channel(0);
        let (answer, close) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (may_answer, must_close) = (Arc::clone(&answer), Arc::clone(&close));
        tokio::spawn(async move {
            // It listens once.
            let (stream, _) = { listener }.accept().await.unwrap();
            let mut server = h2::server::Builder::new();
            let mut connection = server.max_concurrent_streams(1).handshake(stream).await.unwrap();
            let mut open = None;
            loop {
                tokio::select! {
                    () = must_close.notified() => return,
                    Some(Ok((_request, respond))) = connection.accept() => {
                        seen.send_modify(|count| *count += 1);
                        open = Some(respond);
                    }
                    () = may_answer.notified(), if open.is_some() => {
                        let mut respond: h2::server::SendResponse<bytes::Bytes> = open.take().unwrap();
                        let answer = http::Response::builder().header("grpc-status", "12").body(()).unwrap();
                        respond.send_response(answer, true).unwrap();
                    }
                }
            }
        });
        Self { endpoint, seen: requests, answer, close }
    }

    async fn has_seen(&mut self, count: usize) {
        within(self.seen.wait_for(|seen| *seen >= count)).await.unwrap();
    }
}

#[tokio::test]
async fn each_call_has_its_turn() {
    let mut server = OneByOne::start().await;
    let (fleet, subscription) = Fleet::of(&[]);
    fleet.put(instance(0, server.endpoint.clone()));
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { check(&channel).await })
        })
        .collect();
    for turn in 1..=5 {
        server.has_seen(turn).await;
        assert_eq!(*server.seen.borrow(), turn);
        server.answer.notify_one();
    }
    for call in calls {
        assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::Unimplemented);
    }
}

/// Though none is idempotent: of those that wait the server has not seen a byte.
#[tokio::test]
async fn calls_that_still_wait_when_the_connection_is_lost_go_elsewhere() {
    let mut server = OneByOne::start().await;
    let (fleet, subscription) = Fleet::of(&[]);
    fleet.put(instance(0, server.endpoint.clone()));
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let call = || {
        let channel = channel.clone();
        tokio::spawn(async move { check(&channel).await })
    };
    let first = call();
    server.has_seen(1).await;
    let others = [call(), call(), call()];
    within(async {
        while channel.stats().in_flight() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let good = Server::healthy().await;
    fleet.put(instance(1, good.endpoint()));
    ready(&channel, 2).await;
    server.close.notify_one();
    assert_eq!(within(first).await.unwrap().unwrap_err().code(), Code::Unavailable);
    for other in others {
        assert_eq!(served_by(&within(other).await.unwrap().unwrap()), 1);
    }
    assert_eq!((*server.seen.borrow(), good.calls()), (1, 3));
}
