//! Instances that drain, leave and move: calls under way finish, new ones go elsewhere.

use crate::support::answers::{self, handler};
use crate::support::{Fleet, Server, builder, check, instance, ready, served_by, signal, within};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost_channel::{Channel, EndpointStatus};
use waypost_model::Status;

/// Answers unary calls at once, and a `Watch` with two messages, the second when it is told to.
async fn streaming() -> (Server, Arc<tokio::sync::Notify>) {
    let more = signal();
    let notify = Arc::clone(&more);
    let server = Server::start(handler(move |request, _| {
        let more = Arc::clone(&notify);
        async move {
            let stream = request.uri().path().ends_with("/Watch");
            if stream { answers::two_messages(more) } else { answers::ok() }
        }
    }))
    .await;
    (server, more)
}

/// A stream of which one message has arrived.
async fn watch(channel: &Channel) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let request = HealthCheckRequest::default();
    let mut stream = within(HealthClient::new(channel.clone()).watch(request)).await.unwrap().into_inner();
    assert!(within(stream.message()).await.unwrap().is_some());
    stream
}

#[tokio::test]
async fn a_stream_on_a_draining_instance_finishes_while_new_calls_go_elsewhere() {
    for gone in [false, true] {
        let (old, more) = streaming().await;
        let (fleet, subscription) = Fleet::of(&[&old]);
        let channel = builder(subscription).build();
        ready(&channel, 1).await;
        let mut stream = watch(&channel).await;

        let new = Server::healthy().await;
        fleet.put(instance(1, new.endpoint()));
        ready(&channel, 2).await;
        if gone {
            fleet.remove(0);
        } else {
            fleet.put(instance(0, old.endpoint()).with_status(Status::Draining));
        }
        let stats = within(channel.wait_for(|stats| stats.ready() == 1)).await;
        let leaving: Vec<_> =
            stats.endpoints.iter().filter(|endpoint| endpoint.state == EndpointStatus::Leaving).collect();
        assert_eq!((leaving.len(), leaving[0].in_flight), (1, 1));
        for _ in 0..20 {
            assert_eq!(served_by(&check(&channel).await.unwrap()), 1);
        }

        more.notify_one();
        assert!(within(stream.message()).await.unwrap().is_some());
        assert!(within(stream.message()).await.unwrap().is_none());
        assert_eq!(channel.stats().in_flight(), 0);
        // The connection closes by itself: the server sees it go.
        old.leave();
        within(old.left()).await;
    }
}

#[tokio::test]
async fn a_stream_that_outlives_the_drain_timeout_is_ended() {
    let (old, _more) = streaming().await;
    let (fleet, subscription) = Fleet::of(&[&old]);
    let channel = builder(subscription).drain_timeout(Duration::from_millis(20)).build();
    ready(&channel, 1).await;
    let mut stream = watch(&channel).await;
    fleet.remove(0);
    let error = within(stream.message()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in ["greeter", &old.address.to_string()] {
        assert!(error.message().contains(part), "{error}");
    }
}

/// It takes leave first, as servers do that are about to end.
#[tokio::test]
async fn a_stream_that_outlives_the_drain_timeout_is_ended_also_where_a_goaway_came_before_the_instance_left()
{
    let (old, _more) = streaming().await;
    let (fleet, subscription) = Fleet::of(&[&old]);
    let channel = builder(subscription).drain_timeout(Duration::from_millis(20)).build();
    ready(&channel, 1).await;
    let mut stream = watch(&channel).await;
    old.leave();
    ready(&channel, 0).await;
    fleet.remove(0);
    let error = within(stream.message()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn an_instance_that_moves_is_connected_to_before_its_old_connection_is_dropped() {
    let (old, new) = (Server::healthy().await, Server::healthy().await);
    let (fleet, subscription) = Fleet::of(&[&old]);
    let channel = builder(subscription).build();
    check(&channel).await.unwrap();

    // It says that it has moved to where nothing listens yet: the old address goes on serving.
    new.kill().await;
    let mut new = new;
    fleet.put(instance(0, new.endpoint()));
    within(channel.wait_for(|stats| {
        stats.endpoints.iter().any(|at| at.endpoint == new.endpoint() && at.last_error.is_some())
    }))
    .await;
    for _ in 0..10 {
        assert_eq!(crate::support::info(&check(&channel).await.unwrap()).endpoint(), &old.endpoint());
    }
    new.restart().await;
    within(channel.wait_for(|stats| stats.endpoints.iter().all(|at| at.endpoint == new.endpoint()))).await;
    for _ in 0..10 {
        assert_eq!(crate::support::info(&check(&channel).await.unwrap()).endpoint(), &new.endpoint());
    }
    assert_eq!(old.connections(), 1);
}

#[tokio::test]
async fn connections_close_with_the_last_clone_of_the_channel_once_their_calls_have_ended() {
    let (server, more) = streaming().await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let mut stream = watch(&channel).await;
    drop(channel);
    more.notify_one();
    assert!(within(stream.message()).await.unwrap().is_some());
    assert!(within(stream.message()).await.unwrap().is_none());
    server.leave();
    within(server.left()).await;
}
