//! What is tried again, what is not, and what it costs.

use crate::support::answers::{self, handler};
use crate::support::{
    Fleet, Server, builder, check, check_idempotent, check_with, info, instance, ready, served_by, within,
};
use std::collections::BTreeSet;
use tonic::Code;
use waypost_channel::RetryPolicy;

async fn answering(code: Code, in_trailers: bool) -> Server {
    Server::start(handler(move |_, _| async move {
        if in_trailers { answers::in_trailers(code) } else { answers::in_headers(code) }
    }))
    .await
}

/// A server that dies with the first request, before or after it has sent headers and a message.
async fn mortal(after_headers: bool) -> Server {
    Server::start(handler(move |_, kill| async move {
        if after_headers { answers::dies_before_trailers(kill) } else { answers::dies(kill).await }
    }))
    .await
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_an_idempotent_call_costs_nothing() {
    for after_headers in [false, true] {
        let (first, second) = (mortal(after_headers).await, Server::healthy().await);
        let (fleet, subscription) = Fleet::of(&[&first]);
        let channel = builder(subscription).build();
        ready(&channel, 1).await;
        fleet.put(instance(1, second.endpoint()));
        ready(&channel, 2).await;
        while first.calls() == 0 {
            assert_eq!(served_by(&check_idempotent(&channel).await.unwrap()), 1);
        }
        assert_eq!(first.calls(), 1);
    }
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_is_not_sent_twice() {
    for after_headers in [false, true] {
        let servers = [mortal(after_headers).await, mortal(after_headers).await];
        let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
        let channel = builder(subscription).build();
        ready(&channel, 2).await;
        let error = check(&channel).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert_eq!(servers[0].calls() + servers[1].calls(), 1);
        // Which service, which instance, which address, which attempt, and why.
        for part in ["greeter", "at grpc://127.0.0.1:", "attempt 1", "connection lost"] {
            assert!(error.message().contains(part), "{part:?} is not in {error}");
        }
    }
}

#[tokio::test]
async fn unavailable_is_tried_again_elsewhere_if_the_call_is_idempotent() {
    for in_trailers in [false, true] {
        let (bad, good) = (answering(Code::Unavailable, in_trailers).await, Server::healthy().await);
        let (_fleet, subscription) = Fleet::of(&[&bad, &good]);
        let channel = builder(subscription).build();
        ready(&channel, 2).await;
        let mut attempts = BTreeSet::new();
        for _ in 0..4 {
            let response = check_idempotent(&channel).await.unwrap();
            assert_eq!(served_by(&response), 1);
            attempts.insert(info(&response).attempts());
        }
        assert_eq!(attempts, BTreeSet::from([1, 2]));
        let bad_first = check(&channel).await.is_err() || check(&channel).await.is_err();
        assert!(bad_first, "without the mark the caller is told");
    }
}

#[tokio::test]
async fn each_attempt_goes_to_another_endpoint_and_there_are_at_most_three() {
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(answering(Code::Unavailable, false).await);
    }
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let channel = builder(subscription).all_idempotent().build();
    ready(&channel, 5).await;
    for round in 1..=4 {
        let before: Vec<_> = servers.iter().map(Server::calls).collect();
        let error = check(&channel).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let asked: Vec<_> =
            servers.iter().zip(before).map(|(server, before)| server.calls() - before).collect();
        assert_eq!(asked.iter().sum::<usize>(), 3, "round {round}: {asked:?}");
        assert_eq!(asked.iter().max(), Some(&1), "round {round}: {asked:?}");
    }
}

#[tokio::test]
async fn the_server_is_told_how_often_the_call_was_tried_before() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Server::start(handler(move |request, _| {
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        sender.send((header("user-agent"), header("grpc-previous-rpc-attempts"))).unwrap();
        async { answers::in_headers(Code::Unavailable) }
    }))
    .await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).all_idempotent().build();
    check(&channel).await.unwrap_err();
    let (agents, attempts): (Vec<_>, Vec<_>) = receiver.try_iter().unzip();
    assert_eq!(attempts, [None, Some("1".to_owned()), Some("2".to_owned())]);
    assert!(agents.into_iter().all(|agent| agent.unwrap().starts_with("waypost/")));
}

#[tokio::test]
async fn with_one_endpoint_a_retry_goes_there_again() {
    let server = answering(Code::Unavailable, true).await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).all_idempotent().build();
    ready(&channel, 1).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn other_statuses_are_not_tried_again() {
    for code in [Code::NotFound, Code::Internal, Code::ResourceExhausted, Code::DeadlineExceeded] {
        for in_trailers in [false, true] {
            let server = answering(code, in_trailers).await;
            let (_fleet, subscription) = Fleet::of(&[&server]);
            let channel = builder(subscription).all_idempotent().build();
            ready(&channel, 1).await;
            assert_eq!(check(&channel).await.unwrap_err().code(), code);
            assert_eq!(server.calls(), 1);
        }
    }
}

#[tokio::test]
async fn an_exhausted_budget_stops_retries() {
    let servers = [answering(Code::Unavailable, false).await, answering(Code::Unavailable, true).await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    // Ten tokens: the fifth failure leaves five, which is half.
    let policy = RetryPolicy::default().with_max_attempts(2).with_budget(10, 0.1, 0);
    let channel = builder(subscription).all_idempotent().retry(policy).build();
    ready(&channel, 2).await;
    for _ in 0..20 {
        assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    }
    // Of the first calls each costs two tokens: 9, 8 | 7, 6 | 5.
    assert_eq!(servers[0].calls() + servers[1].calls(), 20 + 2);
}

#[tokio::test]
async fn retries_can_be_off_and_calls_that_were_not_processed_still_move_on() {
    let bad = answering(Code::Unavailable, false).await;
    let (_fleet, subscription) = Fleet::of(&[&bad]);
    let channel = builder(subscription).all_idempotent().retry(RetryPolicy::off()).build();
    ready(&channel, 1).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(bad.calls(), 1);
}

/// GOAWAY while calls are on their way, again and again: what the server has not taken goes elsewhere, idempotent or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_a_leaving_server_refuses_are_made_elsewhere() {
    let stable = Server::healthy().await;
    let mut rolling = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&stable, &rolling]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (channel, stop) = (channel.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    check(&channel).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    for round in 1..=10 {
        rolling.called(round * 10).await;
        rolling.leave();
        within(rolling.left()).await;
        rolling.restart().await;
        ready(&channel, 2).await;
    }
    stop.cancel();
    for caller in callers {
        within(caller).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_response_larger_than_the_limit_is_passed_on_as_it_comes() {
    let (server, more) = {
        let more = crate::support::signal();
        let notify = more.clone();
        let server = Server::start(handler(move |_, _| {
            let more = notify.clone();
            async move { answers::two_messages(more) }
        }))
        .await;
        (server, more)
    };
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let policy = RetryPolicy::default().with_limits(1 << 20, 3);
    let channel = builder(subscription).all_idempotent().retry(policy).build();
    ready(&channel, 1).await;
    let request = tonic_health::pb::HealthCheckRequest::default();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    // Were it held back to its end, this would never arrive.
    let mut stream = within(client.watch(request)).await.unwrap().into_inner();
    assert!(within(stream.message()).await.unwrap().is_some());
    more.notify_one();
    assert!(within(stream.message()).await.unwrap().is_some());
    assert!(within(stream.message()).await.unwrap().is_none());
}

/// Under a policy for `UNAVAILABLE`, with so long between attempts.
fn retrying(attempts: u32, backoff: &str) -> waypost_channel::ServiceConfig {
    let config = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], "retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "{backoff}",
            "maxBackoff": "{backoff}", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}}}]}}"#
    );
    config.parse().unwrap()
}

/// As in grpc-go: a server that is away for a moment is what a policy is for.
#[tokio::test]
async fn a_policy_goes_on_where_nothing_is_ready() {
    let (fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).service_config(retrying(5, ".3s")).build();
    within(channel.ready()).await.unwrap_err();
    let server = Server::healthy().await;
    let (answer, ()) = tokio::join!(biased; check(&channel), async {
        // The call is polled first, and has found nothing by now.
        fleet.put(instance(0, server.endpoint()));
    });
    assert!(info(&answer.unwrap()).attempts() > 1);
    assert!(channel.call_stats().retries > 0);
}

#[tokio::test]
async fn without_a_policy_nobody_waits_for_what_is_not_there() {
    let (_fleet, subscription) = Fleet::of(&[]);
    let channel = builder(subscription).all_idempotent().build();
    let error = check(&channel).await.unwrap_err();
    assert_eq!((error.code(), channel.call_stats().retries), (Code::Unavailable, 0));
}

/// Not of a fleet that is not ready, which follows from it.
#[tokio::test]
async fn when_a_server_is_lost_for_good_its_loss_is_what_the_caller_learns() {
    let server = mortal(false).await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).service_config(retrying(4, "0.001s")).build();
    ready(&channel, 1).await;
    let error = check(&channel).await.unwrap_err();
    for part in ["greeter", "attempt 1", "connection lost"] {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let server = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    for _ in 0..10 {
        let late = check_with(&channel, |request| request.set_timeout(std::time::Duration::ZERO));
        let error = late.await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.message().contains("greeter /grpc.health.v1.Health/Check"), "{error}");
    }
    // The endpoint, which knows nothing of it, is not blamed.
    let [endpoint] = &channel.stats().endpoints[..] else { panic!("one endpoint") };
    assert_eq!((endpoint.failures, endpoint.picks, server.calls()), (0, 0, 0));
    check(&channel).await.unwrap();
}

/// A server that is cut off in the middle, by a proxy that does not know trailers.
#[tokio::test]
async fn a_response_that_ends_without_a_status_is_a_failure_of_the_endpoint() {
    for all_idempotent in [false, true] {
        let server = Server::start(handler(|_, _| async { answers::response([answers::message()]) })).await;
        let (_fleet, subscription) = Fleet::of(&[&server]);
        let builder = builder(subscription);
        let channel = if all_idempotent { builder.all_idempotent() } else { builder }.build();
        ready(&channel, 1).await;
        check(&channel).await.unwrap_err();
        let stats = within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
        assert_eq!(stats.endpoints[0].failures, 1, "held back: {all_idempotent}");
    }
}
