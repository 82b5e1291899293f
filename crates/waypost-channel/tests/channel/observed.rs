//! What is said of a call: in errors and in statistics.

use crate::support::answers::{self, handler};
use crate::support::{Fleet, Server, builder, check, check_idempotent, check_with, ready, within};
use tonic::Code;
use waypost_channel::ChannelMetrics;

/// Dies with the first request.
async fn mortal() -> Server {
    Server::start(handler(|_, kill| async move { answers::dies(kill).await })).await
}

#[tokio::test]
async fn h49_an_error_names_service_endpoint_attempt_and_cause() {
    let servers = [mortal().await, mortal().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    let error = check(&channel).await.unwrap_err();
    let first = servers.iter().position(|server| server.calls() == 1).unwrap();
    let at = servers[first].endpoint().to_string();
    for part in ["greeter", &at, &format!("{first} at"), "attempt 1", "connection lost"] {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }

    // Of a call that was tried twice, the last attempt.
    let servers = [mortal().await, mortal().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let retry = waypost_channel::RetryPolicy::default().with_max_attempts(2);
    let channel = builder(subscription).retry(retry).build();
    ready(&channel, 2).await;
    let error = check_idempotent(&channel).await.unwrap_err();
    for part in ["greeter", "attempt 2", "connection lost"] {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }

    let silent = Server::start(handler(|_, _| answers::never(crate::support::signal()))).await;
    let (_fleet, subscription) = Fleet::of(&[&silent]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let late = check_with(&channel, |request| request.set_timeout(std::time::Duration::from_millis(100)));
    let error = late.await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    for part in ["greeter", &silent.endpoint().to_string(), "attempt 1", "before the deadline"] {
        assert!(error.message().contains(part), "{part:?} is not in {error}");
    }
}

fn scrape(registry: &prometheus_client::registry::Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// Prometheus takes one of two lines of the same name.
#[tokio::test]
async fn channels_to_one_service_are_added_up() {
    let server = Server::healthy().await;
    let metrics = ChannelMetrics::new();
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let fleets = [Fleet::of(&[&server]), Fleet::of(&[&server])];
    let channels =
        fleets.each_ref().map(|(_, subscription)| builder(subscription.clone()).metrics(&metrics).build());
    for channel in &channels {
        ready(channel, 1).await;
        check(channel).await.unwrap();
        within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
    }
    check(&channels[0]).await.unwrap();
    let text = scrape(&registry);
    let names: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), different.len(), "{text}");
    let at = server.endpoint();
    for line in [
        r#"waypost_channel_calls_total{service="greeter",code="OK"} 3"#,
        r#"waypost_channel_call_seconds_count{service="greeter"} 3"#,
        r#"waypost_channel_instances{service="greeter"} 1"#,
        &format!(r#"waypost_channel_picks_total{{service="greeter",endpoint="{at}"}} 3"#),
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
}

/// A proxy that has lost its servers, or asks for a login, is no gRPC server.
#[tokio::test]
async fn an_answer_of_a_proxy_is_told_as_that() {
    for (status, code) in [(503, Code::Unavailable), (401, Code::Unauthenticated), (418, Code::Unknown)] {
        let proxy = Server::start(handler(move |_, _| async move {
            let mut response = answers::response([http_body::Frame::data("<html>no</html>".into())]);
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response
        }))
        .await;
        let (_fleet, subscription) = Fleet::of(&[&proxy]);
        let channel = builder(subscription).build();
        ready(&channel, 1).await;
        let error = check(&channel).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        for part in ["greeter", "attempt 1", &format!("HTTP status {status}")] {
            assert!(error.message().contains(part), "{part:?} is not in {error}");
        }
        assert_eq!(channel.call_stats().codes, [(code, 1)]);
    }
}

#[tokio::test]
async fn failures_are_counted_by_code_for_each_endpoint_and_for_all_calls() {
    let (bad, good) = (
        Server::start(handler(|_, _| async { answers::in_headers(Code::Unavailable) })).await,
        Server::healthy().await,
    );
    let (_fleet, subscription) = Fleet::of(&[&bad, &good]);
    let metrics = ChannelMetrics::new();
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let channel = builder(subscription).metrics(&metrics).build();
    ready(&channel, 2).await;
    for _ in 0..4 {
        check_idempotent(&channel).await.unwrap();
    }
    let stats = within(channel.wait_for(|stats| stats.in_flight() == 0)).await;
    let of =
        |server: &Server| stats.endpoints.iter().find(|stats| stats.endpoint == server.endpoint()).unwrap();
    let refusals = bad.calls() as u64;
    assert_eq!(of(&bad).codes, [(Code::Unavailable, refusals)]);
    assert_eq!((of(&good).codes.as_slice(), of(&good).picks), (&[(Code::Ok, 4)][..], 4));
    assert_eq!(of(&good).latency.count(), 4);
    let calls = channel.call_stats();
    assert_eq!((calls.codes, calls.retries, calls.hedges), (vec![(Code::Ok, 4)], refusals, 0));
    assert_eq!(calls.latency.count(), 4);

    let at = bad.endpoint();
    let line = format!(
        r#"waypost_channel_endpoint_failures_total{{service="greeter",endpoint="{at}",code="UNAVAILABLE"}} {refusals}"#
    );
    let text = scrape(&registry);
    assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    let _few = metrics.with_endpoint_limit(1);
    let text = scrape(&registry);
    assert!(!text.contains(&at.to_string()), "{text}");
    assert!(text.contains("waypost_channel_call_seconds_bucket"), "{text}");
}
