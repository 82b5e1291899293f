//! Calls that find no endpoint, and deadlines.

use crate::support::answers::{self, handler};
use crate::support::{
    Fleet, PATIENCE, Server, builder, check, check_with, instance, ready, refused, served_by, signal, within,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Code;
use waypost_channel::WaitForReady;
use waypost_model::{Endpoint, Status};

fn says(error: &tonic::Status, parts: &[&str]) {
    for part in parts {
        assert!(error.message().contains(part), "{part:?} is not in {:?}", error.message());
    }
}

#[tokio::test]
async fn a_call_before_the_first_answer_of_the_registry_waits_for_it() {
    let (fleet, subscription) = Fleet::unread();
    let channel = builder(subscription).build();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    tokio::task::yield_now().await;
    let server = Server::healthy().await;
    fleet.put(instance(0, server.endpoint()));
    assert_eq!(served_by(&within(call).await.unwrap().unwrap()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_waited_for_a_bounded_time() {
    let (fleet, subscription) = Fleet::unread();
    fleet.report_error("etcd at 10.0.0.9:2379 does not answer");
    let channel = builder(subscription).discovery_timeout(Duration::from_secs(3)).build();
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    says(&error, &["greeter", "nothing has been read", "layout grpc", "10.0.0.9:2379 does not answer"]);
    assert!(within(channel.ready()).await.is_err());
}

#[tokio::test]
async fn a_call_waits_for_the_first_attempts_and_then_says_how_they_failed() {
    let (fleet, subscription) = Fleet::of(&[]);
    let (first, second) = (refused(), refused());
    fleet.change([instance(0, first.clone()), instance(1, second.clone())], []);
    let channel = builder(subscription).build();
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let parts = ["none of 2 registered instances is ready", "Connection refused"];
    says(&error, &parts);
    says(&error, &[&format!("0 at {first}"), &format!("1 at {second}")]);
}

#[tokio::test]
async fn instances_that_drain_are_counted_in_the_error() {
    let server = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[]);
    let down = instance(1, server.endpoint()).with_status(Status::Down);
    fleet.change([instance(0, server.endpoint()).with_status(Status::Draining), down], []);
    let channel = builder(subscription).build();
    let error = check(&channel).await.unwrap_err();
    says(&error, &["none of 2 registered", "1 draining", "1 down"]);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_instance_that_speaks_something_else_is_named_with_the_reason() {
    let (_fleet, subscription) = Fleet::with([instance(4, "https://127.0.0.1:1".parse().unwrap())]);
    let channel = builder(subscription).build();
    let error = check(&channel).await.unwrap_err();
    says(&error, &["1 unusable", "4: https://127.0.0.1:1 needs TLS"]);
}

#[tokio::test]
async fn the_first_usable_endpoint_of_an_instance_is_used() {
    let server = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[]);
    let tcp: Endpoint = "tcp://127.0.0.1:9".parse().unwrap();
    fleet.put(instance(0, tcp).with_endpoint(server.endpoint()));
    let channel = builder(subscription).build();
    assert_eq!(crate::support::info(&check(&channel).await.unwrap()).endpoint(), &server.endpoint());
}

#[tokio::test]
async fn the_channel_may_wait_for_ready_and_a_call_may_not() {
    let (_fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).wait_for_ready(true).build();
    let error = check_with(&channel, |request| {
        request.extensions_mut().insert(WaitForReady(false));
    })
    .await
    .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

/// The kernel completes connections to a process that is stopped, and to a load balancer with nothing behind it.
#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_not_ready() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[&server]);
    fleet.put(instance(1, mute.local_addr().unwrap().into()));
    let channel = builder(subscription).connect_timeout(Duration::from_millis(200)).build();
    for _ in 0..50 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 0);
    }
    let stats = within(
        channel.wait_for(|stats| stats.endpoints.iter().any(|endpoint| endpoint.last_error.is_some())),
    )
    .await;
    assert_eq!(stats.ready(), 1);
    let errors: Vec<_> =
        stats.endpoints.iter().filter_map(|endpoint| endpoint.last_error.as_deref()).collect();
    assert_eq!(errors, ["not ready for calls within 200ms"]);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_not_ready() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_exact(&mut [0; 24]).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let (_fleet, subscription) = Fleet::with([instance(0, address.into())]);
    let channel = builder(subscription).build();
    says(&check(&channel).await.unwrap_err(), &["does not speak HTTP/2"]);
}

#[tokio::test]
async fn the_deadline_spans_the_wait_for_headers() {
    let server = Server::start(handler(|_, _| std::future::pending())).await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let error =
        check_with(&channel, |request| request.set_timeout(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    says(&error, &["greeter", "attempt 1"]);
    assert_eq!(channel.stats().endpoints[0].failures, 1);
}

#[tokio::test]
async fn the_deadline_spans_the_body_and_the_channel_may_set_it() {
    let server = Server::start(handler(|_, _| async { answers::two_messages(signal()) })).await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    for idempotent in [false, true] {
        let mut builder = builder(subscription.clone()).timeout(Duration::from_millis(50));
        if idempotent {
            builder = builder.all_idempotent();
        }
        let channel = builder.build();
        ready(&channel, 1).await;
        let error = check(&channel).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert_eq!(channel.stats().in_flight(), 0);
    }
}

#[tokio::test]
async fn the_server_is_told_what_is_left_of_the_deadline() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Server::start(handler(move |request, _| {
        sender.send(request.headers().get("grpc-timeout").cloned()).unwrap();
        async { answers::ok() }
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).timeout(PATIENCE).build();
    check(&channel).await.unwrap();
    let told = receiver.try_recv().unwrap().expect("a timeout");
    let micros: u64 = told.to_str().unwrap().strip_suffix('u').expect("microseconds").parse().unwrap();
    assert!(micros > 0 && Duration::from_micros(micros) <= PATIENCE, "{micros}");
}

/// A dropped call is cancelled at the server and leaves nothing behind.
#[tokio::test]
async fn a_call_that_is_dropped_is_no_longer_in_flight() {
    let ended = signal();
    let notify = Arc::clone(&ended);
    let server = Server::start(handler(move |_, _| {
        let ended = Arc::clone(&notify);
        async move {
            let _told = scopeguard(move || ended.notify_one());
            std::future::pending().await
        }
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    server.called(1).await;
    assert_eq!(channel.stats().in_flight(), 1);
    call.abort();
    assert!(within(call).await.unwrap_err().is_cancelled());
    assert_eq!(channel.stats().in_flight(), 0);
    within(ended.notified()).await;
}

/// Runs `end` when it is dropped.
fn scopeguard(end: impl FnOnce()) -> impl Sized {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(end) = self.0.take() {
                end();
            }
        }
    }
    Guard(Some(end))
}

#[test]
fn a_channel_may_be_built_outside_of_a_runtime() {
    let (fleet, subscription) = Fleet::unread();
    let channel = builder(subscription).build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::healthy().await;
        fleet.put(instance(0, server.endpoint()));
        check(&channel).await.unwrap();
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = other.block_on(check(&channel)).unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}
