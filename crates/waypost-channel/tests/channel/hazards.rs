//! H40 to H45, each in its own words.

use crate::support::{
    Fleet, Server, builder, check, check_with, instance, ready, refused, served_by, within,
};
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tower::{Service, ServiceExt};
use waypost_channel::{Policy, WaitForReady};

#[tokio::test]
async fn h40_one_of_two_is_dead_and_still_registered() {
    let alive = Server::healthy().await;
    let (fleet, subscription) = Fleet::of(&[&alive]);
    fleet.put(instance(1, refused()));
    let channel = builder(subscription).build();
    for _ in 0..200 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 0);
    }
}

#[tokio::test]
async fn h40_one_of_ten_is_dead_and_still_registered() {
    let mut servers = Vec::new();
    for _ in 0..9 {
        servers.push(Server::healthy().await);
    }
    let (fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    fleet.put(instance(9, refused()));
    let channel = builder(subscription).policy(Policy::least_request()).build();
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        seen.insert(served_by(&check(&channel).await.unwrap()));
    }
    assert_eq!(seen, (0..9).collect());
}

/// Killed between calls, in the midst of traffic that never stops: calls that have not started are not lost, and those under
/// way may be repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h40_one_of_ten_is_killed_under_load() {
    let mut servers = Vec::new();
    for _ in 0..10 {
        servers.push(Server::healthy().await);
    }
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let channel = builder(subscription).all_idempotent().build();
    ready(&channel, 10).await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    check(&channel).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    servers[3].called(20).await;
    servers[3].kill().await;
    for caller in callers {
        within(caller).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn h40_a_connection_that_has_closed_takes_no_call_even_if_none_is_idempotent() {
    let servers = [Server::healthy().await, Server::healthy().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    servers[0].kill().await;
    for _ in 0..100 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 1);
    }
}

#[tokio::test]
async fn h41_an_empty_set_fails_at_once_and_says_why() {
    let (fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).build();
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for part in
        ["greeter", "no instance is registered", "0 ready", "layout grpc", "prefix services/", "revision 1"]
    {
        assert!(error.message().contains(part), "{part:?} is not in {:?}", error.message());
    }
    assert!(channel.ready().await.unwrap_err().to_string().contains("no instance is registered"));

    let server = Server::healthy().await;
    fleet.put(instance(0, server.endpoint()));
    ready(&channel, 1).await;
    check(&channel).await.unwrap();
    fleet.remove(0);
    within(channel.wait_for(|stats| stats.registered == 0)).await;
    let error = check(&channel).await.unwrap_err();
    assert!(error.message().contains("no instance is registered any more"), "{}", error.message());
}

/// What the caller knows to be published is taken into account, though the channel's task has not run since.
#[tokio::test]
async fn h41_an_instance_that_was_just_published_is_called() {
    let (fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).build();
    check(&channel).await.unwrap_err();
    let server = Server::healthy().await;
    fleet.put(instance(3, server.endpoint()));
    assert_eq!(served_by(&within(check(&channel)).await.unwrap()), 3);
}

#[tokio::test]
async fn h41_a_call_that_waits_for_ready_gets_the_first_instance_that_joins() {
    let (fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).wait_for_ready(true).build();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    let server = Server::healthy().await;
    fleet.put(instance(7, server.endpoint()));
    assert_eq!(served_by(&within(call).await.unwrap().unwrap()), 7);
}

#[tokio::test(start_paused = true)]
async fn h41_waiting_for_ready_ends_at_the_deadline_with_the_reason() {
    let (_fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).build();
    let error = check_with(&channel, |request| {
        request.set_timeout(std::time::Duration::from_secs(3));
        request.extensions_mut().insert(WaitForReady(true));
    })
    .await
    .unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("no instance is registered"), "{}", error.message());
}

/// The channel picks in `call` and reserves nothing in `poll_ready`, so there is no endpoint to be replaced in between: a call
/// goes to an endpoint that is ready when it is made, and to the one that it says.
#[tokio::test]
async fn h42_an_endpoint_that_is_replaced_after_ready_is_not_called() {
    let (old, new) = (Server::healthy().await, Server::healthy().await);
    let (fleet, subscription) = Fleet::of(&[&old]);
    let mut channel = builder(subscription).build();
    ready(&channel, 1).await;

    ServiceExt::<http::Request<tonic::body::Body>>::ready(&mut channel).await.unwrap();
    fleet.change([instance(1, new.endpoint())], [0]);
    within(channel.wait_for(|stats| stats.endpoints[0].endpoint == new.endpoint() && stats.ready() == 1))
        .await;

    let request =
        http::Request::post("/grpc.health.v1.Health/Check").body(tonic::body::Body::empty()).unwrap();
    let response = within(channel.call(request)).await.unwrap();
    let info = response.extensions().get::<waypost_channel::EndpointInfo>().unwrap();
    assert_eq!(info.endpoint(), &new.endpoint());
    assert_eq!((old.calls(), new.calls()), (0, 1));
}

#[tokio::test]
async fn h43_endpoints_that_join_while_idle_are_ready_before_the_next_call() {
    let servers = [Server::healthy().await, Server::healthy().await, Server::healthy().await];
    let (fleet, subscription) = Fleet::of(&[&servers[0]]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    fleet.put(instance(1, servers[1].endpoint()));
    fleet.put(instance(2, servers[2].endpoint()));
    // No call is made until all three are connected.
    ready(&channel, 3).await;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(served_by(&check(&channel).await.unwrap()));
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
}

#[tokio::test]
async fn h44_an_endpoint_that_was_lost_is_connected_to_again() {
    let mut server = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    check(&channel).await.unwrap();
    server.kill().await;
    within(channel.wait_for(|stats| stats.endpoints[0].last_error.is_some())).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    server.restart().await;
    ready(&channel, 1).await;
    check(&channel).await.unwrap();
}

/// A fleet of two is rolled, one after the other, each on its old address: draining, GOAWAY, and back.
#[tokio::test]
async fn h45_servers_restart_on_the_same_address_and_no_call_fails() {
    use waypost_model::Status;

    let mut servers = [Server::healthy().await, Server::healthy().await];
    let (fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    let stop = CancellationToken::new();
    let calls = tokio::spawn({
        let (channel, stop) = (channel.clone(), stop.clone());
        async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                check(&channel).await?;
                count += 1;
            }
            Ok::<_, tonic::Status>(count)
        }
    });
    for (id, server) in servers.iter_mut().enumerate() {
        fleet.put(instance(id, server.endpoint()).with_status(Status::Draining));
        ready(&channel, 1).await;
        server.leave();
        within(server.left()).await;
        server.restart().await;
        fleet.put(instance(id, server.endpoint()));
        ready(&channel, 2).await;
    }
    stop.cancel();
    assert!(within(calls).await.unwrap().unwrap() > 0);
}

/// As above, but the server says nothing in the registry before it goes away.
#[tokio::test]
async fn h45_a_server_that_only_says_goaway_loses_no_call() {
    let servers = [Server::healthy().await, Server::healthy().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    for turn in 0..100 {
        if turn == 20 {
            servers[0].leave();
        }
        check(&channel).await.unwrap();
    }
    within(servers[0].left()).await;
}
