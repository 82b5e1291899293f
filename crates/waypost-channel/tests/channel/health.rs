//! Active health checks: what does not serve is not picked.

use crate::support::answers::{self, Body, handler};
use crate::support::wire::{
    DATA, END_HEADERS, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, OK, RST_STREAM, UNIMPLEMENTED, Wire,
    listen,
};
use crate::support::{Fleet, PATIENCE, Server, builder, check, instance, ready, served_by, signal, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use waypost_channel::{Channel, EndpointStatus};
use waypost_model::Endpoint;

/// A tonic server with tonic's own health service.
struct Tonic {
    endpoint: Endpoint,
    reporter: HealthReporter,
    shutdown: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Tonic {
    async fn start() -> Self {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            async {
                let _ = asked.await;
            },
        );
        Self { endpoint, reporter, shutdown, task: tokio::spawn(serving) }
    }

    /// Says that `greeter` is served.
    async fn serving() -> Self {
        let server = Self::start().await;
        server.says(ServingStatus::Serving).await;
        server
    }

    async fn says(&self, status: ServingStatus) {
        self.reporter.set_service_status("greeter", status).await;
    }
}

async fn unhealthy(channel: &Channel, count: usize) {
    let of = |state| {
        move |stats: &waypost_channel::ChannelStats| {
            stats.endpoints.iter().filter(|endpoint| endpoint.state == state).count() == count
        }
    };
    within(channel.wait_for(of(EndpointStatus::Unhealthy))).await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_serve_is_not_picked_until_it_does() {
    let servers = [Tonic::start().await, Tonic::start().await];
    servers[0].says(ServingStatus::Serving).await;
    servers[1].says(ServingStatus::NotServing).await;
    let (_fleet, subscription) = Fleet::with((0..2).map(|id| instance(id, servers[id].endpoint.clone())));
    let channel = builder(subscription).health_check("greeter").build();
    ready(&channel, 1).await;
    unhealthy(&channel, 1).await;
    for _ in 0..4 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 0);
    }
    servers[1].says(ServingStatus::Serving).await;
    ready(&channel, 2).await;
    let served: Vec<_> =
        [check(&channel).await, check(&channel).await].map(|call| served_by(&call.unwrap())).into();
    assert_eq!(served.iter().sum::<usize>(), 1, "both in turn: {served:?}");

    servers[0].says(ServingStatus::NotServing).await;
    unhealthy(&channel, 1).await;
    servers[1].says(ServingStatus::NotServing).await;
    unhealthy(&channel, 2).await;
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in ["2 unhealthy", "NOT_SERVING", &servers[0].endpoint.to_string()] {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }
}

#[tokio::test]
async fn a_name_that_the_server_does_not_know_is_not_healthy_and_a_config_may_ask_for_another() {
    let server = Tonic::serving().await;
    let (_fleet, subscription) = Fleet::with([instance(0, server.endpoint.clone())]);
    let channel = builder(subscription).health_check("mystery").build();
    unhealthy(&channel, 1).await;
    channel.set_service_config(Some(r#"{"healthCheckConfig": {"serviceName": "greeter"}}"#.parse().unwrap()));
    ready(&channel, 1).await;
    channel.set_service_config(None);
    unhealthy(&channel, 1).await;
}

#[tokio::test]
async fn watching_does_not_keep_a_server_from_stopping() {
    let server = Tonic::serving().await;
    let (_fleet, subscription) = Fleet::with([instance(0, server.endpoint.clone())]);
    let channel = builder(subscription).health_check("greeter").build();
    ready(&channel, 1).await;
    server.shutdown.send(()).unwrap();
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_channel_that_is_gone_and_an_instance_that_left_are_not_watched() {
    for leaves in [true, false] {
        let server = Tonic::serving().await;
        let (fleet, subscription) = Fleet::with([instance(0, server.endpoint.clone())]);
        let channel = builder(subscription).health_check("greeter").build();
        ready(&channel, 1).await;
        if leaves {
            fleet.remove(0);
            within(channel.wait_for(|stats| stats.endpoints.is_empty())).await;
        } else {
            drop(channel);
        }
        // Only then does the server have no stream to wait for.
        server.shutdown.send(()).unwrap();
        tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_serves_no_health_service_is_healthy_and_not_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = {
        let asked = Arc::clone(&asked);
        Server::start(handler(move |request, _| {
            let watch = request.uri().path().ends_with("/Watch");
            asked.fetch_add(usize::from(watch), Ordering::Relaxed);
            async move { if watch { answers::in_headers(Code::Unimplemented) } else { answers::ok() } }
        }))
        .await
    };
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).health_check("greeter").build();
    ready(&channel, 1).await;
    for _ in 0..10 {
        check(&channel).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// Each connection of each client would ask anew.
#[tokio::test]
async fn a_config_that_does_not_speak_of_health_leaves_the_watch_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = {
        let asked = Arc::clone(&asked);
        Server::start(handler(move |request, _| {
            let watch = request.uri().path().ends_with("/Watch");
            asked.fetch_add(usize::from(watch), Ordering::Relaxed);
            async move { if watch { once(signal()) } else { answers::ok() } }
        }))
        .await
    };
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).health_check("greeter").build();
    ready(&channel, 1).await;
    for timeout in ["1s", "2s", "3s"] {
        let config = format!(r#"{{"methodConfig": [{{"name": [{{}}], "timeout": "{timeout}"}}]}}"#);
        channel.set_service_config(Some(config.parse().unwrap()));
        check(&channel).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // One that does is heard.
    channel.set_service_config(Some(r#"{"healthCheckConfig": {"serviceName": "other"}}"#.parse().unwrap()));
    server.called(5).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// Which would be the watch of its health, and no other.
#[tokio::test]
async fn a_server_that_takes_one_call_at_a_time_is_asked_and_not_watched() {
    let (listener, endpoint) = listen().await;
    let (_fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let channel = builder(subscription).health_check("greeter").build();
    let mut wire = Wire::accept_set(&listener, (MAX_CONCURRENT_STREAMS, 1)).await;
    let watch = wire.next(HEADERS).await.stream;
    wire.send(HEADERS, END_HEADERS, watch, OK).await;
    wire.send(DATA, 0, watch, &[0, 0, 0, 0, 2, 8, 1]).await;
    ready(&channel, 1).await;
    assert_eq!(wire.next(RST_STREAM).await.stream, watch);
    let (answer, ()) = tokio::join!(check(&channel), async {
        let stream = wire.next(HEADERS).await.stream;
        wire.send(HEADERS, END_HEADERS | END_STREAM, stream, UNIMPLEMENTED).await;
    });
    assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    // After a while it is asked again, and may say something else.
    let again = wire.next(HEADERS).await.stream;
    wire.send(HEADERS, END_HEADERS, again, OK).await;
    wire.send(DATA, 0, again, &[0, 0, 0, 0, 2, 8, 2]).await;
    unhealthy(&channel, 1).await;
}

/// Until then nobody knows whether it serves.
#[tokio::test]
async fn the_watch_of_a_server_that_takes_no_calls_yet_waits_for_its_turn() {
    let (listener, endpoint) = listen().await;
    let (_fleet, subscription) = Fleet::with([instance(0, endpoint)]);
    let channel = builder(subscription).health_check("greeter").build();
    let mut wire = Wire::accept_set(&listener, (MAX_CONCURRENT_STREAMS, 0)).await;
    wire.is_quiet().await;
    assert_eq!(channel.stats().ready(), 0);
    wire.set((MAX_CONCURRENT_STREAMS, 2)).await;
    let stream = wire.next(HEADERS).await.stream;
    wire.send(HEADERS, END_HEADERS, stream, OK).await;
    wire.send(DATA, 0, stream, &[0, 0, 0, 0, 2, 8, 1]).await;
    ready(&channel, 1).await;
}

#[tokio::test]
async fn while_its_stream_is_broken_an_endpoint_gets_no_calls() {
    let (asked, end, again) = (Arc::new(AtomicUsize::new(0)), signal(), signal());
    let server = {
        let (end, again) = (Arc::clone(&end), Arc::clone(&again));
        Server::start(handler(move |request, _| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            let (end, again) = (Arc::clone(&end), Arc::clone(&again));
            let watch = request.uri().path().ends_with("/Watch");
            async move {
                match (watch, first) {
                    (false, _) => answers::ok(),
                    // Serving, until it breaks.
                    (true, true) => once(end),
                    (true, false) => {
                        again.notified().await;
                        once(signal())
                    }
                }
            }
        }))
        .await
    };
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).health_check("greeter").build();
    ready(&channel, 1).await;
    end.notify_one();
    unhealthy(&channel, 1).await;
    let error = check(&channel).await.unwrap_err();
    assert!(error.message().contains("its health cannot be watched"), "{error}");
    again.notify_one();
    ready(&channel, 1).await;
    check(&channel).await.unwrap();
}

/// `SERVING`, and the end of the stream when it is asked for.
fn once(end: Arc<tokio::sync::Notify>) -> http::Response<Body> {
    use futures::{FutureExt, StreamExt, stream};
    let late = async move {
        end.notified().await;
        answers::trailers(Code::Unavailable)
    };
    answers::streamed(stream::iter([answers::message()]).chain(late.into_stream()))
}
