//! What a service config changes: retries, hedging, timeouts, and configs that come while calls are made.

use crate::support::answers::{self, handler};
use crate::support::{
    Fleet, PATIENCE, Server, builder, check, check_idempotent, check_with, info, ready, refused, served_by,
    signal, within,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;
use waypost_channel::{Channel, ServiceConfig};

fn method(rest: &str) -> ServiceConfig {
    let name = r#"{"service": "grpc.health.v1.Health", "method": "Check"}"#;
    format!(r#"{{"methodConfig": [{{"name": [{name}], {rest}}}]}}"#).parse().unwrap()
}

fn retrying(attempts: u32, codes: &str, backoff: &str) -> ServiceConfig {
    method(&format!(
        r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "{backoff}", "maxBackoff": "{backoff}",
            "backoffMultiplier": 1, "retryableStatusCodes": [{codes}]}}"#
    ))
}

fn hedging(attempts: u32, delay: &str, codes: &str) -> ServiceConfig {
    method(&format!(
        r#""hedgingPolicy": {{"maxAttempts": {attempts}, "hedgingDelay": "{delay}", "nonFatalStatusCodes": [{codes}]}}"#
    ))
}

async fn answering(code: Code) -> Server {
    Server::start(handler(move |_, _| async move { answers::in_headers(code) })).await
}

async fn channel_to(servers: &[&Server], config: ServiceConfig) -> (Fleet, Channel) {
    let (fleet, subscription) = Fleet::of(servers);
    let channel = builder(subscription).service_config(config).build();
    ready(&channel, servers.len()).await;
    (fleet, channel)
}

#[tokio::test]
async fn a_method_is_retried_by_its_own_policy_and_the_server_is_told() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = {
        let seen = Arc::clone(&seen);
        Server::start(handler(move |request, _| {
            let before = request.headers().get("grpc-previous-rpc-attempts").cloned();
            seen.lock().unwrap().push(before.map(|value| value.to_str().unwrap().to_owned()));
            async { answers::in_headers(Code::Aborted) }
        }))
        .await
    };
    let (_fleet, channel) = channel_to(&[&server], retrying(4, r#""ABORTED""#, "0.001s")).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Aborted);
    let tried = [None, Some("1"), Some("2"), Some("3")].map(|text| text.map(str::to_owned));
    assert_eq!(*seen.lock().unwrap(), tried);

    channel.set_service_config(retrying(4, r#""UNAVAILABLE""#, "0.001s"));
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(server.calls(), 5, "another code is not tried again");
    channel.set_service_config(None);
    assert!(channel.service_config().method("/grpc.health.v1.Health/Check").is_some(), "as it was built");
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint() {
    let (bad, good) = (answering(Code::Unavailable).await, Server::healthy().await);
    let (_fleet, channel) = channel_to(&[&bad, &good], retrying(2, r#""UNAVAILABLE""#, "0.001s")).await;
    let mut attempts = BTreeSet::new();
    for _ in 0..4 {
        let response = check(&channel).await.unwrap();
        assert_eq!(served_by(&response), 1);
        attempts.insert(info(&response).attempts());
    }
    assert_eq!(attempts, BTreeSet::from([1, 2]));
}

#[tokio::test]
async fn a_server_may_name_the_wait_or_forbid_the_retry() {
    let waiting =
        Server::start(handler(|_, _| async { answers::pushing_back(Code::Unavailable, "1") })).await;
    let (_fleet, channel) = channel_to(&[&waiting], retrying(3, r#""UNAVAILABLE""#, "3600s")).await;
    check(&channel).await.unwrap_err();
    assert_eq!(waiting.calls(), 3, "without the pushback it would wait for an hour");

    let forbidding =
        Server::start(handler(|_, _| async { answers::pushing_back(Code::Unavailable, "-1") })).await;
    let (_fleet, channel) = channel_to(&[&forbidding], retrying(3, r#""UNAVAILABLE""#, "0.001s")).await;
    check(&channel).await.unwrap_err();
    check_idempotent(&channel).await.unwrap_err();
    assert_eq!(forbidding.calls(), 2);
}

#[tokio::test]
async fn a_call_is_committed_once_headers_have_come_unless_it_is_marked() {
    let server = Server::start(handler(|_, _| async { answers::in_trailers(Code::Unavailable) })).await;
    let (_fleet, channel) = channel_to(&[&server], retrying(3, r#""UNAVAILABLE""#, "0.001s")).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.calls(), 1);
    assert_eq!(check_idempotent(&channel).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.calls(), 1 + 3);
}

#[tokio::test]
async fn throttling_stops_retries_and_a_new_config_with_the_same_throttling_keeps_the_bucket() {
    let server = answering(Code::Unavailable).await;
    let (_fleet, subscription) = Fleet::of(&[&server]);
    let document = |attempts: u32| {
        format!(
            r#"{{"methodConfig": [{{"name": [{{}}], "retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "0.001s",
                "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}}}],
                "retryThrottling": {{"maxTokens": 10, "tokenRatio": 0.1}}}}"#
        )
        .parse::<ServiceConfig>()
        .unwrap()
    };
    let channel = builder(subscription).service_config(document(2)).build();
    ready(&channel, 1).await;
    for _ in 0..10 {
        check(&channel).await.unwrap_err();
    }
    // Of the first calls each costs two tokens: 9, 8 | 7, 6 | 5: the third is not tried again, nor is any after it.
    assert_eq!(server.calls(), 10 + 2);
    channel.set_service_config(document(3));
    check(&channel).await.unwrap_err();
    assert_eq!(server.calls(), 10 + 2 + 1);
}

#[tokio::test]
async fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    let server = answering(Code::Unavailable).await;
    let (_fleet, channel) = channel_to(&[&server], retrying(3, r#""UNAVAILABLE""#, "3600s")).await;
    let error = check_with(&channel, |request| request.set_timeout(PATIENCE * 2)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "the caller learns what has failed");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_methods_timeout_goes_out_with_the_call_and_ends_it() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Server::start(handler(move |request, _| {
        sender.send(request.headers()["grpc-timeout"].to_str().unwrap().to_owned()).unwrap();
        answers::never(signal())
    }))
    .await;
    let (_fleet, channel) = channel_to(&[&server], method(r#""timeout": "0.2s""#)).await;
    let error = check(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let told = receiver.recv().unwrap();
    let micros: u64 = told.strip_suffix('u').unwrap_or("0").parse().unwrap();
    let nanos: u64 = told.strip_suffix('n').unwrap_or("0").parse().unwrap();
    assert!((1..=200_000).contains(&(micros + nanos / 1000)), "{told}");
}

#[tokio::test]
async fn a_method_may_wait_for_ready() {
    let (fleet, subscription) = Fleet::of(&[]);
    fleet.put(crate::support::instance(0, refused()));
    let channel = builder(subscription).service_config(method(r#""waitForReady": true"#)).build();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check(&channel).await }
    });
    within(channel.wait_for(|stats| stats.endpoints.iter().any(|endpoint| endpoint.last_error.is_some())))
        .await;
    let server = Server::healthy().await;
    fleet.put(crate::support::instance(1, server.endpoint()));
    assert_eq!(served_by(&within(call).await.unwrap().unwrap()), 1);
}

#[tokio::test]
async fn a_hedge_answers_for_an_endpoint_that_does_not_and_the_loser_is_cancelled() {
    let cancelled = signal();
    let slow = {
        let cancelled = Arc::clone(&cancelled);
        Server::start(handler(move |_, _| answers::never(Arc::clone(&cancelled)))).await
    };
    let quick = Server::healthy().await;
    let (_fleet, channel) = channel_to(&[&slow, &quick], hedging(2, "0.001s", "")).await;
    while slow.calls() == 0 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 1);
    }
    within(cancelled.notified()).await;
    let stats = within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
    assert!(stats.endpoints.iter().all(|endpoint| endpoint.failures == 0), "{stats:?}");
}

#[tokio::test]
async fn all_hedges_go_to_different_endpoints_and_no_more_than_asked_for() {
    let cancelled = signal();
    let mut servers = Vec::new();
    for _ in 0..4 {
        let cancelled = Arc::clone(&cancelled);
        servers.push(Server::start(handler(move |_, _| answers::never(Arc::clone(&cancelled)))).await);
    }
    let (_fleet, channel) =
        channel_to(&servers.iter().collect::<Vec<_>>(), hedging(3, "0s", r#""UNAVAILABLE""#)).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { check_with(&channel, |request| request.set_timeout(Duration::from_millis(500))).await }
    });
    assert_eq!(within(call).await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    let mut calls: Vec<_> = servers.iter().map(Server::calls).collect();
    calls.sort_unstable();
    assert_eq!(calls, [0, 1, 1, 1]);
}

#[tokio::test]
async fn after_a_failure_that_is_not_fatal_the_next_hedge_comes_at_once() {
    let (bad, good) = (answering(Code::Unavailable).await, Server::healthy().await);
    let (_fleet, channel) = channel_to(&[&bad, &good], hedging(2, "3600s", r#""UNAVAILABLE""#)).await;
    while bad.calls() < 2 {
        assert_eq!(served_by(&check(&channel).await.unwrap()), 1);
    }
    // Fatal: the caller is told, and nothing else is sent.
    channel.set_service_config(hedging(2, "3600s", ""));
    let before = bad.calls() + good.calls();
    while check(&channel).await.is_ok() {}
    let after = bad.calls() + good.calls();
    assert!(after - before <= 2, "{before} {after}");
}

#[tokio::test]
async fn a_server_may_forbid_further_hedges_and_the_last_failure_is_told() {
    let servers = [
        Server::start(handler(|_, _| async { answers::pushing_back(Code::Unavailable, "-1") })).await,
        Server::start(handler(|_, _| async { answers::pushing_back(Code::Unavailable, "-1") })).await,
    ];
    let (_fleet, channel) =
        channel_to(&[&servers[0], &servers[1]], hedging(2, "3600s", r#""UNAVAILABLE""#)).await;
    assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(servers[0].calls() + servers[1].calls(), 1);
}

#[tokio::test]
async fn throttled_calls_are_not_hedged() {
    let servers = [answering(Code::Unavailable).await, answering(Code::Unavailable).await];
    let config = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "3600s",
        "nonFatalStatusCodes": ["UNAVAILABLE"]}}], "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.1}}"#;
    let (_fleet, channel) = channel_to(&[&servers[0], &servers[1]], config.parse().unwrap()).await;
    for _ in 0..5 {
        assert_eq!(check(&channel).await.unwrap_err().code(), Code::Unavailable);
    }
    // 3, then a hedge, 2: from there on none.
    assert_eq!(servers[0].calls() + servers[1].calls(), 5 + 1);
}

#[tokio::test]
async fn configs_come_while_calls_are_made_and_a_bad_one_changes_nothing() {
    let servers = [Server::healthy().await, Server::healthy().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let (documents, stream) = futures::channel::mpsc::unbounded();
    let channel = builder(subscription).service_config_updates(stream).build();
    ready(&channel, 2).await;
    let caller = {
        let channel = channel.clone();
        tokio::spawn(async move {
            let mut calls = 0_u32;
            while channel.policy().name() != "maglev" {
                check(&channel).await?;
                calls += 1;
            }
            Ok::<_, tonic::Status>(calls)
        })
    };
    let until = async |done: &dyn Fn(&Channel) -> bool| {
        within(async {
            while !done(&channel) {
                check(&channel).await.unwrap();
            }
        })
        .await;
    };
    assert_eq!(channel.policy().name(), "round_robin");
    documents
        .unbounded_send(Some(
            r#"{"loadBalancingConfig": [{"least_request_experimental": {}}],
            "methodConfig": [{"name": [{}], "timeout": "50s"}]}"#
                .to_owned(),
        ))
        .unwrap();
    until(&|channel| channel.policy().name() == "least_request").await;
    documents.unbounded_send(Some(r#"{"methodConfig": [{"timeout": 5}]}"#.to_owned())).unwrap();
    until(&|channel| channel.service_config_error().is_some()).await;
    let error = channel.service_config_error().unwrap();
    assert_eq!(error.path, "methodConfig[0].timeout");
    assert_eq!(channel.policy().name(), "least_request");
    let timeout = channel.service_config().method("/a/b").unwrap().timeout;
    assert_eq!(timeout, Some(Duration::from_secs(50)));
    documents.unbounded_send(None).unwrap();
    until(&|channel| channel.policy().name() == "round_robin").await;
    assert_eq!(channel.service_config_error(), None);
    documents.unbounded_send(Some(r#"{"loadBalancingConfig": [{"maglev": {}}]}"#.to_owned())).unwrap();
    within(caller).await.unwrap().unwrap();
    drop(channel);
    // The stream is dropped with the channel.
    within(async {
        while !documents.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
